//! Files that are no upscalers, or broken ones: each is told what it is. And the real ones.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

mod upscalers;

use atelier_models::{Architecture, UpscalerFile};
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};
use upscalers::*;

fn refused(path: &Path, expected: &[&str]) {
    let e = match UpscalerFile::open(path) {
        Ok(file) => file.build(DType::F32, &Device::Cpu).unwrap_err().to_string(),
        Err(e) => e.to_string(),
    };
    let stem = path.file_stem().unwrap().to_str().unwrap();
    for part in expected.iter().chain([&stem]) {
        assert!(e.contains(part), "{part:?} in: {e}");
    }
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn other_networks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = || tensor(&[4, 4, 3, 3]);
    for (i, (name, tensor, what)) in [
        ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", tensor(&[9, 2]), "SwinIR"),
        ("conv1.weight_orig", kernel(), "discriminator"),
        ("body.0.body.0.weight", kernel(), "EDSR"),
        ("block_1.c1_r.sk.weight", kernel(), "SPAN"),
        ("unet1.conv1.conv.0.weight", kernel(), "Real-CUGAN"),
        ("double_blocks.0.weight", kernel(), "Flux"),
        ("first_stage_model.decoder.conv_in.weight", kernel(), "autoencoder"),
        ("something.weight", kernel(), "something.weight"),
        ("RRDB_trunk.0.RDB1.conv1.weight", kernel(), "without conv_first.weight"),
        ("body.0.weight", kernel(), "from 4 to 4 channels"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = saved(&[(name.to_string(), tensor)].into(), dir.path(), &format!("file{i}"));
        refused(&path, &[what]);
    }
    refused(&saved(&Tensors::new(), dir.path(), "empty"), &["without tensors"]);
    refused(&fixtures().join("golden/tiny-sd/vae/diffusion_pytorch_model.safetensors"), &["autoencoder"]);
}

#[test]
fn networks_with_missing_or_other_parts_are_refused() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let changed = |network: &str, name: &str, to: Option<Tensor>, expected: &[&str]| {
        let mut tensors = weights_of(&want, network);
        match to {
            Some(tensor) => tensors.insert(name.into(), tensor),
            None => tensors.remove(name),
        };
        refused(&saved(&tensors, dir.path(), "changed"), expected);
    };
    let one = |shape: &[usize]| Some(tensor(shape));
    changed("rrdb", "body.0.rdb2.conv3.weight", None, &["\"body.0.rdb2.conv3.weight\"", "found none"]);
    changed("rrdb", "conv_hr.bias", one(&[7]), &["\"conv_hr.bias\"", "[7]"]);
    changed("rrdb", "conv_first.weight", one(&[16, 4, 3, 3]), &["from 4 to 3 channels"]);
    changed("rrdb", "conv_first.weight", one(&[16, 27, 3, 3]), &["folds 3x3"]);
    changed("rrdb", "conv_first.weight", one(&[16, 3, 1, 1]), &["no 3x3 convolution"]);
    changed("rrdb", "conv_last.weight", one(&[1, 16, 3, 3]), &["from 3 to 1 channels"]);
    changed("rrdb", "body.0.rdb1.conv1x1.weight", one(&[16, 16, 1, 1]), &["ESRGAN+"]);
    changed("rrdb", "body.99999999999.rdb1.conv1.weight", one(&[1]), &["blocks"]);
    changed("srvgg", "body.3.weight", None, &["\"body.3.weight\""]);
    changed("srvgg", "body.2.weight", None, &["\"body.2.weight\""]);
    changed("srvgg", "body.7.weight", one(&[16, 16, 3, 3]), &["\"body.7.weight\""]);
    changed("srvgg", "head.weight", one(&[16]), &["names are not known"]);
}

#[test]
fn ncnn_graphs_that_compute_something_else_are_refused() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let srvgg = weights_of(&want, "srvgg");
    let layers = srvgg.len() / 3;
    let refuse = |edit: &dyn Fn(&mut NcnnFiles), rrdb: bool, expected: &[&str]| {
        let mut files = match rrdb {
            true => rrdb_files(&weights_of(&want, "rrdb"), 1),
            false => compact_files(&srvgg, layers - 1, 4, false),
        };
        edit(&mut files);
        refused(&files.write(dir.path(), "graph"), expected);
    };
    let find = |files: &mut NcnnFiles, name: &str| files.layers.iter().position(|l| l.2 == name).unwrap();
    let parameters = |name: &'static str, text: &'static str| {
        move |files: &mut NcnnFiles| {
            let i = find(files, name);
            files.layers[i].3 = text.into();
        }
    };
    let another = "connected in another way";
    refuse(&parameters("drawn", "0=2"), false, &[another, "SRVGGNetCompact x4"]);
    refuse(&parameters("enlarged", "0=2 1=4 2=4"), false, &["enlarged", "resizes"]);
    refuse(&parameters("output", "0=2"), false, &["BinaryOp", "output"]);
    refuse(&parameters("sum_0", "0=1 -23301=2,0.3,1.0"), true, &[another, "RRDBNet x4 with 1 blocks"]);
    refuse(&parameters("trunk", "0=1"), true, &["BinaryOp"]);
    let swapped = |files: &mut NcnnFiles| {
        let i = find(files, "concat_0_1_3");
        files.layers[i].1.swap(0, 1);
    };
    refuse(&swapped, true, &[another]);
    let shrunk = |files: &mut NcnnFiles| {
        files.layer("Interp", &["output"], "smaller", "0=3 1=5.000000e-01 2=5.000000e-01");
    };
    refuse(&shrunk, false, &["resizes", "smaller", "a larger factor"]);
    let dilated = |files: &mut NcnnFiles| {
        let i = find(files, "conv_hr");
        files.layers[i].3.push_str(" 2=2");
    };
    refuse(&dilated, true, &["conv_hr", "Convolution"]);
    let other = |files: &mut NcnnFiles| {
        files.layer("Sigmoid", &["output"], "bent", "");
    };
    refuse(&other, false, &["bent", "Sigmoid"]);
    let lone = dir.path().join("lone.param");
    std::fs::write(&lone, "7767517\n0 0\n").unwrap();
    refused(&lone, &["lone.bin"]);
}

/// Real weights are not in the repository: `ATELIER_ASSETS_DIR` names the folder that has `realesrgan/`, and
/// `ATELIER_NCNN_DIR` one with the files of ncnn.
#[test]
fn real_weights_are_told_by_their_files() {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(assets) = folder("ATELIER_ASSETS_DIR") {
        let open = |name: &str| {
            UpscalerFile::open(assets.join(format!("realesrgan/{name}.fp16.safetensors"))).unwrap()
        };
        assert_eq!(open("RealESRGAN_x4plus").architecture(), &Architecture::X4_PLUS);
        let (general, wdn) = (open("realesr-general-x4v3"), open("realesr-general-wdn-x4v3"));
        assert_eq!(general.architecture(), &Architecture::GENERAL_X4_V3);
        assert!(general.blended(&wdn, 0.5).unwrap().build(DType::F32, &Device::Cpu).is_ok());
        assert_eq!(open("realesr-animevideov3").architecture().blocks, 16);
    }
    let Some(ncnn) = folder("ATELIER_NCNN_DIR") else {
        println!("set ATELIER_ASSETS_DIR and ATELIER_NCNN_DIR to try real weights");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(ncnn).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "param"));
    files.sort();
    for path in files {
        match UpscalerFile::open(&path) {
            Ok(file) => {
                println!("{}: {:?}", path.display(), file.architecture());
                file.build(DType::F32, &Device::Cpu).unwrap();
            }
            Err(e) => println!("{e}"),
        }
    }
}
