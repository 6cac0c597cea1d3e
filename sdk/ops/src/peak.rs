//! How fast this processor multiplies and adds: what the speed of kernels is measured against.

use crate::simd::{LANES, multiversion};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Fused multiply-adds of f32 numbers that so many threads reach together, in GFLOP/s (a multiplication and an addition
/// are two).
///
/// Independent sums are kept in registers, so that neither memory nor the latency of an instruction is waited for: no
/// kernel is faster, and one that loses nothing is as fast. Measures for about `time`, and needs no other load on the
/// machine to mean anything. A processor without fused operations is measured by separate ones.
pub fn peak(threads: usize, time: Duration) -> f64 {
    let kernel = Kernel::of_this_processor();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(move || kernel.rate(time))).collect();
        // A thread that failed counts for nothing.
        workers.into_iter().map(|worker| worker.join().unwrap_or(0.0)).sum()
    })
}

/// Threads that the operations of this crate use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Sums in work at once, enough for two units of four steps each, where there are 32 registers of this width.
const MANY: usize = 10;
/// Where a sum takes more than one of 16 or 32 registers. Twice as many registers are still enough for two units.
const FEW: usize = 5;

/// A number that is multiplied by the one and has the other added stays about 1, however often.
const BY: f32 = 0.999;
const PLUS: f32 = 0.001;

/// Multiply-adds of each sum between two looks at the clock.
const ROUNDS: usize = 1 << 13;

type Sums = [[f32; LANES]; MANY];

#[inline(always)]
fn fused(mut sum: [f32; LANES]) -> [f32; LANES] {
    for lane in &mut sum {
        *lane = lane.mul_add(BY, PLUS);
    }
    sum
}

#[inline(always)]
fn separate(mut sum: [f32; LANES]) -> [f32; LANES] {
    for lane in &mut sum {
        *lane = *lane * BY + PLUS;
    }
    sum
}

/// Takes sums through `rounds` steps. Each has a name of its own, and no index: so it stays in registers.
macro_rules! rounds {
    ($sums:ident, $rounds:ident, $step:ident: $($own:ident $i:literal),*) => {{
        $(let mut $own = $sums[$i];)*
        for _ in 0..$rounds {
            $($own = $step($own);)*
        }
        $($sums[$i] = $own;)*
    }};
}

multiversion! {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for AVX-512"))]
    fn fused_many(sums: &mut Sums, rounds: usize) {
        rounds!(sums, rounds, fused: a 0, b 1, c 2, d 3, e 4, f 5, g 6, h 7, i 8, j 9);
    }
}

multiversion! {
    fn fused_few(sums: &mut Sums, rounds: usize) {
        rounds!(sums, rounds, fused: a 0, b 1, c 2, d 3, e 4);
    }
}

multiversion! {
    fn separate_few(sums: &mut Sums, rounds: usize) {
        rounds!(sums, rounds, separate: a 0, b 1, c 2, d 3, e 4);
    }
}

/// A loop, and how many sums it has in work.
#[derive(Clone, Copy)]
struct Kernel {
    run: fn(&mut Sums, usize),
    sums: usize,
}

impl Kernel {
    fn of_this_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd::has_avx512() {
                return Self { run: fused_many, sums: MANY };
            }
            if !crate::simd::has_avx2() {
                return Self { run: separate_few, sums: FEW };
            }
        }
        // Elsewhere `mul_add` may be a call to a library where the processor is not known to have the instruction.
        let known = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        Self { run: if known { fused_few } else { separate_few }, sums: FEW }
    }

    /// What this thread reaches, in GFLOP/s.
    fn rate(self, time: Duration) -> f64 {
        let mut sums: Sums = black_box([[1.5; LANES]; MANY]);
        // The first ones run before the processor has raised its clock.
        (self.run)(&mut sums, ROUNDS);
        let began = Instant::now();
        let mut bursts = 0u64;
        let seconds = loop {
            (self.run)(&mut sums, ROUNDS);
            bursts += 1;
            let elapsed = began.elapsed();
            if elapsed >= time {
                break elapsed.as_secs_f64();
            }
        };
        black_box(&sums);
        let lanes = (ROUNDS * self.sums * LANES) as f64;
        2.0 * bursts as f64 * lanes / seconds.max(f64::MIN_POSITIVE) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loop_does_the_arithmetic_that_is_counted() {
        // x -> by x + plus, n times, from 3: the difference to the fixed point shrinks by `by` each time.
        let fixed = f64::from(PLUS) / (1.0 - f64::from(BY));
        let want = |n: i32| fixed + (3.0 - fixed) * f64::from(BY).powi(n);
        let kernel = |run, sums| Kernel { run, sums };
        for Kernel { run, sums } in
            [kernel(fused_many, MANY), kernel(fused_few, FEW), kernel(separate_few, FEW)]
        {
            let mut got: Sums = [[3.0; LANES]; MANY];
            run(&mut got, 700);
            for (i, sum) in got.iter().enumerate() {
                let want = if i < sums { want(700) } else { 3.0 };
                assert!(sum.iter().all(|v| (f64::from(*v) - want).abs() < 5e-4), "{i}: {sum:?}, {want}");
            }
        }
    }

    #[test]
    fn a_peak_is_a_rate() {
        let rate = peak(1, Duration::from_millis(2));
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
        assert!(threads() > 0);
    }
}
