//! Configurations worked out from names and shapes, with the fields of diffusers' and transformers' `config.json`.
//!
//! What no tensor shows (heads, groups, activations, the latents' scale) is what the released models have. None
//! where a tensor is missing that every such network has. Values are checked where configurations are read.

use super::Shapes;
use serde_json::{Value, json};

/// Channels of one head in Stable Diffusion 2.x and in CLIP.
const HEAD: usize = 64;

/// The UNet's. Stable Diffusion 1.x has eight heads everywhere and projections stored as kernels; 2.x has heads of 64
/// channels and projections stored as matrices.
pub(super) fn unet(shapes: &Shapes) -> Option<Value> {
    let blocks = shapes.count(|i| format!("down_blocks.{i}.resnets.0.conv1.weight"));
    let channels: Vec<usize> = (0..blocks)
        .map(|i| shapes.side(&format!("down_blocks.{i}.resnets.0.conv1.weight"), 0))
        .collect::<Option<_>>()?;
    let down = |i: usize| format!("down_blocks.{i}.attentions.0");
    let up = |i: usize| format!("up_blocks.{i}.attentions.0");
    let attends = |place: &str| shapes.has(&format!("{place}.proj_in.weight"));
    let middle = "mid_block.attentions.0".to_string();
    let layers = |place: String| {
        let name = |i: usize| format!("{place}.transformer_blocks.{i}.attn2.to_k.weight");
        shapes.count(name)
    };
    // The innermost block's number is the middle's too.
    let depth = |i: usize| if i + 1 == blocks { layers(middle.clone()) } else { layers(down(i)).max(1) };
    let linear = shapes.of(&format!("{middle}.proj_in.weight"))?.len() == 2;
    let context = shapes.side(&format!("{middle}.transformer_blocks.0.attn2.to_k.weight"), 1)?;
    let wide = linear || context == 1024;
    let heads: Vec<usize> = channels.iter().map(|c| if wide { (c / HEAD).max(1) } else { 8 }).collect();
    let kind = |attends: bool, way: &str| {
        if attends { format!("CrossAttn{way}Block2D") } else { format!("{way}Block2D") }
    };
    let each = |f: &dyn Fn(usize) -> Value| (0..blocks).map(f).collect::<Vec<_>>();
    Some(json!({
        "in_channels": shapes.side("conv_in.weight", 1)?,
        "out_channels": shapes.side("conv_out.weight", 0)?,
        "conv_in_kernel": shapes.side("conv_in.weight", 2)?,
        "conv_out_kernel": shapes.side("conv_out.weight", 2)?,
        "block_out_channels": channels,
        "down_block_types": each(&|i| kind(attends(&down(i)), "Down").into()),
        "up_block_types": each(&|i| kind(attends(&up(i)), "Up").into()),
        "layers_per_block": each(&|i| shapes.count(|j| format!("down_blocks.{i}.resnets.{j}.conv1.weight")).into()),
        "transformer_layers_per_block": each(&|i| depth(i).into()),
        "reverse_transformer_layers_per_block": each(&|i| layers(up(i)).max(1).into()),
        "cross_attention_dim": context,
        "attention_head_dim": heads,
        "use_linear_projection": linear,
        "time_embedding_dim": shapes.side("time_embedding.linear_1.weight", 0)?,
    }))
}

/// The autoencoder's.
pub(super) fn vae(shapes: &Shapes) -> Option<Value> {
    let blocks = shapes.count(|i| format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"));
    let channels: Vec<usize> = (0..blocks)
        .map(|i| shapes.side(&format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0))
        .collect::<Option<_>>()?;
    Some(json!({
        "in_channels": shapes.side("encoder.conv_in.weight", 1)?,
        "out_channels": shapes.side("decoder.conv_out.weight", 0)?,
        "latent_channels": shapes.side("decoder.conv_in.weight", 1)?,
        "block_out_channels": channels,
        "layers_per_block": shapes.count(|j| format!("encoder.down_blocks.0.resnets.{j}.conv1.weight")),
        "down_block_types": vec!["DownEncoderBlock2D"; blocks],
        "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        "mid_block_add_attention": shapes.has("encoder.mid_block.attentions.0.group_norm.weight"),
        "use_quant_conv": shapes.has("quant_conv.weight"),
        "use_post_quant_conv": shapes.has("post_quant_conv.weight"),
        "scaling_factor": 0.18215,
    }))
}

/// The text encoder's. CLIP's own, of 768 channels, has another activation than OpenCLIP's of 1024.
pub(super) fn text(shapes: &Shapes) -> Option<Value> {
    let table = shapes.of("embeddings.token_embedding.weight")?;
    let (vocabulary, width) = (*table.first()?, *table.get(1)?);
    let fused = shapes.names.stored.values().any(|stored| stored.third.is_some());
    // Only networks made for tests are narrower than a head.
    let head = if width < HEAD { 8 } else { HEAD };
    let layers = shapes.count(|i| format!("encoder.layers.{i}.layer_norm1.weight"));
    // OpenCLIP's under CLIP's names, as some converters write it, may have the last layer that is not used.
    let layers = if width == 1024 { layers.min(23) } else { layers };
    Some(json!({
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes.side("encoder.layers.0.mlp.fc1.weight", 0)?,
        "num_hidden_layers": layers,
        "num_attention_heads": (width / head).max(1),
        "max_position_embeddings": shapes.side("embeddings.position_embedding.weight", 0)?,
        "hidden_act": if fused || width == 1024 { "gelu" } else { "quick_gelu" },
        "eos_token_id": vocabulary.saturating_sub(1),
    }))
}
