//! Images through an upscaler of the ESRGAN family.
//!
//! ```text
//! image ─▶ colours ─▶ network, tile by tile ─▶ samples ─▶ Lanczos to the size ─▶ image
//!       └▶ alpha ───▶ network, or Lanczos ─────────────────────────────────────┘
//! ```
//!
//! Depth, greys, alpha and colour profile of the image stay. Source of the rules: Real-ESRGAN's `RealESRGANer.enhance`.

mod files;
mod lanczos;
mod network;
mod params;
mod room;
mod samples;

pub use files::UpscalerFiles;
pub use network::Network;
pub use params::{Alpha, Enlarge};
