//! Gradients of attention, tile by tile, with the scores computed anew (FlashAttention, Dao et al. 2022,
//! arXiv:2205.14135).
//!
//! Scores and their gradients are (queries, keys): rows of panels of queries, keys the lanes of vectors. So both are the
//! right side of the products that lead to the gradients of keys and values, as they are; only for the gradient of the
//! queries are they transposed. The gradients come as (channels, keys) and (channels, queries).

use super::Dims;
use super::strip::Right;
use super::tiles::{pack_channels, pack_rows};
use crate::host::{Shared, blocks, scratch};
use crate::simd::{dot, exp, multiversion, scale};
use crate::stored::Stored;
use crate::wide::pack::{self, Rows};
use crate::wide::transpose::transpose;
use crate::wide::{LANES, Unit, even_blocks};
use rayon::prelude::*;

/// Queries and keys of a tile: its scores, their gradients and these transposed are about as large as the second cache. From
/// 64 to 256 of either the time was the same within the noise.
const TILE: (usize, usize) = (192, 192);

/// Words from one row of a tile to the next: an odd number of vectors, as their addresses then use all of the cache.
const PITCH: (usize, usize) = (TILE.0 + LANES, TILE.1 + LANES);

/// What the gradients are made of: operands, result and its gradient, and what [`super::flash::forward`] left.
pub(super) struct Operands<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) output: &'a [f32],
    pub(super) grad: &'a [f32],
    pub(super) logs: &'a [f32],
}

/// The gradients of q, k and v.
pub(super) fn backward(unit: Unit, d: &Dims, o: &Operands) -> [Vec<f32>; 3] {
    let mut gradients = [o.q, o.k, o.v].map(|x| vec![0f32; x.len()]);
    let memory = gradients.each_mut().map(|g| Shared::new(g));
    (0..d.batch * d.heads).into_par_iter().for_each(|head| {
        let pass = Pass { unit, d, o, head, channels: unit.panels(d.width) };
        // SAFETY: each head has its own channels of its image.
        unsafe { pass.run(memory) };
    });
    gradients
}

multiversion! {
    /// From a row of scores and of the gradients of their weights: the weights, and the gradients of the scores before
    /// their scale. `log` is the logarithm of the sum of the scores' exponentials, `total` the sum of weights times
    /// gradients.
    fn weights_row(p: &mut [f32], d: &mut [f32], log: f32, total: f32, scale: f32) {
        for (p, d) in p.iter_mut().zip(d) {
            *p = exp::<FUSED>(*p - log);
            *d = scale * *p * (*d - total);
        }
    }
}

/// One head.
struct Pass<'a> {
    unit: Unit,
    d: &'a Dims,
    o: &'a Operands<'a>,
    head: usize,
    /// Panels of channels.
    channels: Vec<(usize, usize)>,
}

/// The keys of a head, and what is summed up for them.
struct Keys<'a> {
    /// Keys and values as right sides: (channels, 16) of each vector.
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// Keys as left sides, tile by tile: panels of channels, with a step for each key.
    channels: &'a mut [f32],
    /// The gradients of keys and values, tile by tile: (channels, pitch).
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

/// Some queries: of them and of the gradients of their results panels of rows, with a step for each channel, and panels of
/// channels, with a step for each query.
struct Queries<'a> {
    first: usize,
    count: usize,
    panels: Vec<(usize, usize)>,
    q: &'a mut [f32],
    g: &'a mut [f32],
    q_channels: &'a mut [f32],
    g_channels: &'a mut [f32],
    /// (channels, pitch).
    dq: &'a mut [f32],
}

/// Scores that become weights, the gradients of these that become those of the scores, and the latter transposed.
struct Scores<'a> {
    p: &'a mut [f32],
    ds: &'a mut [f32],
    turned: &'a mut [f32],
}

/// Cuts pieces off scratch memory.
fn cut<'a>(memory: &mut &'a mut [f32], words: usize) -> &'a mut [f32] {
    let (piece, rest) = std::mem::take(memory).split_at_mut(words);
    *memory = rest;
    piece
}

impl Pass<'_> {
    /// Computes the head's part of the gradients of q, k and v.
    ///
    /// # Safety
    /// Nobody else accesses it.
    unsafe fn run(&self, [dq, dk, dv]: [Shared; 3]) {
        let (d, width) = (self.d, self.d.width);
        let tiles = blocks(d.keys, TILE.1);
        let vectors = d.keys.next_multiple_of(LANES) * width;
        let (own, rows, sums) = (d.keys * width, TILE.0 * width, tiles.len() * PITCH.1 * width);
        let words = 2 * vectors
            + own
            + 2 * sums
            + 4 * rows
            + PITCH.0 * width
            + 2 * TILE.0 * PITCH.1
            + TILE.1 * PITCH.0;
        scratch(words, |mut memory| {
            let memory = &mut memory;
            let mut keys = Keys {
                keys: cut(memory, vectors),
                values: cut(memory, vectors),
                channels: cut(memory, own),
                dk: cut(memory, sums),
                dv: cut(memory, sums),
            };
            let [q, g, q_channels, g_channels] = std::array::from_fn(|_| cut(memory, rows));
            let (dq_sums, panels) = (cut(memory, PITCH.0 * width), Vec::new());
            let mut queries =
                Queries { first: 0, count: 0, panels, q, g, q_channels, g_channels, dq: dq_sums };
            let [p, ds] = std::array::from_fn(|_| cut(memory, TILE.0 * PITCH.1));
            let mut scores = Scores { p, ds, turned: cut(memory, TILE.1 * PITCH.0) };
            self.pack_keys(&tiles, &mut keys);
            for (first, count) in blocks(d.queries, TILE.0) {
                self.pack_queries((first, count), &mut queries);
                let totals = self.totals(first, count);
                for (i, tile) in tiles.iter().enumerate() {
                    if d.seen(first + count - 1) > tile.0 {
                        self.score(&queries, &keys, *tile, &mut scores);
                        self.weigh(&queries, *tile, &totals, &mut scores);
                        self.add(&mut queries, &mut keys, (i, *tile), &mut scores);
                    }
                }
                // SAFETY: the caller's promise.
                unsafe { self.write(queries.dq, PITCH.0, (first, count, d.queries), dq) };
            }
            for (i, (first, count)) in tiles.into_iter().enumerate() {
                for (sums, to) in [(&*keys.dk, dk), (&*keys.dv, dv)] {
                    let sums = &sums[i * PITCH.1 * width..];
                    // SAFETY: as above.
                    unsafe { self.write(sums, PITCH.1, (first, count, d.keys), to) };
                }
            }
        });
    }

    /// Lays out keys and values, and clears the sums of their gradients.
    fn pack_keys(&self, tiles: &[(usize, usize)], to: &mut Keys) {
        let (d, width, stride) = (self.d, self.d.width, self.d.channels());
        for (data, out) in [(self.o.k, &mut *to.keys), (self.o.v, &mut *to.values)] {
            for (key, count) in blocks(d.keys, LANES) {
                let out = &mut out[key * width..][..LANES * width];
                if count < LANES {
                    // What is there may be anything, and slow to compute with.
                    out.fill(0.0);
                }
                let rows =
                    Rows { data: Stored::F32(data), first: d.at(self.head, key, d.keys), stride, taps: 1 };
                pack::panel(self.unit, rows, count, (0, width), out, LANES);
            }
        }
        for (first, count) in tiles {
            let (from, out) =
                (&self.o.k[d.at(self.head, *first, d.keys)..], &mut to.channels[first * width..]);
            pack_channels(self.unit, &self.channels, *count, from, stride, out);
        }
        to.dk.fill(0.0);
        to.dv.fill(0.0);
    }

    /// Lays out some queries and the gradients of their results, and clears the sums of the queries' own.
    fn pack_queries(&self, (first, count): (usize, usize), to: &mut Queries) {
        let (width, stride) = (self.d.width, self.d.channels());
        let from = self.d.at(self.head, first, self.d.queries);
        let (q, g) = (&self.o.q[from..], &self.o.grad[from..]);
        (to.first, to.count, to.panels) = (first, count, self.unit.panels(count));
        pack_rows(self.unit, &to.panels, width, q, stride, to.q);
        scale(&mut to.q[..count * width], self.d.scale());
        pack_rows(self.unit, &to.panels, width, g, stride, to.g);
        pack_channels(self.unit, &self.channels, count, q, stride, to.q_channels);
        pack_channels(self.unit, &self.channels, count, g, stride, to.g_channels);
        to.dq.fill(0.0);
    }

    /// The sum of weights times their gradients of each query, which is that of results times gradients.
    fn totals(&self, first: usize, count: usize) -> Vec<f32> {
        let d = self.d;
        let row = |row: usize| {
            let start = d.at(self.head, row, d.queries);
            dot(&self.o.output[start..start + d.width], &self.o.grad[start..start + d.width])
        };
        (first..first + count).map(row).collect()
    }

    /// The scores of the keys of a tile, and the gradients of their weights.
    fn score(&self, queries: &Queries, keys: &Keys, (first, count): (usize, usize), to: &mut Scores) {
        let width = self.d.width;
        let right = |words| Right {
            words,
            vectors: count.div_ceil(LANES),
            apart: LANES * width,
            plane: LANES,
            steps: width,
        };
        let (k, v) = (right(&keys.keys[first * width..]), right(&keys.values[first * width..]));
        self.multiply(&queries.panels, queries.q, k, false, to.p, PITCH.1);
        self.multiply(&queries.panels, queries.g, v, false, to.ds, PITCH.1);
    }

    /// Makes weights of scores, and of the weights' gradients those of the scores. Both are zero where a query does not see.
    fn weigh(&self, queries: &Queries, (first, count): (usize, usize), totals: &[f32], scores: &mut Scores) {
        let (lanes, logs) = (count.next_multiple_of(LANES), &self.o.logs[self.head * self.d.queries..]);
        let rows = scores.p.chunks_exact_mut(PITCH.1).zip(scores.ds.chunks_exact_mut(PITCH.1));
        for (row, ((p, ds), total)) in rows.zip(totals).enumerate() {
            let query = queries.first + row;
            let seen = self.d.seen(query).saturating_sub(first).min(count);
            weights_row(&mut p[..seen], &mut ds[..seen], logs[query], *total, self.d.scale());
            p[seen..lanes].fill(0.0);
            ds[seen..lanes].fill(0.0);
        }
    }

    /// Adds what some queries and the keys of a tile are to each other's gradients.
    fn add(
        &self,
        queries: &mut Queries,
        keys: &mut Keys,
        (tile, (first, count)): (usize, (usize, usize)),
        scores: &mut Scores,
    ) {
        let width = self.d.width;
        let right = |words| Right {
            words,
            vectors: count.div_ceil(LANES),
            apart: LANES,
            plane: PITCH.1,
            steps: queries.count,
        };
        let at = tile * PITCH.1 * width;
        self.multiply(&self.channels, queries.g_channels, right(scores.p), true, &mut keys.dv[at..], PITCH.1);
        self.multiply(
            &self.channels,
            queries.q_channels,
            right(scores.ds),
            true,
            &mut keys.dk[at..],
            PITCH.1,
        );
        let lanes = queries.count.next_multiple_of(LANES);
        for (row, rows) in even_blocks(queries.count, LANES) {
            transpose(
                self.unit,
                &scores.ds[row * PITCH.1..],
                PITCH.1,
                (rows, count),
                &mut scores.turned[row..],
                PITCH.0,
            );
        }
        for row in scores.turned.chunks_exact_mut(PITCH.0).take(count) {
            row[queries.count..lanes].fill(0.0);
        }
        let turned = Right {
            words: scores.turned,
            vectors: lanes / LANES,
            apart: LANES,
            plane: PITCH.0,
            steps: count,
        };
        self.multiply(&self.channels, &keys.channels[first * width..], turned, true, queries.dq, PITCH.0);
    }

    /// `out = left right`, or what is added to it; its rows are `pitch` words apart.
    fn multiply(
        &self,
        panels: &[(usize, usize)],
        left: &[f32],
        right: Right,
        add: bool,
        out: &mut [f32],
        pitch: usize,
    ) {
        for (vector, vectors) in blocks(right.vectors, self.unit.vectors()) {
            let right = Right { words: &right.words[vector * right.apart..], vectors, ..right };
            for (row, rows) in panels {
                let to = &mut out[row * pitch + vector * LANES..];
                right.run(self.unit, (*rows, &left[row * right.steps..]), add, to, (pitch, LANES));
            }
        }
    }

    /// Writes sums (channels, pitch) to rows of a gradient, of which a tensor has `all` an image.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn write(
        &self,
        sums: &[f32],
        pitch: usize,
        (first, count, all): (usize, usize, usize),
        to: Shared,
    ) {
        let width = self.d.width;
        scratch(count * width, |out| {
            // Blocks of eight channels or more, or one alone: of fewer, the layout writes beyond the row.
            for (channel, channels) in even_blocks(width, LANES) {
                let from = &sums[channel * pitch..];
                transpose(self.unit, from, pitch, (channels, count), &mut out[channel..], width);
            }
            for (row, from) in out.chunks_exact(width).enumerate() {
                let start = self.d.at(self.head, first + row, all);
                // SAFETY: the caller's promise.
                unsafe { to.slice(start, width) }.copy_from_slice(from);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::flash;
    use crate::attention::reference::operands;
    use crate::gradcheck::pseudo_normal;

    fn dims(batch: usize, queries: usize, keys: usize, heads: usize, width: usize, causal: bool) -> Dims {
        Dims { batch, queries, keys, heads, width, causal }
    }

    /// Numbers in f64, and the sums of the magnitudes that they are made of.
    type Sums = Vec<(f64, f64)>;

    /// The gradients of q, k and v by their definition.
    fn reference(d: &Dims, [q, k, v]: [&[f32]; 3], grad: &[f32]) -> [Sums; 3] {
        let mut out = [q, k, v].map(|x| vec![(0f64, 0f64); x.len()]);
        let scale = 1.0 / (d.width as f64).sqrt();
        for (head, query) in (0..d.batch * d.heads).flat_map(|h| (0..d.queries).map(move |q| (h, q))) {
            let row = d.at(head, query, d.queries);
            let dot = |a: &[f32], a_at: usize, b: &[f32], b_at: usize| -> (f64, f64) {
                let terms =
                    a[a_at..][..d.width].iter().zip(&b[b_at..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
            };
            let at = |key: usize| d.at(head, key, d.keys);
            let scores: Vec<_> = (0..d.seen(query)).map(|key| scale * dot(q, row, k, at(key)).0).collect();
            let reach = (0..d.seen(query)).map(|key| scale * dot(q, row, k, at(key)).1).fold(0.0, f64::max);
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let weights: Vec<_> = scores.iter().map(|s| s.exp() / total).collect();
            let slopes: Vec<_> = (0..d.seen(query)).map(|key| dot(grad, row, v, at(key))).collect();
            let sum = |f: fn(&(f64, f64)) -> f64| -> f64 {
                slopes.iter().zip(&weights).map(|(s, w)| f(s) * w).sum()
            };
            let (mean, mean_size) = (sum(|s| s.0), sum(|s| s.1));
            for (key, (weight, slope)) in weights.iter().zip(&slopes).enumerate() {
                let ds = scale * weight * (slope.0 - mean);
                // An error of a score is one of its weight.
                let size = scale * weight * (slope.1 + mean_size) * (1.0 + reach);
                let mut add = |i: usize, to: usize, factor: f64, size: f64, by: f32| {
                    let (sum, sizes) = &mut out[i][to];
                    *sum += factor * f64::from(by);
                    *sizes += size * f64::from(by).abs();
                };
                for c in 0..d.width {
                    add(0, row + c, ds, size, k[at(key) + c]);
                    add(1, at(key) + c, ds, size, q[row + c]);
                    add(2, at(key) + c, *weight, weight * (1.0 + reach), grad[row + c]);
                }
            }
        }
        out
    }

    #[test]
    fn every_size_agrees_with_f64_in_every_unit() {
        let cases = [
            dims(1, 1, 1, 1, 1, false),
            dims(2, 1, 77, 3, 5, false),
            dims(1, 17, 1, 2, 7, false),
            dims(1, 33, 253, 2, 40, false),
            dims(1, 200, 6, 1, 8, false),
            dims(1, 7, 400, 1, 9, false),
            dims(1, 20, 85, 1, 300, false),
            dims(1, 193, 193, 2, 19, false),
            dims(2, 19, 19, 2, 4, true),
            dims(1, 400, 400, 1, 3, true),
        ];
        for (i, d) in cases.iter().enumerate() {
            let [q, k, v] = operands(3 * i as u64, d, [1.0; 3]);
            let grad = pseudo_normal(99, q.len(), 1.0).to_vec1::<f32>().unwrap();
            let want = reference(d, [&q, &k, &v], &grad);
            for unit in Unit::all().into_iter().filter(|u| !u.is_bf16()) {
                let (output, logs) = flash::forward(unit, d, &q, &k, &v);
                let o = Operands { q: &q, k: &k, v: &v, output: &output, grad: &grad, logs: &logs };
                for (name, (got, want)) in ["q", "k", "v"].iter().zip(backward(unit, d, &o).iter().zip(&want))
                {
                    for (i, (got, (want, size))) in got.iter().zip(want).enumerate() {
                        let error = (f64::from(*got) - want).abs();
                        assert!(
                            error <= 4e-6 * size,
                            "{unit:?} {d:?}, {name} {i}: {got} for {want} of {size}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_threads() {
        let d = dims(2, 210, 200, 3, 5, false);
        let [q, k, v] = operands(1, &d, [1.0; 3]);
        let (output, logs) = flash::forward(Unit::f32(), &d, &q, &k, &v);
        let o = Operands { q: &q, k: &k, v: &v, output: &output, grad: &q, logs: &logs };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| backward(Unit::f32(), &d, &o))
        };
        assert_eq!(run(1), run(3));
    }
}
