//! Models in one file against the same models in folders, and against the references of a golden folder.
//!
//! `ATELIER_GOLDEN_DIR` and `ATELIER_ASSETS_DIR` name folders with files that are too big for the repository; without
//! them the tests that need them say so and pass. `--nocapture` shows the errors measured.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, ClipTokenizer, Network, Padding, UNet2DConditionModel,
    UNetConfig, VaeConfig,
};
use atelier_weights::{Checkpoint, CheckpointPart, ComponentFolder, Error, Kind, Provider, Source, Weights};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const CPU: &Device = &Device::Cpu;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// A folder that only some machines have.
fn folder(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        println!("not checked: {variable} is not set");
    }
    found
}

type Shapes = BTreeMap<String, Vec<usize>>;

/// Lines of a name and a shape such as `32x4x3x3`.
fn listed(file: &Path) -> Shapes {
    let text = std::fs::read_to_string(file).unwrap();
    let shape = |s: &str| s.split('x').map(|d| d.parse().unwrap()).collect();
    text.lines().map(|l| l.split_once(' ').unwrap()).map(|(n, s)| (n.into(), shape(s))).collect()
}

/// A file with tensors of zeros, two bytes an element.
fn zeros(shapes: &Shapes, dir: &Path) -> PathBuf {
    let (mut entries, mut at) = (Vec::new(), 0);
    for (name, shape) in shapes {
        let end = at + 2 * shape.iter().product::<usize>();
        entries.push(format!(
            "{name:?}:{{\"dtype\":\"F16\",\"shape\":{shape:?},\"data_offsets\":[{at},{end}]}}"
        ));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let path = dir.join("zeros.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    std::fs::write(&path, &bytes).unwrap();
    // A hole, which takes no room on the disk.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len((bytes.len() + at) as u64).unwrap();
    path
}

fn checkpoint(shapes: &Shapes) -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::open(zeros(shapes, dir.path())).unwrap()
}

fn shapes_of(pairs: &[(&str, &[usize])]) -> Shapes {
    pairs.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
}

/// Without trailing ones, in which layouts differ.
fn bare(shape: &[usize]) -> Vec<usize> {
    let end = shape.iter().rposition(|d| *d != 1).map_or(0, |i| i + 1);
    shape[..end].to_vec()
}

fn part_shapes(part: &CheckpointPart) -> Shapes {
    part.tensors().map(|(name, shape)| (name.to_string(), bare(&shape))).collect()
}

/// Writes down what a network asks for.
#[derive(Default)]
struct Asked(Mutex<Shapes>);

impl Provider for Asked {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        _: &Device,
    ) -> atelier_weights::Result<Tensor> {
        self.0.lock().unwrap().insert(name.into(), bare(shape));
        // One element seen as many.
        Ok(Tensor::zeros(1, dtype, CPU).unwrap().broadcast_as(shape).unwrap())
    }

    fn contains(&self, name: &str) -> bool {
        name == "final_layer_norm.weight"
    }
}

fn asked(build: impl FnOnce(&Source)) -> Shapes {
    let asked = Arc::new(Asked::default());
    build(&Source::new(asked.clone(), DType::F16, CPU));
    asked.0.lock().unwrap().clone()
}

fn tiny() -> Checkpoint {
    checkpoint(&listed(&fixtures().join("weights/tiny-sd-ldm.keys.txt")))
}

#[test]
fn the_names_of_one_file_are_those_of_the_folder_and_so_are_the_configurations() {
    let checkpoint = tiny();
    assert_eq!(checkpoint.kind(), Kind::StableDiffusion);
    let root = fixtures().join("golden/tiny-sd");
    let weights = |name: &str| {
        let weights = ComponentFolder::open(root.join(name)).unwrap().weights().unwrap();
        let shape = |n: &str| bare(&weights.info(n).unwrap().shape);
        let names = weights.names().filter(|n| !n.ends_with("position_ids"));
        names.map(|n| (n.trim_start_matches("text_model.").to_string(), shape(n))).collect::<Shapes>()
    };
    let config = |name: &str| ComponentFolder::open(root.join(name)).unwrap().config().unwrap();
    let (unet, vae, text) =
        (checkpoint.unet().unwrap(), checkpoint.vae().unwrap(), checkpoint.text_encoder().unwrap());
    assert_eq!(part_shapes(&unet), weights("unet"));
    assert_eq!(part_shapes(&vae), weights("vae"));
    assert_eq!(part_shapes(&text), weights("text_encoder"));
    let mut wanted = UNetConfig::read(&config("unet")).unwrap();
    wanted.sample_size = None;
    assert_eq!(UNetConfig::read(unet.config()).unwrap(), wanted);
    assert_eq!(VaeConfig::read(vae.config()).unwrap(), VaeConfig::read(&config("vae")).unwrap());
    assert_eq!(
        ClipTextConfig::read(text.config()).unwrap(),
        ClipTextConfig::read(&config("text_encoder")).unwrap()
    );
}

/// The layers of a UNet of Stable Diffusion under the names of `ldm`, from the published configuration: two residual
/// blocks on each of four levels, attention on the first three.
fn ldm_unet(inputs: usize, context: usize, linear: bool) -> Shapes {
    let mut all = Shapes::new();
    let mut put = |name: String, shape: &[usize]| {
        all.insert(format!("model.diffusion_model.{name}.bias"), vec![shape[0]]);
        all.insert(format!("model.diffusion_model.{name}.weight"), shape.to_vec());
    };
    let levels = [320usize, 640, 1280, 1280];
    put("time_embed.0".into(), &[1280, 320]);
    put("time_embed.2".into(), &[1280, 1280]);
    put("input_blocks.0.0".into(), &[320, inputs, 3, 3]);
    put("out.0".into(), &[320]);
    put("out.2".into(), &[4, 320, 3, 3]);
    let mut resnets = Vec::new();
    let mut attentions = Vec::new();
    let (mut at, mut channels, mut skips) = (1, 320, vec![320]);
    for (level, width) in levels.into_iter().enumerate() {
        for _ in 0..2 {
            resnets.push((format!("input_blocks.{at}.0"), channels, width));
            if level < 3 {
                attentions.push((format!("input_blocks.{at}.1"), width));
            }
            (at, channels) = (at + 1, width);
            skips.push(width);
        }
        if level < 3 {
            put(format!("input_blocks.{at}.0.op"), &[width, width, 3, 3]);
            at += 1;
            skips.push(width);
        }
    }
    resnets.push(("middle_block.0".into(), 1280, 1280));
    attentions.push(("middle_block.1".into(), 1280));
    resnets.push(("middle_block.2".into(), 1280, 1280));
    for (level, width) in levels.into_iter().enumerate().rev() {
        for layer in 0..3 {
            let at = 3 * (3 - level) + layer;
            resnets.push((format!("output_blocks.{at}.0"), channels + skips.pop().unwrap(), width));
            if level < 3 {
                attentions.push((format!("output_blocks.{at}.1"), width));
            }
            if layer == 2 && level > 0 {
                let place = if level < 3 { 2 } else { 1 };
                put(format!("output_blocks.{at}.{place}.conv"), &[width, width, 3, 3]);
            }
            channels = width;
        }
    }
    for (place, inputs, outputs) in resnets {
        put(format!("{place}.in_layers.0"), &[inputs]);
        put(format!("{place}.in_layers.2"), &[outputs, inputs, 3, 3]);
        put(format!("{place}.emb_layers.1"), &[outputs, 1280]);
        put(format!("{place}.out_layers.0"), &[outputs]);
        put(format!("{place}.out_layers.3"), &[outputs, outputs, 3, 3]);
        if inputs != outputs {
            put(format!("{place}.skip_connection"), &[outputs, inputs, 1, 1]);
        }
    }
    let mut bare = Vec::new();
    for (place, width) in attentions {
        let projection: &[usize] = if linear { &[width, width] } else { &[width, width, 1, 1] };
        put(format!("{place}.norm"), &[width]);
        put(format!("{place}.proj_in"), projection);
        put(format!("{place}.proj_out"), projection);
        let block = format!("{place}.transformer_blocks.0");
        (1..=3).for_each(|i| put(format!("{block}.norm{i}"), &[width]));
        put(format!("{block}.ff.net.0.proj"), &[8 * width, width]);
        put(format!("{block}.ff.net.2"), &[width, 4 * width]);
        for (attention, context) in [("attn1", width), ("attn2", context)] {
            put(format!("{block}.{attention}.to_out.0"), &[width, width]);
            for (name, inputs) in [("to_q", width), ("to_k", context), ("to_v", context)] {
                bare.push((
                    format!("model.diffusion_model.{block}.{attention}.{name}.weight"),
                    vec![width, inputs],
                ));
            }
        }
    }
    all.extend(bare);
    all
}

#[test]
fn the_unets_of_every_stable_diffusion_are_known_by_their_shapes() {
    let sd1 = UNetConfig { sample_size: None, ..UNetConfig::sd15() };
    let sd2 = UNetConfig { sample_size: None, ..UNetConfig::sd21() };
    let inpaint = UNetConfig { in_channels: 9, ..sd1.clone() };
    for (shapes, wanted) in
        [(ldm_unet(4, 768, false), sd1), (ldm_unet(4, 1024, true), sd2), (ldm_unet(9, 768, false), inpaint)]
    {
        let checkpoint = checkpoint(&shapes);
        assert_eq!(checkpoint.kind(), Kind::UNet);
        let part = checkpoint.unet().unwrap();
        assert_eq!(UNetConfig::read(part.config()).unwrap(), wanted);
        let needed = asked(|source| drop(UNet2DConditionModel::new(source, &wanted).unwrap()));
        assert_eq!(part_shapes(&part), needed);
    }
}

#[test]
fn a_quantized_unet_file_may_leave_out_the_prefix() {
    let shapes: Shapes = ldm_unet(4, 768, false)
        .into_iter()
        .map(|(name, shape)| (name.trim_start_matches("model.diffusion_model.").to_string(), shape))
        .collect();
    let part = checkpoint(&shapes).unet().unwrap();
    let needed = asked(|source| drop(UNet2DConditionModel::new(source, &UNetConfig::sd15()).unwrap()));
    assert_eq!(part_shapes(&part), needed);
}

/// OpenCLIP's text encoder under its own names.
fn openclip(width: usize, layers: usize) -> Shapes {
    let mut all = Shapes::new();
    let mut put = |name: &str, shape: &[usize]| {
        all.insert(format!("cond_stage_model.model.{name}"), shape.to_vec());
    };
    put("positional_embedding", &[77, width]);
    put("token_embedding.weight", &[49408, width]);
    put("text_projection", &[width, width]);
    put("logit_scale", &[]);
    put("ln_final.weight", &[width]);
    put("ln_final.bias", &[width]);
    for i in 0..layers {
        let at = format!("transformer.resblocks.{i}");
        put(&format!("{at}.attn.in_proj_weight"), &[3 * width, width]);
        put(&format!("{at}.attn.in_proj_bias"), &[3 * width]);
        for (name, outputs, inputs) in [
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ] {
            put(&format!("{at}.{name}.weight"), &[outputs, inputs]);
            put(&format!("{at}.{name}.bias"), &[outputs]);
        }
        for name in ["ln_1", "ln_2"] {
            put(&format!("{at}.{name}.weight"), &[width]);
            put(&format!("{at}.{name}.bias"), &[width]);
        }
    }
    all
}

#[test]
fn the_text_encoder_of_stable_diffusion_2_lacks_its_last_layer() {
    let part = checkpoint(&openclip(1024, 24)).text_encoder().unwrap();
    let config = ClipTextConfig::read(part.config()).unwrap();
    assert_eq!(config, ClipTextConfig::sd21());
    let needed = asked(|source| drop(ClipTextModel::new(source, &config).unwrap()));
    assert_eq!(part_shapes(&part), needed);
}

#[test]
fn fused_queries_keys_and_values_are_cut_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: HashMap<String, Tensor> = openclip(64, 2)
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let ramp = (0..count).map(|i| i as f32).collect::<Vec<_>>();
            (name, Tensor::from_vec(ramp, shape, CPU).unwrap())
        })
        .collect();
    let path = dir.path().join("x.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let opened =
        ClipTextModel::from_part(Checkpoint::open(&path).unwrap().text_encoder().unwrap(), DType::F32, CPU)
            .unwrap();
    assert_eq!(opened.unused, [] as [&str; 0]);
    let part = Checkpoint::open(&path).unwrap().text_encoder().unwrap();
    for (i, name) in ["q_proj", "k_proj", "v_proj"].iter().enumerate() {
        let place = format!("encoder.layers.0.self_attn.{name}");
        let weight = part.tensor(&format!("{place}.weight"), &[64, 64], DType::F32, CPU).unwrap();
        let first = weight.get(0).unwrap().get(0).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(first, (i * 64 * 64) as f32);
        let bias = part.tensor(&format!("{place}.bias"), &[64], DType::F32, CPU).unwrap();
        assert_eq!(bias.get(63).unwrap().to_scalar::<f32>().unwrap(), (i * 64 + 63) as f32);
    }
}

#[test]
fn files_of_other_models_are_named_as_what_they_are() {
    let unet = "model.diffusion_model.input_blocks.0.0.weight";
    for (names, words) in [
        (
            &[(unet, &[320, 4, 3, 3][..]), ("conditioner.embedders.0.transformer.x", &[1])][..],
            "an SDXL checkpoint",
        ),
        (
            &[
                ("add_embedding.linear_1.weight", &[1, 1]),
                ("down_blocks.0.resnets.0.time_emb_proj.weight", &[1]),
            ],
            "an SDXL checkpoint",
        ),
        (&[("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[1])], "an SD3 checkpoint"),
        (&[("double_blocks.0.img_attn.qkv.weight", &[1])], "a Flux checkpoint"),
        (&[(unet, &[320, 4, 3, 3]), ("model.diffusion_model.label_emb.0.0.weight", &[1])], "unCLIP"),
        (&[("control_model.input_blocks.0.0.weight", &[1])], "a ControlNet"),
        (&[("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", &[1])], "a LoRA"),
        (&[("unet.down_blocks.0.attentions.0.to_q.lora.down.weight", &[1])], "a LoRA"),
        (&[("emb_params", &[8, 768])], "a textual inversion"),
        (&[("<shoe>", &[768])], "a textual inversion"),
        (&[("body.0.rdb1.conv1.weight", &[1])], "an upscaler"),
        (&[("something", &[1])], "not known"),
    ] {
        let error = checkpoint(&shapes_of(names)).unet().unwrap_err();
        assert!(matches!(error, Error::OtherModel { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error} lacks {words}");
    }
}

#[test]
fn a_missing_network_is_named_with_the_prefix_its_names_would_have() {
    let all = listed(&fixtures().join("weights/tiny-sd-ldm.keys.txt"));
    for (prefix, rest) in [
        ("model.diffusion_model.", "a Stable Diffusion checkpoint"),
        ("first_stage_model.", "a Stable Diffusion checkpoint"),
        ("cond_stage_model.", "a Stable Diffusion checkpoint"),
    ] {
        let fewer = all.iter().filter(|(name, _)| !name.starts_with(prefix));
        let checkpoint = checkpoint(&fewer.map(|(n, s)| (n.clone(), s.clone())).collect());
        let results = [checkpoint.unet().err(), checkpoint.vae().err(), checkpoint.text_encoder().err()];
        let errors: Vec<_> = results.into_iter().flatten().collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let message = errors[0].to_string();
        assert!(message.contains(prefix) && message.contains(rest), "{message}");
        assert!(matches!(errors[0], Error::MissingPart { .. }));
    }
    let alone = all.iter().filter(|(name, _)| name.starts_with("first_stage_model."));
    let checkpoint = checkpoint(&alone.map(|(n, s)| (n.clone(), s.clone())).collect());
    assert_eq!(checkpoint.kind(), Kind::Vae);
    assert!(checkpoint.unet().unwrap_err().to_string().contains("an autoencoder (VAE) alone"));
}

#[test]
fn sizes_that_no_network_has_are_refused_before_anything_is_allocated() {
    let mut shapes = listed(&fixtures().join("weights/tiny-sd-ldm.keys.txt"));
    shapes.insert("model.diffusion_model.input_blocks.0.0.weight".into(), vec![32, 2000, 3, 3]);
    let part = checkpoint(&shapes).unet().unwrap();
    let message = UNet2DConditionModel::from_part(part, DType::F32, CPU).unwrap_err().to_string();
    assert!(message.contains("in_channels") && message.contains("zeros.safetensors"), "{message}");
}

#[test]
fn an_autoencoder_alone_opens_under_all_three_kinds_of_names() {
    let ldm: Shapes = listed(&fixtures().join("weights/tiny-sd-ldm.keys.txt"))
        .into_iter()
        .filter_map(|(name, shape)| Some((name.strip_prefix("first_stage_model.")?.to_string(), shape)))
        .collect();
    let part = checkpoint(&ldm).vae().unwrap();
    let new = part_shapes(&part);
    let old: Shapes = new
        .iter()
        .map(|(name, shape)| {
            let name = name.replace(".to_out.0.", ".proj_attn.").replace(".to_q.", ".query.");
            (name.replace(".to_k.", ".key.").replace(".to_v.", ".value."), shape.clone())
        })
        .collect();
    assert_ne!(old, new);
    for shapes in [ldm, new, old] {
        let opened = AutoencoderKl::from_part(checkpoint(&shapes).vae().unwrap(), DType::F32, CPU);
        let opened = opened.unwrap();
        assert_eq!(opened.unused, [] as [&str; 0]);
        assert_eq!(opened.model.config().block_out_channels, [32; 4]);
    }
}

#[test]
fn the_built_in_tokenizer_gives_the_reference_ids() {
    let text = std::fs::read_to_string(fixtures().join("golden/tokens.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokenizer = ClipTokenizer::clip(Padding::End).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49408);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (49406, 49407));
    let cases = cases["full"].as_array().unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let want: Vec<u32> = serde_json::from_value(case["ids77"].clone()).unwrap();
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap()).unwrap().ids, want, "{}", case["text"]);
    }
    let zero = ClipTokenizer::clip(Padding::Zero).unwrap().encode("a").unwrap().ids;
    assert_eq!(zero[..4], [49406, 320, 49407, 0]);
}

fn largest_difference(got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.dims(), want.dims());
    let difference = (got.to_dtype(DType::F32).unwrap() - want).unwrap().abs().unwrap();
    difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn one_file_gives_the_tensors_and_results_of_the_reference() {
    let Some(golden) = folder("ATELIER_GOLDEN_DIR") else { return };
    let want = candle_core::safetensors::load(golden.join("ldm_f16.safetensors"), CPU).unwrap();
    let checkpoint = Checkpoint::open(golden.join("tiny-sd-ldm-f16.safetensors")).unwrap();
    let parts = [
        (checkpoint.unet().unwrap(), "unet"),
        (checkpoint.vae().unwrap(), "vae"),
        (checkpoint.text_encoder().unwrap(), "text_encoder"),
    ];
    for (part, name) in parts {
        let weights = Weights::open(golden.join("tiny-sd").join(name)).unwrap();
        let mut count = 0;
        for (name, shape) in part.tensors() {
            let prefixed = format!("text_model.{name}");
            let there = if weights.contains(name) { name } else { prefixed.as_str() };
            let folder = weights.get(there, &shape, DType::F16, CPU).unwrap().to_dtype(DType::F32).unwrap();
            let file = part.tensor(name, &shape, DType::F16, CPU).unwrap();
            assert_eq!(largest_difference(&file, &folder), 0.0, "{name}");
            count += 1;
        }
        println!("{name}: {count} tensors equal");
    }
    let unet = UNet2DConditionModel::from_part(checkpoint.unet().unwrap(), DType::F32, CPU).unwrap();
    let vae = AutoencoderKl::from_part(checkpoint.vae().unwrap(), DType::F32, CPU).unwrap();
    let text = ClipTextModel::from_part(checkpoint.text_encoder().unwrap(), DType::F32, CPU).unwrap();
    assert_eq!([unet.unused, vae.unused, text.unused].concat(), [] as [&str; 0]);
    let out = unet.model.forward(&want["sample"], &want["timestep"], &want["context"]).unwrap();
    let ids: Vec<u32> =
        want["input_ids"].flatten_all().unwrap().to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let hidden = text.model.forward(&[ids]).unwrap().last_hidden_state;
    let image = vae.model.decode(&want["latent"]).unwrap();
    for (what, got, want) in [
        ("UNet", &out, &want["unet.out"]),
        ("text encoder", &hidden, &want["text.last_hidden_state"]),
        ("decoder", &image, &want["decoded"]),
    ] {
        let error = largest_difference(got, want);
        println!("{what}: max |d| {error:e}");
        assert!(error < 1e-4, "{what}: {error}");
    }
}

/// A list of names with shapes, as the assets have it.
fn asset_list(file: &Path) -> Shapes {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    // One entry is the file's remarks.
    let shape = |v: &serde_json::Value| serde_json::from_value(v["shape"].clone()).ok();
    value.as_object().unwrap().iter().filter_map(|(name, v)| Some((name.clone(), shape(v)?))).collect()
}

#[test]
fn lists_of_released_files_are_recognised() {
    let Some(assets) = folder("ATELIER_ASSETS_DIR") else { return };
    for (file, kind) in [
        ("sdxl_unet", Kind::Sdxl),
        ("sdxl_vae", Kind::Vae),
        ("sdxl_text_encoder", Kind::TextEncoder),
        ("sd15_controlnet_canny", Kind::ControlNet),
        ("kohya_sd15_lora_shinkai_makoto_offset", Kind::Lora),
        ("kohya_sdxl_lora_alien_style", Kind::Lora),
        ("peft_adapter_model", Kind::Lora),
    ] {
        let shapes = asset_list(&assets.join(format!("keymaps/{file}.keys.json")));
        assert_eq!(checkpoint(&shapes).kind(), kind, "{file}");
    }
    // The autoencoder and the first text encoder of SDXL have the shapes of Stable Diffusion 1.5.
    let vae = checkpoint(&asset_list(&assets.join("keymaps/sdxl_vae.keys.json"))).vae().unwrap();
    let needed = asked(|source| drop(AutoencoderKl::new(source, &VaeConfig::sd15()).unwrap()));
    assert_eq!(part_shapes(&vae), needed);
    assert_eq!(VaeConfig::read(vae.config()).unwrap(), VaeConfig::sd15());
    let text =
        checkpoint(&asset_list(&assets.join("keymaps/sdxl_text_encoder.keys.json"))).text_encoder().unwrap();
    assert_eq!(ClipTextConfig::read(text.config()).unwrap(), ClipTextConfig::sd15());
    let needed = asked(|source| drop(ClipTextModel::new(source, &ClipTextConfig::sd15()).unwrap()));
    assert_eq!(part_shapes(&text), needed);
}

#[test]
fn configurations_of_released_models_agree_with_the_shapes() {
    let Some(assets) = folder("ATELIER_ASSETS_DIR") else { return };
    let config = |name: &str| {
        ComponentFolder::open(assets.join("sd_configs/sd15").join(name)).unwrap().config().unwrap()
    };
    let mut unet = UNetConfig::read(&config("unet")).unwrap();
    unet.sample_size = None;
    let found = checkpoint(&ldm_unet(4, 768, false)).unet().unwrap();
    assert_eq!(UNetConfig::read(found.config()).unwrap(), unet);
}

#[test]
fn a_gguf_file_of_another_program_gives_the_numbers_of_its_original() {
    let Some(assets) = folder("ATELIER_ASSETS_DIR") else { return };
    let gguf = Weights::open(assets.join("taesd/taesd-decoder.gguf")).unwrap();
    let original = Weights::open(assets.join("taesd/taesd_decoder.fp16.safetensors")).unwrap();
    let mut count = 0;
    for name in original.names() {
        let shape = original.info(name).unwrap().shape.clone();
        let other = format!("first_stage_model.decoder.{name}");
        // Its biases are in f32; the other file's were rounded.
        let got = gguf.get(&other, &shape, DType::F16, CPU).unwrap();
        let want = original.get(name, &shape, DType::F16, CPU).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(largest_difference(&got, &want), 0.0, "{name}");
        count += 1;
    }
    println!("{count} tensors equal");
}
