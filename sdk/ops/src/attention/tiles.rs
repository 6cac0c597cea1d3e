//! Keys and values laid out as left sides of products, tile by tile.

use super::Dims;
use crate::host::{Shared, blocks};
use crate::stored::Stored;
use crate::wide::pack::{self, Rows};
use crate::wide::{Unit, pairs};
use rayon::prelude::*;

/// Words of the keys of a tile, and of its values: both stay in the second cache of one core.
const WORDS: usize = 32 << 10;

/// Keys of a tile: enough to make up for reading and writing the sums, and few enough that a vector of queries has its
/// scores in the first cache. Both are whole panels and whole steps of every unit.
const KEYS: (usize, usize) = (84, 252);

/// Neighbouring keys of a head, and their panels: (first of the tile's, count) of each.
pub(super) struct Tile {
    pub(super) first: usize,
    pub(super) keys: usize,
    pub(super) panels: Vec<(usize, usize)>,
}

/// How the keys of a head are cut and laid out. As it depends on nothing else, neither do the bits of a result.
pub(super) struct Tiles {
    unit: Unit,
    keys: usize,
    width: usize,
    /// Panels of the channels of values.
    pub(super) channels: Vec<(usize, usize)>,
    pub(super) all: Vec<Tile>,
}

impl Tiles {
    pub(super) fn new(unit: Unit, d: &Dims) -> Self {
        let count = d.keys.div_ceil((WORDS / d.width).clamp(KEYS.0, KEYS.1));
        // Only the last tile has panels or a step that are not full.
        let each = d.keys.div_ceil(count).next_multiple_of(unit.rows() * unit.elements());
        let tile = |(first, keys)| Tile { first, keys, panels: unit.panels(keys) };
        let all = blocks(d.keys, each).into_iter().map(tile).collect();
        Self { unit, keys: d.keys, width: d.width, channels: unit.panels(d.width), all }
    }

    /// Keys of the largest tile.
    pub(super) fn largest(&self) -> usize {
        self.all.iter().map(|t| t.keys).max().unwrap_or(0)
    }

    /// Words of a head: its keys, and then its values.
    pub(super) fn words(&self) -> usize {
        self.key_words() + self.unit.steps(self.keys) * self.width
    }

    fn key_words(&self) -> usize {
        self.keys * self.unit.steps(self.width)
    }

    /// Where a tile's values are, of the words of a head.
    fn values(&self, tile: &Tile) -> usize {
        self.key_words() + self.unit.steps(tile.first) * self.width
    }

    /// Lays out `count` heads from `head` on, one after the other.
    pub(super) fn pack(
        &self,
        d: &Dims,
        (head, count): (usize, usize),
        k: &[f32],
        v: &[f32],
        out: &mut [f32],
    ) {
        let memory = Shared::new(out);
        let jobs: Vec<_> = (0..count).flat_map(|i| self.all.iter().map(move |tile| (i, tile))).collect();
        jobs.into_par_iter().for_each(|(i, tile)| {
            let (head_words, steps) = (i * self.words(), self.unit.steps(self.width));
            // SAFETY: each tile of each head has its own part of the memory.
            let keys = unsafe { memory.slice(head_words + tile.first * steps, tile.keys * steps) };
            let (start, len) = (head_words + self.values(tile), self.unit.steps(tile.keys) * self.width);
            // SAFETY: as above.
            let values = unsafe { memory.slice(start, len) };
            let from = d.at(head + i, tile.first, d.keys);
            pack_rows(self.unit, &tile.panels, self.width, &k[from..], d.channels(), keys);
            pack_channels(self.unit, &self.channels, tile.keys, &v[from..], d.channels(), values);
        });
    }

    /// A panel of keys, of the words of a head: (steps of the width, panel's keys).
    pub(super) fn key_panel<'a>(
        &self,
        head: &'a [f32],
        tile: &Tile,
        (key, count): (usize, usize),
    ) -> &'a [f32] {
        let steps = self.unit.steps(self.width);
        &head[(tile.first + key) * steps..][..count * steps]
    }

    /// A panel of channels of values, of the words of a head: (steps of the tile's keys, panel's channels).
    pub(super) fn value_panel<'a>(
        &self,
        head: &'a [f32],
        tile: &Tile,
        (channel, count): (usize, usize),
    ) -> &'a [f32] {
        let steps = self.unit.steps(tile.keys);
        &head[self.values(tile) + channel * steps..][..count * steps]
    }
}

/// Panels of rows, with the steps of `width` channels. Rows are `stride` numbers apart.
pub(super) fn pack_rows(
    unit: Unit,
    panels: &[(usize, usize)],
    width: usize,
    data: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    for (row, count) in panels {
        let rows = Rows { data: Stored::F32(data), first: row * stride, stride, taps: 1 };
        pack::panel(unit, rows, *count, (0, width), &mut out[row * unit.steps(width)..], *count);
    }
}

/// Panels of channels, with the steps of `rows` rows, which are `stride` numbers apart.
pub(super) fn pack_channels(
    unit: Unit,
    panels: &[(usize, usize)],
    rows: usize,
    data: &[f32],
    stride: usize,
    out: &mut [f32],
) {
    let steps = unit.steps(rows);
    for (channel, count) in panels {
        let row = |row: usize| &data[row * stride + channel..][..*count];
        for (step, out) in out[channel * steps..][..count * steps].chunks_exact_mut(*count).enumerate() {
            match (unit.is_bf16(), 2 * step + 1 < rows) {
                (false, _) => out.copy_from_slice(row(step)),
                (true, true) => pairs::columns(row(2 * step), row(2 * step + 1), out),
                (true, false) => pairs::single_columns(row(2 * step), out),
            }
        }
    }
}
