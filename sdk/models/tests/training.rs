//! One training step of LoRA: the gradients of torch and PEFT, whatever is kept of the forward pass.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{ClipTextModel, Network, UNet2DConditionModel};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_ops::{Gradients, Keep};
use atelier_weights::lora::{Dropout, FactorShapes, Mode, Part, Stack, Trainable};
use atelier_weights::{ComponentFolder, Provider, Source, Weights};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CPU: &Device = &Device::Cpu;
/// Where the same variable has gradients from several places, as the time embedding's, they are added in another order.
const ROUNDING: f64 = 5e-5;
const KEEPS: [Keep; 3] = [Keep::All, Keep::Boundaries, Keep::Within(1 << 20)];

fn golden() -> PathBuf {
    match std::env::var_os("ATELIER_GOLDEN_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden"),
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0f64, |a, b| a.max(b.abs()))
}

/// The largest difference, relative to the largest number of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let difference: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
    largest(&difference) / largest(&want).max(f64::MIN_POSITIVE)
}

/// A network of the golden folder: its file and its configuration.
struct Files<M: Network> {
    tensors: Arc<Weights>,
    config: M::Config,
}

impl<M: Network> Files<M> {
    fn open(part: Part) -> Self {
        let folder = ComponentFolder::open(golden().join("tiny-sd").join(part.folder())).unwrap();
        let config = M::configure(&folder.config().unwrap()).unwrap();
        Self { tensors: Arc::new(folder.weights().unwrap()), config }
    }

    fn build(&self, part: Part, stack: &Stack, dtype: DType) -> M {
        let adapted = stack.on(part, self.tensors.clone() as Arc<dyn Provider>, Mode::Live);
        M::build(&Source::new(Arc::new(adapted), dtype, CPU), &self.config).unwrap()
    }

    /// LoRA on every module that `wanted` wants, with random factors.
    fn adapters(&self, part: Part, wanted: impl Fn(&str) -> bool) -> Vec<Trainable> {
        let modules = M::modules(&self.config).unwrap();
        let targets: Vec<String> = modules
            .names()
            .filter(|m| modules.shape(m).unwrap().len() > 1 && wanted(m))
            .map(String::from)
            .collect();
        assert!(!targets.is_empty());
        Trainable::new(part, &modules, &targets, (3, 6.0), CPU, random).unwrap()
    }
}

/// The largest difference of a gradient from that of the graph in one piece, relative to the gradient's largest number.
/// Where a group norm of one channel follows, a gradient is nothing but rounding: such a one relative to the largest of
/// all.
fn worst<'a>(
    factors: &[(String, &Tensor)],
    got: impl Fn(&Tensor) -> Option<&'a Tensor>,
    whole: &GradStore,
) -> (f64, String) {
    let size = |(_, factor): &(String, &Tensor)| largest(&values(whole.get(factor).unwrap()));
    let overall = factors.iter().map(size).fold(0f64, f64::max);
    let mut worst = (0.0, String::new());
    for (name, factor) in factors {
        let (got, want) = (values(got(factor).unwrap()), values(whole.get(factor).unwrap()));
        let off: Vec<f64> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
        let own = largest(&want);
        let off = largest(&off) / if own < 1e-3 * overall { overall } else { own };
        if off > worst.0 {
            worst = (off, name.clone());
        }
    }
    println!("{} gradients, at most {:.1e} off those in one piece: {}", factors.len(), worst.0, worst.1);
    worst
}

fn random(module: &str, shapes: &FactorShapes) -> candle_core::Result<(Tensor, Tensor)> {
    let seed = module.bytes().fold(1u64, |a, b| a.wrapping_mul(31).wrapping_add(b.into()));
    Ok((pseudo_normal(seed, shapes.down.as_slice(), 0.2), pseudo_normal(seed + 1, shapes.up.as_slice(), 0.2)))
}

fn stack(adapters: &[Trainable], dropout: Option<&Arc<Dropout>>) -> Stack {
    let mut stack = Stack::new();
    adapters.iter().for_each(|a| stack.push_trainable(a, dropout));
    stack
}

fn attention(module: &str) -> bool {
    [".to_q", ".to_k", ".to_v", ".to_out.0"].iter().any(|end| module.ends_with(end))
}

/// The factors of adapters by name.
fn factors(adapters: &[Trainable]) -> Vec<(String, &Tensor)> {
    let one = |a: &Trainable, name: &str| format!("{} {name}", a.module);
    let both =
        adapters.iter().map(|a| [(one(a, "down"), a.down.as_tensor()), (one(a, "up"), a.up.as_tensor())]);
    both.flatten().collect()
}

/// A UNet with adapters and something to predict.
struct Step {
    files: Files<UNet2DConditionModel>,
    adapters: Vec<Trainable>,
    sample: Tensor,
    timesteps: Tensor,
    context: Tensor,
    seed: Tensor,
}

impl Step {
    fn new(wanted: impl Fn(&str) -> bool) -> Self {
        let files = Files::<UNet2DConditionModel>::open(Part::Unet);
        let width = files.config.cross_attention_dim[0];
        Self {
            adapters: files.adapters(Part::Unet, wanted),
            sample: pseudo_normal(1, (2, 4, 7, 6), 1.0),
            timesteps: Tensor::new(&[10f32, 700.5], CPU).unwrap(),
            context: pseudo_normal(2, (2, 7, width), 1.0),
            seed: pseudo_normal(3, (2, 4, 7, 6), 1.0),
            files,
        }
    }

    fn unet(&self) -> UNet2DConditionModel {
        self.files.build(Part::Unet, &stack(&self.adapters, None), DType::F32)
    }

    fn gradients(&self, unet: &UNet2DConditionModel, keep: Keep) -> Gradients {
        let recording = unet.record(&self.sample, &self.timesteps, &self.context, keep).unwrap();
        recording.backward(&self.seed).unwrap()
    }

    fn forward(&self, unet: &UNet2DConditionModel) -> Tensor {
        unet.forward(&self.sample, &self.timesteps, &self.context).unwrap()
    }
}

/// The golden micro-batch `k` through a network.
struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open() -> Self {
        Self(candle_core::safetensors::load(golden().join("lora_train.safetensors"), CPU).unwrap())
    }

    fn adapters(&self, files: &Files<UNet2DConditionModel>) -> Vec<Trainable> {
        let modules = UNet2DConditionModel::modules(&files.config).unwrap();
        let targets: Vec<String> = modules.names().filter(|m| attention(m)).map(String::from).collect();
        let init = |module: &str, _: &FactorShapes| {
            let factor = |name| self.0[&format!("init.{module}.{name}.weight")].clone();
            Ok((factor("lora_A"), factor("lora_B")))
        };
        Trainable::new(Part::Unet, &modules, &targets, (8, 16.0), CPU, init).unwrap()
    }

    /// The noisy latents: "scaled linear" betas, in f64.
    fn noisy(&self, k: usize) -> Tensor {
        let t = self.0[&format!("mb{k}.timestep")].to_vec1::<i64>().unwrap()[0];
        let (from, to) = (0.00085f64.sqrt(), 0.012f64.sqrt());
        let beta = |i: i64| (from + (to - from) * i as f64 / 999.0).powi(2);
        let kept: f64 = (0..=t).map(|i| 1.0 - beta(i)).product();
        let [latents, noise] = ["latents", "noise"].map(|n| &self.0[&format!("mb{k}.{n}")]);
        ((latents * kept.sqrt()).unwrap() + (noise * (1.0 - kept).sqrt()).unwrap()).unwrap()
    }

    /// Prediction, loss (mean squared error) and gradients.
    fn run(&self, unet: &UNet2DConditionModel, k: usize, keep: Keep) -> (Tensor, f64, Gradients) {
        let timestep = self.0[&format!("mb{k}.timestep")].to_dtype(DType::F32).unwrap();
        let context = &self.0[&format!("mb{k}.context")];
        let recording = unet.record(&self.noisy(k), &timestep, context, keep).unwrap();
        let output = recording.output().clone();
        let off = (&output - &self.0[&format!("mb{k}.noise")]).unwrap();
        let loss = values(&off.sqr().unwrap().mean_all().unwrap())[0];
        let gradient = (&off * (2.0 / off.elem_count() as f64)).unwrap();
        (output, loss, recording.backward(&gradient).unwrap())
    }
}

#[test]
fn one_step_is_the_step_of_torch_and_peft() {
    let golden = Golden::open();
    let files = Files::<UNet2DConditionModel>::open(Part::Unet);
    let adapters = golden.adapters(&files);
    let unet = files.build(Part::Unet, &stack(&adapters, None), DType::F32);
    let (output, loss, gradients) = golden.run(&unet, 0, Keep::Boundaries);
    let prediction = error(&output, &golden.0["mb0.pred"]);
    let off = (loss / values(&golden.0["mb0.loss"])[0] - 1.0).abs();
    let mut worst: f64 = 0.0;
    for a in &adapters {
        for (var, name) in [(&a.down, "lora_A"), (&a.up, "lora_B")] {
            let want = &golden.0[&format!("grad_mb0.{}.{name}.weight", a.module)];
            worst = worst.max(error(gradients.get(var).unwrap(), want));
        }
    }
    assert_eq!(gradients.len(), 2 * adapters.len(), "gradients of the factors and of nothing else");
    println!(
        "prediction {prediction:.1e}, loss {off:.1e}, worst of {} gradients {worst:.1e}",
        gradients.len()
    );
    assert!(prediction < 1e-5 && off < 1e-6 && worst < 2e-5, "{prediction:e} {off:e} {worst:e}");
}

#[test]
fn accumulated_and_clipped_gradients_are_those_of_torch() {
    let golden = Golden::open();
    let files = Files::<UNet2DConditionModel>::open(Part::Unet);
    let adapters = golden.adapters(&files);
    let unet = files.build(Part::Unet, &stack(&adapters, None), DType::F32);
    let runs = [0, 1].map(|k| golden.run(&unet, k, Keep::All));
    let loss = (runs[0].1 + runs[1].1) / 2.0;
    assert!((loss / values(&golden.0["accum.loss"])[0] - 1.0).abs() < 1e-6, "{loss}");
    let sum = |var: &Tensor| {
        let [a, b] = [0, 1].map(|k| values(runs[k].2.get(var).unwrap()));
        a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect::<Vec<f64>>()
    };
    let all = factors(&adapters);
    let norm = all.iter().flat_map(|(_, var)| sum(var)).map(|g| g * g).sum::<f64>().sqrt();
    let want = values(&golden.0["accum.grad_norm"])[0];
    assert!((norm / want - 1.0).abs() < 1e-5, "{norm} {want}");
    let clip = (0.05 / (norm + 1e-6)).min(1.0);
    for a in &adapters {
        for (var, name) in [(&a.down, "lora_A"), (&a.up, "lora_B")] {
            let want = values(&golden.0[&format!("grad_accum_clipped.{}.{name}.weight", a.module)]);
            let off: Vec<f64> = sum(var).iter().zip(&want).map(|(g, w)| g * clip - w).collect();
            assert!(largest(&off) <= 2e-5 * largest(&want), "{} {name}", a.module);
        }
    }
}

#[test]
fn what_is_kept_does_not_change_a_bit() {
    for wanted in [attention as fn(&str) -> bool, |_| true, |m| m == "up_blocks.1.resnets.1.conv2"] {
        let step = Step::new(wanted);
        let unet = step.unet();
        let recording = unet.record(&step.sample, &step.timesteps, &step.context, Keep::All).unwrap();
        assert_eq!(values(recording.output()), values(&step.forward(&unet)), "the value of forward");
        let runs = KEEPS.map(|keep| step.gradients(&unet, keep));
        let plain = (step.forward(&unet) * &step.seed).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, factor) in factors(&step.adapters) {
            let got = runs.each_ref().map(|g| values(g.get(factor).unwrap_or_else(|| panic!("{name}"))));
            assert!(got[0] == got[1] && got[0] == got[2], "{name}");
        }
        let worst = worst(&factors(&step.adapters), |t| runs[0].get(t), &plain);
        let only_attention = step.adapters.iter().all(|a| attention(&a.module));
        assert!(worst.0 < if only_attention { 5e-6 } else { ROUNDING }, "{worst:?}");
    }
}

#[test]
fn only_what_comes_after_the_first_adapter_is_gone_back_through() {
    let count = |wanted: fn(&str) -> bool| {
        let step = Step::new(wanted);
        let unet = step.unet();
        let recording = unet.record(&step.sample, &step.timesteps, &step.context, Keep::Boundaries).unwrap();
        recording.segments().0
    };
    let (all, attention) = (count(|_| true), count(attention));
    let last = count(|m| m == "conv_out");
    assert!(last == 1 && attention < all - 3, "{last} {attention} {all}");
}

#[test]
fn after_one_step_every_factor_has_a_gradient_and_frozen_weights_have_none() {
    let mut step = Step::new(|_| true);
    let modules = UNet2DConditionModel::modules(&step.files.config).unwrap();
    let targets: Vec<String> = step.adapters.iter().map(|a| a.module.clone()).collect();
    // As a training starts: what goes up is zero, so that the network is the one it was.
    let init = |module: &str, shapes: &FactorShapes| {
        Ok((random(module, shapes)?.0, { Tensor::zeros(shapes.up.as_slice(), DType::F32, CPU)? }))
    };
    step.adapters = Trainable::new(Part::Unet, &modules, &targets, (3, 6.0), CPU, init).unwrap();
    let unet = step.unet();
    let gradients = step.gradients(&unet, Keep::Boundaries);
    let size = |g: &Gradients, t: &Tensor| largest(&values(g.get(t).unwrap()));
    for a in &step.adapters {
        assert!(size(&gradients, &a.up) > 0.0, "{}", a.module);
        assert_eq!(size(&gradients, &a.down), 0.0, "{}: nothing goes up", a.module);
        let moved = (a.up.as_tensor() - (gradients.get(&a.up).unwrap() * 1e-2).unwrap()).unwrap();
        a.up.set(&moved).unwrap();
    }
    let gradients = step.gradients(&unet, Keep::Boundaries);
    for (name, factor) in factors(&step.adapters) {
        assert!(size(&gradients, factor) > 0.0, "{name}");
    }
    assert_eq!(gradients.len(), 2 * step.adapters.len());
}

#[test]
fn weights_stored_in_16_bits_give_gradients_in_f32() {
    let step = Step::new(attention);
    for dtype in [DType::F16, DType::BF16] {
        let stack = stack(&step.adapters, None);
        let unet = step.files.build(Part::Unet, &stack, dtype);
        let runs = KEEPS.map(|keep| step.gradients(&unet, keep));
        // The same numbers, stored in f32.
        let rounded = |t: &Tensor| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        let names: Vec<String> = step.files.tensors.names().map(String::from).collect();
        let tensor = |name: &String| {
            let shape = step.files.tensors.info(name).unwrap().shape.clone();
            rounded(&step.files.tensors.get(name, &shape, DType::F32, CPU).unwrap())
        };
        let wide: HashMap<String, Tensor> = names.iter().map(|n| (n.clone(), tensor(n))).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        candle_core::safetensors::save(&wide, file.path()).unwrap();
        let files = Files::<UNet2DConditionModel> {
            tensors: Arc::new(Weights::open(file.path()).unwrap()),
            config: step.files.config.clone(),
        };
        let wide = step.gradients(&files.build(Part::Unet, &stack, DType::F32), Keep::All);
        for (name, factor) in factors(&step.adapters) {
            for run in &runs {
                let got = run.get(factor).unwrap();
                assert_eq!(got.dtype(), DType::F32);
                assert_eq!(values(got), values(wide.get(factor).unwrap()), "{name} {dtype:?}");
            }
        }
    }
}

#[test]
fn a_segment_computed_again_drops_what_it_dropped() {
    let step = Step::new(|_| true);
    let dropout = Dropout::new(0.3).unwrap();
    let unet = step.files.build(Part::Unet, &stack(&step.adapters, Some(&dropout)), DType::F32);
    let plain = values(&step.forward(&step.unet()));
    assert_eq!(values(&step.forward(&unet)), plain, "nothing is dropped before a training step begins");
    dropout.begin(7);
    let [kept, again, _] = KEEPS.map(|keep| step.gradients(&unet, keep));
    let output = values(&step.forward(&unet));
    assert_ne!(output, plain);
    let whole = (step.forward(&unet) * &step.seed).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, factor) in factors(&step.adapters) {
        assert_eq!(values(kept.get(factor).unwrap()), values(again.get(factor).unwrap()), "{name}");
    }
    let worst = worst(&factors(&step.adapters), |t| kept.get(t), &whole);
    assert!(worst.0 < ROUNDING, "{worst:?}");
    dropout.begin(8);
    assert_ne!(values(&step.forward(&unet)), output, "another step drops others");
    dropout.pause();
    assert_eq!(values(&step.forward(&unet)), plain);
}

#[test]
fn gradients_go_on_through_the_context_into_the_text_encoder() {
    let step = Step::new(attention);
    let files = Files::<ClipTextModel>::open(Part::TextEncoder);
    let adapters = files.adapters(Part::TextEncoder, |m| m.contains("self_attn") || m.ends_with("fc1"));
    let text = files.build(Part::TextEncoder, &stack(&adapters, None), DType::F32);
    let prompts = [vec![998, 5, 17, 320, 999, 999, 999], vec![998, 8, 999, 999, 999, 999, 999]];
    let encode = || text.encode(&prompts, 0).unwrap();
    let unet = step.unet();
    let whole = {
        let out = unet.forward(&step.sample, &step.timesteps, &encode()).unwrap();
        (out * &step.seed).unwrap().sum_all().unwrap().backward().unwrap()
    };
    for keep in KEEPS {
        let context = encode();
        let recording = unet.record(&step.sample, &step.timesteps, &context, keep).unwrap();
        let gradients = recording.backward(&step.seed).unwrap();
        let through = gradients.get(&context).unwrap();
        let text_gradients = (&context * through).unwrap().sum_all().unwrap().backward().unwrap();
        let of_text = worst(&factors(&adapters), |t| text_gradients.get(t), &whole);
        let of_unet = worst(&factors(&step.adapters), |t| gradients.get(t), &whole);
        assert!(of_text.0 < ROUNDING && of_unet.0 < ROUNDING, "{of_text:?} {of_unet:?}");
    }
}

#[test]
fn a_sample_that_is_a_variable_gets_its_gradient() {
    let mut step = Step::new(attention);
    step.sample = candle_core::Var::from_tensor(&step.sample).unwrap().into_inner();
    let unet = step.unet();
    let whole = (step.forward(&unet) * &step.seed).unwrap().sum_all().unwrap().backward().unwrap();
    for keep in KEEPS {
        let gradients = step.gradients(&unet, keep);
        let off = error(gradients.get(&step.sample).unwrap(), whole.get(&step.sample).unwrap());
        assert!(off < ROUNDING, "{off:e}");
    }
}
