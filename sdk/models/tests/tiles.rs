//! Tiled encoding and decoding against the whole image, and against diffusers.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{AutoencoderKl, Blending, Network, Tiling};
use atelier_ops::gradcheck::pseudo_normal;
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

/// Largest difference to the whole image allowed, of values about -1 to 1: rounding, 1/80 of one step of 8 bits.
const BOUND: f64 = 1e-4;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("ATELIER_GOLDEN_DIR").map(PathBuf::from);
    root.unwrap_or_else(|| repository("tests/fixtures/golden")).join(path)
}

fn open(folder: PathBuf) -> AutoencoderKl {
    AutoencoderKl::open(folder, DType::F32, &Device::Cpu).unwrap().model
}

fn mini() -> AutoencoderKl {
    open(repository("configs/models/mini/vae"))
}

fn difference(what: &str, a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let d = f64::from(d.to_scalar::<f32>().unwrap());
    println!("{what:<40} max |d| {d:9.2e}");
    d
}

/// Latents with large shapes in them, as images have, and some noise.
fn latents(channels: usize, h: usize, w: usize) -> Tensor {
    let values: Vec<f32> = (0..channels * h * w)
        .map(|i| {
            let (c, y, x) = (i / (h * w), (i / w) % h, i % w);
            let far = ((x as f32 - w as f32 * 0.4).powi(2) + (y as f32 - h as f32 * 0.6).powi(2)).sqrt();
            (0.5 - 0.4 * c as f32)
                + if far < 0.3 * w as f32 { 1.5 - 0.5 * c as f32 } else { y as f32 / h as f32 }
        })
        .collect();
    let shapes = Tensor::from_vec(values, (1, channels, h, w), &Device::Cpu).unwrap();
    (shapes + (pseudo_normal(3, (1, channels, h, w), 1.0) * 0.3).unwrap()).unwrap()
}

#[test]
fn tiles_give_what_the_whole_image_gives() {
    for (name, model) in [("mini", mini()), ("tiny", open(golden("tiny-sd/vae")))] {
        // More than one tile each way, cut at sizes that do not divide, and a batch of images that differ.
        let z = latents(model.config().latent_channels, 21, 17);
        let z = Tensor::cat(&[&z, &(&z * 0.5).unwrap()], 0).unwrap();
        let tiling = Tiling::of(64);
        let whole = model.decode(&z).unwrap();
        let tiled = model.decode_tiled(&z, &tiling).unwrap();
        assert!(difference(&format!("{name} decode"), &tiled, &whole) < BOUND);
        let image = whole.clamp(-1f32, 1f32).unwrap();
        for (h, w) in [(168, 136), (167, 131)] {
            let image = image.narrow(2, 0, h).unwrap().narrow(3, 0, w).unwrap().contiguous().unwrap();
            let (whole, tiled) =
                (model.encode(&image).unwrap(), model.encode_tiled(&image, &tiling).unwrap());
            assert!(difference(&format!("{name} encode {h}x{w} mean"), &tiled.mean, &whole.mean) < BOUND);
            assert!(
                difference(&format!("{name} encode {h}x{w} logvar"), &tiled.logvar, &whole.logvar) < BOUND
            );
        }
    }
}

#[test]
fn blended_tiles_are_those_of_diffusers() {
    let want = candle_core::safetensors::load(golden("vae.safetensors"), &Device::Cpu).unwrap();
    let model = open(golden("tiny-sd/vae"));
    let blending = Blending { tile: 4, overlap: 0.25 };
    let got = model.decode_blended(&want["tiled_latent"], &blending).unwrap();
    assert!(difference("blended, diffusers", &got, &want["tiled_decoded"]) < 1e-4);
    let whole = difference("blended, whole", &got, &want["untiled_decoded"]);
    assert!(whole > 0.1, "tiles by themselves should differ from the whole, by {whole}");
}
