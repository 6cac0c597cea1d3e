//! The configuration of a conditional UNet.

use atelier_weights::{ConfigFile, Result};

/// The configuration of a conditional UNet, as in the `config.json` of its folder, with what diffusers derives from
/// it (lists for single numbers, numbers of heads) worked out. Lists over blocks run from the outermost to the
/// innermost, except the `up_` ones.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the input: 4, or 9 with mask and masked image.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Latent size the model was trained at, if the file says so.
    pub sample_size: Option<usize>,
    /// Channels of each block.
    pub block_out_channels: Vec<usize>,
    /// Which down blocks attend to the context.
    pub down_attention: Vec<bool>,
    /// Which up blocks do, in their own order (innermost first).
    pub up_attention: Vec<bool>,
    /// Residual blocks in each down block; up blocks have one more.
    pub layers_per_block: Vec<usize>,
    /// Transformer layers in each attention of a down block.
    pub transformer_layers: Vec<usize>,
    /// The same for the up blocks, in their own order.
    pub up_transformer_layers: Vec<usize>,
    /// Heads of each block's attention.
    pub heads: Vec<usize>,
    /// Channels of the context each block sees.
    pub cross_attention_dim: Vec<usize>,
    /// Whether a transformer's projections are stored as matrices (SD 2.x) or 1x1 convolutions (SD 1.x).
    pub use_linear_projection: bool,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Added to their variances.
    pub norm_eps: f64,
    /// Whether the timestep embedding has cosines first.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of its frequencies.
    pub freq_shift: f64,
    /// Channels of the time embedding; four times the first block's unless given.
    pub time_embedding_dim: usize,
    /// Zeros around the image before it is halved.
    pub downsample_padding: usize,
    /// Whether the input is mapped from 0..1 to -1..1 first.
    pub center_input_sample: bool,
    /// Size of the first kernel.
    pub conv_in_kernel: usize,
    /// Size of the last kernel.
    pub conv_out_kernel: usize,
    /// Divides the sums of the middle block's residual blocks.
    pub mid_block_scale_factor: f64,
}

/// Types of down blocks: without and with attention.
const DOWN: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
/// Types of up blocks, likewise.
const UP: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];

/// Fields that are refused unless null: features of other models.
const MUST_BE_NULL: [&str; 9] = [
    "addition_embed_type",
    "class_embed_type",
    "cross_attention_norm",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
    "time_embedding_act_fn",
    "timestep_post_act",
];

impl UNetConfig {
    /// Reads and checks a `config.json`; absent fields have the defaults of diffusers.
    ///
    /// Errors, all naming the field: a value outside blocks 1..=8, channels 1..=16,384, layers 1..=64 per block and
    /// per transformer, context 1..=65,536; groups or heads that do not divide the channels; block types other than
    /// `(CrossAttn)DownBlock2D`, `UNetMidBlock2DCrossAttn` and `(CrossAttn)UpBlock2D`; class, addition (SDXL) or other
    /// embeddings that Stable Diffusion 1.x and 2.x do not have.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        refuse_other_models(file)?;
        let block_out_channels = match file.get("block_out_channels") {
            Some(_) => file.counts("block_out_channels", 1..=16_384, 1..=8)?,
            None => vec![320, 640, 1280, 1280],
        };
        let blocks = block_out_channels.len();
        let transformer_layers = file.per_block("transformer_layers_per_block", 1..=64, blocks, Some(1))?;
        let up_transformer_layers = match file.get("reverse_transformer_layers_per_block") {
            Some(_) => file.per_block("reverse_transformer_layers_per_block", 1..=64, blocks, None)?,
            None => transformer_layers.iter().rev().copied().collect(),
        };
        let config = Self {
            in_channels: file.count("in_channels", 1..=1024, Some(4))?,
            out_channels: file.count("out_channels", 1..=1024, Some(4))?,
            sample_size: file
                .get("sample_size")
                .map(|_| file.count("sample_size", 1..=8192, None))
                .transpose()?,
            down_attention: block_types(file, "down_block_types", [true, true, true, false], blocks, DOWN)?,
            up_attention: block_types(file, "up_block_types", [false, true, true, true], blocks, UP)?,
            layers_per_block: file.per_block("layers_per_block", 1..=64, blocks, Some(2))?,
            transformer_layers,
            up_transformer_layers,
            heads: heads(file, blocks)?,
            cross_attention_dim: file.per_block("cross_attention_dim", 1..=65_536, blocks, Some(1280))?,
            use_linear_projection: file.flag("use_linear_projection", false)?,
            norm_num_groups: file.count("norm_num_groups", 1..=4096, Some(32))?,
            norm_eps: file.number("norm_eps", 0.0..=1.0, Some(1e-5))?,
            flip_sin_to_cos: file.flag("flip_sin_to_cos", true)?,
            freq_shift: file.number("freq_shift", 0.0..=16.0, Some(0.0))?,
            time_embedding_dim: file.count(
                "time_embedding_dim",
                1..=65_536,
                Some(4 * block_out_channels[0]),
            )?,
            downsample_padding: file.count("downsample_padding", 0..=1, Some(1))?,
            center_input_sample: file.flag("center_input_sample", false)?,
            conv_in_kernel: file.count("conv_in_kernel", 1..=31, Some(3))?,
            conv_out_kernel: file.count("conv_out_kernel", 1..=31, Some(3))?,
            mid_block_scale_factor: file.number("mid_block_scale_factor", 1e-3..=1e3, Some(1.0))?,
            block_out_channels,
        };
        config.check(file)?;
        Ok(config)
    }

    /// What single fields do not show: divisibility, odd kernels.
    fn check(&self, file: &ConfigFile) -> Result<()> {
        for channels in &self.block_out_channels {
            if channels % self.norm_num_groups != 0 {
                let message = format!(
                    "{} groups do not divide the {channels} channels of a block",
                    self.norm_num_groups
                );
                return Err(file.error("norm_num_groups", message));
            }
        }
        let last = self.block_out_channels.len() - 1;
        for (i, (channels, heads)) in self.block_out_channels.iter().zip(&self.heads).enumerate() {
            // The innermost block's heads are the middle block's too.
            let attends = self.down_attention[i] || self.up_attention[last - i] || i == last;
            if attends && channels % heads != 0 {
                let message = format!("{heads} heads do not divide the {channels} channels of block {i}");
                return Err(file.error("attention_head_dim", message));
            }
        }
        for (field, kernel) in
            [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)]
        {
            if kernel % 2 == 0 {
                return Err(file.error(field, format!("expected an odd kernel, found {kernel}")));
            }
        }
        if self.freq_shift >= (self.block_out_channels[0] / 2) as f64 {
            let message =
                format!("expected less than half the first block's channels, found {}", self.freq_shift);
            return Err(file.error("freq_shift", message));
        }
        Ok(())
    }

    /// The UNet of Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self {
            in_channels: 4,
            out_channels: 4,
            sample_size: Some(64),
            block_out_channels: vec![320, 640, 1280, 1280],
            down_attention: vec![true, true, true, false],
            up_attention: vec![false, true, true, true],
            layers_per_block: vec![2; 4],
            transformer_layers: vec![1; 4],
            up_transformer_layers: vec![1; 4],
            heads: vec![8; 4],
            cross_attention_dim: vec![768; 4],
            use_linear_projection: false,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_dim: 1280,
            downsample_padding: 1,
            center_input_sample: false,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            mid_block_scale_factor: 1.0,
        }
    }

    /// The UNet of Stable Diffusion 2.x.
    pub fn sd21() -> Self {
        Self {
            sample_size: Some(96),
            heads: vec![5, 10, 20, 20],
            cross_attention_dim: vec![1024; 4],
            use_linear_projection: true,
            ..Self::sd15()
        }
    }
}

fn refuse_other_models(file: &ConfigFile) -> Result<()> {
    for field in MUST_BE_NULL {
        // Some versions write false for null.
        if file.get(field).is_some_and(|v| *v != serde_json::Value::Bool(false)) {
            file.refuse(field)?;
        }
    }
    for (field, neutral) in [
        ("act_fn", serde_json::json!("silu")),
        ("attention_type", serde_json::json!("default")),
        ("dual_cross_attention", serde_json::json!(false)),
        ("class_embeddings_concat", serde_json::json!(false)),
        ("mid_block_only_cross_attention", serde_json::json!(false)),
        ("mid_block_type", serde_json::json!("UNetMidBlock2DCrossAttn")),
        ("resnet_out_scale_factor", serde_json::json!(1.0)),
        ("resnet_skip_time_act", serde_json::json!(false)),
        ("resnet_time_scale_shift", serde_json::json!("default")),
        ("time_embedding_type", serde_json::json!("positional")),
    ] {
        let is_swish = field == "act_fn" && file.get(field).is_some_and(|v| v == "swish");
        if !is_swish {
            file.refuse_unless(field, &neutral)?;
        }
    }
    // Null is not "the default" here: diffusers builds no middle block, or no last norm.
    for field in ["mid_block_type", "norm_num_groups"] {
        if file.is_null(field) {
            return Err(file.error(field, "null is not supported"));
        }
    }
    match file.get("only_cross_attention") {
        Some(serde_json::Value::Array(flags)) if flags.iter().all(|f| f == false) => Ok(()),
        _ => file.refuse_unless("only_cross_attention", &serde_json::json!(false)),
    }
}

/// For each block, whether its type is the attending one of the two names. Four blocks have a default.
fn block_types(
    file: &ConfigFile,
    field: &str,
    default: [bool; 4],
    blocks: usize,
    names: [&str; 2],
) -> Result<Vec<bool>> {
    if file.get(field).is_none() && blocks == default.len() {
        return Ok(default.to_vec());
    }
    let attends = |name: &String| match name.as_str() {
        n if n == names[0] => Ok(false),
        n if n == names[1] => Ok(true),
        n => Err(file.error(field, format!("expected {} or {}, found {n:?}", names[0], names[1]))),
    };
    file.texts(field, blocks..=blocks)?.iter().map(attends).collect()
}

/// Heads per block. diffusers named the field wrongly once and kept it: without `num_attention_heads`,
/// `attention_head_dim` is the number of heads, not their width.
fn heads(file: &ConfigFile, blocks: usize) -> Result<Vec<usize>> {
    match file.get("num_attention_heads") {
        Some(_) => file.per_block("num_attention_heads", 1..=4096, blocks, None),
        None => file.per_block("attention_head_dim", 1..=4096, blocks, Some(8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UNetConfig> {
        UNetConfig::read(&ConfigFile::parse(text, "unet/config.json")?)
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_of_diffusers_with_sd_1_context_are_sd_1() {
        let got = read(r#"{"cross_attention_dim":768,"sample_size":64}"#).unwrap();
        assert_eq!(got, UNetConfig::sd15());
    }

    #[test]
    fn lists_of_heads_and_linear_projection_are_sd_2() {
        let text = r#"{"cross_attention_dim":1024,"sample_size":96,"attention_head_dim":[5,10,20,20],
            "use_linear_projection":true,"upcast_attention":true,"dual_cross_attention":false,"num_class_embeds":null}"#;
        assert_eq!(read(text).unwrap(), UNetConfig::sd21());
    }

    #[test]
    fn num_attention_heads_goes_before_the_misnamed_field() {
        let got = read(r#"{"attention_head_dim":8,"num_attention_heads":[4,4,4,4]}"#).unwrap();
        assert_eq!(got.heads, [4; 4]);
    }

    #[test]
    fn absurd_sizes_are_refused_with_field_and_file() {
        for (text, field) in [
            (r#"{"block_out_channels":[320,640,1280,1000000000000]}"#, "block_out_channels"),
            (r#"{"block_out_channels":[]}"#, "block_out_channels"),
            (r#"{"block_out_channels":[0,0,0,0]}"#, "block_out_channels"),
            (r#"{"layers_per_block":100000}"#, "layers_per_block"),
            (r#"{"in_channels":0}"#, "in_channels"),
            (r#"{"cross_attention_dim":-5}"#, "cross_attention_dim"),
            (r#"{"norm_num_groups":33}"#, "norm_num_groups"),
            (r#"{"attention_head_dim":7}"#, "attention_head_dim"),
            (r#"{"attention_head_dim":[8,8]}"#, "attention_head_dim"),
            (r#"{"norm_eps":"x"}"#, "norm_eps"),
            (r#"{"conv_in_kernel":4}"#, "conv_in_kernel"),
            (r#"{"time_embedding_dim":1e9}"#, "time_embedding_dim"),
        ] {
            let message = message(text);
            assert!(
                message.contains(&format!("{field:?}")) && message.contains("unet/config.json"),
                "{message}"
            );
        }
    }

    #[test]
    fn features_of_other_models_are_refused_by_name() {
        for (text, field) in [
            (r#"{"addition_embed_type":"text_time"}"#, "addition_embed_type"),
            (r#"{"class_embed_type":"timestep"}"#, "class_embed_type"),
            (r#"{"num_class_embeds":1000}"#, "num_class_embeds"),
            (r#"{"only_cross_attention":[true,true,true,false]}"#, "only_cross_attention"),
            (r#"{"mid_block_type":"UNetMidBlock2DSimpleCrossAttn"}"#, "mid_block_type"),
            (
                r#"{"down_block_types":["AttnDownBlock2D","DownBlock2D","DownBlock2D","DownBlock2D"]}"#,
                "down_block_types",
            ),
            (r#"{"act_fn":"mish"}"#, "act_fn"),
            (r#"{"mid_block_type":null}"#, "mid_block_type"),
        ] {
            let message = message(text);
            assert!(message.contains(&format!("{field:?}")), "{message}");
        }
        assert!(message(r#"{"addition_embed_type":"text_time"}"#).contains("not supported"));
    }
}
