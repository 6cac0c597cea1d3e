//! The tiny autoencoder against diffusers', and its real weights in each layout.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::AutoencoderTiny;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

type Tensors = HashMap<String, Tensor>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden")
}

fn golden() -> PathBuf {
    std::env::var_os("ATELIER_GOLDEN_DIR").map_or(fixtures(), PathBuf::from)
}

fn load(path: PathBuf) -> Tensors {
    candle_core::safetensors::load(&path, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn open(path: &Path) -> AutoencoderTiny {
    let opened = AutoencoderTiny::open(path, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(opened.unused, [] as [&str; 0], "{}", path.display());
    opened.model
}

fn near(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let d = (got - want).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let d = f64::from(d.to_scalar::<f32>().unwrap());
    println!("{what:<40} max |d| {d:9.2e}");
    assert!(d <= tolerance, "{what}: {d:e}");
}

#[test]
fn both_halves_give_what_diffusers_gives() {
    let (model, want) = (open(&golden().join("tiny-taesd")), load(golden().join("taesd.safetensors")));
    assert_eq!((model.latent_channels(), model.factor()), (4, 8));
    near("decode", &model.decode(&want["latent"]).unwrap(), &want["decoded"], 5e-5);
    near("encode", &model.encode(&want["image"]).unwrap(), &want["encoded"], 5e-5);
}

/// The names of the original: no place in front, and the limiting of the latents counts as the decoder's number 0.
fn original(tensors: &Tensors, half: &str, root: &str) -> Tensors {
    let shift = usize::from(half == "decoder");
    let rename = |(name, tensor): (&String, &Tensor)| {
        let (number, rest) = name.strip_prefix(&format!("{half}.layers."))?.split_once('.')?;
        Some((format!("{root}{}.{rest}", number.parse::<usize>().unwrap() + shift), tensor.clone()))
    };
    tensors.iter().filter_map(rename).collect()
}

#[test]
fn each_layout_of_a_half_is_read() {
    let tensors = load(golden().join("tiny-taesd/diffusion_pytorch_model.safetensors"));
    let want = load(golden().join("taesd.safetensors"));
    let dir = tempfile::tempdir().unwrap();
    for (i, (half, root)) in [
        ("decoder", ""),
        ("decoder", "first_stage_model.decoder."),
        ("decoder", "taesd_decoder."),
        ("encoder", ""),
        ("encoder", "taesd_encoder."),
    ]
    .into_iter()
    .enumerate()
    {
        let file = dir.path().join(format!("{i}.safetensors"));
        candle_core::safetensors::save(&original(&tensors, half, root), &file).unwrap();
        let model = open(&file);
        assert_eq!(
            (model.decodes(), model.encodes()),
            (half == "decoder", half == "encoder"),
            "{half} {root:?}"
        );
        if half == "decoder" {
            near(root, &model.decode(&want["latent"]).unwrap(), &want["decoded"], 5e-5);
            let e = model.encode(&want["image"]).unwrap_err().to_string();
            assert!(e.contains("has no encoder"), "{e}");
        } else {
            near(root, &model.encode(&want["image"]).unwrap(), &want["encoded"], 5e-5);
        }
    }
}

/// Real weights are not in the repository: `ATELIER_ASSETS_DIR` names the folder that has them. Their reference is the
/// `AutoencoderTiny` of diffusers 0.42.1 with the same file.
#[test]
fn real_weights_give_what_diffusers_gives_in_each_layout() {
    let Some(assets) = std::env::var_os("ATELIER_ASSETS_DIR").map(PathBuf::from) else {
        println!("set ATELIER_ASSETS_DIR to the folder with taesd/ to try the real weights");
        return;
    };
    let want = load(fixtures().join("taesd_real.safetensors"));
    // The GGUF file has its biases in 32 bits, which the reference's file has rounded to 16.
    for (name, tolerance) in [
        ("taesd_decoder.fp16.safetensors", 5e-5),
        ("taesd_decoder.diffusers.fp16.safetensors", 5e-5),
        ("taesd-decoder.gguf", 2e-3),
    ] {
        let model = open(&assets.join("taesd").join(name));
        assert_eq!((model.latent_channels(), model.factor()), (4, 8));
        near(name, &model.decode(&want["latent"]).unwrap(), &want["decoded"], tolerance);
    }
    let path = assets.join("taesd/taef2_decoder.fp16.safetensors");
    let e = AutoencoderTiny::open(path, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("TAEF2"), "{e}");
}

#[test]
fn what_is_no_tiny_autoencoder_is_refused_with_its_file() {
    let refused = |path: &Path, expected: &str| {
        let e = AutoencoderTiny::open(path, DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(e.contains(expected) && e.contains(path.to_str().unwrap()), "{e}");
    };
    refused(&fixtures().join("tiny-sd/vae/diffusion_pytorch_model.safetensors"), "found other names");
    let tensors = load(golden().join("tiny-taesd/diffusion_pytorch_model.safetensors"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gap.safetensors");
    let mut gap = original(&tensors, "decoder", "");
    gap.retain(|name, _| !name.starts_with("8.") && !name.starts_with("9."));
    candle_core::safetensors::save(&gap, &file).unwrap();
    refused(&file, "some are missing");
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(
        golden().join("tiny-taesd/diffusion_pytorch_model.safetensors"),
        folder.join("diffusion_pytorch_model.safetensors"),
    )
    .unwrap();
    std::fs::write(folder.join("config.json"), r#"{"act_fn":"gelu"}"#).unwrap();
    let e = AutoencoderTiny::open(&folder, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("act_fn"), "{e}");
}
