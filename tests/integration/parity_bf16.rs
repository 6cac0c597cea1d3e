//! What products of bf16 do to whole runs, beside what bf16 does to PyTorch's (`tools/peers/bf16_pytorch.py`).
//!
//! The products are emulated: so they are on any processor what they are on one with instructions for them.

use crate::parity::{Reference, guidance, states};
use crate::support::root;
use atelier_ops::{Products, with_products};
use atelier_stable_diffusion::pipeline::Pipeline;
use candle_core::{DType, Device};
use std::path::Path;

/// Latents after the last step.
fn latents(pipeline: &Pipeline, reference: &Reference) -> Vec<f32> {
    with_products(Products::EmulatedBf16, || {
        let guidance = guidance(reference, pipeline, reference.number("guidance_scale"));
        states(reference, pipeline, "karras", "dpmpp_2m", &guidance).pop().unwrap()
    })
}

/// How far `found` is from `exact`, relative to its length.
fn distance(found: &[f32], exact: &[f32]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    length(&mut found.iter().zip(exact).map(|(a, b)| a - b)) / length(&mut exact.iter().copied())
}

fn compare(model: &Path, file: &str) {
    let all = Reference::read_file(&root().join("tests/fixtures/golden").join(file));
    let [f32, bf16] =
        [DType::F32, DType::BF16].map(|dtype| Pipeline::open(model, dtype, &Device::Cpu).unwrap());
    for i in 0..all.tensors["latents"].dims()[0] {
        let tensors = all.tensors.iter().map(|(name, all)| (name.clone(), all.narrow(0, i, 1).unwrap()));
        let one = Reference { tensors: tensors.collect(), meta: all.meta.clone() };
        let exact = one.values("karras.final_latents");
        let [same, ours] = [&f32, &bf16].map(|pipeline| distance(&latents(pipeline, &one), &exact));
        let theirs = distance(&one.values("karras.final_latents_bf16"), &exact);
        println!("{file:<28} seed {}: f32 {same:.1e}, bf16 {ours:.4}, PyTorch's bf16 {theirs:.4}", i + 1);
        assert!(same < 1e-4, "{file}: {same}");
        assert!(same < ours && ours <= theirs, "{file}: {ours} beside {theirs}");
    }
}

#[test]
fn bf16_takes_runs_of_the_carried_model_no_further_from_f32_than_it_takes_the_reference() {
    compare(&root().join("configs/models/mini"), "bf16_mini.safetensors");
}

#[test]
fn bf16_takes_runs_on_random_weights_no_further_from_f32_than_it_takes_the_reference() {
    compare(&root().join("tests/fixtures/golden/tiny-sd"), "bf16_tiny-sd.safetensors");
}
