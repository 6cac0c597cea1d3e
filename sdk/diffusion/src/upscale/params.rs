//! What may be asked of an upscaler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What enlarges the alpha channel of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// The network, which takes it for a grey image.
    #[default]
    Network,
    /// Lanczos' filter: half the time.
    Lanczos,
}

/// How an image is enlarged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Enlarge {
    /// How many times larger the result is in each direction, 1 to 16, such as 1.5 or 3.5; not given, as the network
    /// enlarges. What the network gives is brought to this size with Lanczos' filter.
    #[schemars(range(min = 1.0, max = 16.0))]
    pub outscale: Option<f64>,
    /// Side of a tile in pixels of the image; 0 takes the image as a whole. Smaller tiles take less memory and more time.
    #[schemars(range(max = 8192))]
    pub tile: u32,
    /// Pixels around a tile that the network sees with it.
    #[schemars(range(max = 512))]
    pub overlap: u32,
    /// For models of two networks, one of which leaves noise (`realesr-general-x4v3`): how much noise is taken away, 0 to
    /// 1; not given, 0.5.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub denoise_strength: Option<f64>,
}

impl Default for Enlarge {
    fn default() -> Self {
        Self { outscale: None, tile: 256, overlap: 16, denoise_strength: None }
    }
}
