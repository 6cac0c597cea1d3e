//! PNG files with text in them.

use atelier_sdk::{Error, ErrorKind, Image, Result, ResultExt};
use std::borrow::Cow;
use std::path::Path;

/// Key of the text chunk that A1111 and its relatives read and write.
pub const A1111_KEY: &str = "parameters";
/// Key of our own text chunk: the metadata as JSON.
pub const ATELIER_KEY: &str = "atelier";
/// Largest image file that metadata is read from.
const MAX_FILE: u64 = 1 << 30;

/// Encodes an image with text chunks.
///
/// # Errors
/// The encoder refused, which means a bug.
pub fn encode(image: &Image, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut info = png::Info::with_size(image.width(), image.height());
    let format = image.format();
    info.color_type = match format.channels() {
        1 => png::ColorType::Grayscale,
        2 => png::ColorType::GrayscaleAlpha,
        3 => png::ColorType::Rgb,
        4 => png::ColorType::Rgba,
        _ => return Err(Error::internal(format!("no PNG encoding for {format:?}"))),
    };
    info.bit_depth = if format.is_deep() { png::BitDepth::Sixteen } else { png::BitDepth::Eight };
    info.icc_profile = image.profile().map(Into::into);
    let mut encoder = png::Encoder::with_info(&mut out, info).internal("cannot describe a PNG")?;
    for (key, text) in texts {
        // tEXt is Latin-1, and what the widest range of readers looks at; anything else needs iTXt.
        let latin1 = text.chars().all(|c| (c as u32) < 256);
        let added = if latin1 {
            encoder.add_text_chunk(key.to_string(), text.to_string())
        } else {
            encoder.add_itxt_chunk(key.to_string(), text.to_string())
        };
        added.internal("cannot add text to a PNG")?;
    }
    let mut writer = encoder.write_header().internal("cannot write a PNG header")?;
    writer.write_image_data(&samples(image)).internal("cannot write PNG pixels")?;
    writer.finish().internal("cannot finish a PNG")?;
    Ok(out)
}

/// The samples with the byte order of PNG.
fn samples(image: &Image) -> Cow<'_, [u8]> {
    if !image.format().is_deep() {
        return image.data().into();
    }
    let swapped = |pair: &[u8]| u16::from_ne_bytes([pair[0], pair[1]]).to_be_bytes();
    image.data().chunks_exact(2).flat_map(swapped).collect::<Vec<u8>>().into()
}

/// The text chunks of a PNG file.
///
/// # Errors
/// Missing file, not a PNG, damaged.
pub fn read_texts(path: &Path) -> Result<Vec<(String, String)>> {
    let bad = || format!("{} is not a readable PNG", path.display());
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).map_err(|e| Error::io(cannot(), e))?.len();
    if size > MAX_FILE {
        return Err(Error::new(ErrorKind::Corrupt, format!("{} has {size} bytes", path.display())));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(cannot(), e))?;
    let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    let mut reader = decoder.read_info().kind(ErrorKind::Corrupt, bad)?;
    // Text may follow the pixels.
    reader.finish().kind(ErrorKind::Corrupt, bad)?;
    let info = reader.info();
    let mut out = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        out.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        out.push((chunk.keyword.clone(), chunk.get_text().kind(ErrorKind::Corrupt, bad)?));
    }
    for chunk in &info.utf8_text {
        out.push((chunk.keyword.clone(), chunk.get_text().kind(ErrorKind::Corrupt, bad)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_sdk::PixelFormat;

    #[test]
    fn every_format_is_read_back_as_it_was_written() {
        for deep in [false, true] {
            for channels in 1..=4 {
                let format = PixelFormat::of(channels, deep).unwrap();
                let data: Vec<u8> = (0..3 * 2 * format.bytes()).map(|i| (i * 37) as u8).collect();
                let image = Image::new(3, 2, format, data).unwrap().with_profile(vec![9; 140]);
                let bytes = encode(&image, &[]).unwrap();
                let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
                assert_eq!(reader.info().icc_profile.as_deref(), image.profile());
                let mut back = vec![0; reader.output_buffer_size().unwrap()];
                reader.next_frame(&mut back).unwrap();
                assert_eq!(back, samples(&image).into_owned(), "{format:?}");
            }
        }
    }

    #[test]
    fn texts_come_back_whatever_their_alphabet() {
        let image = Image::new(2, 1, PixelFormat::Rgb8, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let texts = [("parameters", "café, 20 steps\nNegative prompt: x"), ("atelier", "{\"靴\": \"👟\"}")];
        std::fs::write(&path, encode(&image, &texts).unwrap()).unwrap();
        let mut back = read_texts(&path).unwrap();
        back.sort();
        assert_eq!(back[1], (texts[0].0.to_string(), texts[0].1.to_string()));
        assert_eq!(back[0], (texts[1].0.to_string(), texts[1].1.to_string()));
    }

    #[test]
    fn a_truncated_png_is_an_error_that_names_the_file() {
        let image = Image::new(64, 64, PixelFormat::Rgb8, vec![7; 64 * 64 * 3]).unwrap();
        let bytes = encode(&image, &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.png");
        for cut in [0, 7, 20, bytes.len() / 2, bytes.len() - 5] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let e = read_texts(&path).unwrap_err();
            assert!(e.message().contains("cut.png"), "{cut}: {e}");
        }
    }
}
