//! Files with bytes changed at random: every reader answers with tensors or an error, never with a panic, and never
//! takes more memory than the file could fill.

#![allow(clippy::unwrap_used)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_weights::{Checkpoint, StoredDtype, Weights};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's memory, with a note of the largest piece asked for.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static MEMORY: Watched = Watched;

/// More than any of the files here needs, and far less than a length that lies asks for.
const MOST: usize = 1 << 20;
/// Changed copies of each file.
const ROUNDS: u64 = 4000;

/// SplitMix64.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as usize
}

/// One to four changes: a byte, a bit, an extreme value, or the end cut off. Most of them in the first kilobyte or in
/// the last, where headers and directories are.
fn changed(file: &[u8], state: &mut u64) -> Vec<u8> {
    let mut copy = file.to_vec();
    for _ in 0..1 + random(state) % 4 {
        let near = random(state) % copy.len().min(1024);
        let at = match random(state) % 3 {
            0 => near,
            1 => copy.len() - 1 - near,
            _ => random(state) % copy.len(),
        };
        match random(state) % 8 {
            0 if copy.len() > 64 => copy.truncate(at.max(32)),
            1 | 2 => copy[at] ^= 1 << (random(state) % 8),
            3 => copy[at] = 0xff,
            4 => copy[at] = 0,
            _ => copy[at] = random(state) as u8,
        }
    }
    copy
}

/// Reads everything a file has.
fn read(path: &Path) -> bool {
    let Ok(weights) = Weights::open(path) else { return false };
    for name in weights.names() {
        let info = weights.info(name).unwrap();
        let bytes = info.bytes.len();
        assert!(
            info.dtype == StoredDtype::Quantized
                || info.shape.iter().product::<usize>() <= bytes.max(1 << 16)
        );
        let _ = weights.get(name, &info.shape.clone(), DType::F32, &Device::Cpu);
    }
    if let Ok(checkpoint) = Checkpoint::open(path) {
        let _ = (checkpoint.unet(), checkpoint.vae(), checkpoint.text_encoder());
    }
    true
}

fn tensor() -> Tensor {
    Tensor::from_vec((0..1024).map(|i| i as f32).collect(), (4, 256), &Device::Cpu).unwrap()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let names =
        ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight", "b"];
    let tensors: HashMap<_, _> = names.iter().map(|name| (name.to_string(), tensor())).collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let quantized: Vec<_> = [GgmlDType::Q4_0, GgmlDType::Q8_0, GgmlDType::Q6K]
        .iter()
        .map(|format| QTensor::quantize(&tensor(), *format).unwrap())
        .collect();
    let named: Vec<_> = names.iter().copied().zip(&quantized).collect();
    let mut gguf = std::io::Cursor::new(Vec::new());
    let shape = gguf_file::Value::Array([4, 16, 16].map(gguf_file::Value::I32).to_vec());
    let remark = gguf_file::Value::String("x".into());
    gguf_file::write(&mut gguf, &[("comfy.gguf.orig_shape.b", &shape), ("general.name", &remark)], &named)
        .unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights");
    vec![
        ("safetensors", std::fs::read(&path).unwrap()),
        ("gguf", gguf.into_inner()),
        ("protocol 2", std::fs::read(fixtures.join("torch_protocol2.ckpt")).unwrap()),
        ("protocol 4", std::fs::read(fixtures.join("torch_protocol4.ckpt")).unwrap()),
    ]
}

#[test]
fn no_reader_panics_or_allocates_wildly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed");
    for (kind, file) in files() {
        std::fs::write(&path, &file).unwrap();
        assert!(read(&path), "{kind}: the file itself must be sound");
        LARGEST.store(0, Ordering::Relaxed);
        let (mut state, mut opened) = (7, 0);
        for _ in 0..ROUNDS {
            // A new file each time: the last one may still be mapped.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, changed(&file, &mut state)).unwrap();
            opened += u64::from(read(&path));
        }
        let largest = LARGEST.load(Ordering::Relaxed);
        println!("{kind}: {opened} of {ROUNDS} opened, largest piece of memory {largest} bytes");
        assert!(largest < MOST, "{kind}: {largest} bytes at once");
        assert!((1..ROUNDS).contains(&opened), "{kind}: {opened} opened");
    }
}
