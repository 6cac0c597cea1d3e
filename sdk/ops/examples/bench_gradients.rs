//! Times our operations and their gradients with frozen weights, on the shapes of Stable Diffusion 1.5 at 512 x 512 and
//! batch 1, on the CPU.
//!
//! `cargo run --release -p atelier-ops --example bench_gradients [filter]`. Processor time of all threads: the machine
//! may be shared.

use atelier_ops::gradcheck::pseudo_normal;
use atelier_ops::{Conv2dSpec, Keep, Tape, attention, conv2d, geglu, group_norm_silu, layer_norm, linear};
use candle_core::{Result, Tensor, Var};

/// Processor time of all threads so far, in milliseconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 * 1e-6
}

/// One line: processor time and rate of the value and of the gradients of all inputs. `gflop` is the work of each.
fn line(
    name: &str,
    gflop: (f64, f64),
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync,
) -> Result<()> {
    if std::env::args().nth(1).is_some_and(|filter| !name.contains(&filter)) {
        return Ok(());
    }
    let (mut value, mut gradient) = (f64::MAX, f64::MAX);
    let inputs: Vec<Tensor> =
        inputs.iter().map(|t| Ok(Var::from_tensor(t)?.into_inner())).collect::<Result<_>>()?;
    for _ in 0..4 {
        let mut tape = Tape::new(Keep::All);
        let values: Vec<_> = inputs.iter().map(|t| tape.input(t)).collect::<Result<_>>()?;
        let start = cpu();
        let y = tape.run(&values.iter().collect::<Vec<_>>(), |t, _| f(t))?;
        value = value.min(cpu() - start);
        let seed = pseudo_normal(7, y.tensor().shape(), 1.0);
        let start = cpu();
        tape.backward(&y, &seed)?;
        gradient = gradient.min(cpu() - start);
    }
    let rate = |work: f64, ms: f64| work / ms * 1e3;
    println!(
        "{name:<34} value {value:8.1} ms {:6.1} GFLOP/s   gradient {gradient:8.1} ms {:6.1} GFLOP/s",
        rate(gflop.0, value),
        rate(gflop.1, gradient)
    );
    Ok(())
}

fn main() -> Result<()> {
    for (ci, co, size, kernel) in [
        (320, 320, 64, 3),
        (640, 320, 64, 3),
        (960, 320, 64, 3),
        (640, 640, 32, 3),
        (1280, 640, 32, 3),
        (1280, 1280, 16, 3),
        (2560, 1280, 16, 3),
        (1280, 1280, 8, 3),
        (960, 320, 64, 1),
    ] {
        let x = pseudo_normal(1, (1, ci, size, size), 1.0);
        let w = pseudo_normal(2, (co, ci, kernel, kernel), 0.02);
        let work = 2.0 * (ci * co * size * size * kernel * kernel) as f64 / 1e9;
        line(&format!("conv {kernel}x{kernel} {ci}->{co} {size}x{size}"), (work, work), &[x], |t| {
            conv2d(&t[0], &w, None, Conv2dSpec::padded(kernel / 2))
        })?;
    }
    for (queries, keys, heads, width) in
        [(4096, 4096, 8, 40), (1024, 1024, 8, 80), (256, 256, 8, 160), (4096, 77, 8, 40)]
    {
        let q = pseudo_normal(1, (1, queries, heads * width), 1.0);
        let k = pseudo_normal(2, (1, keys, heads * width), 1.0);
        let v = pseudo_normal(3, (1, keys, heads * width), 1.0);
        let work = 4.0 * (queries * keys * heads * width) as f64 / 1e9;
        line(&format!("attention {queries}x{keys} {heads}x{width}"), (work, 2.5 * work), &[q, k, v], |t| {
            attention(&t[0], &t[1], &t[2], heads, false)
        })?;
    }
    for (rows, inputs, outputs) in
        [(4096, 320, 320), (4096, 320, 2560), (4096, 1280, 320), (1024, 640, 5120), (256, 1280, 1280)]
    {
        let x = pseudo_normal(1, (rows, inputs), 1.0);
        let w = pseudo_normal(2, (outputs, inputs), 0.05);
        let work = 2.0 * (rows * inputs * outputs) as f64 / 1e9;
        line(&format!("linear {rows}x{inputs}->{outputs}"), (work, work), &[x], |t| linear(&t[0], &w, None))?;
    }
    let (w, b) = (pseudo_normal(2, 320, 0.1), pseudo_normal(3, 320, 0.1));
    line("group_norm_silu 320x64x64", (0.0, 0.0), &[pseudo_normal(1, (1, 320, 64, 64), 1.0)], |t| {
        group_norm_silu(&t[0], &w, &b, 32, 1e-5)
    })?;
    line("layer_norm 4096x320", (0.0, 0.0), &[pseudo_normal(1, (1, 4096, 320), 1.0)], |t| {
        layer_norm(&t[0], &w, &b, 1e-5)
    })?;
    line("geglu 4096x2560", (0.0, 0.0), &[pseudo_normal(1, (1, 4096, 2560), 1.0)], |t| geglu(&t[0]))
}
