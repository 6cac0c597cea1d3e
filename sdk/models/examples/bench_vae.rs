//! Time and peak memory of one decode with the shapes of Stable Diffusion 1.x, random weights:
//! `bench_vae WIDTH HEIGHT [TILE | blended TILE_IN_LATENTS]`. One process is one measurement, since the peak is that of a process.

use atelier_models::{AutoencoderKl, Blending, Tiling, VaeConfig};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_weights::Source;
use candle_core::{DType, Device};
use std::time::Instant;

fn peak_mebibytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? >> 10)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).map(|a| a.parse::<usize>()).transpose();
    let (width, height) = (number(0)?.unwrap_or(512), number(1)?.unwrap_or(512));
    let config = VaeConfig::sd15();
    let vae = AutoencoderKl::new(&Source::fake(1, DType::F32, &Device::Cpu), &config)?;
    let z = pseudo_normal(1, (1, 4, height / 8, width / 8), 1.0);
    let (before, began) = (peak_mebibytes().unwrap_or(0), Instant::now());
    let (what, estimate) = match args.get(2).map(String::as_str) {
        Some("blended") => {
            let tile = number(3)?.unwrap_or(64);
            vae.decode_blended(&z, &Blending { tile, overlap: 0.25 })?;
            (format!("blended tiles of {tile} latents"), config.decode_bytes(tile, tile, None))
        }
        Some(_) => {
            let tiling = Tiling::of(number(2)?.unwrap_or(512));
            vae.decode_tiled(&z, &tiling)?;
            (format!("{tiling:?}"), config.decode_bytes(height / 8, width / 8, Some(&tiling)))
        }
        None => {
            vae.decode(&z)?;
            ("whole".into(), config.decode_bytes(height / 8, width / 8, None))
        }
    };
    println!(
        "{width}x{height} {what}: {:.1} s, peak {} MiB over {before} MiB before (estimated {})",
        began.elapsed().as_secs_f64(),
        peak_mebibytes().unwrap_or(0) - before,
        estimate >> 20
    );
    Ok(())
}
