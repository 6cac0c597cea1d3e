//! Grids of photos: samples of all, and of each colour.

use super::Analysis;
use super::drawings::Figure;
use crate::draw_lots;
use crate::figures::charts::thousands;
use crate::figures::grids::{self, Tile};
use crate::images::{load, resize};
use crate::photos::Photo;
use atelier_sdk::Result;
use rayon::prelude::*;
use std::sync::Arc;

/// Most colours of the grid by colour.
const COLOURS: usize = 16;
/// Photos of a colour.
const EACH: usize = 8;
/// Photos of the grid of those unlike the rest.
const UNLIKE: usize = 25;
/// Long side of a tile in pixels: twice its size in points, for sharp screens.
const TILE: u32 = 184;

/// The grids: 5x5, 10x10, by colour, and of the photos that are unlike the rest.
///
/// # Errors
/// Those of resizing.
pub fn grids(a: &Analysis, seed: u64) -> Result<Vec<Figure>> {
    let mut order: Vec<&Photo> = a.photos.iter().collect();
    order.sort_by_key(|p| draw_lots::bits(seed, "grid", a.source.table.id(p.row as usize)));
    if order.is_empty() {
        return Ok(Vec::new());
    }
    let title = &a.source.definition.title;
    let limit = a.source.definition.images.max_megapixels;
    let tiles = tiles(a, &order[..order.len().min(100)], limit)?;
    let of = thousands(order.len());
    let grid = |n: usize, side: f32| {
        let count = tiles.len().min(n * n);
        let note = format!("{count} of {of} photos, drawn by lot (seed {seed})");
        grids::grid(&format!("{title}: a sample"), &note, &tiles[..count], n, side)
    };
    let mut out = vec![
        Figure { name: "sample-5x5".into(), drawing: grid(5, 130.0) },
        Figure { name: "sample-10x10".into(), drawing: grid(10, 92.0) },
    ];
    out.extend(by_colour(a, &order, seed, limit)?);
    out.extend(unlike(a, limit)?);
    Ok(out)
}

fn unlike(a: &Analysis, limit: f64) -> Result<Option<Figure>> {
    let photos: Vec<&Photo> = a.unlike.iter().take(UNLIKE).map(|u| &a.photos[u.place]).collect();
    if photos.is_empty() {
        return Ok(None);
    }
    let note = format!(
        "the {} of {} whose outline is farthest from those of the ten most like it",
        photos.len(),
        thousands(a.photos.len())
    );
    let title = format!("{}: photos unlike the rest", a.source.definition.title);
    let drawing = grids::grid(&title, &note, &tiles(a, &photos, limit)?, 5, 130.0);
    Ok(Some(Figure { name: "photos-unlike-the-rest".into(), drawing }))
}

fn by_colour(a: &Analysis, order: &[&Photo], seed: u64, limit: f64) -> Result<Option<Figure>> {
    let colour = &a.source.definition.colour;
    let Some(attribute) = a.attributes.iter().find(|f| f.field == *colour) else { return Ok(None) };
    let mut rows = Vec::new();
    for (name, count) in attribute.values.iter().take(COLOURS) {
        let of_colour = order.iter().filter(|p| a.source.table.text(p.row as usize, colour) == name);
        let chosen: Vec<&Photo> = of_colour.take(EACH).copied().collect();
        if !chosen.is_empty() {
            rows.push((name.clone(), *count, tiles(a, &chosen, limit)?));
        }
    }
    let note = format!(
        "up to {EACH} photos of each of the {} most common, by lot (seed {seed}), with the number of records",
        rows.len()
    );
    let title = format!("{}: photos by {}", a.source.definition.title, super::drawings::spoken(colour));
    let drawing = grids::rows(&title, &note, &rows, EACH, 84.0);
    Ok((!rows.is_empty()).then(|| Figure { name: "photos-by-colour".into(), drawing }))
}

fn tiles(a: &Analysis, photos: &[&Photo], limit: f64) -> Result<Vec<Tile>> {
    let tile = |p: &&Photo| {
        // It could be opened a moment ago; if not any more, the grid has one photo less.
        let Some(photo) = load::read(&p.path).and_then(|b| load::decode(&b, limit)).ok() else {
            return Ok(None);
        };
        let (w, h) = resize::fit(photo.pixels.width, photo.pixels.height, TILE);
        let small = w.min(photo.pixels.width) == w;
        let picture = if small { resize::lanczos(&photo.pixels, w, h)? } else { photo.pixels };
        let colour = a.source.table.text(p.row as usize, &a.source.definition.colour);
        let label = format!("{} {colour}", a.source.table.id(p.row as usize));
        Ok(Some(Tile { label, picture: Arc::new(picture) }))
    };
    photos.par_iter().map(tile).filter_map(Result::transpose).collect()
}
