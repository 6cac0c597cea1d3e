//! What a loaded model takes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use atelier_stable_diffusion::decoding::Pieces;
use atelier_stable_diffusion::pipeline::{Part, Pipeline};
use candle_core::{DType, Device};
use std::path::{Path, PathBuf};

/// The tiny model in a place of its own, so that nobody else maps its files.
fn model() -> PathBuf {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden");
    let golden = std::env::var_os("ATELIER_GOLDEN_DIR").map_or_else(|| golden.into(), PathBuf::from);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-model-that-rests");
    copy(&golden.join("tiny-sd"), &place);
    place
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// KiB of a mapped file that are in memory.
fn resident(file: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_file = maps.lines().skip_while(|line| !line.ends_with(file.to_str().unwrap()));
    let size = of_file.clone().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    size.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_network_that_rests_gives_its_files_memory_back_and_gives_the_same_afterwards() {
    let model = model();
    let pipeline = Pipeline::open(&model, DType::F32, &Device::Cpu).unwrap();
    let latents: Vec<f32> = (0..4 * 8 * 8).map(|i| (i % 13) as f32 / 6.0 - 1.0).collect();
    let draw = || {
        let planes = pipeline.decode_planes(&latents, [1, 4, 8, 8], &Pieces::Whole).unwrap();
        planes.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let file = model.join("vae/diffusion_pytorch_model.safetensors");
    let (first, used) = (draw(), resident(&file));
    pipeline.rest(Part::Vae);
    let rests = resident(&file);
    assert!(4 * rests < used, "{rests} KiB of {used} KiB");
    assert!(pipeline.is_loaded(Part::Vae));
    assert_eq!(draw(), first);
}
