//! The PNGs of a prepared set. Each carries the key of what it was made from, so that a set that was cut short is
//! continued where it stopped.

use super::Rgb;
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
    encode_filtered(image, key, png::Filter::Adaptive)
}

/// A PNG of a drawing: most of its rows are the same as the one above.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_drawing(image: &Rgb) -> Result<Vec<u8>> {
    encode_filtered(image, None, png::Filter::Up)
}

fn encode_filtered(image: &Rgb, key: Option<&str>, filter: png::Filter) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(image.data.len() / 2);
    let mut encoder = png::Encoder::new(&mut out, image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(filter);
    let what = "encoding a PNG";
    if let Some(key) = key {
        encoder.add_text_chunk(KEY.into(), key.into()).internal(what)?;
    }
    let mut writer = encoder.write_header().internal(what)?;
    writer.write_image_data(&image.data).internal(what)?;
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
