//! What is trained: the factors beside the frozen weights of the chosen modules.

use crate::base::{self, Base, values};
use crate::optim::Slot;
use crate::params::{Init, TrainLora};
use atelier_diffusion::error;
use atelier_models::{ClipTextModel, Network, UNet2DConditionModel};
use atelier_sdk::registry::nearest;
use atelier_sdk::rng::{NormalRng, RngKind};
use atelier_sdk::{Error, Result};
use atelier_weights::lora::{FactorShapes, Modules, Part, Trainable};
use candle_core::{DType, Device, Tensor, Var};

/// What the names of the UNet's variables begin with.
const UNET: &str = "unet";

/// All factors, in a fixed order: UNet before text encoder, by path, `down` before `up`.
pub struct Trainee {
    /// By module.
    pub factors: Vec<Trainable>,
}

impl Trainee {
    /// Makes the factors that the parameters ask for, at their start.
    ///
    /// # Errors
    /// A target that matches no module; the device failed.
    pub fn new(base: &Base, params: &TrainLora) -> Result<Self> {
        let modules = |e| error::model("cannot list the model's modules", e);
        let unet = UNet2DConditionModel::modules(base.unet.config()).map_err(modules)?;
        let text = ClipTextModel::modules(base.text.config()).map_err(modules)?;
        let mut chosen: Vec<(Part, String)> = chosen(&unet, &params.targets, Part::Unet)?;
        if params.train_text_encoder {
            chosen.extend(self::chosen(&text, &params.text_encoder_targets, Part::TextEncoder)?);
        }
        let mut factors = Vec::new();
        let rank = (params.lora_rank as usize, params.lora_alpha);
        for (n, (part, module)) in chosen.iter().enumerate() {
            let modules = if *part == Part::Unet { &unet } else { &text };
            let start = |_: &str, shapes: &FactorShapes| start(shapes, n as u64, params);
            let made =
                Trainable::new(*part, modules, std::slice::from_ref(module), rank, &base.device, start);
            factors.extend(made.map_err(error::weights_of("cannot make an adapter to train"))?);
        }
        Ok(Self { factors })
    }

    /// The variables in their order, with their names in a checkpoint.
    pub fn vars(&self) -> impl Iterator<Item = (String, &Var)> {
        self.factors.iter().flat_map(|f| {
            let head = match f.part {
                Part::Unet => UNET,
                _ => "text_encoder",
            };
            [
                (format!("{head}.{}.lora_A.weight", f.module), &f.down),
                (format!("{head}.{}.lora_B.weight", f.module), &f.up),
            ]
        })
    }

    /// The variables as the optimiser knows them: group 0 is the UNet's, group 1 the text encoder's.
    pub fn slots(&self) -> Vec<Slot> {
        let slot = |(name, var): (String, &Var)| {
            let group = usize::from(!name.starts_with(UNET));
            Slot { name, len: var.elem_count(), group }
        };
        self.vars().map(slot).collect()
    }

    /// The values of all variables.
    ///
    /// # Errors
    /// The device failed.
    pub fn get(&self) -> Result<Vec<Vec<f32>>> {
        self.vars().map(|(_, var)| values(var.as_tensor())).collect()
    }

    /// Gives all variables other values.
    ///
    /// # Errors
    /// Values of another size; the device failed.
    pub fn set(&self, values: &[Vec<f32>]) -> Result<()> {
        for ((_, var), values) in self.vars().zip(values) {
            let tensor = base::tensor(values, var.dims(), var.device())?;
            var.set(&tensor).map_err(error::tensor("setting a factor"))?;
        }
        Ok(())
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.vars().map(|(_, var)| var.elem_count()).sum()
    }
}

/// The factors of a module at their start; `up` is nothing, so that training starts from the base model. Each module has
/// a generator of its own: its start does not hang on what else is trained.
fn start(shapes: &FactorShapes, number: u64, params: &TrainLora) -> candle_core::Result<(Tensor, Tensor)> {
    let rank = params.lora_rank as usize;
    let inputs: usize = shapes.down.iter().skip(1).product();
    let seed = params.seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut down = vec![0f32; rank * inputs];
    fill(&mut down, params.init, inputs, rank, &mut NormalRng::new(RngKind::Cpu, seed));
    let down = Tensor::from_vec(down, shapes.down.as_slice(), &Device::Cpu)?;
    Ok((down, Tensor::zeros(shapes.up.as_slice(), DType::F32, &Device::Cpu)?))
}

/// The start of `down`. PEFT and kohya start it by `kaiming_uniform_(a = sqrt(5))`, which is uniform within
/// 1 / sqrt(inputs); with PEFT's "gaussian" it is normal with deviation 1 / rank.
fn fill(out: &mut [f32], init: Init, inputs: usize, rank: usize, rng: &mut NormalRng) {
    rng.fill_normal(out);
    match init {
        Init::Gaussian => out.iter_mut().for_each(|v| *v /= rank as f32),
        // The distribution function of a normal number is uniform.
        Init::Kaiming => {
            let bound = 1.0 / (inputs.max(1) as f64).sqrt();
            out.iter_mut().for_each(|v| *v = ((2.0 * normal_cdf(f64::from(*v)) - 1.0) * bound) as f32);
        }
    }
}

/// By the complementary error function's rational approximation (Abramowitz and Stegun 7.1.26), good to 1.5e-7.
fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let erfc = poly.iter().fold(0.0, |sum, c| (sum + c) * t) * (-z * z).exp();
    if x < 0.0 { erfc / 2.0 } else { 1.0 - erfc / 2.0 }
}

/// The modules that the targets name, sorted.
fn chosen(modules: &Modules, targets: &[String], part: Part) -> Result<Vec<(Part, String)>> {
    for target in targets {
        if !modules.names().any(|m| matches(target, m) && trainable(modules, m)) {
            return Err(no_match(modules, target, part));
        }
    }
    let wanted = |m: &&str| trainable(modules, m) && targets.iter().any(|t| matches(t, m));
    Ok(modules.names().filter(wanted).map(|m| (part, m.to_string())).collect())
}

/// Whether a module is a linear layer or convolution: norms have no factors. An embedding's weight looks like a linear
/// layer's, and is none.
fn trainable(modules: &Modules, module: &str) -> bool {
    modules.shape(module).is_some_and(|s| s.len() == 2 || s.len() == 4) && !module.contains("embeddings.")
}

/// Whether a target names a module: as the end of its path, or as a pattern in which `*` is anything.
fn matches(target: &str, module: &str) -> bool {
    if target.contains('*') {
        return glob(target.as_bytes(), module.as_bytes());
    }
    module == target || module.strip_suffix(target).is_some_and(|head| head.ends_with('.'))
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // The last star, and where in the text it began to match.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn no_match(modules: &Modules, target: &str, part: Part) -> Error {
    let mut ends: Vec<String> = modules
        .names()
        .filter(|m| trainable(modules, m))
        .map(|m| {
            // `to_out.0` is one name: a number says nothing alone.
            let mut parts: Vec<&str> = m.rsplitn(3, '.').collect();
            parts.reverse();
            match parts.as_slice() {
                [.., before, last] if last.bytes().all(|b| b.is_ascii_digit()) => format!("{before}.{last}"),
                [.., last] => last.to_string(),
                [] => String::new(),
            }
        })
        .collect();
    ends.sort();
    ends.dedup();
    let (field, network) = match part {
        Part::Unet => ("targets", "UNet"),
        _ => ("text_encoder_targets", "text encoder"),
    };
    let near = nearest(target, ends.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`? "));
    Error::invalid(format!("`{field}` names `{target}`, which matches no module of the {network}"))
        .hint(format!("{}there are: {}", near.unwrap_or_default(), ends.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_ends_of_paths_or_patterns() {
        let q = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        let out = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0";
        for (target, module, yes) in [
            ("to_q", q, true),
            ("attn1.to_q", q, true),
            ("o_q", q, false),
            ("attn2.to_q", q, false),
            ("to_out.0", out, true),
            ("to_out", out, false),
            ("mid_block.*", out, true),
            ("*.attn1.*", q, true),
            ("*.attn1.*", out, false),
            ("down_blocks.*.to_k", q, false),
            ("*", q, true),
            (q, q, true),
        ] {
            assert_eq!(matches(target, module), yes, "{target} {module}");
        }
    }

    #[test]
    fn a_uniform_start_fills_its_interval_evenly() {
        let mut values = vec![0f32; 40_000];
        fill(&mut values, Init::Kaiming, 100, 4, &mut NormalRng::new(RngKind::Cpu, 7));
        assert!(values.iter().all(|v| v.abs() <= 0.1));
        for quarter in 0..4 {
            let low = -0.1 + 0.05 * quarter as f32;
            let n = values.iter().filter(|v| (low..low + 0.05).contains(*v)).count();
            assert!((9_700..10_300).contains(&n), "{n} in quarter {quarter}");
        }
    }
}
