//! Times our operations beside candle's own on the shapes of Stable Diffusion 1.5 at 512 x 512 (of upscalers the
//! convolutions too), on the CPU. Rates count the products of the plain way, whichever way is taken.
//!
//! `cargo run --release -p atelier-ops --example bench_ops [filter]`. The machine may be shared: compare within one
//! run, and take the processor seconds of all threads (cpu) where the wall time was disturbed.

use atelier_ops::gradcheck::pseudo_normal;
use atelier_ops::{
    Conv2dSpec, Products, attention, conv2d, geglu, group_norm_silu, layer_norm, linear, upsample_nearest,
    with_products,
};
use candle_core::{DType, Result, Tensor};
use std::time::Instant;

/// Processor time of all threads so far, in milliseconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 * 1e-6
}

/// Best wall and processor time of `n` runs after one to warm up, in milliseconds.
fn best(n: usize, f: &dyn Fn() -> Result<Tensor>) -> Result<(f64, f64)> {
    f()?;
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..n {
        let (start, busy) = (Instant::now(), cpu());
        f()?;
        best = (best.0.min(start.elapsed().as_secs_f64() * 1e3), best.1.min(cpu() - busy));
    }
    Ok(best)
}

/// One line: our wall and processor time, our rate per processor second, candle's times, the ratios.
fn line(
    name: &str,
    gflop: f64,
    ours: &dyn Fn() -> Result<Tensor>,
    candle: &dyn Fn() -> Result<Tensor>,
) -> Result<()> {
    if std::env::args().nth(1).is_some_and(|filter| !name.contains(&filter)) {
        return Ok(());
    }
    let (own, other) = (best(5, ours)?, best(2, candle)?);
    let rate = if gflop > 0.0 { format!("{:6.1} GFLOP/cpu-s", gflop / own.1 * 1e3) } else { String::new() };
    let (wall, cpu) = (other.0 / own.0, other.1 / own.1);
    println!(
        "{name:<36} wall {:8.1} ms cpu {:8.1} ms {rate:>18}   candle wall {:8.1} cpu {:8.1}   ratio {wall:5.2} {cpu:5.2}",
        own.0, own.1, other.0, other.1
    );
    Ok(())
}

fn convolutions() -> Result<()> {
    for (batch, ci, co, size, kernel) in [
        (2, 320, 320, 64, 3),
        (2, 960, 320, 64, 3),
        (2, 640, 640, 32, 3),
        (2, 1280, 1280, 16, 3),
        (2, 2560, 1280, 8, 3),
        (2, 640, 320, 64, 1),
        (1, 512, 512, 64, 3),
        (1, 512, 512, 128, 3),
        (1, 256, 256, 256, 3),
        (1, 128, 128, 512, 3),
        (1, 64, 32, 128, 3),
        (1, 192, 64, 128, 3),
    ] {
        let x = pseudo_normal(1, (batch, ci, size, size), 1.0);
        let w = pseudo_normal(2, (co, ci, kernel, kernel), 0.02);
        let b = pseudo_normal(3, co, 1.0);
        let work = 2.0 * (batch * ci * co * size * size * kernel * kernel) as f64 / 1e9;
        let name = format!("conv {kernel}x{kernel} {batch}x{ci}->{co} {size}x{size}");
        let ours = |w: &Tensor| conv2d(&x, w, Some(&b), Conv2dSpec::padded(kernel / 2));
        let candle = || x.conv2d(&w, kernel / 2, 1, 1, 1)?.broadcast_add(&b.reshape((1, co, 1, 1))?);
        line(&name, work, &|| ours(&w), &candle)?;
        let stored = w.to_dtype(DType::BF16)?;
        let bf16 = || with_products(Products::Bf16, || ours(&stored));
        line(&format!("{name} bf16"), work, &bf16, &candle)?;
    }
    Ok(())
}

fn attentions() -> Result<()> {
    for (batch, queries, keys, heads, width) in [
        (2, 4096, 4096, 8, 40),
        (2, 1024, 1024, 8, 80),
        (2, 256, 256, 8, 160),
        (2, 4096, 77, 8, 40),
        (1, 4096, 4096, 1, 512),
    ] {
        let q = pseudo_normal(1, (batch, queries, heads * width), 1.0);
        let k = pseudo_normal(2, (batch, keys, heads * width), 1.0);
        let v = pseudo_normal(3, (batch, keys, heads * width), 1.0);
        let work = 4.0 * (batch * queries * keys * heads * width) as f64 / 1e9;
        let split = |t: &Tensor| {
            let (b, n, _) = t.dims3()?;
            t.reshape((b, n, heads, width))?.transpose(1, 2)?.contiguous()
        };
        line(
            &format!("attention {batch}x{queries}x{keys} {heads}x{width}"),
            work,
            &|| attention(&q, &k, &v, heads, false),
            &|| {
                let scores = (split(&q)?.matmul(&split(&k)?.t()?)? * (1.0 / (width as f64).sqrt()))?;
                let out = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&split(&v)?)?;
                out.transpose(1, 2)?.reshape((batch, queries, heads * width))
            },
        )?;
    }
    Ok(())
}

fn linears() -> Result<()> {
    for (rows, inputs, outputs) in [
        (8192, 320, 320),
        (8192, 320, 2560),
        (8192, 1280, 320),
        (2048, 640, 5120),
        (512, 1280, 1280),
        (154, 768, 1280),
        (77, 768, 3072),
    ] {
        let x = pseudo_normal(1, (rows, inputs), 1.0);
        let (w, b) = (pseudo_normal(2, (outputs, inputs), 0.05), pseudo_normal(3, outputs, 1.0));
        let work = 2.0 * (rows * inputs * outputs) as f64 / 1e9;
        let name = format!("linear {rows}x{inputs}->{outputs}");
        let candle = || x.matmul(&w.t()?)?.broadcast_add(&b);
        line(&name, work, &|| linear(&x, &w, Some(&b)), &candle)?;
        let stored = w.to_dtype(DType::BF16)?;
        let bf16 = || with_products(Products::Bf16, || linear(&x, &stored, Some(&b)));
        line(&format!("{name} bf16"), work, &bf16, &candle)?;
    }
    Ok(())
}

fn the_rest() -> Result<()> {
    let x = pseudo_normal(1, (2, 320, 64, 64), 1.0);
    let (w, b) = (pseudo_normal(2, 320, 0.1), pseudo_normal(3, 320, 0.1));
    let norm = candle_nn::GroupNorm::new(w.clone(), b.clone(), 320, 32, 1e-5)?;
    line("group_norm + silu 2x320x64x64", 0.0, &|| group_norm_silu(&x, &w, &b, 32, 1e-5), &|| {
        x.apply(&norm)?.silu()
    })?;
    let t = pseudo_normal(1, (2, 4096, 320), 1.0);
    line("layer_norm 2x4096x320", 0.0, &|| layer_norm(&t, &w, &b, 1e-5), &|| {
        candle_nn::ops::layer_norm(&t, &w, &b, 1e-5)
    })?;
    let g = pseudo_normal(1, (2, 4096, 2560), 1.0);
    line("geglu 2x4096x2560", 0.0, &|| geglu(&g), &|| {
        g.narrow(2, 0, 1280)?.contiguous()? * g.narrow(2, 1280, 1280)?.contiguous()?.gelu_erf()?
    })?;
    line("upsample 2x320x64x64", 0.0, &|| upsample_nearest(&x, 128, 128), &|| x.upsample_nearest2d(128, 128))
}

fn main() -> Result<()> {
    println!("{} threads", rayon::current_num_threads());
    convolutions()?;
    attentions()?;
    linears()?;
    the_rest()
}
