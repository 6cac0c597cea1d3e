//! The names of diffusers' folders as names of `ldm` checkpoints: the way back from `names`.

use super::names::{RESNET, VAE_MIDDLE, renamed};
use std::collections::BTreeSet;

/// A network of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The UNet.
    UNet,
    /// The autoencoder.
    Vae,
    /// CLIP's text encoder.
    Text,
}

/// What the tensor `name` of a network's folder is called in a checkpoint of one file, and whether it is a kernel
/// there and a matrix in the folder. `all` are the names of the folder. None for a name that such files do not have.
pub fn ldm_name(network: Network, name: &str, all: &BTreeSet<String>) -> Option<(String, bool)> {
    let has = |n: String| all.contains(&n);
    match network {
        Network::UNet => Some((format!("model.diffusion_model.{}", unet(name, &has)?), false)),
        Network::Vae => {
            let renamed = vae(name, &has)?;
            let kernel =
                renamed.contains(".attn_1.") && !renamed.contains(".norm.") && renamed.ends_with("weight");
            Some((format!("first_stage_model.{renamed}"), kernel))
        }
        Network::Text => {
            let bare = name.strip_prefix("text_model.").unwrap_or(name);
            let own = ["embeddings.", "encoder.", "final_layer_norm."].iter().any(|o| bare.starts_with(o));
            own.then(|| (format!("cond_stage_model.transformer.text_model.{bare}"), false))
        }
    }
}

/// `rest` of a place with the layers' names turned around.
fn back(rest: &str, place: &str, layers: &[(&str, &str)]) -> Option<String> {
    let turned: Vec<(&str, &str)> = layers.iter().map(|(a, b)| (*b, *a)).collect();
    renamed(rest, place, &turned)
}

fn unet(name: &str, has: &dyn Fn(String) -> bool) -> Option<String> {
    const ENDS: [(&str, &str); 8] = [
        ("conv_in.", "input_blocks.0.0."),
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("mid_block.resnets.0.", "middle_block.0."),
        ("mid_block.attentions.0.", "middle_block.1."),
        ("mid_block.resnets.1.", "middle_block.2."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
    ];
    if let Some((rest, place)) = ENDS.iter().find_map(|(from, to)| Some((name.strip_prefix(from)?, to))) {
        return if name.contains(".resnets.") {
            back(rest, place, &RESNET)
        } else {
            Some(format!("{place}{rest}"))
        };
    }
    let (direction, rest) = name.split_once("_blocks.")?;
    let (block, rest) = number(rest)?;
    let (kind, rest) = rest.split_once('.')?;
    let (layer, rest) = number(rest)?;
    let at = |block: usize, layer: usize| format!("{direction}_blocks.{block}.resnets.{layer}.conv1.weight");
    let layers = |block: usize| (0..).take_while(|l| has(at(block, *l))).count();
    match (direction, kind) {
        ("down", "resnets" | "attentions" | "downsamplers") => {
            // Blocks but the last end with a halving.
            let before: usize = (0..block).map(|b| layers(b) + 1).sum();
            match kind {
                "resnets" => back(rest, &format!("input_blocks.{}.0.", 1 + before + layer), &RESNET),
                "attentions" => Some(format!("input_blocks.{}.1.{rest}", 1 + before + layer)),
                _ => Some(format!(
                    "input_blocks.{}.0.op.{}",
                    1 + before + layers(block),
                    rest.strip_prefix("conv.")?
                )),
            }
        }
        ("up", "resnets" | "attentions" | "upsamplers") => {
            let before: usize = (0..block).map(layers).sum();
            match kind {
                "resnets" => back(rest, &format!("output_blocks.{}.0.", before + layer), &RESNET),
                "attentions" => Some(format!("output_blocks.{}.1.{rest}", before + layer)),
                _ => {
                    let attends = has(format!("up_blocks.{block}.attentions.0.proj_in.weight"));
                    let last = before + layers(block).checked_sub(1)?;
                    Some(format!("output_blocks.{last}.{}.{rest}", if attends { 2 } else { 1 }))
                }
            }
        }
        _ => None,
    }
}

/// A number and what follows its dot.
fn number(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    Some((digits.parse().ok()?, rest))
}

fn vae(name: &str, has: &dyn Fn(String) -> bool) -> Option<String> {
    let Some((side, rest)) = name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))
    else {
        return name.contains("quant_conv.").then(|| name.into());
    };
    let place = format!("{side}.");
    // The names that diffusers gave attention before version 0.17.
    const OLD: [(&str, &str); 4] = [
        ("mid_block.attentions.0.query.", "mid.attn_1.q."),
        ("mid_block.attentions.0.key.", "mid.attn_1.k."),
        ("mid_block.attentions.0.value.", "mid.attn_1.v."),
        ("mid_block.attentions.0.proj_attn.", "mid.attn_1.proj_out."),
    ];
    let found = back(rest, &place, &VAE_MIDDLE).or_else(|| renamed(rest, &place, &OLD)).or_else(|| {
        let (direction, rest) = rest.split_once("_blocks.")?;
        let (block, rest) = number(rest)?;
        let blocks = (0..)
            .take_while(|b| has(format!("{side}.{direction}_blocks.{b}.resnets.0.conv1.weight")))
            .count();
        let block = if direction == "up" { blocks.checked_sub(1 + block)? } else { block };
        let at = format!("{place}{direction}.{block}.");
        let sampler = format!("{direction}samplers.0.");
        back(rest, &at, &[("block.", "resnets."), (format!("{direction}sample.").as_str(), sampler.as_str())])
    })?;
    Some(found.replace(".conv_shortcut.", ".nin_shortcut."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those names of Stable Diffusion 1.5's folders that tell where blocks and layers are.
    fn sd15() -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (way, layers) in [("down", 2), ("up", 3)] {
            for block in 0..4 {
                for layer in 0..layers {
                    all.insert(format!("{way}_blocks.{block}.resnets.{layer}.conv1.weight"));
                    let attends = if way == "down" { block < 3 } else { block > 0 };
                    if attends {
                        all.insert(format!("{way}_blocks.{block}.attentions.{layer}.proj_in.weight"));
                    }
                }
                for side in ["encoder", "decoder"] {
                    all.insert(format!("{side}.{way}_blocks.{block}.resnets.0.conv1.weight"));
                }
            }
        }
        all
    }

    #[test]
    fn names_are_those_of_the_released_checkpoints() {
        let (all, unet, vae) = (sd15(), "model.diffusion_model.", "first_stage_model.");
        for (network, folder, file) in [
            (Network::UNet, "conv_in.weight", format!("{unet}input_blocks.0.0.weight")),
            (
                Network::UNet,
                "down_blocks.2.downsamplers.0.conv.bias",
                format!("{unet}input_blocks.9.0.op.bias"),
            ),
            (
                Network::UNet,
                "down_blocks.3.resnets.1.conv2.weight",
                format!("{unet}input_blocks.11.0.out_layers.3.weight"),
            ),
            (
                Network::UNet,
                "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight",
                format!("{unet}input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight"),
            ),
            (
                Network::UNet,
                "mid_block.resnets.1.time_emb_proj.bias",
                format!("{unet}middle_block.2.emb_layers.1.bias"),
            ),
            (
                Network::UNet,
                "up_blocks.0.upsamplers.0.conv.weight",
                format!("{unet}output_blocks.2.1.conv.weight"),
            ),
            (
                Network::UNet,
                "up_blocks.1.upsamplers.0.conv.weight",
                format!("{unet}output_blocks.5.2.conv.weight"),
            ),
            (
                Network::UNet,
                "up_blocks.3.resnets.2.conv_shortcut.weight",
                format!("{unet}output_blocks.11.0.skip_connection.weight"),
            ),
            (
                Network::Vae,
                "decoder.up_blocks.0.resnets.2.norm1.weight",
                format!("{vae}decoder.up.3.block.2.norm1.weight"),
            ),
            (
                Network::Vae,
                "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
                format!("{vae}encoder.down.1.block.0.nin_shortcut.bias"),
            ),
            (
                Network::Vae,
                "decoder.up_blocks.2.upsamplers.0.conv.weight",
                format!("{vae}decoder.up.1.upsample.conv.weight"),
            ),
            (
                Network::Vae,
                "encoder.mid_block.attentions.0.proj_attn.bias",
                format!("{vae}encoder.mid.attn_1.proj_out.bias"),
            ),
            (Network::Vae, "quant_conv.weight", format!("{vae}quant_conv.weight")),
            (
                Network::Text,
                "final_layer_norm.bias",
                "cond_stage_model.transformer.text_model.final_layer_norm.bias".to_string(),
            ),
        ] {
            assert_eq!(ldm_name(network, folder, &all).map(|n| n.0), Some(file), "{folder}");
        }
        let kernel = |name| ldm_name(Network::Vae, name, &all).is_some_and(|n| n.1);
        assert!(
            kernel("decoder.mid_block.attentions.0.to_q.weight")
                && kernel("encoder.mid_block.attentions.0.to_out.0.weight")
        );
        assert!(
            !kernel("decoder.mid_block.attentions.0.to_q.bias")
                && !kernel("decoder.mid_block.attentions.0.group_norm.weight")
        );
    }

    #[test]
    fn a_name_of_something_else_has_no_place() {
        for name in [
            "x",
            "down_blocks.x.resnets.0.conv1.weight",
            "up_blocks.0.motion_modules.0.proj_in.weight",
            "class_embedding.weight",
        ] {
            assert_eq!(ldm_name(Network::UNet, name, &sd15()), None, "{name}");
        }
    }
}
