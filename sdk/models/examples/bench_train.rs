//! Times one micro-step of LoRA training, forward and backward, at Stable Diffusion 1.5's size with made-up weights,
//! and shows the peak memory (Linux). Rank 8 on `to_q`, `to_k`, `to_v` and `to_out.0`, batch 1.
//!
//! `cargo run --release -p atelier-models --example bench_train [pixels, 512] [storage: f32, f16, bf16]
//! [keep: all, boundaries, or MiB] [steps, 3]`. The peer is `tools/peers/train_pytorch.py`.

use atelier_models::{Network, UNet2DConditionModel, UNetConfig};
use atelier_ops::Keep;
use atelier_ops::gradcheck::pseudo_normal;
use atelier_weights::Source;
use atelier_weights::lora::{FactorShapes, Mode, Part, Stack, Trainable};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;
use std::time::Instant;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Processor seconds of all threads so far, from the kernel's ticks of 10 ms.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name in parentheses; user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A line of the kernel's account of this process, in GB.
fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_suffix("kB"));
    found.and_then(|kib| kib.trim().parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0 / 1e9
}

/// The UNet with its adapters, and their factors.
fn network(dtype: DType) -> Anyhow<(UNet2DConditionModel, Vec<Trainable>)> {
    let config = UNetConfig::sd15();
    let modules = UNet2DConditionModel::modules(&config)?;
    let ends = [".to_q", ".to_k", ".to_v", ".to_out.0"];
    let wanted = |name: &&str| ends.iter().any(|end| name.ends_with(end));
    let targets: Vec<String> = modules.names().filter(wanted).map(String::from).collect();
    let init = |_: &str, shapes: &FactorShapes| {
        let factor = |shape: &[usize]| pseudo_normal(shape[0] as u64, shape, 0.02);
        Ok((factor(&shapes.down), factor(&shapes.up)))
    };
    let adapters = Trainable::new(Part::Unet, &modules, &targets, (8, 8.0), &Device::Cpu, init)?;
    let mut stack = Stack::new();
    adapters.iter().for_each(|a| stack.push_trainable(a, None));
    let adapted = stack.on(Part::Unet, atelier_weights::fake(0), Mode::Live);
    let source = Source::new(Arc::new(adapted), dtype, &Device::Cpu);
    Ok((UNet2DConditionModel::new(&source, &config)?, adapters))
}

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).map_or(default, String::as_str).to_string();
    let size = arg(0, "512").parse::<usize>()? / 8;
    let dtype = match arg(1, "f32").as_str() {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        other => return Err(format!("expected f32, f16 or bf16, found {other}").into()),
    };
    let keep = match arg(2, "boundaries").as_str() {
        "all" => Keep::All,
        "boundaries" => Keep::Boundaries,
        mib => Keep::Within(mib.parse::<u64>()? << 20),
    };
    let (unet, adapters) = network(dtype)?;
    println!("network: {:.2} GB", memory("VmRSS:"));
    let sample = pseudo_normal(1, (1, 4, size, size), 1.0);
    let noise = pseudo_normal(2, (1, 4, size, size), 1.0);
    let context = pseudo_normal(3, (1, 77, 768), 1.0);
    let timestep = Tensor::new(&[500f32], &Device::Cpu)?;
    let (mut walls, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..arg(3, "3").parse::<usize>()?.max(1) {
        let (start, before) = (Instant::now(), cpu());
        let recording = unet.record(&sample, &timestep, &context, keep)?;
        let off = (recording.output() - &noise)?;
        let loss = off.sqr()?.mean_all()?.to_scalar::<f32>()?;
        let (segments, forward, forward_cpu) =
            (recording.segments(), start.elapsed().as_secs_f64(), cpu() - before);
        let gradients = recording.backward(&(&off * (2.0 / off.elem_count() as f64))?)?;
        let (wall, all) = (start.elapsed().as_secs_f64(), cpu() - before);
        if adapters.iter().any(|a| gradients.get(&a.down).is_none() || gradients.get(&a.up).is_none()) {
            return Err("a factor has no gradient".into());
        }
        println!(
            "step {wall:6.2} s (forward {forward:5.2}), processor {all:6.2} s (forward {forward_cpu:5.2}), \
             loss {loss:.4}, {} of {} segments kept, now {:.2} GB, peak {:.2} GB",
            segments.1,
            segments.0,
            memory("VmRSS:"),
            memory("VmHWM:")
        );
        walls.push(wall);
        busy.push(all);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let line = format!("{} px, {dtype:?}, {keep:?}", size * 8);
    println!(
        "{line}: median {:.2} s, processor {:.2} s, peak {:.2} GB",
        median(&mut walls),
        median(&mut busy),
        memory("VmHWM:")
    );
    Ok(())
}
