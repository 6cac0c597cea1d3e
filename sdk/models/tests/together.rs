//! What a network computes in a batch on the processor is, bit for bit, what it computes alone.

#![allow(clippy::unwrap_used)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_models::{ClipTextConfig, ClipTextModel};
use atelier_weights::{Precision, Source};
use candle_core::{DType, Device, Tensor};

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `n` prompts of random tokens.
fn prompts(n: u32, tokens: u32, vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |i: u32| (i.wrapping_mul(2_654_435_761) >> 7) % vocabulary;
    (0..n).map(|p| (0..tokens).map(|t| token(p * tokens + t + 1)).collect()).collect()
}

#[test]
fn prompts_encoded_together_have_the_bits_of_each_alone() {
    let wide = ClipTextConfig { num_hidden_layers: 2, vocab_size: 500, ..ClipTextConfig::sd15() };
    let narrow =
        ClipTextConfig { hidden_size: 40, intermediate_size: 100, num_attention_heads: 5, ..wide.clone() };
    for config in [wide, narrow] {
        for stored in [DType::F32, DType::F16] {
            let source = Source::fake(3, Precision::from(stored), &Device::Cpu);
            let model = ClipTextModel::new(&source, &config).unwrap();
            for (n, tokens) in [(2, 77), (3, 77), (4, 77), (4, 5), (2, 1)] {
                let prompts = prompts(n, tokens, 500);
                let together = model.encode(&prompts, 0).unwrap();
                for (i, prompt) in prompts.iter().enumerate() {
                    let alone = model.encode(std::slice::from_ref(prompt), 0).unwrap();
                    let same = values(&together.get(i).unwrap()) == values(&alone);
                    assert!(same, "{stored:?}, width {}: prompt {i} of {n}", config.hidden_size);
                }
            }
        }
    }
}
