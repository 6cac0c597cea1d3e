//! Parity with diffusers and transformers: the references of a golden folder (`golden.py`) against our networks.
//!
//! Reads the folder named by `ATELIER_GOLDEN_DIR`, else `tests/fixtures/golden` of this repository. The sizes of the
//! networks come from the folder's own configurations. `--nocapture` shows the errors measured.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{
    AutoencoderKl, ClipTextModel, ClipTokenizer, Network, UNet2DConditionModel, UNetConfig,
    timestep_embedding,
};
use atelier_weights::Source;
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest difference allowed, relative to the largest element of the reference.
const TOLERANCE: f64 = 1e-4;

type Tensors = HashMap<String, Tensor>;

fn golden() -> PathBuf {
    match std::env::var_os("ATELIER_GOLDEN_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden"),
    }
}

fn load(name: &str) -> Tensors {
    let path = golden().join(name);
    candle_core::safetensors::load(&path, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Compares, prints the error, and fails above the tolerance.
fn compare(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}: shape");
    let (got, want) = (values(got), values(want));
    let largest = want.iter().fold(0f64, |a, b| a.max(b.abs()));
    let error = got.iter().zip(&want).fold(0f64, |a, (x, y)| a.max((x - y).abs()));
    println!("{what:<36} max |d| {error:9.2e}   of max {largest:9.2e}   relative {:9.2e}", error / largest);
    assert!(error <= TOLERANCE * largest, "{what}: error {error:e} of {largest:e}");
    assert!(got.iter().all(|v| v.is_finite()), "{what}: not finite");
}

fn open_unet(folder: &str) -> UNet2DConditionModel {
    let opened = UNet2DConditionModel::open(golden().join(folder), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(opened.unused, [] as [&str; 0], "{folder}");
    opened.model
}

fn open_text(folder: &Path) -> ClipTextModel {
    let opened = ClipTextModel::open(folder, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(opened.unused, [] as [&str; 0], "{}", folder.display());
    opened.model
}

fn open_vae() -> AutoencoderKl {
    let opened = AutoencoderKl::open(golden().join("tiny-sd/vae"), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(opened.unused, [] as [&str; 0]);
    opened.model
}

fn ids(tensor: &Tensor) -> Vec<Vec<u32>> {
    tensor.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

fn check_tokens(tokenizer: &ClipTokenizer, cases: &serde_json::Value) {
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    let list = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
    };
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let (all, fitted) = (list(&case["ids"]), list(&case["ids77"]));
        assert_eq!(tokenizer.tokens(text).unwrap(), all[1..all.len() - 1], "{text:?}");
        let encoded = tokenizer.encode(text).unwrap();
        assert_eq!(encoded.ids, fitted, "{text:?}");
        assert_eq!(encoded.dropped, all.len().saturating_sub(fitted.len()), "{text:?}");
    }
    println!("{} prompts: the same tokens", cases.len());
}

#[test]
fn tokens_are_those_of_the_reference_from_either_kind_of_file() {
    let text = std::fs::read_to_string(golden().join("tokens.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let folder = golden().join("tiny-sd/tokenizer");
    check_tokens(&ClipTokenizer::open(&folder).unwrap(), &cases["tiny"]);
    let old = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "tokenizer.json" {
            std::fs::write(old.path().join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
    check_tokens(&ClipTokenizer::open(old.path()).unwrap(), &cases["tiny"]);
    // The full vocabulary is too big for the repository; it lies beside the references where they are made.
    for full in ["clip_tokenizer", "../assets/clip_tokenizer"] {
        let folder = golden().join(full);
        if folder.is_dir() {
            check_tokens(&ClipTokenizer::open(folder).unwrap(), &cases["full"]);
        }
    }
}

fn check_text(model: &ClipTextModel, want: &Tensors) {
    let prompts = ids(&want["input_ids"]);
    let got = model.forward(&prompts).unwrap();
    assert_eq!(got.hidden_states.len(), model.config().num_hidden_layers + 1);
    for (i, state) in got.hidden_states.iter().enumerate() {
        compare(&format!("text hidden_{i}"), state, &want[&format!("hidden_{i}")]);
    }
    compare("text last_hidden_state", &got.last_hidden_state, &want["last_hidden_state"]);
    compare("text pooler_output", &got.pooler_output, &want["pooler_output"]);
    compare("text clip_skip 1", &model.encode(&prompts, 1).unwrap(), &want["clip_skip1"]);
    compare("text clip_skip 0", &model.encode(&prompts, 0).unwrap(), &want["last_hidden_state"]);
}

#[test]
fn text_encoder_gives_every_layer_of_the_reference() {
    check_text(&open_text(&golden().join("tiny-sd/text_encoder")), &load("text.safetensors"));
}

#[test]
fn text_encoder_without_prefix_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(golden().join(from), folder.path().join(to)).unwrap();
    copy("tiny-sd/text_encoder/config.json", "config.json");
    copy("variants/text_encoder_transformers5.safetensors", "model.safetensors");
    check_text(&open_text(folder.path()), &load("text.safetensors"));
}

#[test]
fn timestep_embeddings_are_those_of_the_reference() {
    let want = load("unet.safetensors");
    let timesteps = &want["temb.timesteps"];
    let mut cases = 0;
    for (name, reference) in &want {
        // temb.<width>_<flip|noflip>_shift<n>
        let Some(settings) = name.strip_prefix("temb.").filter(|s| s.contains('_')) else { continue };
        let parts: Vec<&str> = settings.split('_').collect();
        let shift = parts[2].strip_prefix("shift").unwrap().parse().unwrap();
        let got =
            timestep_embedding(timesteps, parts[0].parse().unwrap(), parts[1] == "flip", shift).unwrap();
        compare(name, &got, reference);
        cases += 1;
    }
    assert!(cases > 0);
}

/// The names of our modules for the names the references use.
fn module(reference: &str) -> String {
    let parts: Vec<String> = reference
        .split('.')
        .map(|part| match part.rsplit_once('_') {
            Some((kind @ ("down" | "up"), n)) => format!("{kind}_blocks.{n}"),
            Some((kind @ ("resnet" | "attention"), n)) => format!("{kind}s.{n}"),
            _ => part.into(),
        })
        .collect();
    parts.join(".")
}

#[test]
fn unet_gives_every_block_of_the_reference_at_any_size() {
    let model = open_unet("tiny-sd/unet");
    let want = load("unet.safetensors");
    let mut cases: Vec<&str> = want.keys().filter_map(|k| k.strip_suffix(".sample")).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut blocks = 0;
    for case in cases {
        let input = |name: &str| &want[&format!("{case}.{name}")];
        let mut seen = Tensors::new();
        let mut observe = |name: &str, t: &Tensor| drop(seen.insert(name.to_string(), t.clone()));
        let out = model
            .forward_observed(input("sample"), input("timestep"), input("context"), &mut observe)
            .unwrap();
        compare(&format!("unet {case}"), &out, input("out"));
        let mut names: Vec<&str> = want.keys().filter_map(|k| k.strip_prefix(&format!("{case}."))).collect();
        names.sort();
        for name in names.into_iter().filter(|n| !["sample", "timestep", "context", "out"].contains(n)) {
            let reference = input(name);
            if name == "conv_norm_out" {
                // Ours is one operation with the activation after it.
                compare("  conv_norm_out, silu", &seen["conv_act"], &reference.silu().unwrap());
            } else {
                compare(&format!("  {name}"), &seen[&module(name)], reference);
            }
            blocks += 1;
        }
    }
    assert!(blocks > 0);
}

#[test]
fn unet_takes_a_timestep_per_sample() {
    let model = open_unet("tiny-sd/unet");
    let want = load("unet.safetensors");
    // Cases a and c share their latent size: one batch of both must give what each gives alone.
    let both = |name: &str| {
        let first = want[&format!("a.{name}")].narrow(0, 0, 1).unwrap();
        Tensor::cat(&[&first, &want[&format!("c.{name}")]], 0).unwrap()
    };
    let out = model.forward(&both("sample"), &both("timestep"), &both("context")).unwrap();
    compare("unet, two timesteps in one batch", &out, &both("out"));
}

#[test]
fn features_of_the_same_step_give_the_whole_network_s_numbers() {
    let model = open_unet("tiny-sd/unet");
    let want = load("unet.safetensors");
    for case in ["a", "b"] {
        let of = |name: &str| want[&format!("{case}.{name}")].clone();
        let (sample, timestep, context) = (of("sample"), of("timestep"), of("context"));
        let (out, deep) = model.forward_kept(&sample, &timestep, &context).unwrap();
        let again = model.forward_shallow(&sample, &timestep, &context, &deep).unwrap();
        let plain = model.forward(&sample, &timestep, &context).unwrap();
        assert_eq!(values(&out), values(&plain));
        assert_eq!(values(&again), values(&plain));
        let other = (&deep * 0.5).unwrap();
        assert_ne!(
            values(&model.forward_shallow(&sample, &timestep, &context, &other).unwrap()),
            values(&plain)
        );
        let less = deep.narrow(3, 0, 1).unwrap();
        assert!(model.forward_shallow(&sample, &timestep, &context, &less).is_err());
    }
}

#[test]
fn unet_with_nine_channels_gives_the_reference() {
    // Not among the fixtures, for its size.
    if std::env::var_os("ATELIER_GOLDEN_DIR").is_none() {
        println!("no nine-channel UNet in the fixtures; set ATELIER_GOLDEN_DIR to the references");
        return;
    }
    let want = load("unet9.safetensors");
    let model = open_unet("tiny-sd-inpaint9/unet");
    let out = model.forward(&want["sample"], &want["timestep"], &want["context"]).unwrap();
    compare("unet9", &out, &want["out"]);
}

#[test]
fn autoencoder_encodes_and_decodes_as_the_reference() {
    let model = open_vae();
    let want = load("vae.safetensors");
    let latent = model.encode(&want["image"]).unwrap();
    compare("vae mean", &latent.mean, &want["mean"]);
    compare("vae std", &latent.std().unwrap(), &want["std"]);
    let moments = Tensor::cat(&[&latent.mean, &latent.logvar], 1).unwrap();
    compare("vae moments", &moments, &want["moments"]);
    compare("vae sample", &latent.sample(&want["noise"]).unwrap(), &want["sample"]);
    compare("vae decode", &model.decode(&want["latent"]).unwrap(), &want["decoded"]);
    if let (Some(latent), Some(image)) = (want.get("tiled_latent"), want.get("untiled_decoded")) {
        compare("vae decode, square", &model.decode(latent).unwrap(), image);
    }
}

/// References beyond the golden folder's: odd sizes on the fixtures' own networks.
#[test]
fn odd_sizes_and_fractional_timesteps_give_the_reference() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden");
    let want = candle_core::safetensors::load(fixtures.join("odd_sizes.safetensors"), &Device::Cpu).unwrap();
    let unet =
        UNet2DConditionModel::open(fixtures.join("tiny-sd/unet"), DType::F32, &Device::Cpu).unwrap().model;
    for case in ["odd", "flat"] {
        let input = |name: &str| &want[&format!("{case}.{name}")];
        let out = unet.forward(input("sample"), input("timestep"), input("context")).unwrap();
        compare(&format!("unet {case} {:?}", input("sample").dims()), &out, input("out"));
    }
    let vae = AutoencoderKl::open(fixtures.join("tiny-sd/vae"), DType::F32, &Device::Cpu).unwrap().model;
    compare("vae mean, image 50x37", &vae.encode(&want["image"]).unwrap().mean, &want["mean"]);
}

#[test]
fn half_precision_storage_computes_in_f32() {
    // How much rounding the weights changes depends on the network: always the fixtures' own.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden");
    let want = candle_core::safetensors::load(fixtures.join("unet.safetensors"), &Device::Cpu).unwrap();
    let case = |name: &str| &want[&format!("a.{name}")];
    for (dtype, tolerance) in [(DType::F16, 5e-3), (DType::BF16, 5e-2)] {
        let model =
            UNet2DConditionModel::open(fixtures.join("tiny-sd/unet"), dtype, &Device::Cpu).unwrap().model;
        let out = model.forward(case("sample"), case("timestep"), case("context")).unwrap();
        assert_eq!(out.dtype(), DType::F32);
        let (got, want) = (values(&out), values(case("out")));
        let largest = want.iter().fold(0f64, |a, b| a.max(b.abs()));
        let error = got.iter().zip(&want).fold(0f64, |a, (x, y)| a.max((x - y).abs())) / largest;
        println!("unet a with {dtype:?} weights: relative {error:.2e}");
        // Different, as the weights are rounded; near, as nothing else is.
        assert!(error > 1e-6 && error < tolerance, "{dtype:?}: {error:e}");
    }
}

#[test]
fn input_channels_with_zero_weights_change_nothing() {
    let file = golden().join("tiny-sd/unet/diffusion_pytorch_model.safetensors");
    let mut weights = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let folder = atelier_weights::ComponentFolder::open(golden().join("tiny-sd/unet")).unwrap();
    let mut config = UNetConfig::read(&folder.config().unwrap()).unwrap();
    let kernel = weights["conv_in.weight"].pad_with_zeros(1, 0, 5).unwrap();
    weights.insert("conv_in.weight".into(), kernel);
    config.in_channels += 5;
    let source = Source::from_tensors(weights, DType::F32, &Device::Cpu);
    let model = UNet2DConditionModel::new(&source, &config).unwrap();
    let want = load("unet.safetensors");
    let (sample, context) = (&want["c.sample"], &want["c.context"]);
    let (_, _, h, w) = sample.dims4().unwrap();
    let extra = atelier_ops::gradcheck::pseudo_normal(1, (1, 5, h, w), 1.0);
    let wide = Tensor::cat(&[sample, &extra], 1).unwrap();
    compare(
        "unet c with five idle channels",
        &model.forward(&wide, &want["c.timestep"], context).unwrap(),
        &want["c.out"],
    );
}
