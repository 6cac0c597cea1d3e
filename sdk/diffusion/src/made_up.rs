//! Networks with made-up weights, for benchmarks: speed does not depend on the values.

use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, Prepared, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use atelier_sdk::{Error, ErrorKind, Result};

/// The models whose shapes are known.
const KNOWN: &str = "sd15";

/// Refuses a model whose shapes are not known.
///
/// # Errors
/// Names those that are.
pub fn check(key: &str) -> Result<()> {
    match key {
        KNOWN => Ok(()),
        other => Err(Error::new(ErrorKind::Unsupported, format!("no shapes are known for `{other}`"))
            .hint(format!("made-up weights exist for: {KNOWN}"))),
    }
}

/// The text encoder of Stable Diffusion 1.5.
pub fn text() -> Prepared<ClipTextModel> {
    Prepared::of(ClipTextConfig::sd15(), atelier_weights::fake(1))
}

/// Its UNet.
pub fn unet() -> Prepared<UNet2DConditionModel> {
    Prepared::of(UNetConfig::sd15(), atelier_weights::fake(2))
}

/// Its autoencoder.
pub fn vae() -> Prepared<AutoencoderKl> {
    Prepared::of(VaeConfig::sd15(), atelier_weights::fake(3))
}
