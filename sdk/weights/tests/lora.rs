//! Adapter files: every kind of factors against its formula, real lists of names, and files that lie.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_weights::Error;
use atelier_weights::lora::{Adapter, Modules, Part, Spelling};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

type Tensors = HashMap<String, Tensor>;

fn golden(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/lora");
    own.join(name)
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let largest = want.iter().fold(0f64, |a, b| a.max(b.abs()));
    got.iter().zip(&want).fold(0f64, |a, (x, y)| a.max((x - y).abs())) / largest
}

#[test]
fn every_kind_of_factors_gives_the_change_of_its_formula() {
    let adapter = Adapter::open(golden("lycoris.safetensors")).unwrap();
    let wanted = candle_core::safetensors::load(golden("lycoris_deltas.safetensors"), &Device::Cpu).unwrap();
    let mut kinds = Vec::new();
    for (part, module, delta) in adapter.changes() {
        assert_eq!(part, Part::Unet);
        let (base, want) = (&wanted[&format!("{module}.base")], &wanted[&format!("{module}.delta")]);
        assert!(delta.fits(base.dims()), "{module}");
        let off = error(&delta.change(base).unwrap(), want);
        println!("{module:<16} {:<16} relative {off:.2e}", delta.kind());
        assert!(off < 2e-6, "{module}: {off:e}");
        kinds.push(delta.kind());
    }
    assert_eq!(kinds.len(), 16);
    for kind in ["LoRA", "LoCon", "LoCon with mid", "LoHa", "LoKr", "DoRA LoRA", "DoRA LoCon", "difference"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}");
    }
}

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: Tensors = tensors.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// What opening a file with these tensors says.
fn refused(tensors: &[(&str, Tensor)]) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    save(&path, tensors);
    Adapter::open(&path).unwrap_err()
}

#[test]
fn factors_that_do_not_belong_together_are_refused_by_module() {
    let (down, up) = ("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight");
    let cases: [(&[(&str, Tensor)], &str); 7] = [
        (&[(up, zeros(&[8, 4]))], "expected a down factor"),
        (&[(down, zeros(&[4, 8]))], "expected a up factor"),
        (&[(down, zeros(&[4, 8])), (up, zeros(&[8, 3]))], "one rank"),
        (&[(down, zeros(&[0, 8])), (up, zeros(&[8, 0]))], "(rank, inputs"),
        (&[(down, zeros(&[4, 8])), (up, zeros(&[8, 4])), ("lora_unet_a.alpha", zeros(&[2]))], "one number"),
        (&[(down, zeros(&[4, 8])), (up, zeros(&[8, 4])), ("lora_unet_a.diff", zeros(&[8, 8]))], "one kind"),
        (&[("lora_unet_a.hada_w1_a", zeros(&[8, 4])), ("lora_unet_a.hada_w1_b", zeros(&[3, 8]))], "one rank"),
    ];
    for (tensors, words) in cases {
        let message = refused(tensors).to_string();
        assert!(message.contains("module a") && message.contains(words), "{message}");
    }
}

#[test]
fn numbers_that_are_none_are_refused_by_tensor() {
    let bad = (zeros(&[4, 8]) + f64::NAN).unwrap();
    let found =
        refused(&[("lora_unet_a.lora_down.weight", bad), ("lora_unet_a.lora_up.weight", zeros(&[8, 4]))]);
    assert!(matches!(found, Error::NotFinite { tensor, .. } if tensor.ends_with("lora_down.weight")));
}

#[test]
fn other_files_say_what_they_are() {
    let found = refused(&[("conv_in.weight", zeros(&[4, 4, 3, 3]))]);
    assert!(matches!(found, Error::NotAnAdapter { .. }), "{found}");
    let found = refused(&[("lora_unet_a.oft_blocks", zeros(&[2, 4, 4]))]);
    assert!(found.to_string().contains("kind OFT"), "{found}");
}

#[test]
fn the_scale_of_peft_is_in_its_configuration() {
    let alpha = |path: &Path| {
        let adapter = Adapter::open(path).unwrap();
        let alphas: Vec<f64> = adapter.changes().filter_map(|(.., delta)| delta.alpha()).collect();
        assert!(alphas.iter().all(|a| *a == alphas[0]));
        alphas[0]
    };
    assert_eq!(alpha(&golden("peft")), 8.0);
    assert_eq!(alpha(&golden("peft/adapter_model.safetensors")), 8.0);
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("adapter_model.safetensors");
    std::fs::copy(golden("peft/adapter_model.safetensors"), &bare).unwrap();
    assert_eq!(alpha(&bare), 4.0, "the rank, where nothing says alpha");
    let config = dir.path().join("adapter_config.json");
    std::fs::write(&config, r#"{"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":true}"#).unwrap();
    assert_eq!(alpha(dir.path()), 16.0);
    std::fs::write(&config, r#"{"peft_type":"LORA","r":4,"lora_alpha":8,"alpha_pattern":{"proj_in":2}}"#)
        .unwrap();
    let adapter = Adapter::open(dir.path()).unwrap();
    for (_, module, delta) in adapter.changes() {
        let wanted = if module.to_string().ends_with(".proj_in") { 2.0 } else { 8.0 };
        assert_eq!(delta.alpha(), Some(wanted), "{module}");
    }
    std::fs::write(&config, r#"{"peft_type":"IA3"}"#).unwrap();
    assert!(Adapter::open(dir.path()).unwrap_err().to_string().contains("IA3"));
}

fn modules(shapes: &[(&str, &[usize])]) -> Modules {
    Modules::from_tensors(shapes.iter().map(|(name, shape)| (format!("{name}.weight"), shape.to_vec())))
}

/// An adapter with one plain change for each of these modules, (outputs, inputs).
fn adapter(dir: &Path, names: &[(&str, usize, usize)]) -> Adapter {
    let path = dir.join("x.safetensors");
    let tensors: Tensors = names
        .iter()
        .flat_map(|(name, outputs, inputs)| {
            [
                (format!("{name}.lora_down.weight"), zeros(&[2, *inputs])),
                (format!("{name}.lora_up.weight"), zeros(&[*outputs, 2])),
            ]
        })
        .collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    Adapter::open(&path).unwrap()
}

#[test]
fn what_matches_is_counted_and_nothing_matching_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let unet = modules(&[("down_blocks.0.attentions.0.proj_in", &[8, 6])]);
    let name = "lora_unet_down_blocks_0_attentions_0_proj_in";
    let both = adapter(dir.path(), &[(name, 8, 6), ("lora_unet_other", 8, 6)]);
    let found = both.resolve(&unet, &Modules::default()).unwrap();
    assert_eq!((found.matched(), found.total()), (1, 2));
    let remark = found.remark().unwrap();
    assert!(remark.starts_with("1 of 2 modules") && remark.contains("unet.other"), "{remark}");
    let none = adapter(dir.path(), &[("lora_unet_other", 8, 6)]);
    let message = none.resolve(&unet, &Modules::default()).unwrap_err().to_string();
    assert!(message.contains("none of the 1 modules") && message.contains("unet.other"), "{message}");
    let wide = adapter(dir.path(), &[(name, 8, 7)]);
    let message = wide.resolve(&unet, &Modules::default()).unwrap_err().to_string();
    assert!(message.contains("[8, 6]") && message.contains("8 outputs and 7 inputs"), "{message}");
}

#[test]
fn an_adapter_for_another_model_is_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let at = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let unet = modules(&[("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", &[640, 768])]);
    for (width, name) in [(2048, "SDXL"), (1024, "Stable Diffusion 2.x"), (40, "width 40")] {
        let other = adapter(dir.path(), &[(&format!("lora_unet_{at}"), 640, width)]);
        let message = other.resolve(&unet, &Modules::default()).unwrap_err().to_string();
        assert!(message.contains(&format!("is for {name}")) || message.contains(name), "{message}");
        assert!(message.contains("the model is Stable Diffusion 1.x"), "{message}");
    }
    let flux = adapter(dir.path(), &[("lora_unet_double_blocks_0_img_attn_proj", 8, 8)]);
    assert!(flux.resolve(&unet, &Modules::default()).unwrap_err().to_string().contains("is for Flux"));
}

#[test]
fn the_names_of_the_first_programs_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let unet = modules(&[
        ("down_blocks.0.resnets.0.conv1", &[4, 4, 3, 3]),
        ("down_blocks.0.attentions.0.proj_in", &[4, 4]),
        ("down_blocks.0.downsamplers.0.conv", &[4, 4, 3, 3]),
        ("down_blocks.1.resnets.0.conv1", &[4, 4, 3, 3]),
        ("up_blocks.0.resnets.0.time_emb_proj", &[4, 4]),
        ("mid_block.attentions.0.proj_in", &[4, 4]),
    ]);
    let flat = ["input_blocks_1_1_proj_in", "output_blocks_0_0_emb_layers_1", "middle_block_1_proj_in"];
    let names: Vec<String> = flat.iter().map(|n| format!("lora_unet_{n}")).collect();
    let list: Vec<_> = names.iter().map(|n| (n.as_str(), 4, 4)).collect();
    let found = adapter(dir.path(), &list).resolve(&unet, &Modules::default()).unwrap();
    assert_eq!(
        found.unet.keys().collect::<Vec<_>>(),
        [
            "down_blocks.0.attentions.0.proj_in",
            "mid_block.attentions.0.proj_in",
            "up_blocks.0.resnets.0.time_emb_proj"
        ]
    );
    let blocks: Vec<_> = unet.names().map(|name| unet.block(name)).collect();
    assert_eq!(blocks, ["IN01", "IN02", "IN01", "IN03", "M00", "OUT00"]);
}

#[test]
fn spellings_are_shown_as_the_file_has_them() {
    assert_eq!(Spelling::Flat("a_b".into()).to_string(), "a_b");
    assert_eq!(Spelling::Number(7).to_string(), "number 7");
}
