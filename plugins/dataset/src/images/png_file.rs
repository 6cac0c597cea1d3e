//! The PNGs of a prepared set. Each carries the key of what it was made from, so that a set that was cut short is
//! continued where it stopped.

use super::Rgb;
use crate::figures::canvas::Indexed;
use atelier_sdk::{Result, ResultExt};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// The name of the text chunk with the key.
const KEY: &str = "atelier-key";

/// A PNG of a photo, with a key.
///
/// # Errors
/// Those of the encoder: none for an image in memory.
pub fn encode(image: &Rgb, key: Option<&str>) -> Result<Vec<u8>> {
    encoded((image.width, image.height), &image.data, png::Filter::Adaptive, |encoder| match key {
        Some(key) => encoder.add_text_chunk(KEY.into(), key.into()),
        None => Ok(()),
    })
}

/// A PNG of a drawing: most of its rows are the same as the one above.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_drawing(image: &Rgb) -> Result<Vec<u8>> {
    encoded((image.width, image.height), &image.data, png::Filter::Up, |_| Ok(()))
}

/// The same of a drawing of few colours.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_indexed(image: &Indexed) -> Result<Vec<u8>> {
    encoded((image.width, image.height), &image.pixels, png::Filter::Up, |encoder| {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(image.colours.concat());
        Ok(())
    })
}

/// Where a PNG goes to on its way.
type Encoder<'a> = png::Encoder<'a, &'a mut Vec<u8>>;

fn encoded(
    (width, height): (u32, u32),
    pixels: &[u8],
    filter: png::Filter,
    more: impl FnOnce(&mut Encoder<'_>) -> Result<(), png::EncodingError>,
) -> Result<Vec<u8>> {
    let what = "encoding a PNG";
    let mut out = Vec::with_capacity(pixels.len() / 2);
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(filter);
    more(&mut encoder).internal(what)?;
    let mut writer = encoder.write_header().internal(what)?;
    writer.write_image_data(pixels).internal(what)?;
    writer.finish().internal(what)?;
    Ok(out)
}

/// The key of a PNG, if it has one.
pub fn key(path: &Path) -> Option<String> {
    let info = png::Decoder::new(BufReader::new(File::open(path).ok()?)).read_info().ok()?;
    let texts = &info.info().uncompressed_latin1_text;
    texts.iter().find(|t| t.keyword == KEY).map(|t| t.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_comes_back_with_its_pixels_and_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let image = Rgb { width: 3, height: 2, data: (0..18).map(|v| v * 13).collect() };
        std::fs::write(&path, encode(&image, Some("abc")).unwrap()).unwrap();
        assert_eq!(key(&path).as_deref(), Some("abc"));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(crate::images::load::decode(&bytes, 1.0).unwrap().pixels, image);
        std::fs::write(&path, encode(&image, None).unwrap()).unwrap();
        assert_eq!(key(&path), None);
        std::fs::write(&path, "not a png").unwrap();
        assert_eq!(key(&path), None);
    }
}
