//! Times the upscalers of Real-ESRGAN with made-up weights on a tile, and shows the peak memory (Linux). One process is one
//! measurement, since the peak is that of a process:
//!
//! `cargo run --release -p atelier-models --example bench_upscale -- [rrdb | anime | srvgg | video] [side, 128] [f32 | f16 | bf16] [runs, 3]`

use atelier_models::{Architecture, Upscaler};
use atelier_weights::Source;
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

/// Processor seconds of all threads so far, from the kernel's ticks of 10 ms.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name in parentheses; user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mebibytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? >> 10)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |i: usize| args.get(i).map(String::as_str);
    let architecture = match text(0) {
        None | Some("rrdb") => Architecture::X4_PLUS,
        Some("anime") => Architecture::X4_PLUS_ANIME,
        Some("srvgg") => Architecture::GENERAL_X4_V3,
        Some("video") => Architecture::ANIME_VIDEO_V3,
        Some(other) => return Err(format!("expected rrdb, anime, srvgg or video, found {other}").into()),
    };
    let side: usize = text(1).map_or(Ok(128), str::parse)?;
    let dtype = match text(2) {
        None | Some("f32") => DType::F32,
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        Some(other) => return Err(format!("expected f32, f16 or bf16, found {other}").into()),
    };
    let runs: usize = text(3).map_or(Ok(3), str::parse)?;
    let model = Upscaler::new(&Source::fake(0, dtype, &Device::Cpu), &architecture)?;
    let tile = Tensor::rand(0f32, 1., (1, 3, side, side), &Device::Cpu)?;
    let before = peak_mebibytes().unwrap_or(0);
    let giga = architecture.operations(side, side) as f64 / 1e9;
    let estimate = architecture.forward_bytes(side, side, dtype, &Device::Cpu) >> 20;
    for _ in 0..runs {
        let (began, busy) = (Instant::now(), cpu());
        model.forward(&tile)?;
        let (wall, busy) = (began.elapsed().as_secs_f64(), cpu() - busy);
        println!(
            "{} {side}²: {wall:.3} s, processor {busy:.2} s, {giga:.1} GFLOP, {:.1} GFLOP/s, {:.1} a processor second, \
             peak {} MiB over {before} MiB before (estimated {estimate})",
            architecture.name(),
            giga / wall,
            giga / busy,
            peak_mebibytes().unwrap_or(0).saturating_sub(before)
        );
    }
    Ok(())
}
