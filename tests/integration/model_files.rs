//! Models whose files are missing, damaged or not what they claim.

use crate::support::{Place, Said, copy, root};
use std::path::Path;

/// A copy of the tiny model that a test may damage.
fn damaged(damage: impl Fn(&Path)) -> Said {
    let place = Place::new();
    let model = place.path("model");
    copy(&root().join("tests/fixtures/golden/tiny-sd"), &model);
    damage(&model);
    let args = ["generate", "-p", "tiny/quick", "-m", "./model", "-s", "width=64", "-s", "height=64"];
    let said = place.run(&args);
    let outputs = crate::support::names(&place.path("outputs"));
    for run in outputs {
        let files = crate::support::names(&place.path("outputs").join(run));
        assert!(!files.iter().any(|f| f.ends_with(".png")), "{files:?}");
    }
    said
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} in {}", file.display());
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn an_unharmed_copy_draws() {
    let place = Place::new();
    copy(&root().join("tests/fixtures/golden/tiny-sd"), &place.path("model"));
    place.generate(&["-p", "tiny/quick", "-m", "./model", "-s", "width=64", "-s", "height=64"]);
}

#[test]
fn missing_parts_are_named() {
    damaged(|m| std::fs::remove_file(m.join("unet/diffusion_pytorch_model.safetensors")).unwrap())
        .fails(4, &["unet"]);
    damaged(|m| std::fs::remove_file(m.join("unet/config.json")).unwrap()).fails(4, &["unet", "config.json"]);
    damaged(|m| std::fs::remove_dir_all(m.join("tokenizer")).unwrap()).fails(7, &["tokenizer"]);
    damaged(|m| std::fs::remove_file(m.join("model_index.json")).unwrap()).fails(4, &["model_index.json"]);
}

#[test]
fn truncated_weights_are_told_with_file_and_sizes() {
    for keep in [0usize, 5, 100, 100_000] {
        damaged(|m| {
            let file = m.join("unet/diffusion_pytorch_model.safetensors");
            let bytes = std::fs::read(&file).unwrap();
            std::fs::write(&file, &bytes[..keep]).unwrap();
        })
        .fails(7, &["diffusion_pytorch_model.safetensors", "expected", "found"]);
    }
}

#[test]
fn weights_of_another_shape_are_told_with_both_shapes() {
    damaged(|m| edit(&m.join("unet/config.json"), "    64\n", "    96\n"))
        .fails(7, &["expected shape [96", "found [64"]);
    // What only a look at all networks tells is told before any is loaded.
    damaged(|m| edit(&m.join("unet/config.json"), "\"in_channels\": 4", "\"in_channels\": 5"))
        .fails(5, &["5 input channels"]);
    damaged(|m| {
        std::fs::copy(
            m.join("vae/diffusion_pytorch_model.safetensors"),
            m.join("unet/diffusion_pytorch_model.safetensors"),
        )
        .unwrap();
    })
    .fails(7, &["unet"]);
}

#[test]
fn absurd_sizes_in_a_config_are_refused_before_allocation() {
    for (file, from, to) in [
        ("unet/config.json", "    64\n", "    640000000000\n"),
        ("unet/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": 1000000000"),
        ("unet/config.json", "\"norm_num_groups\": 32", "\"norm_num_groups\": 0"),
        ("unet/config.json", "\"cross_attention_dim\": 32", "\"cross_attention_dim\": -1"),
        ("text_encoder/config.json", "\"vocab_size\": 1000", "\"vocab_size\": 100000000000"),
        ("text_encoder/config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4000000"),
        ("vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 99999999"),
    ] {
        damaged(|m| edit(&m.join(file), from, to))
            .fails(7, &[file.split('/').next().unwrap(), "config.json"]);
    }
}

#[test]
fn a_model_for_another_pipeline_is_named_as_such() {
    damaged(|m| {
        edit(&m.join("model_index.json"), "\"StableDiffusionPipeline\"", "\"StableDiffusionXLPipeline\"")
    })
    .fails(5, &["StableDiffusionXLPipeline"]);
}

#[test]
fn a_model_without_files_says_where_they_belong() {
    let place = Place::with_own_configs();
    place.write(
        "configs/models/m.yaml",
        "schema_version: 1\nkey: m\ntitle: t\narchitecture: sd\npath: far\nlicense: MIT\nsource: the hub\n",
    );
    place
        .run(&["generate", "--task", "txt2img", "--model", "m"])
        .fails(4, &["model `m`", "models/far", "the hub"]);
}

#[test]
fn an_image_names_the_digests_of_its_model_and_another_model_is_told_when_it_is_made_again() {
    let place = Place::new();
    let model = place.path("model");
    copy(&root().join("tests/fixtures/golden/tiny-sd"), &model);
    let image = place.generate(&["-p", "tiny/quick", "-m", "./model", "-s", "width=64", "-s", "height=64"]);
    let sidecar = std::fs::read_to_string(image.with_extension("json")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_str(&sidecar).unwrap();
    let files = sidecar["model"]["files"].as_array().unwrap();
    let roles: Vec<_> = files.iter().map(|f| f["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["text_encoder", "unet", "vae"]);
    let unet = files[1]["sha256"].as_str().unwrap();
    let text = std::fs::read(&image).unwrap();
    let hash = format!("Model hash: {}", &unet[..10]);
    assert!(text.windows(hash.len()).any(|w| w == hash.as_bytes()), "{hash}");
    let again = |place: &Place| place.run(&["generate", "--like", image.to_str().unwrap()]).ok().err;
    assert!(!again(&place).contains("warning"));
    // Bytes within a weight: the file stays whole, and is another one.
    let file = model.join("unet/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(again(&place).contains("the model's unet"), "{}", again(&place));
}
