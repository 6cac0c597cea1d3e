//! Tiles whose columns lie anywhere in the result.

use super::tile::{self, Tile, Walk};
use super::{LANES, ROWS, Unit};

/// Neighbouring lanes of a vector whose sums go to neighbouring elements of a row of the result.
#[derive(Clone, Copy, Debug)]
struct Piece {
    lane: usize,
    lanes: usize,
    element: usize,
}

/// A vector of the right side: its first word, and where its sums go.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    at: usize,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// All lanes are neighbours: the first element.
    Whole(usize),
    Pieces(Vec<Piece>),
}

impl Vector {
    /// The vector at word `at`, whose lane i belongs to the element `element(i)` of a row, or to none.
    pub(crate) fn new(at: usize, element: impl Fn(usize) -> Option<usize>) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for lane in 0..LANES {
            let Some(element) = element(lane) else { continue };
            match pieces.last_mut() {
                Some(p) if p.lane + p.lanes == lane && p.element + p.lanes == element => p.lanes += 1,
                _ => pieces.push(Piece { lane, lanes: 1, element }),
            }
        }
        match pieces[..] {
            [Piece { lanes: LANES, element, .. }] => Self::whole(at, element),
            _ => Self { at, place: Place::Pieces(pieces) },
        }
    }

    /// The vector at word `at`, whose lanes belong to the elements from `element` on.
    pub(crate) fn whole(at: usize, element: usize) -> Self {
        Self { at, place: Place::Whole(element) }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let (whole, pieces): (_, &[Piece]) = match &self.place {
            Place::Whole(element) => (Some(Piece { lane: 0, lanes: LANES, element: *element }), &[]),
            Place::Pieces(pieces) => (None, pieces),
        };
        whole.into_iter().chain(pieces.iter().copied())
    }
}

/// What is added to the sums.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// One number for each row, as a vector.
    Rows(&'a [[f32; LANES]]),
    /// One number for each element of a row.
    Columns(&'a [f32]),
    /// What is there.
    There,
}

/// The left side, and where the rows of the result are.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub(crate) unit: Unit,
    pub(crate) rows: usize,
    pub(crate) a: &'a [f32],
    pub(crate) start: Start<'a>,
    pub(crate) out: *mut f32,
    pub(crate) out_row: usize,
}

/// The panel times one or two vectors, as many as the unit takes at once or fewer.
///
/// # Safety
/// The elements of the vectors exist in every row of the result and nobody else accesses them.
pub(crate) unsafe fn run(panel: &Panel, b: &[f32], walk: Walk, vectors: &[Vector]) {
    let [first, rest @ ..] = vectors else { return };
    let both = [first, rest.first().unwrap_or(first)];
    assert!(panel.a.len() >= walk.steps() * panel.rows, "a panel of {} words", panel.a.len());
    assert!(both.iter().all(|v| v.at + walk.reach() <= b.len()), "a vector beyond {} words", b.len());
    let b = both.map(|v| b[v.at..].as_ptr());
    let [Place::Whole(x), Place::Whole(y)] = both.map(|v| &v.place) else {
        // SAFETY: the caller's promise, with the bounds of both sides checked.
        return unsafe { scattered(panel, b, walk, vectors) };
    };
    let out = [x, y].map(|at| panel.out.wrapping_add(*at));
    let (start, start_row) = match panel.start {
        Start::Rows(numbers) => ([numbers[..panel.rows].as_ptr().cast(); 2], LANES),
        Start::Columns(numbers) => ([x, y].map(|at| numbers[*at..][..LANES].as_ptr()), 0),
        Start::There => (out.map(<*mut f32>::cast_const), panel.out_row),
    };
    let tile = Tile { a: panel.a.as_ptr(), b, start, start_row, out, out_row: panel.out_row };
    // SAFETY: as above.
    unsafe { tile::run(panel.unit, panel.rows, vectors.len(), &tile, walk) };
}

/// A tile by way of a buffer.
///
/// # Safety
/// As [`run`], with the bounds of both sides checked.
unsafe fn scattered(panel: &Panel, b: [*const f32; 2], walk: Walk, vectors: &[Vector]) {
    let rows = panel.rows;
    let element = |row: usize, piece: Piece| panel.out.wrapping_add(row * panel.out_row + piece.element);
    let mut buffer = [[0f32; LANES]; 2 * ROWS];
    for (vector, buffer) in vectors.iter().zip(buffer.chunks_exact_mut(rows)) {
        for (row, buffer) in buffer.iter_mut().enumerate() {
            if let Start::Rows(numbers) = panel.start {
                *buffer = numbers[row];
                continue;
            }
            for piece in vector.pieces() {
                let buffer = &mut buffer[piece.lane..][..piece.lanes];
                if let Start::Columns(numbers) = panel.start {
                    buffer.copy_from_slice(&numbers[piece.element..][..piece.lanes]);
                    continue;
                }
                // SAFETY: the piece's elements exist and are ours.
                let there = unsafe { std::slice::from_raw_parts(element(row, piece), piece.lanes) };
                buffer.copy_from_slice(there);
            }
        }
    }
    let sums = buffer.as_mut_ptr().cast::<f32>();
    let out = [sums, sums.wrapping_add((vectors.len() - 1) * rows * LANES)];
    let start = out.map(<*mut f32>::cast_const);
    let tile = Tile { a: panel.a.as_ptr(), b, start, start_row: LANES, out, out_row: LANES };
    // SAFETY: the buffer has a vector for each row of both.
    unsafe { tile::run(panel.unit, rows, vectors.len(), &tile, walk) };
    for (vector, buffer) in vectors.iter().zip(buffer.chunks_exact(rows)) {
        for (row, buffer) in buffer.iter().enumerate() {
            for piece in vector.pieces() {
                // SAFETY: the piece's elements exist and are ours.
                let there = unsafe { std::slice::from_raw_parts_mut(element(row, piece), piece.lanes) };
                there.copy_from_slice(&buffer[piece.lane..][..piece.lanes]);
            }
        }
    }
}
