//! Times the networks of Stable Diffusion 1.5 with made-up weights, and shows the peak memory (Linux).
//!
//! `cargo run --release -p atelier-models --example bench_sd15 [latent size, 64] [storage: f32, f16, bf16]`

use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_weights::Source;
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn timed<T>(what: &str, f: impl FnOnce() -> Anyhow<T>) -> Anyhow<T> {
    let (start, busy) = (Instant::now(), cpu());
    let result = f()?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu() - busy);
    println!("{what:<28} {wall:8.3} s   processor {cpu:8.2} s   peak memory {}", peak_memory());
    Ok(result)
}

/// Processor seconds of all threads so far, from the kernel's ticks of 10 ms.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name in parentheses; user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("unknown");
    line.trim().into()
}

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size: usize = args.first().map_or(Ok(64), |a| a.parse())?;
    let dtype = match args.get(1).map(String::as_str) {
        None | Some("f32") => DType::F32,
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        Some(other) => return Err(format!("expected f32, f16 or bf16, found {other}").into()),
    };
    let device = Device::Cpu;
    let source = Source::fake(0, dtype, &device);
    let text =
        timed("text encoder, made", || Ok(ClipTextModel::new(&source.pp("text"), &ClipTextConfig::sd15())?))?;
    let unet =
        timed("UNet, made", || Ok(UNet2DConditionModel::new(&source.pp("unet"), &UNetConfig::sd15())?))?;
    let vae = timed("autoencoder, made", || Ok(AutoencoderKl::new(&source.pp("vae"), &VaeConfig::sd15())?))?;
    let prompt: Vec<u32> = (0..77).map(|i| i * 601).collect();
    let context = timed("text, one prompt", || Ok(text.encode(std::slice::from_ref(&prompt), 0)?))?;
    timed("text, one prompt", || Ok(text.encode(&[prompt], 0)?))?;
    let context = Tensor::cat(&[&context, &context], 0)?;
    let latents = pseudo_normal(1, (2, 4, size, size), 1.0);
    let timestep = Tensor::new(&[500f32], &device)?;
    for _ in 0..3 {
        let out = timed("UNet, one guided step", || Ok(unet.forward(&latents, &timestep, &context)?))?;
        let deviation = out.sqr()?.mean_all()?.sqrt()?.to_scalar::<f32>()?;
        if !deviation.is_finite() {
            return Err("the prediction is not finite".into());
        }
    }
    let latent = latents.narrow(0, 0, 1)?;
    let image = timed("autoencoder, decode", || Ok(vae.decode(&latent)?))?;
    timed("autoencoder, encode", || Ok(vae.encode(&image.clamp(-1f32, 1f32)?)?))?;
    Ok(())
}
