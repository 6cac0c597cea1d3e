//! What network a file has, by the names and shapes of its tensors.

use super::names::{self, Layout};
use super::{Architecture, Family, Rectifier};
use crate::error::{Error, Result};
use atelier_weights::{Kind, Weights};
use std::collections::BTreeMap;

/// More blocks and convolutions than any upscaler has.
const MAX_BLOCKS: usize = 1000;
/// Doublings of the large network at most: x16.
const MAX_DOUBLINGS: usize = 4;

/// A network that was found.
pub(super) struct Found {
    pub(super) architecture: Architecture,
    /// The names of BasicSR, each with that in the file.
    pub(super) names: BTreeMap<String, String>,
}

/// The network of a file with names.
pub(super) fn named(weights: &Weights) -> Result<Found> {
    let wrong = |found| Error::NotAnUpscaler { place: weights.place().into(), found };
    let all: Vec<&str> = weights.names().collect();
    let Some((layout, root)) = names::layout(&all) else { return Err(wrong(other(weights, &all))) };
    let names = names::renamed(layout, root, &all);
    let shape = |name: &str| Some(weights.info(names.get(name)?)?.shape.clone());
    let architecture = match layout {
        Layout::Compact if !names.keys().all(|name| is_compact(name)) => {
            return Err(wrong(other(weights, &all)));
        }
        Layout::Compact => compact(&shape, last_number(&names), remark(weights)),
        _ => rrdb(&shape, last_number(&names)),
    };
    if let Some(name) = all.iter().find(|name| name.contains(".conv1x1.")) {
        return Err(wrong(format!("an RRDBNet with another path through its blocks, {name} (ESRGAN+)")));
    }
    Ok(Found { architecture: architecture.map_err(wrong)?, names })
}

/// In words.
pub(super) fn describe(a: &Architecture) -> String {
    let parts = if a.family == Family::Rrdb { "blocks" } else { "convolutions" };
    format!("{} x{} with {} {parts} of {} channels", a.name(), a.scale, a.blocks, a.channels)
}

/// The largest N of `body.N.`.
fn last_number(names: &BTreeMap<String, String>) -> Option<usize> {
    names.keys().filter_map(|name| name.strip_prefix("body.")?.split('.').next()?.parse().ok()).max()
}

fn is_compact(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    matches!(parts[..], ["body", number, "weight" | "bias"] if number.parse::<usize>().is_ok())
}

type Shape<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;

/// The four sides of a kernel.
fn kernel(shape: Shape, name: &str) -> std::result::Result<[usize; 4], String> {
    let found = shape(&format!("{name}.weight"));
    match found.as_deref() {
        Some(&[outputs, inputs, 3, 3]) if outputs * inputs > 0 => Ok([outputs, inputs, 3, 3]),
        Some(other) => Err(format!("a tensor {name}.weight of shape {other:?}, which is no 3x3 convolution")),
        None => Err(format!("a file without {name}.weight")),
    }
}

/// The large network whose last block has this number.
pub(super) fn rrdb(shape: Shape, last: Option<usize>) -> std::result::Result<Architecture, String> {
    let [channels, inputs, ..] = kernel(shape, "conv_first")?;
    let [growth, ..] = kernel(shape, "body.0.rdb1.conv1")?;
    let doublings = (1..).take_while(|i| shape(&format!("conv_up{i}.weight")).is_some()).count();
    let [outputs, ..] = kernel(shape, "conv_last")?;
    let blocks = last.map_or(0, |n| n.saturating_add(1));
    let unshuffle = (1..=1 << MAX_DOUBLINGS).find(|side| 3 * side * side == inputs);
    let unshuffle = unshuffle.filter(|_| outputs == 3);
    let unshuffle =
        unshuffle.ok_or_else(|| format!("an RRDBNet from {inputs} to {outputs} channels, not colours"))?;
    let full = 1usize << doublings.min(MAX_DOUBLINGS + 1);
    if doublings > MAX_DOUBLINGS || !full.is_multiple_of(unshuffle) || blocks > MAX_BLOCKS {
        return Err(format!(
            "an RRDBNet of {blocks} blocks that folds {unshuffle}x{unshuffle} pixels and doubles {doublings} times"
        ));
    }
    Ok(Architecture {
        family: Family::Rrdb,
        scale: full / unshuffle,
        blocks,
        channels,
        growth,
        unshuffle,
        rectifier: Rectifier::Fixed(0.2),
    })
}

/// The small network whose last convolution has this number. What its activations do without stored slopes, `rectifier`
/// says.
pub(super) fn compact(
    shape: Shape,
    last: Option<usize>,
    rectifier: Option<Rectifier>,
) -> std::result::Result<Architecture, String> {
    let [channels, inputs, ..] = kernel(shape, "body.0")?;
    let last = last.unwrap_or(0);
    let [outputs, ..] = kernel(shape, &format!("body.{last}"))?;
    let scale = (1..=16).find(|side| 3 * side * side == outputs);
    let (Some(scale), 3) = (scale, inputs) else {
        return Err(format!("an SRVGGNetCompact from {inputs} to {outputs} channels, not colours"));
    };
    if last < 2 || !last.is_multiple_of(2) || last / 2 > MAX_BLOCKS {
        return Err(format!("an SRVGGNetCompact whose last convolution is number {last}"));
    }
    let rectifier = match (shape("body.1.weight"), rectifier) {
        (Some(_), _) => Rectifier::Learned,
        (None, Some(rectifier)) => rectifier,
        (None, None) => {
            return Err("an SRVGGNetCompact without slopes of activations, so that ReLU and LeakyReLU cannot be told \
                 apart; write `act_type` (`relu` or `leakyrelu`) into the metadata of a safetensors file"
                .into());
        }
    };
    Ok(Architecture {
        family: Family::Compact,
        scale,
        blocks: last / 2 - 1,
        channels,
        growth: 0,
        unshuffle: 1,
        rectifier,
    })
}

/// What a file says of its activations, by the names and slopes of BasicSR.
fn remark(weights: &Weights) -> Option<Rectifier> {
    match weights.metadata().get("act_type")?.as_str() {
        "relu" => Some(Rectifier::Fixed(0.0)),
        "leakyrelu" => Some(Rectifier::Fixed(0.1)),
        _ => None,
    }
}

/// Parts of names that only one kind of network has; the first that is found decides.
const OTHERS: [(&str, &str); 17] = [
    ("weight_orig", "the discriminator of a training, not its generator (`netG`)"),
    ("overlap_attn.", "a HAT"),
    ("attn.cpb_mlp.", "a Swin2SR"),
    ("residual_group.blocks.0.attn.relative_position_bias_table", "a SwinIR"),
    ("attns.0.pos.", "a DAT"),
    ("attns.0.rpe_biases", "a DAT"),
    ("block_1.c1_r.", "a SPAN"),
    ("unet1.conv1.conv.0.", "a Real-CUGAN"),
    ("residual_layer.0.residual_layer.", "an OmniSR"),
    ("feats.1.lk.", "a PLKSR"),
    ("body.0.body.0.body.0.", "an RCAN"),
    ("body.0.body.0.weight", "an EDSR"),
    ("body.0.conv1.weight", "an MSRResNet (SRResNet)"),
    ("model.1.sub.0.res.0.", "an SRResNet"),
    ("recurrent_conv.", "a compact network for videos with a memory"),
    ("spatial_transform", "a network for videos"),
    ("CFEM", "a PPON"),
];

fn other(weights: &Weights, names: &[&str]) -> String {
    if let Some((_, what)) = OTHERS.iter().find(|(part, _)| names.iter().any(|name| name.contains(part))) {
        return (*what).into();
    }
    match Kind::of(weights) {
        Kind::Unknown | Kind::Upscaler if names.is_empty() => "a file without tensors".into(),
        Kind::Unknown | Kind::Upscaler => {
            let some: Vec<&str> = names.iter().take(3).copied().collect();
            format!("a file of tensors whose names are not known, such as {}", some.join(", "))
        }
        kind => kind.describe().into(),
    }
}
