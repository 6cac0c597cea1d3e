//! Attention on wide registers, tile of keys by tile of keys (FlashAttention, Dao et al. 2022,
//! arXiv:2205.14135).
//!
//! Everything is transposed: keys and channels of values are the rows of panels, 16 queries the lanes of a vector. So the
//! softmax runs over rows, with no sums across lanes, and the weights of a vector, (keys, 16), are the right side of the
//! product with the values as they are. Only the queries and the result, the smallest sides, are transposed.

use super::Dims;
use super::online::{Lanes, Online, scale_lanes};
use super::strip::Right;
use super::tiles::{Tile, Tiles};
use crate::host::{self, Shared, blocks, scratch};
use crate::simd::scale;
use crate::stored::Stored;
use crate::wide::pack::{self, Rows};
use crate::wide::transpose::transpose;
use crate::wide::{LANES, Unit, even_blocks};
use rayon::prelude::*;

/// Words of keys and values laid out at a time.
const PACKED: usize = 4 << 20;

/// Most queries of a job: a tile of keys and values comes to the second cache once for all of them.
const QUERIES: usize = 256;

/// The result, shaped as q, and of each head's each query, (B * heads, N), the logarithm of the sum of the exponentials
/// of its scores.
pub(super) type Output = (Vec<f32>, Vec<f32>);

/// Attends from the queries to the keys and values.
pub(super) fn forward(unit: Unit, d: &Dims, q: &[f32], k: &[f32], v: &[f32]) -> Output {
    let mut logs = vec![0f32; d.batch * d.heads * d.queries];
    let (tiles, log_memory) = (Tiles::new(unit, d), Shared::new(&mut logs));
    let compute = |out: Shared| {
        let pass = Pass { unit, d, q, tiles: &tiles, out, logs: log_memory };
        for heads in even_blocks(d.batch * d.heads, (PACKED / tiles.words()).max(1)) {
            scratch(heads.1 * tiles.words(), |packed| {
                tiles.pack(d, heads, k, v, packed);
                pass.heads(heads, packed);
            });
        }
    };
    // SAFETY: every job writes all channels of its queries' heads, and the jobs are all queries of all heads.
    (unsafe { host::written(q.len(), compute) }, logs)
}

/// Queries that are multiplied with the keys at once, in one or two vectors, and what they have so far.
struct Group<'a> {
    /// Of the head's queries.
    first: usize,
    count: usize,
    /// The queries, (steps of the width, 16) of each vector, which have room for (width, 16).
    queries: &'a mut [f32],
    /// Values summed with weights, (width, 16) of each vector.
    sums: &'a mut [f32],
    softmax: &'a mut [Online],
}

impl Group<'_> {
    fn vectors(&self) -> usize {
        self.count.div_ceil(LANES)
    }
}

struct Pass<'a> {
    unit: Unit,
    d: &'a Dims,
    q: &'a [f32],
    tiles: &'a Tiles,
    out: Shared,
    logs: Shared,
}

impl Pass<'_> {
    /// Computes `count` heads from `head` on, whose keys and values are laid out.
    fn heads(&self, (head, count): (usize, usize), packed: &[f32]) {
        // Few heads (the VAE has one): fewer queries, so that every thread has some.
        let queries = self.d.queries.div_ceil(host::wanted_jobs().div_ceil(count)).min(QUERIES);
        let queries = blocks(self.d.queries, queries.next_multiple_of(self.lanes()));
        let jobs: Vec<_> = (0..count).flat_map(|i| queries.iter().map(move |q| (i, *q))).collect();
        jobs.into_par_iter().for_each(|(i, queries)| {
            let words = self.tiles.words();
            // SAFETY: each job has its own queries.
            unsafe { self.job(head + i, queries, &packed[i * words..][..words]) };
        });
    }

    /// Queries of a group.
    fn lanes(&self) -> usize {
        self.unit.vectors() * LANES
    }

    /// Computes `count` queries of a head from `first` on. `packed` are its keys and values.
    ///
    /// # Safety
    /// Nobody else accesses these queries' part of the result.
    unsafe fn job(&self, head: usize, (first, count): (usize, usize), packed: &[f32]) {
        let (lanes, each) = (self.lanes(), self.lanes() * self.d.width);
        let all = blocks(count, lanes);
        let mut softmax = vec![Online::START; all.len() * self.unit.vectors()];
        scratch(2 * all.len() * each + lanes * self.tiles.largest(), |memory| {
            let (queries, memory) = memory.split_at_mut(all.len() * each);
            let (sums, scores) = memory.split_at_mut(all.len() * each);
            sums.fill(0.0);
            let parts = queries.chunks_exact_mut(each).zip(sums.chunks_exact_mut(each));
            let parts = parts.zip(softmax.chunks_exact_mut(self.unit.vectors()));
            let groups = all.iter().zip(parts).map(|((at, count), ((queries, sums), softmax))| {
                self.pack_queries(head, (first + at, *count), queries);
                Group { first: first + at, count: *count, queries, sums, softmax }
            });
            let mut groups: Vec<_> = groups.collect();
            for tile in &self.tiles.all {
                for group in &mut groups {
                    self.attend(group, tile, packed, scores);
                }
            }
            for group in &mut groups {
                // SAFETY: the caller's promise.
                unsafe { self.write(head, group) };
            }
        });
    }

    /// Lays out queries, times the scale of scores: (steps of the width, 16) of each vector.
    fn pack_queries(&self, head: usize, (first, count): (usize, usize), out: &mut [f32]) {
        let width = self.d.width;
        let by = std::f64::consts::LOG2_E / (width as f64).sqrt();
        for (at, count) in blocks(count, LANES) {
            let out = &mut out[at * width..][..LANES * width];
            if count < LANES {
                // What is there may be anything, and slow to compute with.
                out.fill(0.0);
            }
            scratch(count * width, |scaled| {
                for (row, to) in scaled.chunks_exact_mut(width).enumerate() {
                    let start = self.d.at(head, first + at + row, self.d.queries);
                    to.copy_from_slice(&self.q[start..start + width]);
                }
                scale(scaled, by as f32);
                let rows = Rows { data: Stored::F32(scaled), first: 0, stride: width, taps: 1 };
                pack::panel(self.unit, rows, count, (0, width), out, LANES);
            });
        }
    }

    /// Attends to the keys of a tile. `scores` has room for them.
    fn attend(&self, group: &mut Group, tile: &Tile, packed: &[f32], scores: &mut [f32]) {
        let last = group.first + group.count - 1;
        let seen = self.d.seen(last).saturating_sub(tile.first).min(tile.keys);
        if seen == 0 {
            return;
        }
        let (width, apart) = (self.d.width * LANES, self.tiles.largest() * LANES);
        self.score(group, tile, packed, seen, scores);
        for vector in 0..group.vectors() {
            let scores = scores[vector * apart..][..seen * LANES].as_chunks_mut::<LANES>().0;
            if self.d.causal {
                hide(scores, tile.first, group.first + vector * LANES);
            }
            let factors = group.softmax[vector].take(scores, self.unit.is_bf16());
            if factors != [1.0; LANES] {
                let sums = group.sums[vector * width..][..width].as_chunks_mut::<LANES>().0;
                scale_lanes(sums, factors);
            }
        }
        let steps = self.unit.steps(seen);
        let weights = Right { words: scores, vectors: group.vectors(), apart, plane: LANES, steps };
        for (channel, count) in &self.tiles.channels {
            let values = self.tiles.value_panel(packed, tile, (*channel, *count));
            weights.run(
                self.unit,
                (*count, values),
                true,
                &mut group.sums[channel * LANES..],
                (LANES, width),
            );
        }
    }

    /// Scores of the keys of a tile, the first `seen` at least: (keys, 16) of each vector.
    fn score(&self, group: &Group, tile: &Tile, packed: &[f32], seen: usize, scores: &mut [f32]) {
        let apart = self.tiles.largest() * LANES;
        for (step, steps) in even_blocks(self.unit.steps(self.d.width), self.unit.depth()) {
            let queries = Right {
                words: &group.queries[step * LANES..],
                vectors: group.vectors(),
                apart: self.d.width * LANES,
                plane: LANES,
                steps,
            };
            for (key, count) in tile.panels.iter().take_while(|p| p.0 < seen) {
                let keys = &self.tiles.key_panel(packed, tile, (*key, *count))[step * count..];
                let to = &mut scores[key * LANES..];
                queries.run(self.unit, (*count, keys), step > 0, to, (LANES, apart));
            }
        }
    }

    /// Writes the result of a group.
    ///
    /// # Safety
    /// As [`Self::job`].
    unsafe fn write(&self, head: usize, group: &mut Group) {
        let (d, width) = (self.d, self.d.width);
        for (vector, (at, count)) in blocks(group.count, LANES).into_iter().enumerate() {
            let softmax = &group.softmax[vector];
            let sums = &mut group.sums[at * width..][..LANES * width];
            scale_lanes(sums.as_chunks_mut::<LANES>().0, softmax.inverse());
            // The queries are of no more use: their memory takes the result, (16, width).
            let out = &mut group.queries[at * width..][..LANES * width];
            // Blocks of eight channels or more, or one alone: of fewer, the layout writes beyond the row.
            for (channel, channels) in even_blocks(width, LANES) {
                let from = &sums[channel * LANES..];
                transpose(self.unit, from, LANES, (channels, count), &mut out[channel..], width);
            }
            // SAFETY: the caller's promise.
            let logs = unsafe { self.logs.slice(head * d.queries + group.first + at, count) };
            for (lane, (log, from)) in logs.iter_mut().zip(out.chunks_exact(width)).enumerate() {
                *log = softmax.log(lane);
                let start = d.at(head, group.first + at + lane, d.queries);
                // SAFETY: as above.
                unsafe { self.out.slice(start, width) }.copy_from_slice(from);
            }
        }
    }
}

/// Makes scores of keys after their query minus infinity: `key` is the first row's, `query` the first lane's.
fn hide(scores: &mut [Lanes], key: usize, query: usize) {
    for (i, row) in scores.iter_mut().enumerate().skip((query + 1).saturating_sub(key)) {
        // The first lanes' queries are before the key.
        let hidden = (key + i - query).min(LANES);
        row[..hidden].fill(f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{check, every_way, operands};

    fn dims(batch: usize, queries: usize, keys: usize, heads: usize, width: usize) -> Dims {
        Dims { batch, queries, keys, heads, width, causal: false }
    }

    fn causal(batch: usize, queries: usize, heads: usize, width: usize) -> Dims {
        Dims { causal: true, ..dims(batch, queries, queries, heads, width) }
    }

    /// Bits: zeros differ by their sign.
    fn bits(data: &[f32]) -> Vec<u32> {
        data.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn every_size_agrees_with_f64_in_every_unit() {
        let cases = [
            dims(1, 1, 1, 1, 1),
            dims(2, 1, 77, 3, 5),
            dims(1, 17, 1, 2, 7),
            dims(1, 33, 253, 2, 40),
            dims(2, 19, 6, 1, 8),
            dims(1, 16, 600, 1, 9),
            dims(1, 50, 85, 1, 300),
            dims(3, 31, 520, 1, 20),
            dims(1, 270, 14, 2, 3),
            causal(1, 1, 1, 1),
            causal(1, 5, 1, 2),
            causal(2, 77, 2, 16),
            causal(1, 300, 1, 17),
        ];
        for (i, d) in cases.iter().enumerate() {
            check(d, &operands(3 * i as u64, d, [1.0; 3]));
        }
    }

    #[test]
    fn numbers_of_all_magnitudes_agree_with_f64_in_every_unit() {
        for d in [dims(1, 18, 300, 1, 24), causal(1, 40, 2, 5)] {
            for deviations in [
                [5.0, 5.0, 1.0],
                [30.0, 30.0, 1e-3],
                [100.0, 100.0, 1e15],
                [0.0, 1.0, 1.0],
                [1e-39, 1.0, 1e4],
                [1.0, 1.0, 1e-39],
                [1e-39; 3],
            ] {
                check(&d, &operands(7, &d, deviations));
            }
        }
    }

    #[test]
    fn scores_that_rise_fall_or_have_one_peak_agree_with_f64_in_every_unit() {
        let d = dims(1, 20, 600, 1, 5);
        let peak = |at: usize| move |key: usize| if key == at { 40f32 } else { -3.0 };
        let shapes: [Box<dyn Fn(usize) -> f32>; 7] = [
            Box::new(|key| key as f32 * 0.07),
            Box::new(|key| key as f32 * -0.07),
            Box::new(|key| (key / 100) as f32 * 30.0 - 90.0),
            Box::new(peak(0)),
            Box::new(peak(209)),
            Box::new(peak(210)),
            Box::new(peak(599)),
        ];
        for shape in shapes {
            let [mut q, mut k, v] = operands(5, &d, [1.0; 3]);
            q.fill(1.0);
            for (key, row) in k.chunks_exact_mut(d.channels()).enumerate() {
                row.fill(shape(key));
            }
            check(&d, &[q, k, v]);
        }
    }

    #[test]
    fn what_is_not_a_number_reaches_its_head_and_the_queries_that_see_it() {
        for d in [dims(2, 20, 300, 2, 6), causal(2, 300, 2, 6)] {
            for (head, key) in [(0, 0), (1, 130), (3, 299)] {
                let [q, mut k, v] = operands(1, &d, [1.0; 3]);
                k[d.at(head, key, d.keys) + 2] = f32::NAN;
                for (way, (out, logs)) in every_way(&d, &[q, k, v]) {
                    for (i, log) in logs.iter().enumerate() {
                        let (of, query) = (i / d.queries, i % d.queries);
                        let reached = of == head && d.seen(query) > key;
                        assert_eq!(log.is_nan(), reached, "{way:?} {d:?}, {of}, {query}, key {key}");
                        let out = &out[d.at(of, query, d.queries)..][..d.width];
                        assert!(out.iter().all(|x| x.is_nan() == reached), "{way:?} {d:?}, {of}, {query}");
                    }
                }
            }
        }
    }

    #[test]
    fn scores_of_minus_infinity_have_no_weight_and_nothing_else_is_no_number() {
        let (all, later) = (dims(1, 3, 600, 1, 1), dims(1, 3, 200, 1, 1));
        let [mut q, mut k, v] = operands(1, &all, [1.0; 3]);
        q.fill(1.0);
        // More than a tile.
        k[..400].fill(f32::NEG_INFINITY);
        for unit in Unit::all() {
            let (got, _) = forward(unit, &all, &q, &k, &v);
            let (want, _) = forward(unit, &later, &q, &k[400..], &v[400..]);
            // Other tiles: in bf16 weights are rounded relative to other numbers.
            let most = if unit.is_bf16() { 1e-2 } else { 1e-5 };
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < most, "{unit:?}: {got} for {want}");
            }
            let (none, _) = forward(unit, &all, &q, &[f32::NEG_INFINITY; 600], &v);
            assert!(none.iter().all(|x| x.is_nan()), "{unit:?}: {none:?}");
        }
    }

    #[test]
    fn the_bits_depend_neither_on_the_threads_nor_on_what_is_computed_beside() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for d in [dims(3, 90, 300, 2, 20), causal(3, 290, 2, 20)] {
            let [q, k, v] = operands(1, &d, [3.0, 1.0, 1.0]);
            for unit in Unit::all() {
                let run = |threads: usize, d: &Dims, [q, k, v]: [&[f32]; 3]| {
                    let (out, logs) = pool(threads).install(|| forward(unit, d, q, k, v));
                    (bits(&out), bits(&logs))
                };
                let whole = run(1, &d, [&q, &k, &v]);
                assert_eq!(whole, run(2, &d, [&q, &k, &v]));
                assert_eq!(whole, run(7, &d, [&q, &k, &v]));
                let part = |data: &[f32], rows: usize| {
                    let each = rows * d.channels();
                    data[each..2 * each].to_vec()
                };
                let [q, k, v] = [part(&q, d.queries), part(&k, d.keys), part(&v, d.keys)];
                let second = run(2, &Dims { batch: 1, ..d }, [&q, &k, &v]).0;
                let of_second = &whole.0[d.queries * d.channels()..][..d.queries * d.channels()];
                assert_eq!(second, of_second);
                // Query by query, where each sees all keys.
                for query in (0..d.queries).step_by(7).filter(|_| !d.causal) {
                    let row = query * d.channels()..(query + 1) * d.channels();
                    let one = Dims { batch: 1, queries: 1, ..d };
                    assert_eq!(run(1, &one, [&q[row.clone()], &k, &v]).0, of_second[row]);
                }
            }
        }
    }
}
