//! The names of `ldm` checkpoints as names of diffusers' folders.
//!
//! `ldm` numbers the layers of a network one after the other; diffusers has blocks. Which layer begins a block, its
//! tensors say: the halving convolution ends one on the way down, the enlarging one on the way up.

use super::{Names, Stored};
use crate::weights::Weights;
use std::collections::BTreeMap;

/// A place in the file and the same place in a folder, both with the dot at their ends.
type Places = Vec<(String, String)>;

impl Names {
    /// All names under `root`, each as `rename` says, given the name without the root; none leaves it out.
    fn under(weights: &Weights, root: &str, rename: impl Fn(&str) -> Option<String>) -> Self {
        let mut names = Self { root: root.into(), stored: BTreeMap::new(), ignored: Vec::new() };
        for name in weights.names() {
            if let Some(folder) = name.strip_prefix(root).and_then(&rename) {
                names.stored.insert(folder, Stored { name: name.into(), third: None });
            }
        }
        names
    }
}

/// The first of `roots` under which `sign` is a tensor.
fn root<'a>(weights: &Weights, roots: &[&'a str], sign: &str) -> Option<&'a str> {
    roots.iter().copied().find(|root| weights.info(&format!("{root}{sign}")).is_some())
}

/// The names of the UNet.
pub(super) fn unet(weights: &Weights) -> Option<Names> {
    let roots = ["model.diffusion_model.", "diffusion_model.", "unet.", ""];
    if let Some(root) = root(weights, &roots, "input_blocks.0.0.weight") {
        let places = unet_places(&|name| weights.info(&format!("{root}{name}")).is_some());
        return Some(Names::under(weights, root, |name| unet_name(name, &places)));
    }
    let root = root(weights, &roots, "down_blocks.0.resnets.0.time_emb_proj.weight")?;
    let own = ["conv_", "time_embedding.", "down_blocks.", "mid_block.", "up_blocks."];
    Some(Names::under(weights, root, |name| own.iter().any(|o| name.starts_with(o)).then(|| name.into())))
}

/// Where the layers of a UNet are, `has` being what tensors it has.
fn unet_places(has: &dyn Fn(&str) -> bool) -> Places {
    let mut places: Places = [
        ("input_blocks.0.0.", "conv_in."),
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("middle_block.0.", "mid_block.resnets.0."),
        ("middle_block.1.", "mid_block.attentions.0."),
        ("middle_block.2.", "mid_block.resnets.1."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
    ]
    .map(|(a, b)| (a.to_string(), b.to_string()))
    .to_vec();
    down_places(has, &mut places);
    up_places(has, &mut places);
    places
}

fn down_places(has: &dyn Fn(&str) -> bool, places: &mut Places) {
    let (mut block, mut layer) = (0, 0);
    for number in 1.. {
        let at = format!("input_blocks.{number}");
        if has(&format!("{at}.0.op.weight")) {
            places.push((format!("{at}.0.op."), format!("down_blocks.{block}.downsamplers.0.conv.")));
            (block, layer) = (block + 1, 0);
            continue;
        }
        if !has(&format!("{at}.0.in_layers.0.weight")) {
            return;
        }
        places.push((format!("{at}.0."), format!("down_blocks.{block}.resnets.{layer}.")));
        places.push((format!("{at}.1."), format!("down_blocks.{block}.attentions.{layer}.")));
        layer += 1;
    }
}

fn up_places(has: &dyn Fn(&str) -> bool, places: &mut Places) {
    let (mut block, mut layer) = (0, 0);
    for number in 0.. {
        let at = format!("output_blocks.{number}");
        if !has(&format!("{at}.0.in_layers.0.weight")) {
            return;
        }
        places.push((format!("{at}.0."), format!("up_blocks.{block}.resnets.{layer}.")));
        // Enlarging follows the attention, or the residual block where there is none.
        let enlarged = [1, 2].into_iter().find(|i| has(&format!("{at}.{i}.conv.weight")));
        if let Some(i) = enlarged {
            places.push((format!("{at}.{i}.conv."), format!("up_blocks.{block}.upsamplers.0.conv.")));
        }
        if enlarged != Some(1) {
            places.push((format!("{at}.1."), format!("up_blocks.{block}.attentions.{layer}.")));
        }
        (block, layer) = if enlarged.is_some() { (block + 1, 0) } else { (block, layer + 1) };
    }
}

/// Layers inside a residual block.
pub(super) const RESNET: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

fn unet_name(name: &str, places: &Places) -> Option<String> {
    let (rest, place) =
        places.iter().find_map(|(at, place)| Some((name.strip_prefix(at.as_str())?, place)))?;
    if place.contains(".resnets.") { renamed(rest, place, &RESNET) } else { Some(format!("{place}{rest}")) }
}

/// `place` and the name of the layer that `rest` starts with.
pub(super) fn renamed(rest: &str, place: &str, layers: &[(&str, &str)]) -> Option<String> {
    let layer = layers.iter().find_map(|(from, to)| Some((rest.strip_prefix(from)?, to)));
    layer.map(|(rest, to)| format!("{place}{to}{rest}"))
}

/// The names of the autoencoder.
pub(super) fn vae(weights: &Weights) -> Option<Names> {
    let root = root(weights, &["first_stage_model.", "vae.", ""], "decoder.conv_in.weight")?;
    let blocks =
        (0..).take_while(|i| weights.info(&format!("{root}decoder.up.{i}.block.0.norm1.weight")).is_some());
    let blocks = blocks.count();
    let own = ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."];
    let rename = |name: &str| {
        let is_own = own.iter().any(|o| name.starts_with(o));
        // Files with diffusers' names are taken as they are, the names of old versions included.
        let renamed = if blocks == 0 { Some(name.to_string()) } else { vae_name(name, blocks) };
        renamed.filter(|_| is_own)
    };
    Some(Names::under(weights, root, rename))
}

/// Layers of an encoder or decoder, whose ends differ.
pub(super) const VAE_MIDDLE: [(&str, &str); 9] = [
    ("mid.block_1.", "mid_block.resnets.0."),
    ("mid.block_2.", "mid_block.resnets.1."),
    ("mid.attn_1.norm.", "mid_block.attentions.0.group_norm."),
    ("mid.attn_1.q.", "mid_block.attentions.0.to_q."),
    ("mid.attn_1.k.", "mid_block.attentions.0.to_k."),
    ("mid.attn_1.v.", "mid_block.attentions.0.to_v."),
    ("mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."),
    ("norm_out.", "conv_norm_out."),
    ("conv_", "conv_"),
];

fn vae_name(name: &str, blocks: usize) -> Option<String> {
    let Some((side, rest)) = name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))
    else {
        return Some(name.into());
    };
    let place = format!("{side}.");
    let renamed = renamed(rest, &place, &VAE_MIDDLE).or_else(|| vae_block(rest, &place, blocks))?;
    Some(renamed.replace(".nin_shortcut.", ".conv_shortcut."))
}

/// `down.0.block.1.conv1.weight` and the like. The decoder's blocks are numbered from outside in both ways, but
/// diffusers' from inside.
fn vae_block(rest: &str, place: &str, blocks: usize) -> Option<String> {
    let (direction, rest) = rest.split_once('.')?;
    let (number, rest) = rest.split_once('.')?;
    let number: usize = number.parse().ok()?;
    let number = match direction {
        "down" => number,
        "up" => blocks.checked_sub(1 + number)?,
        _ => return None,
    };
    let at = format!("{place}{direction}_blocks.{number}.");
    let sampler = format!("{direction}samplers.0.");
    renamed(
        rest,
        &at,
        &[("block.", "resnets."), ("downsample.", sampler.as_str()), ("upsample.", sampler.as_str())],
    )
}

/// The names of the text encoder.
pub(super) fn text(weights: &Weights) -> Option<Names> {
    let clip = ["cond_stage_model.transformer.", "text_encoder.", ""];
    let table = "embeddings.token_embedding.weight";
    if let Some(root) = root(weights, &clip, &format!("text_model.{table}")) {
        return Some(Names::under(weights, root, |name| name.strip_prefix("text_model.").map(String::from)));
    }
    if let Some(root) = root(weights, &clip, table) {
        let own = ["embeddings.", "encoder.", "final_layer_norm."];
        let rename = |name: &str| own.iter().any(|o| name.starts_with(o)).then(|| name.to_string());
        return Some(Names::under(weights, root, rename));
    }
    let root = root(weights, &["cond_stage_model.model.", ""], "token_embedding.weight")?;
    Some(openclip(weights, root))
}

/// Layers of OpenCLIP's text encoder.
const OPENCLIP: [(&str, &str); 6] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.in_proj_", "self_attn.in_proj_"),
];

/// OpenCLIP's names. Stable Diffusion 2.x takes the result of the layer before the last; folders lack the last one, and
/// here it is left out too. One file in a thousand lacks it already, which only the number of ViT-H/14 shows.
fn openclip(weights: &Weights, root: &str) -> Names {
    let layer = |i: usize| format!("{root}transformer.resblocks.{i}.");
    let layers = (0..).take_while(|i| weights.info(&format!("{}ln_1.weight", layer(*i))).is_some()).count();
    let kept = if layers == 23 { 23 } else { layers.saturating_sub(1) };
    let mut names = Names::under(weights, root, |name| openclip_name(name, kept));
    for (name, stored) in std::mem::take(&mut names.stored) {
        let Some((place, kind)) = name.split_once("in_proj_") else {
            names.stored.insert(name, stored);
            continue;
        };
        for (third, part) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
            let stored = Stored { third: Some(third), ..stored.clone() };
            names.stored.insert(format!("{place}{part}.{kind}"), stored);
        }
    }
    let last = layer(kept);
    let is_left_out = |name: &&str| name.starts_with(&last) || name.ends_with("text_projection");
    names.ignored = weights.names().filter(is_left_out).map(String::from).collect();
    names
}

fn openclip_name(name: &str, layers: usize) -> Option<String> {
    match name {
        "positional_embedding" => return Some("embeddings.position_embedding.weight".into()),
        "token_embedding.weight" => return Some("embeddings.token_embedding.weight".into()),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("ln_final.") {
        return Some(format!("final_layer_norm.{rest}"));
    }
    let (number, rest) = name.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let number = number.parse::<usize>().ok().filter(|n| *n < layers)?;
    renamed(rest, &format!("encoder.layers.{number}."), &OPENCLIP)
}
