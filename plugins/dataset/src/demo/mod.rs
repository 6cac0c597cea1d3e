//! A small product data set, drawn: the same layout as a real one, full metadata, some of it broken on purpose.

pub mod broken;
pub mod draw;
pub mod records;

use crate::images::Rgb;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use records::Product;
use std::path::Path;

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Good products.
    pub products: usize,
    /// What is broken, and how: file and reason.
    pub broken: Vec<(String, &'static str)>,
}

/// Draws `count` products below `out`: `styles/<id>.json`, `styles.csv`, `images/<id>.jpg`.
///
/// # Errors
/// The folder holds other things, is not writable, or the disk is full.
pub fn write(out: &Path, count: usize, seed: u64, broken: bool) -> Result<Made> {
    refuse_strangers(out)?;
    for folder in ["styles", "images"] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    }
    let products: Vec<Product> = (0..count).map(|i| records::product(i, seed)).collect();
    products.par_iter().try_for_each(|p| {
        let jpeg = jpeg(&draw::product(p, seed), 92)?;
        write_atomic(&out.join(format!("images/{}.jpg", p.id)), &jpeg)?;
        write_atomic(&out.join(format!("styles/{}.json", p.id)), &records::style(p)?)
    })?;
    let mut table = records::table(&products)?;
    let broken = if broken { broken::add(out, &products, &mut table, seed)? } else { Vec::new() };
    write_atomic(&out.join("styles.csv"), &table)?;
    Ok(Made { products: count, broken })
}

/// Nothing of a person's own shall be mixed with drawings, or replaced by them.
fn refuse_strangers(out: &Path) -> Result<()> {
    let say = |e| Error::io(format!("cannot read {}", out.display()), e);
    for entry in std::fs::read_dir(out).map_err(say)? {
        let name = entry.map_err(say)?.file_name();
        if !["styles", "images", "styles.csv"].iter().any(|n| name == *n) || !is_demo(out) {
            let what = format!("{} is not empty: it holds {}", out.display(), name.to_string_lossy());
            return Err(Error::new(ErrorKind::Environment, what).hint("choose a new folder for the demo set"));
        }
    }
    Ok(())
}

/// Whether a folder holds what an earlier run drew: ids of demo products are of a range of their own.
fn is_demo(out: &Path) -> bool {
    let first = out.join(format!("styles/{}.json", records::FIRST_ID));
    std::fs::read(first).is_ok_and(|b| b.windows(records::MARK.len()).any(|w| w == records::MARK.as_bytes()))
}

/// A JPEG file.
///
/// # Errors
/// Those of the encoder: none for an image in memory.
pub fn jpeg(image: &Rgb, quality: u8) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, quality)
        .encode(&image.data, image.width, image.height, image::ExtendedColorType::Rgb8)
        .internal("encoding a JPEG")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_set_and_other_folders_are_left_alone() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = write(a.path(), 4, 7, true).unwrap();
        assert!(made.broken.len() >= 14, "{:?}", made.broken);
        write(b.path(), 4, 7, true).unwrap();
        for file in ["styles.csv", "images/900001.jpg", "styles/900003.json"] {
            assert_eq!(
                std::fs::read(a.path().join(file)).unwrap(),
                std::fs::read(b.path().join(file)).unwrap(),
                "{file}"
            );
        }
        write(a.path(), 4, 8, true).unwrap();
        std::fs::write(b.path().join("mine.txt"), "x").unwrap();
        assert!(write(b.path(), 4, 7, true).unwrap_err().message().contains("mine.txt"));
    }
}
