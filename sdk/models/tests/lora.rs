//! Adapters on networks: parity with diffusers and PEFT, merged and live, real lists of names, gradients.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{ClipTextConfig, ClipTextModel, Network, Prepared, UNet2DConditionModel, UNetConfig};
use atelier_weights::lora::{Adaptation, Adapter, BlockWeights, Mode, Modules, Part, Stack, Strength};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest difference allowed, relative to the largest element of the reference.
const TOLERANCE: f64 = 2e-5;
const CPU: &Device = &Device::Cpu;

fn golden() -> PathBuf {
    match std::env::var_os("ATELIER_GOLDEN_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden"),
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let largest = want.iter().fold(0f64, |a, b| a.max(b.abs()));
    got.iter().zip(&want).fold(0f64, |a, (x, y)| a.max((x - y).abs())) / largest
}

/// The networks of the golden model and what was measured on them.
struct Tiny {
    unet: UNetConfig,
    unet_modules: Modules,
    text_modules: Modules,
    outputs: HashMap<String, Tensor>,
}

impl Tiny {
    fn open() -> Self {
        let text = ClipTextModel::open(golden().join("tiny-sd/text_encoder"), DType::F32, CPU).unwrap();
        let unet = UNet2DConditionModel::open(golden().join("tiny-sd/unet"), DType::F32, CPU).unwrap();
        let outputs = candle_core::safetensors::load(golden().join("lora/outputs.safetensors"), CPU).unwrap();
        Self {
            unet_modules: UNet2DConditionModel::modules(unet.model.config()).unwrap(),
            text_modules: ClipTextModel::modules(text.model.config()).unwrap(),
            unet: unet.model.config().clone(),
            outputs,
        }
    }

    /// A stack of files of the golden folder, each with its strength.
    fn stack(&self, files: &[(&str, Strength)]) -> Stack {
        let mut stack = Stack::new();
        for (file, strength) in files {
            let adapter = Adapter::open(golden().join("lora").join(file)).unwrap();
            let resolved = adapter.resolve(&self.unet_modules, &self.text_modules).unwrap();
            assert_eq!(resolved.unmatched, [] as [&str; 0], "{file}");
            stack.push(&resolved, strength, &self.unet_modules).unwrap();
        }
        stack
    }

    fn predict(&self, stack: &Stack, mode: Mode) -> Tensor {
        let adaptation = Adaptation { stack: stack.clone(), mode };
        let folder = atelier_weights::Component::folder(golden().join("tiny-sd/unet")).unwrap();
        let prepared = Prepared::<UNet2DConditionModel>::new(folder).unwrap();
        let opened = prepared.build_adapted(Part::Unet, &adaptation, DType::F32, CPU).unwrap();
        let o = &self.outputs;
        opened.model.forward(&o["sample"], &o["timestep"], &o["context"]).unwrap()
    }

    fn encode(&self, stack: &Stack, mode: Mode) -> Tensor {
        let adaptation = Adaptation { stack: stack.clone(), mode };
        let folder = atelier_weights::Component::folder(golden().join("tiny-sd/text_encoder")).unwrap();
        let prepared = Prepared::<ClipTextModel>::new(folder).unwrap();
        let opened = prepared.build_adapted(Part::TextEncoder, &adaptation, DType::F32, CPU).unwrap();
        let ids = self.outputs["te.input_ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap();
        opened.model.encode(&ids, 0).unwrap()
    }
}

#[test]
fn every_layout_gives_the_prediction_of_diffusers_merged_and_live() {
    let tiny = Tiny::open();
    let one = |file, weight| vec![(file, Strength::all(weight))];
    let cases = [
        ("plain.scale1.0", one("kohya.safetensors", 1.0)),
        ("plain.scale0.5", one("kohya.safetensors", 0.5)),
        ("plain.scale1.0", one("diffusers.safetensors", 1.0)),
        ("plain.scale0.5", one("diffusers.safetensors", 0.5)),
        ("alpha8.scale1.0", one("kohya_alpha8.safetensors", 1.0)),
        ("alpha8.scale1.0", one("peft", 1.0)),
        ("locon.scale1.0", one("kohya_locon.safetensors", 1.0)),
        ("attn_only.scale1.0", one("diffusers_old_attn_procs.safetensors", 1.0)),
        (
            "multi.0.7_0.4",
            vec![("kohya.safetensors", Strength::all(0.7)), ("kohya_second.safetensors", Strength::all(0.4))],
        ),
        ("base", Vec::new()),
        ("base", one("kohya.safetensors", 0.0)),
    ];
    for (name, files) in cases {
        let stack = tiny.stack(&files);
        let want = &tiny.outputs[&format!("{name}.out")];
        for mode in [Mode::Merge, Mode::Live] {
            let off = error(&tiny.predict(&stack, mode), want);
            println!("{name:<20} {:<40} {mode:?} relative {off:.2e}", files.first().map_or("", |f| f.0));
            assert!(off < TOLERANCE, "{name} {mode:?}: {off:e}");
        }
    }
    // The changes are there to be seen.
    assert!(error(&tiny.outputs["plain.scale1.0.out"], &tiny.outputs["base.out"]) > 100.0 * TOLERANCE);
}

#[test]
fn the_text_encoder_is_changed_as_by_diffusers() {
    let tiny = Tiny::open();
    for file in ["kohya.safetensors", "diffusers.safetensors"] {
        let stack = tiny.stack(&[(file, Strength::all(1.0))]);
        for mode in [Mode::Merge, Mode::Live] {
            let off = error(&tiny.encode(&stack, mode), &tiny.outputs["plain.te.scale1.0"]);
            println!("{file} {mode:?} relative {off:.2e}");
            assert!(off < TOLERANCE, "{file} {mode:?}: {off:e}");
        }
    }
    let none = tiny.stack(&[("kohya.safetensors", Strength { text: 0.0, unet: 1.0, blocks: None })]);
    assert!(none.is_empty(Part::TextEncoder));
    assert_eq!(values(&tiny.encode(&none, Mode::Merge)), values(&tiny.encode(&Stack::new(), Mode::Merge)));
}

#[test]
fn no_weight_is_no_change_to_the_last_bit() {
    let tiny = Tiny::open();
    let none = tiny.stack(&[("kohya_locon.safetensors", Strength::all(0.0))]);
    for mode in [Mode::Merge, Mode::Live] {
        assert_eq!(values(&tiny.predict(&none, mode)), values(&tiny.predict(&Stack::new(), mode)));
    }
}

#[test]
fn weights_of_blocks_are_those_of_the_blocks_alone() {
    let tiny = Tiny::open();
    let all = tiny.unet_modules.blocks(false);
    let with = |blocks: BlockWeights| {
        let strength = Strength { text: 1.0, unet: 1.0, blocks: Some(blocks) };
        tiny.stack(&[("kohya.safetensors", strength)])
    };
    let ones = with(BlockWeights::List(vec![1.0; all.len() + 1]));
    let plain = tiny.stack(&[("kohya.safetensors", Strength::all(1.0))]);
    assert_eq!(values(&tiny.predict(&ones, Mode::Merge)), values(&tiny.predict(&plain, Mode::Merge)));
    let off: Vec<(String, f64)> =
        all.iter().map(|b| (b.clone(), if b == "M00" { 1.0 } else { 0.0 })).collect();
    let middle = with(BlockWeights::Named(off.into_iter().collect()));
    let list = all.iter().map(|b| if b == "M00" { 1.0 } else { 0.0 });
    let listed = with(BlockWeights::List(std::iter::once(1.0).chain(list).collect()));
    assert_eq!(values(&tiny.predict(&middle, Mode::Merge)), values(&tiny.predict(&listed, Mode::Merge)));
    let paths = ["down_blocks", "up_blocks"].map(|p| (p.to_string(), 0.0));
    let by_path = with(BlockWeights::Named(paths.into()));
    assert_eq!(values(&tiny.predict(&middle, Mode::Merge)), values(&tiny.predict(&by_path, Mode::Merge)));
    let base = tiny.predict(&Stack::new(), Mode::Merge);
    assert!(error(&tiny.predict(&middle, Mode::Merge), &base) > TOLERANCE, "the middle changes something");
    for wrong in [BlockWeights::List(vec![1.0; 3]), BlockWeights::Named([("IN77".into(), 1.0)].into())] {
        let strength = Strength { text: 1.0, unet: 1.0, blocks: Some(wrong) };
        let message = strength.over(&tiny.unet_modules).unwrap_err().to_string();
        assert!(message.contains("M00"), "{message}");
    }
}

#[test]
fn a_list_for_stable_diffusion_1_has_17_numbers_or_26() {
    let unet = UNet2DConditionModel::modules(&UNetConfig::sd15()).unwrap();
    let short = "IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11";
    assert_eq!(unet.blocks(true).join(" "), short);
    let all = unet.blocks(false);
    assert_eq!(all.len(), 25);
    assert_eq!((all[0].as_str(), all[24].as_str()), ("IN00", "OUT11"));
    assert_eq!(unet.block("up_blocks.1.upsamplers.0.conv"), "OUT05");
    assert_eq!(unet.block("down_blocks.2.attentions.1.proj_in"), "IN08");
    assert_eq!(unet.block("time_embedding.linear_1"), "BASE");
}

#[test]
fn live_factors_get_gradients_and_frozen_weights_none() {
    use atelier_weights::lora::{Adapted, Applied, Delta};
    use candle_core::Var;
    use std::sync::Arc;
    let tiny = Tiny::open();
    let name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    let [outputs, inputs] = *tiny.unet_modules.shape(name).unwrap() else { panic!("{name}") };
    let down = Var::randn(0f32, 1.0, (4, inputs), CPU).unwrap();
    let up = Var::randn(0f32, 1.0, (outputs, 4), CPU).unwrap();
    let delta = Delta::lora(down.as_tensor().clone(), up.as_tensor().clone(), 1.0);
    let applied = vec![Applied::new(Arc::new(delta), 1.0)];
    let folder = atelier_weights::ComponentFolder::open(golden().join("tiny-sd/unet")).unwrap();
    let inner = Arc::new(folder.weights().unwrap());
    let adapted = Adapted::new(inner, [(name.to_string(), applied)].into(), Mode::Live);
    let source = atelier_weights::Source::new(Arc::new(adapted), DType::F32, CPU);
    let model = UNet2DConditionModel::new(&source, &tiny.unet).unwrap();
    let o = &tiny.outputs;
    let out = model.forward(&o["sample"], &o["timestep"], &o["context"]).unwrap();
    let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for var in [&down, &up] {
        let grad = grads.get(var).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(grad > 0.0 && grad.is_finite());
    }
}

/// The names and shapes of a real file, without its numbers: every one must be a module of Stable Diffusion 1.5.
#[test]
fn real_files_match_whole() {
    let Some(assets) = std::env::var_os("ATELIER_ASSETS_DIR").map(PathBuf::from) else { return };
    let unet = UNet2DConditionModel::modules(&UNetConfig::sd15()).unwrap();
    let text = ClipTextModel::modules(&ClipTextConfig::sd15()).unwrap();
    let of_list = |name: &str| {
        let list = std::fs::read_to_string(assets.join("keymaps").join(name)).unwrap();
        let list: HashMap<String, serde_json::Value> = serde_json::from_str(&list).unwrap();
        let side = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
        let tensors: HashMap<String, Tensor> = list
            .iter()
            .filter_map(|(name, about)| Some((name, about.get("shape")?.as_array()?)))
            .map(|(name, shape)| {
                let shape: Vec<usize> = shape.iter().map(side).collect();
                (name.clone(), Tensor::zeros(shape, DType::F16, CPU).unwrap())
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        candle_core::safetensors::save(&tensors, file.path()).unwrap();
        Adapter::open(file.path()).unwrap()
    };
    let mut found = vec![("kohya SD 1.5 list", of_list("kohya_sd15_lora_shinkai_makoto_offset.keys.json"))];
    let files = ["analog_svd_rank4", "diffusers_sd-pokemon-model-lora", "lora_disney_inpainting"];
    for file in files {
        let path = assets.join("lora").join(format!("{file}.safetensors"));
        found.push((file, Adapter::open(path).unwrap()));
    }
    for (name, adapter) in found {
        let resolved = adapter.resolve(&unet, &text).unwrap();
        println!(
            "{name:<36} {:<12} {} UNet, {} text, embeddings {:?}, unmatched {}",
            adapter.layout().name(),
            resolved.unet.len(),
            resolved.text.len(),
            adapter.embeddings(),
            resolved.unmatched.len()
        );
        assert_eq!(resolved.unmatched, [] as [&str; 0], "{name}");
    }
    for (list, base) in
        [("kohya_sdxl_lora_alien_style.keys.json", "SDXL"), ("peft_adapter_model.keys.json", "Flux")]
    {
        let message = of_list(list).resolve(&unet, &text).unwrap_err().to_string();
        println!("{message}");
        assert!(message.contains(&format!("is for {base}")), "{message}");
    }
}

/// One layer with each kind of change: what is applied in each step is what is added to the weight.
#[test]
fn every_kind_of_factors_does_live_what_it_does_merged() {
    use atelier_models::{Conv2d, Linear};
    use atelier_weights::lora::{Adapted, Applied};
    use atelier_weights::{Source, Weights};
    use std::sync::Arc;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/lora");
    let adapter = Adapter::open(own.join("lycoris.safetensors")).unwrap();
    let bases = candle_core::safetensors::load(own.join("lycoris_deltas.safetensors"), CPU).unwrap();
    for (_, module, delta) in adapter.changes() {
        let base = &bases[&format!("{module}.base")];
        let file = tempfile::NamedTempFile::new().unwrap();
        let bias = Tensor::zeros(base.dim(0).unwrap(), DType::F32, CPU).unwrap();
        let tensors =
            HashMap::from([(format!("{module}.weight"), base.clone()), (format!("{module}.bias"), bias)]);
        candle_core::safetensors::save(&tensors, file.path()).unwrap();
        let run = |mode| {
            let applied = vec![Applied::new(Arc::new(delta.clone()), 0.6)];
            let inner = Arc::new(Weights::open(file.path()).unwrap());
            let adapted = Adapted::new(inner, [(module.to_string(), applied)].into(), mode);
            let source = Source::new(Arc::new(adapted), DType::F32, CPU).pp(module);
            match *base.dims() {
                [outputs, inputs] => {
                    let x = Tensor::arange(0f32, 5.0 * inputs as f32, CPU).unwrap().sin().unwrap();
                    let x = x.reshape((5, inputs)).unwrap();
                    Linear::new(&source, inputs, outputs).unwrap().forward(&x).unwrap()
                }
                [outputs, inputs, kernel, _] => {
                    let x = Tensor::arange(0f32, 42.0 * inputs as f32, CPU).unwrap().sin().unwrap();
                    let x = x.reshape((1, inputs, 6, 7)).unwrap();
                    Conv2d::same(&source, inputs, outputs, kernel).unwrap().forward(&x).unwrap()
                }
                _ => panic!("{module}"),
            }
        };
        let off = error(&run(Mode::Live), &run(Mode::Merge));
        println!("{module:<16} live against merged {off:.2e}");
        assert!(off < 2e-6, "{module}: {off:e}");
    }
}
