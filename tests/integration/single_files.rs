//! Models in one file draw what the same models in folders draw, and files of other kinds are refused by name.

use crate::support::{Place, copy, pixels, root};
use atelier_weights::{Checkpoint, CheckpointPart, ComponentFolder, Weights};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SIZE: [&str; 6] = ["-p", "tiny/quick", "-s", "width=64", "-s", "height=64"];

type Tensors = BTreeMap<String, Tensor>;

fn folder() -> PathBuf {
    root().join("tests/fixtures/golden/tiny-sd")
}

fn save(tensors: &Tensors, path: &Path) {
    let tensors: std::collections::HashMap<_, _> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// The tensors of the tiny model under the names that single files have. The names come from a list that another
/// program wrote; which is which, the reader says.
fn single() -> Tensors {
    let list = std::fs::read_to_string(root().join("tests/fixtures/weights/tiny-sd-ldm.keys.txt")).unwrap();
    let mut tensors = Tensors::new();
    for line in list.lines() {
        let (name, shape) = line.split_once(' ').unwrap();
        let shape: Vec<usize> = shape.split('x').map(|d| d.parse().unwrap()).collect();
        tensors.insert(name.into(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeros.safetensors");
    save(&tensors, &path);
    let zeros = Checkpoint::open(&path).unwrap();
    fill(&mut tensors, &zeros.unet().unwrap(), "unet");
    fill(&mut tensors, &zeros.vae().unwrap(), "vae");
    fill(&mut tensors, &zeros.text_encoder().unwrap(), "text_encoder");
    tensors
}

fn fill(tensors: &mut Tensors, part: &CheckpointPart, name: &str) {
    let weights: Weights = ComponentFolder::open(folder().join(name)).unwrap().weights().unwrap();
    for (name, shape) in part.tensors() {
        let prefixed = format!("text_model.{name}");
        let there = if weights.info(name).is_some() { name } else { prefixed.as_str() };
        let tensor = weights.get(there, &shape, DType::F32, &Device::Cpu).unwrap();
        tensors.insert(part.name_in_file(name).unwrap().into(), tensor);
    }
}

/// A place with the tiny model's tokenizer, whose vocabulary is not CLIP's.
fn place() -> Place {
    let place = Place::new();
    copy(&folder().join("tokenizer"), &place.path("tokenizer"));
    place
}

fn draw(place: &Place, model: &str) -> Vec<u8> {
    let mut args = vec!["-m", model];
    args.extend(SIZE);
    pixels(&place.generate(&args)).2
}

fn refused(place: &Place, model: &str, code: i32, words: &[&str]) {
    let mut args = vec!["generate", "-m", model];
    args.extend(SIZE);
    place.run(&args).fails(code, words);
}

/// What `torch.save` writes of a dictionary of f32 tensors: a pickle and an entry for each storage.
fn torch_archive(tensors: &Tensors) -> Vec<u8> {
    let text = |code: &mut Vec<u8>, s: &str| {
        code.push(b'X');
        code.extend((s.len() as u32).to_le_bytes());
        code.extend(s.bytes());
    };
    let number = |code: &mut Vec<u8>, n: usize| {
        code.push(b'J');
        code.extend((n as u32).to_le_bytes());
    };
    let (mut code, mut entries) = (b"\x80\x02}(X\x0a\x00\x00\x00state_dict}(".to_vec(), Vec::new());
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut code, name);
        code.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut code, "storage");
        code.extend(b"ctorch\nFloatStorage\n");
        text(&mut code, &i.to_string());
        text(&mut code, "cpu");
        number(&mut code, tensor.elem_count());
        code.extend(b"tQK\x00(");
        tensor.dims().iter().for_each(|d| number(&mut code, *d));
        code.extend(b"t(");
        tensor.stride().iter().for_each(|d| number(&mut code, *d));
        code.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        entries
            .push((format!("m/data/{i}"), values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    }
    code.extend(b"uu.");
    entries.push(("m/data.pkl".into(), code));
    zip(&entries)
}

/// An archive of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let start = out.len() as u32;
        let mut common = vec![0u8; 12];
        (0..2).for_each(|_| common.extend((data.len() as u32).to_le_bytes()));
        common.extend((name.len() as u32).to_le_bytes());
        out.extend(b"PK\x03\x04\x14\x00");
        out.extend(&common);
        out.extend(name.bytes());
        out.extend(data);
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    (0..2).for_each(|_| out.extend((entries.len() as u16).to_le_bytes()));
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

#[test]
fn one_file_of_either_kind_draws_what_the_folder_draws() {
    let place = place();
    copy(&folder(), &place.path("folder"));
    let tensors = single();
    save(&tensors, &place.path("one.safetensors"));
    place.write("one.ckpt", torch_archive(&tensors));
    let wanted = draw(&place, "./folder");
    assert_eq!(draw(&place, "./one.safetensors"), wanted);
    assert_eq!(draw(&place, "./one.ckpt"), wanted);
}

#[test]
fn a_description_may_name_a_file_and_take_parts_from_others() {
    let place = Place::with_own_configs();
    let tensors = single();
    let (unet, rest): (Tensors, Tensors) =
        tensors.into_iter().partition(|(name, _)| name.starts_with("model.diffusion_model."));
    let mut out = std::io::Cursor::new(Vec::new());
    let unet: Vec<_> = unet
        .iter()
        .map(|(name, t)| {
            (name.trim_start_matches("model.diffusion_model."), QTensor::quantize(t, GgmlDType::F32))
        })
        .map(|(name, t)| (name, t.unwrap()))
        .collect();
    let unet: Vec<_> = unet.iter().map(|(name, t)| (*name, t)).collect();
    gguf_file::write(&mut out, &[], &unet).unwrap();
    place.write("configs/models/unet.gguf", out.into_inner());
    let (vae, text): (Tensors, Tensors) =
        rest.into_iter().partition(|(name, _)| name.starts_with("first_stage_model."));
    save(&vae, &place.path("configs/models/vae.safetensors"));
    save(&text, &place.path("configs/models/text.safetensors"));
    copy(&folder().join("tokenizer"), &place.path("configs/models/words"));
    copy(&folder(), &place.path("folder"));
    let described = |key: &str, more: &str| {
        let text = format!(
            "schema_version: 1\nkey: {key}\ntitle: t\narchitecture: sd\npath: text.safetensors\nlicense: MIT\n{more}"
        );
        place.write(&format!("configs/models/{key}.yaml"), text);
    };
    let all = "parts: {unet: unet.gguf, vae: vae.safetensors, tokenizer: words}\n";
    described("whole", all);
    described("other", &format!("{all}prediction_type: v_prediction\n"));
    described("nothing", &format!("{all}prediction_type: colour\n"));
    described("half", "parts: {vae: vae.safetensors}\n");
    described("odd", "parts: {vea: vae.safetensors}\n");
    let preset = "schema_version: 1\ntitle: t\ntask: txt2img\nengine: stable-diffusion\nmodel: whole\n\
        params: {prompt: a photo, steps: 1, sampler: euler, schedule: normal, seed: 5}\n";
    place.write("configs/presets/tiny/quick.yaml", preset);
    let wanted = draw(&place, "./folder");
    assert_eq!(draw(&place, "whole"), wanted);
    assert_ne!(draw(&place, "other"), wanted);
    refused(&place, "nothing", 3, &["colour", "v_prediction"]);
    refused(&place, "half", 4, &["model.diffusion_model.", "a text encoder alone", "parts: {unet: ...}"]);
    refused(&place, "odd", 3, &["vea", "text_encoder"]);
}

#[test]
fn a_file_without_its_tokenizer_says_what_is_missing() {
    let place = Place::new();
    save(&single(), &place.path("one.safetensors"));
    refused(&place, "./one.safetensors", 4, &["1000 tokens", "`tokenizer` beside the file"]);
}

#[test]
fn files_that_are_no_stable_diffusion_are_refused_by_name() {
    let place = place();
    let one = |name: &str| {
        Tensors::from([(name.to_string(), Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap())])
    };
    save(&one("conditioner.embedders.0.transformer.text_model.x"), &place.path("xl.safetensors"));
    refused(&place, "./xl.safetensors", 5, &["this is an SDXL checkpoint"]);
    save(&one("lora_unet_x.lora_up.weight"), &place.path("lora.safetensors"));
    refused(&place, "./lora.safetensors", 5, &["this is a LoRA"]);
    place.write(
        "code.ckpt",
        zip(&[("m/data.pkl".into(), b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.".to_vec())]),
    );
    refused(&place, "./code.ckpt", 7, &["os.system", "at byte", "was not run"]);
    place.write("words.safetensors", "this is no model at all");
    refused(&place, "./words.safetensors", 7, &["words.safetensors"]);
    refused(&place, "./none.safetensors", 4, &["none.safetensors"]);
}
