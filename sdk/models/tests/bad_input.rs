//! Broken folders and inputs that do not fit: errors that name file and field, and nothing allocated by them.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{AutoencoderKl, ClipTextModel, ClipTokenizer, Network, UNet2DConditionModel};
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/tiny-sd").join(name)
}

/// A copy of a component's folder that a test may spoil.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(dir.path().join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
    dir
}

fn unet_error(folder: &Path) -> String {
    UNet2DConditionModel::open(folder, DType::F32, &Device::Cpu).err().unwrap().to_string()
}

/// Sets one field of a copied `config.json`.
fn set(folder: &Path, field: &str, value: serde_json::Value) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

#[test]
fn a_folder_without_config_or_weights_says_what_is_missing() {
    let unet = copy("unet");
    std::fs::remove_file(unet.path().join("config.json")).unwrap();
    let message = unet_error(unet.path());
    assert!(message.contains("expected config.json") && message.contains(WEIGHTS), "{message}");
    let unet = copy("unet");
    std::fs::remove_file(unet.path().join(WEIGHTS)).unwrap();
    let message = unet_error(unet.path());
    assert!(message.contains(WEIGHTS) && message.contains("found config.json"), "{message}");
    assert!(unet_error(&unet.path().join("nowhere")).contains("nowhere"));
}

#[test]
fn weights_cut_off_anywhere_are_refused() {
    let unet = copy("unet");
    let file = unet.path().join(WEIGHTS);
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 5, 100, 10_000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let message = unet_error(unet.path());
        assert!(message.contains(WEIGHTS) && message.contains("expected"), "{length} bytes: {message}");
    }
}

#[test]
fn absurd_sizes_in_a_config_are_refused_before_anything_is_allocated() {
    for (field, value) in [
        ("block_out_channels", serde_json::json!([1u64 << 40, 64])),
        ("cross_attention_dim", serde_json::json!(u64::MAX)),
        ("layers_per_block", serde_json::json!(1_000_000)),
        ("norm_num_groups", serde_json::json!(0)),
        ("attention_head_dim", serde_json::json!(0)),
    ] {
        let unet = copy("unet");
        set(unet.path(), field, value);
        let message = unet_error(unet.path());
        assert!(message.contains("config.json") && message.contains(field), "{message}");
    }
    // Within the bounds, but not what the file has: the first tensor's shape tells, before its memory is asked for.
    let unet = copy("unet");
    set(unet.path(), "block_out_channels", serde_json::json!([16384, 16384]));
    let message = unet_error(unet.path());
    assert!(
        message.contains("conv_in.weight") && message.contains("[16384, 4, 3, 3], found [32, 4, 3, 3]"),
        "{message}"
    );
}

#[test]
fn text_encoder_and_autoencoder_check_their_configs() {
    let text = copy("text_encoder");
    set(text.path(), "vocab_size", serde_json::json!(2_000_000_000));
    let message = ClipTextModel::open(text.path(), DType::F32, &Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("vocab_size"), "{message}");
    let vae = copy("vae");
    set(vae.path(), "block_out_channels", serde_json::json!([32, 32, 32, 33]));
    let message = AutoencoderKl::open(vae.path(), DType::F32, &Device::Cpu).err().unwrap().to_string();
    assert!(message.contains("norm_num_groups") && message.contains("33"), "{message}");
}

#[test]
fn weights_of_another_architecture_show_as_unused_or_missing() {
    let unet = copy("unet");
    set(unet.path(), "layers_per_block", serde_json::json!(2));
    let message = unet_error(unet.path());
    assert!(message.contains("down_blocks.0.resnets.1") && message.contains("similar"), "{message}");
    let vae = copy("vae");
    set(vae.path(), "mid_block_add_attention", serde_json::json!(false));
    let opened = AutoencoderKl::open(vae.path(), DType::F32, &Device::Cpu).unwrap();
    assert!(!opened.unused.is_empty());
    assert!(opened.unused.iter().all(|name| name.contains("mid_block.attentions.0")), "{:?}", opened.unused);
}

#[test]
fn tensors_that_do_not_fit_are_refused_with_both_shapes() {
    let unet = UNet2DConditionModel::open(fixture("unet"), DType::F32, &Device::Cpu).unwrap().model;
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let (sample, time, context) = (zeros(&[2, 4, 8, 8]), zeros(&[1]), zeros(&[2, 77, 32]));
    for (sample, time, context, found) in [
        (&zeros(&[2, 3, 8, 8]), &time, &context, "[2, 3, 8, 8]"),
        (&sample, &zeros(&[3]), &context, "[3]"),
        (&sample, &time, &zeros(&[2, 77, 31]), "[2, 77, 31]"),
        (&sample, &time, &zeros(&[1, 77, 32]), "[1, 77, 32]"),
    ] {
        let message = unet.forward(sample, time, context).unwrap_err().to_string();
        assert!(message.contains(found) && message.contains("expected"), "{message}");
    }
    let text = ClipTextModel::open(fixture("text_encoder"), DType::F32, &Device::Cpu).unwrap().model;
    for prompts in [vec![], vec![vec![1; 78]], vec![vec![1, 2], vec![1]], vec![vec![5000, 1]]] {
        assert!(text.forward(&prompts).unwrap_err().to_string().contains("expected"), "{prompts:?}");
    }
    let vae = AutoencoderKl::open(fixture("vae"), DType::F32, &Device::Cpu).unwrap().model;
    assert!(vae.encode(&zeros(&[1, 3, 4, 64])).is_err(), "smaller than one latent pixel");
    assert!(vae.decode(&zeros(&[1, 3, 8, 8])).is_err(), "three channels for four");
}

#[test]
fn tokenizers_without_files_or_with_broken_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = ClipTokenizer::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("expected tokenizer.json, or vocab.json and merges.txt"), "{message}");
    let broken = copy("tokenizer");
    std::fs::write(broken.path().join("tokenizer.json"), "{").unwrap();
    assert!(ClipTokenizer::open(broken.path()).unwrap_err().to_string().contains("tokenizer.json"));
    std::fs::remove_file(broken.path().join("tokenizer.json")).unwrap();
    std::fs::write(broken.path().join("merges.txt"), "#version: 0.2\na b c\n").unwrap();
    let message = ClipTokenizer::open(broken.path()).unwrap_err().to_string();
    assert!(message.contains("merges.txt") && message.contains("line 2"), "{message}");
}

#[test]
fn merges_that_make_no_token_are_refused_in_either_kind_of_file() {
    let folder = copy("tokenizer");
    let json = folder.path().join("tokenizer.json");
    let mut file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let longest = vocab.keys().max_by_key(|token| token.len()).unwrap().clone();
    // "an unknown token" and "longer than any": the library finds the first, and falls over the second.
    for pair in [["a", "§"], [&longest, &longest]] {
        file["model"]["merges"] = serde_json::json!([pair]);
        std::fs::write(&json, file.to_string()).unwrap();
        assert!(ClipTokenizer::open(folder.path()).unwrap_err().to_string().contains("tokenizer.json"));
        let old = copy("tokenizer");
        std::fs::remove_file(old.path().join("tokenizer.json")).unwrap();
        std::fs::write(old.path().join("merges.txt"), pair.join(" ")).unwrap();
        assert!(ClipTokenizer::open(old.path()).unwrap_err().to_string().contains("vocab.json"));
    }
}

#[test]
fn a_padding_token_of_its_own_is_used() {
    let folder = copy("tokenizer");
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["pad_token"] = serde_json::json!({"content": "!", "normalized": false});
        std::fs::write(&path, config.to_string()).unwrap();
    }
    let tokenizer = ClipTokenizer::open(folder.path()).unwrap();
    let encoded = tokenizer.encode("a").unwrap();
    assert_eq!(encoded.ids[2], tokenizer.eos());
    assert_eq!(encoded.ids[3..], [0; 74]);
}
