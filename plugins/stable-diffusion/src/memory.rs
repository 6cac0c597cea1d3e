//! How much memory a run needs, and how its networks share it.

use crate::decoding::{Decoder, Pieces};
use crate::params::Txt2Img;
use crate::pipeline::{Part, Pipeline};
use atelier_diffusion::memory::{BASE, limit, words};
use atelier_models::{UNetConfig, VaeConfig};
use atelier_sdk::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the networks of a model share the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryPolicy {
    /// All at once if they fit, else one after the other.
    #[default]
    Auto,
    /// All at once, and they stay for the next run.
    Resident,
    /// One after the other, each for up to 8 images: text encoder, UNet, autoencoder.
    Staged,
}

/// What became of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// All networks stay loaded.
    Resident,
    /// A network is loaded when it is needed, and dropped after it.
    Staged,
}

const F32: u64 = 4;

/// The memory a run needs, in bytes, as far as shapes tell. Networks whose weights are made up count as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    text: u64,
    unet: u64,
    vae: u64,
    denoise: u64,
    decode: u64,
}

impl Need {
    /// Of images of this size; `source` says that an image is encoded first.
    pub fn of(pipeline: &Pipeline, params: &Txt2Img, source: bool, pieces: &Pieces) -> Self {
        let (width, height) = params.finished_size();
        let [_, _, height, width] = pipeline.latent_shape(width, height);
        let batched = params.strength().guides() && !params.cfg_batch.is_sequential(pipeline.device());
        let decode = match params.decoder {
            // 64 channels at full size: input, result and what is between.
            Decoder::Taesd if !source => 4 * 64 * F32 * (height * width * pipeline.factor().pow(2)) as u64,
            _ => decode_bytes(pipeline.vae_config(), height, width, pieces),
        };
        let (height, width) = (height as u64, width as u64);
        let images = u64::from(params.batch_size.min(params.count)) * if batched { 2 } else { 1 };
        Self {
            text: pipeline.bytes(Part::Text),
            unet: pipeline.bytes(Part::Unet),
            vae: pipeline.bytes(Part::Vae),
            denoise: denoise_bytes(pipeline.unet_config(), height * width, images),
            // Also for an encoder: the mirror image of its decoder, with one layer less in each block.
            decode,
        }
    }

    /// What is held while an image is decoded, with no other network in memory.
    pub fn decoding(&self) -> u64 {
        BASE + self.vae + self.decode
    }

    /// The most that is held at one time.
    pub fn total(&self, residency: Residency) -> u64 {
        BASE + match residency {
            Residency::Resident => self.text + self.unet + self.vae + self.denoise.max(self.decode),
            Residency::Staged => self.text.max(self.unet + self.denoise).max(self.vae + self.decode),
        }
    }
}

/// What a UNet takes beside its weights, for so many latents at a time of so many places: what its skip connections hold,
/// its widest layers, and weights laid out to be multiplied. Fitted to what was measured (docs/reference/memory.md).
fn denoise_bytes(unet: &UNetConfig, places: u64, images: u64) -> u64 {
    let (mut held, mut widest) = (0, 0);
    for (level, channels) in unet.block_out_channels.iter().enumerate() {
        let plane = (places >> (2 * level)) * *channels as u64;
        let layers = unet.layers_per_block.get(level).copied().unwrap_or(1) as u64;
        held += (layers + 1) * plane;
        widest = widest.max(plane);
    }
    let channels = unet.block_out_channels.iter().max().map_or(0, |channels| *channels as u64);
    // As much as the largest kernel of 3 x 3: larger weights are laid out piece by piece.
    let laid_out = 9 * channels * channels;
    ((held + 19 * widest) * images + laid_out) * F32
}

/// Activations of a decoder, for latents of this size.
fn decode_bytes(vae: &VaeConfig, height: usize, width: usize, pieces: &Pieces) -> u64 {
    match pieces {
        Pieces::Whole => vae.decode_bytes(height, width, None),
        Pieces::Tiles(tiling) => vae.decode_bytes(height, width, Some(tiling)),
        Pieces::Blended(b) => vae.decode_bytes(height.min(b.tile), width.min(b.tile), None),
    }
}

/// Applies a policy: gives what becomes of it, and words if that is less than was hoped for.
///
/// # Errors
/// The run cannot fit.
pub fn choose(
    need: &Need,
    policy: MemoryPolicy,
    limit_gib: f64,
    free: Option<u64>,
) -> Result<(Residency, Option<String>)> {
    let limit = limit(limit_gib, free);
    let fits = |residency| limit.is_none_or(|limit| need.total(residency) <= limit);
    let least = if policy == MemoryPolicy::Resident { Residency::Resident } else { Residency::Staged };
    if !fits(least) {
        return Err(too_little(need, least, limit.unwrap_or(0), limit_gib > 0.0));
    }
    Ok(match policy {
        MemoryPolicy::Resident => (Residency::Resident, None),
        MemoryPolicy::Staged => (Residency::Staged, None),
        MemoryPolicy::Auto if fits(Residency::Resident) => (Residency::Resident, None),
        MemoryPolicy::Auto => {
            let remark = format!(
                "the networks are loaded one after the other: together they need about {}, and there are {}",
                words(need.total(Residency::Resident)),
                words(limit.unwrap_or(0))
            );
            (Residency::Staged, Some(remark))
        }
    })
}

fn too_little(need: &Need, least: Residency, limit: u64, given: bool) -> Error {
    let message = format!(
        "this run needs about {} of memory, and {} {}",
        words(need.total(least)),
        if given { "`memory_limit` allows" } else { "there are" },
        words(limit)
    );
    let e = Error::new(ErrorKind::Environment, message);
    let e = match least {
        Residency::Resident => e.hint(format!(
            "`memory: staged` loads the networks one after the other: about {}",
            words(need.total(Residency::Staged))
        )),
        Residency::Staged => {
            e.hint("a smaller image, `--precision int8` or `vae_tiling: blended` needs less")
        }
    };
    e.hint("the estimate may be wrong: `memory_limit` sets what a run may take, in GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_models::Tiling;

    const GIB: u64 = 1 << 30;

    fn need() -> Need {
        Need { text: GIB, unet: 4 * GIB, vae: GIB, denoise: GIB, decode: 2 * GIB }
    }

    #[test]
    fn the_networks_stay_if_they_fit_together_and_else_take_turns_with_words() {
        let choose = |policy, free| choose(&need(), policy, 0.0, free);
        let (residency, remark) = choose(MemoryPolicy::Auto, Some(9 * GIB)).unwrap();
        assert_eq!((residency, remark), (Residency::Resident, None));
        let (residency, remark) = choose(MemoryPolicy::Auto, Some(6 * GIB)).unwrap();
        assert_eq!(residency, Residency::Staged);
        assert!(remark.unwrap().contains("8.06 GiB, and there are 6.00 GiB"));
        assert_eq!(choose(MemoryPolicy::Staged, Some(9 * GIB)).unwrap(), (Residency::Staged, None));
        assert_eq!(choose(MemoryPolicy::Resident, None).unwrap(), (Residency::Resident, None));
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_helps() {
        let e = choose(&need(), MemoryPolicy::Auto, 0.0, Some(5 * GIB)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Environment);
        assert!(e.message().contains("5.06 GiB of memory, and there are 5.00 GiB"), "{e}");
        assert!(e.hints()[0].contains("smaller image"));
        let e = choose(&need(), MemoryPolicy::Resident, 0.0, Some(6 * GIB)).unwrap_err();
        assert!(e.hints()[0].contains("memory: staged"));
    }

    #[test]
    fn a_given_limit_counts_instead_of_what_is_free() {
        assert!(choose(&need(), MemoryPolicy::Auto, 5.5, Some(GIB)).is_ok());
        let e = choose(&need(), MemoryPolicy::Auto, 1.0, Some(64 * GIB)).unwrap_err();
        assert!(e.message().contains("`memory_limit` allows 1.00 GiB"), "{e}");
    }

    #[test]
    fn larger_images_need_more_and_guidance_twice_the_activations() {
        let unet = UNetConfig::sd15();
        let images = |places, images| denoise_bytes(&unet, places, images) - denoise_bytes(&unet, 0, 0);
        assert_eq!(2 * images(4096, 1), images(4096, 2));
        assert_eq!(4 * images(4096, 2), images(4 * 4096, 2));
        let decode = |n, pieces: &Pieces| decode_bytes(&VaeConfig::sd15(), n, n, pieces);
        let tiles = Pieces::Tiles(Tiling::of(512));
        assert!(decode(64, &Pieces::Whole) > GIB / 2);
        assert_eq!(decode(64, &tiles), decode(64, &Pieces::Whole));
        assert!(decode(256, &tiles) < decode(256, &Pieces::Whole) / 2);
    }
}
