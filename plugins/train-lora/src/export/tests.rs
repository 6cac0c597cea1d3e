//! Exports, read again: by our own reader here, by others' in `tools/check-lora-export`.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use super::*;
use atelier_models::{ClipTextConfig, ClipTextModel, Network, UNet2DConditionModel, UNetConfig};
use atelier_weights::lora::{Adapter, Modules, Update};
use atelier_weights::{ConfigFile, StoredDtype, Weights};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for each test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("atelier-export-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All files and folders in it.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The networks' modules of the golden model.
fn tiny() -> (Modules, Modules) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/tiny-sd");
    let config = |part: &str| ConfigFile::read(root.join(part).join("config.json")).unwrap();
    let unet = UNet2DConditionModel::configure(&config("unet")).unwrap();
    let text = ClipTextModel::configure(&config("text_encoder")).unwrap();
    (UNet2DConditionModel::modules(&unet).unwrap(), ClipTextModel::modules(&text).unwrap())
}

const UNET: [&str; 4] = [".to_q", ".to_k", ".to_v", ".to_out.0"];
const TEXT: [&str; 4] = [".q_proj", ".k_proj", ".v_proj", ".out_proj"];

/// Numbers without a pattern, the same everywhere.
fn numbers(seed: &str, shape: (usize, usize), size: f32) -> Tensor {
    let mut state =
        seed.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * size
    };
    let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn one(part: Part, module: &str, shape: &[usize], rank: usize, alpha: f64) -> Trained {
    Trained {
        part,
        module: module.into(),
        down: numbers(&format!("{module} down"), (rank, shape[1]), 0.3),
        up: numbers(&format!("{module} up"), (shape[0], rank), 0.3),
        alpha,
    }
}

/// Factors for the attention of these networks.
fn trained(unet: &Modules, text: &Modules, rank: usize, alpha: f64) -> Vec<Trained> {
    let mut all = Vec::new();
    for (part, modules, ends) in [(Part::Unet, unet, UNET), (Part::TextEncoder, text, TEXT)] {
        let wanted = modules.names().filter(|name| ends.iter().any(|end| name.ends_with(end)));
        all.extend(wanted.map(|name| one(part, name, modules.shape(name).unwrap(), rank, alpha)));
    }
    all
}

fn facts() -> Facts {
    Facts {
        name: "/place/me/runs/studio".into(),
        trigger: "studio shoe".into(),
        comment: "made for a test".into(),
        base: BaseModel {
            name: "C:\\models\\tiny-sd.safetensors".into(),
            sha256: Some("ab".repeat(32)),
            legacy_hash: Some("cc6cb271".into()),
            ..BaseModel::default()
        },
        folders: vec![
            Folder { repeats: 3, ..Folder::of("/place/me/red", ["red shoe, Studio", "red shoe"]) },
            Folder::of("blue", ["blue shoe"]),
        ],
        resolution: (512, 384),
        optimizer: "AdamW(weight_decay=0.01)".into(),
        learning_rate: 1e-4,
        unet_lr: Some(1e-4),
        text_encoder_lr: Some(5e-5),
        lr_scheduler: "cosine".into(),
        max_grad_norm: Some(1.0),
        epoch: 2,
        epochs: 4,
        steps: 20,
        max_steps: 40,
        batches_per_epoch: 10,
        batch_size: 2,
        gradient_accumulation: 4,
        gradient_checkpointing: true,
        mixed_precision: "no".into(),
        seed: 42,
        min_snr_gamma: Some(5.0),
        started_at: 1_700_000_000,
        finished_at: 1_700_003_600,
        ..Facts::default()
    }
}

fn export(trained: &[Trained], format: Format) -> Export {
    Export::new(trained, &facts(), format).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
}

/// Factors and scale of a change that was read.
fn read(delta: &Delta) -> (&Tensor, &Tensor, f64) {
    match &delta.update {
        Update::Lora { down, up, mid: None, scale } => (down, up, *scale),
        other => panic!("{other:?}"),
    }
}

/// The change of each module that our reader finds for these networks in files.
fn found(files: &[PathBuf], unet: &Modules, text: &Modules) -> BTreeMap<(Part, String), Arc<Delta>> {
    let mut all = BTreeMap::new();
    for file in files {
        let adapter = Adapter::open(file).unwrap();
        assert!(adapter.ignored().is_empty() && adapter.embeddings().is_empty());
        let resolved = adapter.resolve(unet, text).unwrap();
        assert_eq!(resolved.unmatched, Vec::<String>::new());
        all.extend(resolved.unet.into_iter().map(|(name, delta)| ((Part::Unet, name), delta)));
        all.extend(resolved.text.into_iter().map(|(name, delta)| ((Part::TextEncoder, name), delta)));
    }
    all
}

#[test]
fn every_layout_is_read_again_bit_for_bit() {
    let (unet, text) = tiny();
    // alpha / rank is no power of two, and dividing and multiplying again does not give every alpha back.
    for (rank, alpha) in [(4, 16.0), (4, 3.0), (49, 1.0), (3, 0.7)] {
        let trained = trained(&unet, &text, rank, alpha);
        let (place, export) = (Place::new(), export(&trained, Format::F32));
        let kohya = export.kohya(&place.at("a.safetensors")).unwrap();
        let diffusers = export.diffusers(&place.at("diffusers")).unwrap();
        export.peft(&place.at("peft")).unwrap();
        let peft = [place.at("peft/unet"), place.at("peft/text_encoder")];
        for (layout, files) in [("kohya", &kohya[..]), ("diffusers", &diffusers), ("peft", &peft)] {
            let all = found(files, &unet, &text);
            assert_eq!(all.len(), trained.len(), "{layout}");
            for one in &trained {
                let (down, up, scale) = read(&all[&(one.part, one.module.clone())]);
                let want = alpha / rank as f64;
                // Diffusers' layout has the scale in the factor.
                let (want_up, want_scale) = if layout == "diffusers" {
                    ((&one.up * want).unwrap(), 1.0)
                } else {
                    (one.up.clone(), want)
                };
                assert_eq!(bits(down), bits(&one.down), "{layout} {}", one.module);
                assert_eq!(bits(up), bits(&want_up), "{layout} {}", one.module);
                let exact = layout != "kohya" || (alpha as f32) as f64 == alpha;
                assert!(
                    scale == want_scale || (!exact && (scale / want_scale - 1.0).abs() < 1e-7),
                    "{layout} {scale}"
                );
            }
        }
    }
}

#[test]
fn modules_may_differ_in_rank_and_alpha() {
    let (unet, text) = tiny();
    let mut trained = trained(&unet, &text, 4, 4.0);
    for (i, one) in trained.iter_mut().enumerate().filter(|(i, _)| i % 3 == 0) {
        let modules = if one.part == Part::Unet { &unet } else { &text };
        *one = super::tests::one(one.part, &one.module, modules.shape(&one.module).unwrap(), 2 + i % 2, 1.0);
    }
    let place = Place::new();
    export(&trained, Format::F32).peft(&place.at("peft")).unwrap();
    let all = found(&[place.at("peft/unet"), place.at("peft/text_encoder")], &unet, &text);
    for one in &trained {
        let delta = &all[&(one.part, one.module.clone())];
        assert_eq!(
            (delta.rank(), read(delta).2),
            (Some(one.down.dims()[0]), one.alpha / one.down.dims()[0] as f64)
        );
    }
    let config = fs::read_to_string(place.at("peft/text_encoder/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&4.into(), &4.0.into()));
    assert!(!config["rank_pattern"].as_object().unwrap().is_empty());
}

#[test]
fn one_network_alone_is_one_folder_of_peft() {
    let (unet, text) = tiny();
    let mut trained = trained(&unet, &text, 4, 8.0);
    trained.retain(|one| one.part == Part::Unet);
    let place = Place::new();
    let files = export(&trained, Format::F32).peft(&place.at("peft")).unwrap();
    assert_eq!(files, [place.at("peft/adapter_model.safetensors"), place.at("peft/adapter_config.json")]);
    assert_eq!(found(&[place.at("peft")], &unet, &text).len(), trained.len());
}

/// Names of kohya's for the attention of Stable Diffusion 1.5, written down from its plan.
fn kohya_names() -> BTreeSet<String> {
    let mut modules = Vec::new();
    for (blocks, layers) in [(0..3, 2), (1..4, 3)] {
        let side = if layers == 2 { "down" } else { "up" };
        let of = |block| {
            (0..layers).map(move |layer| format!("lora_unet_{side}_blocks_{block}_attentions_{layer}"))
        };
        modules.extend(blocks.flat_map(of));
    }
    modules.push("lora_unet_mid_block_attentions_0".into());
    let mut names: Vec<String> = Vec::new();
    for module in modules {
        for layer in ["attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0"] {
            names.push(format!("{module}_transformer_blocks_0_{layer}"));
            names.push(format!("{module}_transformer_blocks_0_{}", layer.replace("attn1", "attn2")));
        }
    }
    for layer in 0..12 {
        let of = |end| format!("lora_te_text_model_encoder_layers_{layer}_self_attn_{end}");
        names.extend(["q_proj", "k_proj", "v_proj", "out_proj"].map(of));
    }
    let ends = [".lora_down.weight", ".lora_up.weight", ".alpha"];
    names.iter().flat_map(|name| ends.map(|end| format!("{name}{end}"))).collect()
}

#[test]
fn names_for_stable_diffusion_are_kohyas() {
    let unet = UNet2DConditionModel::modules(&UNetConfig::sd15()).unwrap();
    let text = ClipTextModel::modules(&ClipTextConfig::sd15()).unwrap();
    let trained = trained(&unet, &text, 1, 1.0);
    assert_eq!(trained.len(), 128 + 48);
    let place = Place::new();
    let files = export(&trained, Format::F16).kohya(&place.at("a.safetensors")).unwrap();
    let weights = Weights::open(&files[0]).unwrap();
    let names: BTreeSet<String> = weights.names().map(String::from).collect();
    assert_eq!(names, kohya_names());
    let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";
    let shape = |end: &str| weights.info(&format!("{module}.{end}")).unwrap().shape.clone();
    assert_eq!(shape("lora_down.weight"), [1, 768]);
    assert_eq!(shape("lora_up.weight"), [320, 1]);
    assert_eq!(shape("alpha"), [0usize; 0]);
}

#[test]
fn formats_are_those_asked_for_and_alpha_stays_exact() {
    let (unet, text) = tiny();
    let trained = trained(&unet, &text, 4, 16.0);
    let place = Place::new();
    for (format, stored) in
        [(Format::F16, StoredDtype::F16), (Format::Bf16, StoredDtype::BF16), (Format::F32, StoredDtype::F32)]
    {
        let files = export(&trained, format).kohya(&place.at("a.safetensors")).unwrap();
        let weights = Weights::open(&files[0]).unwrap();
        for name in weights.names() {
            let want = if name.ends_with(".alpha") { StoredDtype::F32 } else { stored };
            assert_eq!(weights.info(name).unwrap().dtype, want, "{name}");
        }
    }
    assert_eq!(Format::default(), Format::F16);
}

#[test]
fn the_training_is_told_of_and_the_machine_is_not() {
    let (unet, text) = tiny();
    let trained = trained(&unet, &text, 4, 16.0);
    let (place, export) = (Place::new(), export(&trained, Format::F16));
    let mut files = export.kohya(&place.at("a.safetensors")).unwrap();
    files.extend(export.diffusers(&place.at("diffusers")).unwrap());
    files.extend(export.peft(&place.at("peft")).unwrap());
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "safetensors")) {
        let weights = Weights::open(file).unwrap();
        let told = weights.metadata();
        for (key, value) in EXPECTED {
            assert_eq!(told.get(*key).map(String::as_str), Some(*value), "{key}");
        }
        for (key, value) in told {
            assert!(!value.contains("/home") && !value.contains('\\'), "{key}: {value}");
        }
    }
    let told = Weights::open(&files[0]).unwrap().metadata().clone();
    let dirs: serde_json::Value = serde_json::from_str(&told["ss_dataset_dirs"]).unwrap();
    assert_eq!(dirs["red"], serde_json::json!({"n_repeats": 3, "img_count": 2}));
    let tags: serde_json::Value = serde_json::from_str(&told["ss_tag_frequency"]).unwrap();
    assert_eq!(tags["red"], serde_json::json!({"red shoe": 2, "studio": 1}));
}

const EXPECTED: &[(&str, &str)] = &[
    ("ss_output_name", "studio"),
    ("ss_network_module", "networks.lora"),
    ("ss_network_dim", "4"),
    ("ss_network_alpha", "16"),
    ("ss_network_dropout", "None"),
    ("ss_sd_model_name", "tiny-sd.safetensors"),
    ("ss_sd_model_hash", "cc6cb271"),
    ("ss_base_model_version", "sd_v1"),
    ("ss_v2", "False"),
    ("ss_training_comment", "made for a test"),
    ("ss_optimizer", "AdamW(weight_decay=0.01)"),
    ("ss_learning_rate", "0.0001"),
    ("ss_unet_lr", "0.0001"),
    ("ss_text_encoder_lr", "0.00005"),
    ("ss_lr_scheduler", "cosine"),
    ("ss_lr_warmup_steps", "0"),
    ("ss_max_grad_norm", "1"),
    ("ss_noise_offset", "None"),
    ("ss_min_snr_gamma", "5"),
    ("ss_epoch", "2"),
    ("ss_num_epochs", "4"),
    ("ss_steps", "20"),
    ("ss_max_train_steps", "40"),
    ("ss_num_batches_per_epoch", "10"),
    ("ss_batch_size_per_device", "2"),
    ("ss_total_batch_size", "8"),
    ("ss_gradient_accumulation_steps", "4"),
    ("ss_gradient_checkpointing", "True"),
    ("ss_mixed_precision", "no"),
    ("ss_seed", "42"),
    ("ss_training_started_at", "1700000000"),
    ("ss_training_finished_at", "1700003600"),
    ("ss_num_train_images", "7"),
    ("ss_num_reg_images", "0"),
    ("ss_resolution", "(512, 384)"),
    ("ss_flip_aug", "False"),
    ("ss_caption_dropout_rate", "0"),
    ("ss_clip_skip", "None"),
    ("ss_max_token_length", "None"),
    ("modelspec.sai_model_spec", "1.0.0"),
    ("modelspec.architecture", "stable-diffusion-v1/lora"),
    ("modelspec.implementation", "diffusers"),
    ("modelspec.title", "studio"),
    ("modelspec.date", "2023-11-14T23:13:20Z"),
    ("modelspec.resolution", "512x384"),
    ("modelspec.prediction_type", "epsilon"),
    ("modelspec.trigger_phrase", "studio shoe"),
];

#[test]
fn digests_are_those_of_the_file() {
    let (unet, text) = tiny();
    let place = Place::new();
    let files =
        export(&trained(&unet, &text, 4, 16.0), Format::F16).kohya(&place.at("a.safetensors")).unwrap();
    let content = fs::read(&files[0]).unwrap();
    let header = u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
    let digest: String = Sha256::digest(&content[8 + header..]).iter().map(|b| format!("{b:02x}")).collect();
    let told = Weights::open(&files[0]).unwrap().metadata().clone();
    assert_eq!(told["sshs_model_hash"], digest);
    assert_eq!(told["modelspec.hash_sha256"], format!("0x{digest}"));
    // The file ends before the sample begins.
    assert_eq!(told["sshs_legacy_hash"], "e3b0c442");
    assert_eq!(legacy_hash(&files[0]).unwrap(), "e3b0c442");
}

#[test]
fn the_same_adapter_is_the_same_file() {
    let (unet, text) = tiny();
    let mut factors = trained(&unet, &text, 4, 16.0);
    let place = Place::new();
    let write = |factors: &[Trained], name: &str| {
        let export = export(factors, Format::F16);
        let mut files = export.kohya(&place.at(&format!("{name}.safetensors"))).unwrap();
        files.extend(export.diffusers(&place.at(&format!("{name}-diffusers"))).unwrap());
        files.extend(export.peft(&place.at(&format!("{name}-peft"))).unwrap());
        files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let first = write(&factors, "a");
    factors.reverse();
    factors
        .iter_mut()
        .filter(|one| one.part == Part::TextEncoder)
        .for_each(|one| one.module.insert_str(0, "text_model."));
    assert!(first == write(&factors, "b"));
    assert!(first == write(&factors, "a"), "what is there is replaced");
}

#[test]
fn what_is_no_adapter_is_refused_before_anything_is_written() {
    let bad = |down: Tensor, up: Tensor, alpha: f64| {
        let one = Trained { part: Part::Unet, module: "a.to_q".into(), down, up, alpha };
        Export::new(&[one], &facts(), Format::F16).unwrap_err()
    };
    let good = |shape| numbers("x", shape, 1.0);
    for value in [f32::NAN, f32::INFINITY] {
        let numbers = Tensor::full(value, (4, 8), &Device::Cpu).unwrap();
        let e = bad(numbers, good((8, 4)), 4.0);
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.message().contains("a.to_q has infinities or NaN"), "{e}");
    }
    assert_eq!(bad(good((4, 8)), good((8, 4)), f64::NAN).kind(), ErrorKind::Corrupt);
    assert!(bad(good((4, 8)), good((8, 3)), 4.0).message().contains("[8, 3]"));
    assert!(bad(good((0, 8)), good((8, 0)), 4.0).message().contains("[0, 8]"));
    assert!(Export::new(&[], &facts(), Format::F16).is_err());
    let one = one(Part::Unet, "a.to_q", &[8, 8], 4, 4.0);
    assert!(Export::new(&[one.clone(), one], &facts(), Format::F16).unwrap_err().message().contains("twice"));
}

#[test]
fn numbers_beyond_the_format_are_refused() {
    let place = Place::new();
    let mut one = one(Part::Unet, "a.to_q", &[8, 8], 4, 8.0);
    one.up = Tensor::full(40_000f32, (8, 4), &Device::Cpu).unwrap();
    let export = |format| Export::new(std::slice::from_ref(&one), &facts(), format).unwrap();
    export(Format::F16).kohya(&place.at("a.safetensors")).unwrap();
    // Twice as large with alpha in it.
    let e = export(Format::F16).diffusers(&place.at("d")).unwrap_err();
    assert!(e.message().contains("lora_B") && e.hints()[0].contains("bf16"), "{e}");
    assert_eq!(place.names(), ["a.safetensors"]);
    export(Format::Bf16).diffusers(&place.at("d")).unwrap();
}

#[test]
fn where_nothing_can_be_written_nothing_is_left() {
    let (unet, text) = tiny();
    let (place, export) = (Place::new(), export(&trained(&unet, &text, 4, 16.0), Format::F16));
    fs::write(place.at("file"), "x").unwrap();
    for nowhere in ["absent/a", "file/a"] {
        for e in [
            export.kohya(&place.at(nowhere)).unwrap_err(),
            export.diffusers(&place.at(nowhere)).unwrap_err(),
            export.peft(&place.at(nowhere)).unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::Environment, "{e}");
        }
    }
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn a_folder_that_cannot_be_written_whole_stays_as_it_was() {
    let (unet, text) = tiny();
    let (place, export) = (Place::new(), export(&trained(&unet, &text, 4, 16.0), Format::F16));
    // The last of the files cannot have its name.
    fs::create_dir_all(place.at("peft/unet/adapter_config.json")).unwrap();
    export.peft(&place.at("peft")).unwrap_err();
    let left = |name: &str| fs::read_dir(place.at(name)).unwrap().count();
    assert_eq!((left("peft"), left("peft/unet")), (1, 1));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_only_read_stays_as_it_was() {
    use std::os::unix::fs::PermissionsExt;
    let (unet, text) = tiny();
    let (place, export) = (Place::new(), export(&trained(&unet, &text, 4, 16.0), Format::F16));
    fs::create_dir(place.at("d")).unwrap();
    fs::set_permissions(place.at("d"), fs::Permissions::from_mode(0o555)).unwrap();
    // Root writes anywhere.
    if fs::write(place.at("d/probe"), "").is_err() {
        assert_eq!(export.diffusers(&place.at("d")).unwrap_err().kind(), ErrorKind::Environment);
        assert_eq!(export.peft(&place.at("d")).unwrap_err().kind(), ErrorKind::Environment);
        assert_eq!(fs::read_dir(place.at("d")).unwrap().count(), 0);
    }
    fs::set_permissions(place.at("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// For `tools/check-lora-export`: an adapter of the golden model, in f32, and one of Stable Diffusion 1.5's size.
#[test]
#[ignore = "writes into the folder that ATELIER_LORA_SAMPLE names"]
fn samples_for_other_programs() {
    let Some(out) = std::env::var_os("ATELIER_LORA_SAMPLE").map(PathBuf::from) else { return };
    fs::create_dir_all(&out).unwrap();
    let (unet, text) = tiny();
    let small = export(&trained(&unet, &text, 4, 6.0), Format::F32);
    small.kohya(&out.join("kohya.safetensors")).unwrap();
    small.diffusers(&out.join("diffusers")).unwrap();
    small.peft(&out.join("peft")).unwrap();
    let unet = UNet2DConditionModel::modules(&UNetConfig::sd15()).unwrap();
    let text = ClipTextModel::modules(&ClipTextConfig::sd15()).unwrap();
    let large = export(&trained(&unet, &text, 8, 4.0), Format::F16);
    large.kohya(&out.join("sd15.safetensors")).unwrap();
    large.diffusers(&out.join("sd15-diffusers")).unwrap();
}
