//! What a file with tensors is, by their names.

use crate::weights::Weights;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `describe` says it
pub enum Kind {
    StableDiffusion,
    UNet,
    Vae,
    TextEncoder,
    Sdxl,
    Sd3,
    Flux,
    ImageConditioned,
    ControlNet,
    Lora,
    TextualInversion,
    Upscaler,
    TinyVae,
    Unknown,
}

impl Kind {
    /// What a file is, by the names in it.
    pub fn of(weights: &Weights) -> Self {
        of(weights)
    }

    /// What it is in words, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            Self::StableDiffusion => "a Stable Diffusion checkpoint",
            Self::UNet => "a UNet alone",
            Self::Vae => "an autoencoder (VAE) alone",
            Self::TextEncoder => "a text encoder alone",
            Self::Sdxl => "an SDXL checkpoint",
            Self::Sd3 => "an SD3 checkpoint",
            Self::Flux => "a Flux checkpoint",
            Self::ImageConditioned => "a UNet that is also conditioned on classes or images (unCLIP)",
            Self::ControlNet => "a ControlNet",
            Self::Lora => "a LoRA",
            Self::TextualInversion => "a textual inversion embedding",
            Self::Upscaler => "an upscaler",
            Self::TinyVae => "a tiny autoencoder (TAESD)",
            Self::Unknown => "a file of tensors whose names are not known",
        }
    }

    /// Its description, if it has no network of Stable Diffusion 1.x or 2.x in it.
    pub(super) fn other(self) -> Option<&'static str> {
        let own = matches!(self, Self::StableDiffusion | Self::UNet | Self::Vae | Self::TextEncoder);
        (!own).then(|| self.describe())
    }
}

/// Parts of names that only one kind of file has. The first that is found decides: a LoRA's names have those of the model
/// inside.
const SIGNS: [(Kind, &[&str]); 6] = [
    (
        Kind::Lora,
        &[
            "lora_unet_",
            "lora_te",
            "lora_down.",
            ".lora_A.",
            "_lora.down.",
            ".lora.down.",
            "unet:0:",
            "text_encoder:0:",
            ".hada_w1",
            ".lokr_w",
        ],
    ),
    (Kind::TextualInversion, &["emb_params", "string_to_param."]),
    (
        Kind::ControlNet,
        &["control_model.", "controlnet_cond_embedding.", "input_hint_block.", "controlnet_down_blocks."],
    ),
    (Kind::Flux, &["double_blocks.", "single_transformer_blocks."]),
    (Kind::Sd3, &["joint_blocks.", "transformer_blocks.0.attn.add_k_proj."]),
    (Kind::Upscaler, &["body.0.rdb1.", "RRDB_trunk.0.", "model.1.sub.0.RDB1.", "upsampler.0.weight"]),
];

/// What the file is.
pub(super) fn of(weights: &Weights) -> Kind {
    let signs = |kind: &Kind, parts: &[&str]| {
        weights.names().any(|name| parts.iter().any(|part| name.contains(part))).then_some(*kind)
    };
    if let Some(kind) = SIGNS.iter().find_map(|(kind, parts)| signs(kind, parts)) {
        return kind;
    }
    if weights.names().all(|name| name.starts_with('<') || name == "clip_l" || name == "clip_g") {
        return if weights.names().next().is_some() { Kind::TextualInversion } else { Kind::Unknown };
    }
    if let Some(kind) = conditioned(weights).or_else(|| small(weights)) {
        return kind;
    }
    let has = |part: &str| weights.names().any(|name| name.contains(part));
    let unet = has("input_blocks.0.0.weight") || has("resnets.0.time_emb_proj.weight");
    let vae = has("decoder.conv_in.weight");
    let text = has("token_embedding.weight");
    match (unet, vae, text) {
        (true, false, false) => Kind::UNet,
        (false, true, false) => Kind::Vae,
        (false, false, true) => Kind::TextEncoder,
        (false, false, false) => Kind::Unknown,
        _ => Kind::StableDiffusion,
    }
}

/// UNets that take more than a prompt. SDXL's context is that of two text encoders, 768 and 1280 wide.
fn conditioned(weights: &Weights) -> Option<Kind> {
    let has = |part: &str| weights.names().any(|name| name.contains(part));
    if has("conditioner.embedders.") {
        return Some(Kind::Sdxl);
    }
    if !has("label_emb.0.") && !has("add_embedding.") && !has("class_embedding.") {
        return None;
    }
    let context = weights.names().find(|name| name.ends_with("attn2.to_k.weight"));
    let width = context.and_then(|name| weights.info(name)?.shape.get(1).copied());
    Some(if width == Some(2048) || has("add_embedding.") { Kind::Sdxl } else { Kind::ImageConditioned })
}

/// Networks whose names are little more than numbers. TAESD's blocks have three convolutions with activations between
/// them; SRVGGNetCompact (Real-ESRGAN's small upscalers) is convolutions of pictures and activations in turn.
fn small(weights: &Weights) -> Option<Kind> {
    if weights.names().any(|name| name.ends_with(".conv.4.bias")) {
        return Some(Kind::TinyVae);
    }
    let sides = |name: &str| Some(weights.info(name)?.shape.len());
    let compact = sides("body.0.weight") == Some(4) && sides("body.1.weight") == Some(1);
    (compact && weights.names().all(|name| name.starts_with("body."))).then_some(Kind::Upscaler)
}
