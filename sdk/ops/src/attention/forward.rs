//! The forward pass: on the wide registers of x86-64, or by products of blocks of queries with all keys.

use super::Dims;
#[cfg(target_arch = "x86_64")]
use super::flash;
use crate::host::{self, Shared, blocks, scratch};
use crate::matmul::{Mat, Target, product};
use crate::simd::{exp_row, scale};
#[cfg(target_arch = "x86_64")]
use crate::wide::Unit;
use rayon::prelude::*;

/// The result, shaped as q, and of each head's each query, (B * heads, N), the logarithm of the sum of the exponentials
/// of its scores.
pub(super) type Output = (Vec<f32>, Vec<f32>);

/// Attends from the queries to the keys and values, by the best way that the processor has.
pub(super) fn forward(d: &Dims, q: &[f32], k: &[f32], v: &[f32]) -> Output {
    on_wide_registers(d, q, k, v).unwrap_or_else(|| in_blocks(d, q, k, v))
}

#[cfg(target_arch = "x86_64")]
fn on_wide_registers(d: &Dims, q: &[f32], k: &[f32], v: &[f32]) -> Option<Output> {
    Unit::f32().map(|unit| flash::forward(unit, d, q, k, v))
}

#[cfg(not(target_arch = "x86_64"))]
fn on_wide_registers(_: &Dims, _: &[f32], _: &[f32], _: &[f32]) -> Option<Output> {
    None
}

/// [`forward`] by products of blocks of queries with all keys.
pub(super) fn in_blocks(d: &Dims, q: &[f32], k: &[f32], v: &[f32]) -> Output {
    let transposed = transposed_keys(d, k);
    let mut out = vec![0f32; q.len()];
    let mut logs = vec![0f32; d.batch * d.heads * d.queries];
    let (memory, log_memory) = (Shared::new(&mut out), Shared::new(&mut logs));
    let rows = block(d);
    let jobs: Vec<_> = (0..d.batch * d.heads)
        .flat_map(|head| blocks(d.queries, rows).into_iter().map(move |b| (head, b)))
        .collect();
    jobs.into_par_iter().for_each(|(head, (start, rows))| {
        scratch(rows * d.keys, |p| {
            let mut found = vec![(0f32, 0f32); rows];
            let keys = Mat::rows(&transposed[head * d.width * d.keys..], d.keys);
            exponentials(d, d.query(q, head, start), keys, start, p, &mut found);
            let size = (rows, d.width, d.keys);
            let target = d.query_target(memory, head, start);
            // SAFETY: these rows of this head belong to this job.
            unsafe { product(target, false, size, Mat::rows(p, d.keys), d.key(v, head, 0), 1.0) };
            // SAFETY: as above.
            let logs = unsafe { log_memory.slice(head * d.queries + start, rows) };
            for (row, ((largest, sum), log)) in found.into_iter().zip(logs).enumerate() {
                *log = largest + sum.ln();
                let start = target.start + row * target.row_stride;
                // SAFETY: as above.
                scale(unsafe { memory.slice(start, d.width) }, 1.0 / sum);
            }
        });
    });
    (out, logs)
}

/// Queries of one block. Larger blocks repack keys and values less often, smaller ones stay in the cache.
fn block(d: &Dims) -> usize {
    const SCORES: usize = 1 << 19;
    let rows = (SCORES / d.keys).clamp(16, 1024).min(d.queries.max(1));
    // Few heads (the VAE has one): smaller blocks, so that every thread has some.
    let per_head = host::wanted_jobs().div_ceil(d.batch * d.heads);
    rows.min(d.queries.div_ceil(per_head).max(16))
}

/// The keys of every head, transposed: (B * heads, D, M). As the products take them without repacking.
fn transposed_keys(d: &Dims, k: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; k.len()];
    let heads = out.par_chunks_mut(d.width * d.keys).enumerate();
    heads.for_each(|(head, out)| d.transpose_head(k, head, out));
    out
}

/// Exponentials of the scores of the queries `start..start + rows` of one head, into `p` (rows x keys), each less its
/// row's largest; the largest and the sum of each row, by which they are to be divided.
fn exponentials(d: &Dims, q: Mat, k: Mat, start: usize, p: &mut [f32], rows: &mut [(f32, f32)]) {
    let size = (rows.len(), d.keys, d.width);
    // SAFETY: `p` is borrowed exclusively.
    unsafe { product(Target::own(p, d.keys), false, size, q, k, d.scale()) };
    for (row, (p, found)) in p.chunks_exact_mut(d.keys).zip(rows).enumerate() {
        let (seen, hidden) = p.split_at_mut(d.seen(start + row));
        *found = exp_row(seen);
        hidden.fill(0.0);
    }
}
