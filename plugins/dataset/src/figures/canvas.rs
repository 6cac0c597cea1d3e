//! What figures are drawn on: pixels of any colour, or numbers of few colours.

use super::{Colour, PAPER};
use crate::images::Rgb;

/// Steps from no cover to full cover of a pixel by a letter: the edges of letters look smooth from about ten on.
pub const LEVELS: u8 = 15;

/// Pixels to draw on. What is outside is left out.
pub trait Canvas {
    /// Gives the pixels of a row from `from` to before `to` a colour.
    fn fill(&mut self, y: i64, from: i64, to: i64, colour: Colour);

    /// Mixes so many [`LEVELS`] of a colour into a pixel.
    fn mix(&mut self, x: i64, y: i64, colour: Colour, level: u8);

    /// Puts a picture to a place.
    fn paste(&mut self, picture: &Rgb, left: i64, top: i64);
}

/// The places of a row's pixels from `from` to before `to` in an image, as far as there are such.
pub fn run((width, height): (u32, u32), y: i64, from: i64, to: i64) -> std::ops::Range<usize> {
    let (w, h) = (i64::from(width), i64::from(height));
    let (from, to) = (from.clamp(0, w), to.clamp(0, w));
    if y < 0 || y >= h || from >= to { 0..0 } else { (y * w + from) as usize..(y * w + to) as usize }
}

/// A colour with so many [`LEVELS`] of another in it.
pub fn mixed(under: Colour, over: Colour, level: u8) -> Colour {
    let (all, level) = (u32::from(LEVELS), u32::from(level));
    let mix = |u: u8, o: u8| (u32::from(u) * (all - level) + u32::from(o) * level + all / 2) / all;
    std::array::from_fn(|c| mix(under[c], over[c]) as u8)
}

impl Canvas for Rgb {
    fn fill(&mut self, y: i64, from: i64, to: i64, colour: Colour) {
        let run = run((self.width, self.height), y, from, to);
        self.data.as_chunks_mut::<3>().0[run].fill(colour);
    }

    fn mix(&mut self, x: i64, y: i64, colour: Colour, level: u8) {
        let run = run((self.width, self.height), y, x, x + 1);
        self.data.as_chunks_mut::<3>().0[run].iter_mut().for_each(|p| *p = mixed(*p, colour, level));
    }

    fn paste(&mut self, picture: &Rgb, left: i64, top: i64) {
        let skipped = (-left).max(0) as usize;
        for (y, row) in (top..).zip(picture.data.chunks_exact(picture.width as usize * 3)) {
            let run = run((self.width, self.height), y, left, left + i64::from(picture.width));
            let place = self.data.as_chunks_mut::<3>().0[run].iter_mut();
            place.zip(row.as_chunks::<3>().0.iter().skip(skipped)).for_each(|(p, v)| *p = *v);
        }
    }
}

/// Pixels that are numbers of at most 256 colours: a third of the memory and of the work of writing them.
#[derive(Debug)]
pub struct Indexed {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The number of each pixel's colour.
    pub pixels: Vec<u8>,
    /// The colours; the first is that of the paper.
    pub colours: Vec<Colour>,
    /// For each colour that was mixed into others: by the number of what is under it and by level, what came out.
    mixes: Vec<Vec<Option<u8>>>,
    /// The colour that was asked for last, and its number.
    last: (Colour, u8),
    is_full: bool,
}

/// Colours that have a number.
const COLOURS: usize = 256;

impl Indexed {
    /// Empty paper.
    pub fn paper(width: u32, height: u32) -> Self {
        let pixels = vec![0; width as usize * height as usize];
        let (colours, last) = (vec![PAPER], (PAPER, 0));
        Self { width, height, pixels, colours, mixes: Vec::new(), last, is_full: false }
    }

    /// This, if the colours sufficed for all that was drawn.
    pub fn whole(self) -> Option<Self> {
        (!self.is_full).then_some(self)
    }

    fn number(&mut self, colour: Colour) -> u8 {
        if self.last.0 == colour {
            return self.last.1;
        }
        let found = self.colours.iter().position(|c| *c == colour);
        let number = found.unwrap_or(self.colours.len());
        match found {
            None if number == COLOURS => {
                self.is_full = true;
                return 0;
            }
            None => self.colours.push(colour),
            Some(_) => {}
        }
        self.last = (colour, number as u8);
        number as u8
    }

    fn mixed(&mut self, under: u8, over: Colour, level: u8) -> u8 {
        let (ink, place) = (usize::from(self.number(over)), usize::from(under) * 16 + usize::from(level));
        if self.mixes.len() <= ink {
            self.mixes.resize(ink + 1, Vec::new());
        }
        if self.mixes[ink].is_empty() {
            self.mixes[ink] = vec![None; COLOURS * 16];
        }
        if let Some(known) = self.mixes[ink][place] {
            return known;
        }
        let number = self.number(mixed(self.colours[usize::from(under)], over, level));
        self.mixes[ink][place] = Some(number);
        // The next pixel is most likely of the same ink.
        self.last = (over, ink as u8);
        number
    }
}

impl Canvas for Indexed {
    fn fill(&mut self, y: i64, from: i64, to: i64, colour: Colour) {
        let number = self.number(colour);
        self.pixels[run((self.width, self.height), y, from, to)].fill(number);
    }

    fn mix(&mut self, x: i64, y: i64, colour: Colour, level: u8) {
        for at in run((self.width, self.height), y, x, x + 1) {
            self.pixels[at] = self.mixed(self.pixels[at], colour, level);
        }
    }

    fn paste(&mut self, _: &Rgb, _: i64, _: i64) {
        // A photo has more colours than there are numbers.
        self.is_full = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_colours_have_numbers_and_many_do_not() {
        let (mut few, mut all) = (Indexed::paper(5, 2), Rgb::plain(5, 2, PAPER));
        let canvases: [&mut dyn Canvas; 2] = [&mut few, &mut all];
        for canvas in canvases {
            canvas.fill(0, -3, 2, [10, 20, 30]);
            canvas.fill(1, 4, 9, [200, 0, 0]);
            canvas.fill(7, 0, 5, [1, 2, 3]);
            for level in 0..=LEVELS {
                canvas.mix(i64::from(level % 5), i64::from(level % 3), [0, 0, 90], level);
            }
        }
        let few = few.whole().unwrap();
        let seen: Vec<u8> = few.pixels.iter().flat_map(|p| few.colours[usize::from(*p)]).collect();
        assert_eq!(seen, all.data);
        let mut many = Indexed::paper(300, 1);
        (0..300).for_each(|x| many.fill(0, x, x + 1, [x as u8, (x / 256) as u8, 0]));
        assert!(many.whole().is_none());
    }

    #[test]
    fn a_mix_begins_and_ends_with_the_colours_themselves() {
        let (under, over) = ([255, 0, 9], [0, 255, 10]);
        assert_eq!((mixed(under, over, 0), mixed(under, over, LEVELS)), (under, over));
        assert_eq!(mixed(under, over, 5), [170, 85, 9]);
    }

    #[test]
    fn a_picture_that_reaches_beyond_the_paper_is_cut() {
        let mut paper = Rgb::plain(3, 2, PAPER);
        let picture = Rgb { width: 2, height: 2, data: (1..13).collect() };
        paper.paste(&picture, -1, 1);
        assert_eq!((paper.at(0, 1), paper.at(1, 1), paper.at(0, 0)), ([4, 5, 6], PAPER, PAPER));
    }
}
