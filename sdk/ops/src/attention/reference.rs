//! Attention in f64, with what its result may differ by in f32, and with operands in bf16.

use super::Dims;
use super::flash::{self, Output};
use crate::gradcheck::pseudo_normal;
use crate::wide::Unit;
use half::bf16;

/// The largest error, in units of the magnitudes that a number is made of.
const TOLERANCE: f64 = 4e-6;

/// Queries, keys and values.
pub(super) type Operands = [Vec<f32>; 3];

/// Operands close to N(0, deviation²).
pub(super) fn operands(seed: u64, d: &Dims, deviations: [f32; 3]) -> Operands {
    let rows = [d.queries, d.keys, d.keys];
    std::array::from_fn(|i| {
        let numbers = pseudo_normal(seed + i as u64, d.batch * rows[i] * d.channels(), deviations[i]);
        numbers.to_vec1::<f32>().unwrap()
    })
}

/// The results of every unit that this processor has.
pub(super) fn every_way(d: &Dims, [q, k, v]: &Operands) -> Vec<(Unit, Output)> {
    Unit::all().into_iter().map(|u| (u, flash::forward(u, d, q, k, v))).collect()
}

/// The operands as a unit for bf16 multiplies them. Queries are rounded with the scale of scores.
fn rounded(d: &Dims, [q, k, v]: &Operands) -> Operands {
    let by = (std::f64::consts::LOG2_E / (d.width as f64).sqrt()) as f32;
    let round = |x: f32| bf16::from_f32(x).to_f32();
    [
        q.iter().map(|x| round(x * by) / by).collect(),
        k.iter().map(|x| round(*x)).collect(),
        v.iter().map(|x| round(*x)).collect(),
    ]
}

/// What one query of a head finds.
struct Row {
    values: Vec<f64>,
    /// The sum of the values' magnitudes, for each channel.
    sizes: Vec<f64>,
    log: f64,
    /// The largest sum of the magnitudes that a score is made of.
    reach: f64,
}

fn row(d: &Dims, [q, k, v]: &Operands, head: usize, query: usize) -> Row {
    let line = |data: &[f32], row: usize, rows: usize| -> Vec<f64> {
        data[d.at(head, row, rows)..][..d.width].iter().map(|x| f64::from(*x)).collect()
    };
    let scale = 1.0 / (d.width as f64).sqrt();
    let q = line(q, query, d.queries);
    let (mut scores, mut reach) = (Vec::new(), 0f64);
    for key in 0..d.seen(query) {
        let products: Vec<f64> = line(k, key, d.keys).iter().zip(&q).map(|(k, q)| k * q * scale).collect();
        scores.push(products.iter().sum::<f64>());
        reach = reach.max(products.iter().map(|p| p.abs()).sum());
    }
    let largest = scores.iter().fold(f64::NEG_INFINITY, |a, s| a.max(*s));
    let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
    let (mut values, mut sizes) = (vec![0.0; d.width], vec![0.0; d.width]);
    for (key, score) in scores.iter().enumerate() {
        let weight = (score - largest).exp() / total;
        for (channel, v) in line(v, key, d.keys).iter().enumerate() {
            values[channel] += weight * v;
            sizes[channel] += weight * v.abs();
        }
    }
    Row { values, sizes, log: largest + total.ln(), reach }
}

/// Checks every way against f64. An error of a score, which is one of its magnitudes', is one of all weights'; in bf16 these
/// are rounded once more, and numbers below the smallest normal one are zero.
pub(super) fn check(d: &Dims, operands: &Operands) {
    let (narrow, wide): (Vec<_>, Vec<_>) =
        every_way(d, operands).into_iter().partition(|(unit, _)| unit.is_bf16());
    let subnormal = f64::from(f32::MIN_POSITIVE);
    check_ways(d, operands, &wide, (0.0, 1e-6 * subnormal));
    check_ways(d, &rounded(d, operands), &narrow, (0.5f64.powi(8), subnormal));
}

fn check_ways(d: &Dims, operands: &Operands, ways: &[(Unit, Output)], (of_weights, least): (f64, f64)) {
    for (head, query) in (0..d.batch * d.heads).flat_map(|h| (0..d.queries).map(move |q| (h, q))) {
        let want = row(d, operands, head, query);
        let tolerance = TOLERANCE * (1.0 + want.reach);
        for (way, (out, logs)) in ways {
            let log = f64::from(logs[head * d.queries + query]);
            let error = (log - want.log).abs();
            assert!(error <= tolerance, "{way:?} {d:?}, {head}, {query}: logarithm {log} for {}", want.log);
            let out = &out[d.at(head, query, d.queries)..][..d.width];
            for (channel, got) in out.iter().enumerate() {
                let (want, size) = (want.values[channel], want.sizes[channel]);
                let most = (tolerance + of_weights) * size + least;
                let error = (f64::from(*got) - want).abs();
                assert!(error <= most, "{way:?} {d:?}, {head}, {query}, {channel}: {got} for {want}");
            }
        }
    }
}
