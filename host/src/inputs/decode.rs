//! From the bytes of an image file to pixels.

use atelier_pictures::{DynamicImage, ImageFormat, Picture, Problem};
use atelier_sdk::{Error, ErrorKind, Image, PixelFormat, Result};

pub use atelier_pictures::HEAD;

/// Most pixels that an image may have on a side, hence 2^28 in all.
pub const MAX_SIDE: u32 = 1 << 14;
const FORMATS: &str = "PNG, JPEG, WebP, BMP, TIFF and GIF are read";
const AGAIN: &str = "copy or download it again, or save it anew with the program that made it";

/// The format of a file that begins with `head`; `name` is the file in messages.
pub fn sniff(name: &str, head: &[u8]) -> Result<ImageFormat> {
    atelier_pictures::sniff(head).map_err(|problem| describe(name, head, problem))
}

/// The image in a file, in 8 bits; `name` is the file in messages.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Image> {
    let picture = upright(name, bytes)?;
    convert(picture.image, picture.format)
}

/// The image in a file as it is: with samples of 16 bits, grey with alpha, and its colour profile.
pub fn decode_whole(name: &str, bytes: &[u8]) -> Result<Image> {
    let Picture { image, format, profile, .. } = upright(name, bytes)?;
    let image = convert_whole(image, format)?;
    let fits = profile.filter(|p| profile_fits(p, image.format().channels()));
    Ok(image.with_profile(fits.unwrap_or_default()))
}

fn upright(name: &str, bytes: &[u8]) -> Result<Picture> {
    let fits = |width, height| width <= MAX_SIDE && height <= MAX_SIDE;
    atelier_pictures::decode(bytes, fits).map_err(|problem| describe(name, bytes, problem))
}

/// What is wrong with the file of this name, and what to do.
fn describe(name: &str, bytes: &[u8], problem: Problem) -> Error {
    let unsupported = |message: String| Error::new(ErrorKind::Unsupported, message);
    match problem {
        Problem::NotAnImage(first) => {
            let hex: Vec<String> = first.iter().map(|b| format!("{b:02x}")).collect();
            let letter = |b: u8| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' };
            let text: String = first.iter().map(|b| letter(*b)).collect();
            let message = format!("{name} is not an image: it begins with {} (\"{text}\")", hex.join(" "));
            Error::new(ErrorKind::Corrupt, message).hint(FORMATS)
        }
        Problem::OtherFormat(other) => {
            unsupported(format!("{name} is in the format {other}, which is not read"))
                .hint(format!("{FORMATS}: convert it to one of them"))
        }
        Problem::NoPixels { width, height } => {
            let message = format!("{name} is {width}x{height}: it has no pixels");
            Error::new(ErrorKind::Corrupt, message).hint(AGAIN)
        }
        Problem::TooLarge { width, height } => too_large(&format!("{name} has {width}x{height} pixels")),
        // Most are linear light, some exceed white, and we would have to guess.
        Problem::Floats(format) => unsupported(format!("the samples of {name} are floats"))
            .hint(format!("save it as {} of 8 or 16 bits", a_format(format))),
        Problem::Memory(e) => {
            too_large(&format!("{name} needs more memory than an image may take")).because(e)
        }
        Problem::Rare(e) => {
            let format = begins_as(bytes);
            unsupported(format!("{name} is {format} of a rare kind, which is not read"))
                .because(e)
                .hint("save it as an ordinary PNG or JPEG")
        }
        Problem::CutOff => damaged(name, bytes),
        Problem::Damaged(e) => damaged(name, bytes).because(e),
    }
}

fn damaged(name: &str, bytes: &[u8]) -> Error {
    let message = format!("{name} begins as {} but is damaged or cut off", begins_as(bytes));
    Error::new(ErrorKind::Corrupt, message).hint(AGAIN)
}

fn too_large(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
        .hint(format!("at most {MAX_SIDE} pixels on a side are read: make it smaller"))
}

fn begins_as(bytes: &[u8]) -> String {
    atelier_pictures::sniff(bytes).map_or("an image".into(), a_format)
}

fn a_format(format: ImageFormat) -> String {
    match format {
        ImageFormat::WebP => "a WebP".into(),
        other => format!("a {}", format!("{other:?}").to_uppercase()),
    }
}

/// Whether a colour profile is for pixels like these, by the colour space in its header (ICC.1, 7.2.6): that of a
/// picture for print is for its inks, which are gone when it is decoded.
fn profile_fits(profile: &[u8], channels: usize) -> bool {
    let space: &[u8] = if channels < 3 { b"GRAY" } else { b"RGB " };
    profile.get(16..20) == Some(space) && profile.get(36..40) == Some(&b"acsp"[..])
}

fn convert(image: DynamicImage, format: ImageFormat) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    let make = |format, data| Image::new(width, height, format, data);
    match image {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageLuma16(_) => {
            make(PixelFormat::Gray8, image.into_luma8().into_raw())
        }
        DynamicImage::ImageRgb8(_) | DynamicImage::ImageRgb16(_) => {
            make(PixelFormat::Rgb8, image.into_rgb8().into_raw())
        }
        other if is_opaque_gif(&other, format) => make(PixelFormat::Rgb8, other.into_rgb8().into_raw()),
        other => make(PixelFormat::Rgba8, other.into_rgba8().into_raw()),
    }
}

/// A GIF always comes with alpha, whether it has any or not.
fn is_opaque_gif(image: &DynamicImage, format: ImageFormat) -> bool {
    format == ImageFormat::Gif && image.as_rgba8().is_some_and(|gif| gif.pixels().all(|p| p[3] == 255))
}

fn convert_whole(image: DynamicImage, format: ImageFormat) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    let bytes = |samples: Vec<u16>| samples.into_iter().flat_map(u16::to_ne_bytes).collect::<Vec<u8>>();
    let make = |format, data| Image::new(width, height, format, data);
    match image {
        DynamicImage::ImageLumaA8(i) => make(PixelFormat::GrayAlpha8, i.into_raw()),
        DynamicImage::ImageLuma16(i) => make(PixelFormat::Gray16, bytes(i.into_raw())),
        DynamicImage::ImageLumaA16(i) => make(PixelFormat::GrayAlpha16, bytes(i.into_raw())),
        DynamicImage::ImageRgb16(i) => make(PixelFormat::Rgb16, bytes(i.into_raw())),
        DynamicImage::ImageRgba16(i) => make(PixelFormat::Rgba16, bytes(i.into_raw())),
        other => convert(other, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
    use std::io::Cursor;

    const ALL: [ImageFormat; 6] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Gif,
    ];

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.into().write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    /// Hard to compress, so that every cut loses pixels; few colours, which a GIF can hold.
    fn noise() -> RgbImage {
        let mut x = 1u32;
        RgbImage::from_fn(64, 48, |_, _| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Rgb([(x >> 24) as u8 & 0xc0, (x >> 16) as u8 & 0xc0, (x >> 20) as u8 & 0xc0])
        })
    }

    fn png(
        width: u32,
        height: u32,
        write: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
        data: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        write(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        out
    }

    /// A PNG that claims a size and has next to no pixels.
    fn bomb(width: u32, height: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Sixteen);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1]).unwrap();
        drop(writer);
        out
    }

    /// The EXIF block of a JPEG or PNG with nothing but an orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut out = b"II*\0\x08\0\0\0\x01\0".to_vec();
        out.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]);
        out
    }

    fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut block = b"Exif\0\0".to_vec();
        block.extend(exif(orientation));
        let mut out = jpeg[..2].to_vec();
        out.extend([0xff, 0xe1]);
        out.extend((block.len() as u16 + 2).to_be_bytes());
        out.extend(block);
        out.extend(&jpeg[2..]);
        out
    }

    #[test]
    fn every_format_is_read_by_its_content() {
        for format in ALL {
            let image = decode("a.txt", &encode(noise(), format)).unwrap();
            assert_eq!(
                (image.width(), image.height(), image.format()),
                (64, 48, PixelFormat::Rgb8),
                "{format:?}"
            );
            if format != ImageFormat::Jpeg {
                assert_eq!(image.data(), noise().as_raw(), "{format:?}");
            }
        }
    }

    #[test]
    fn alpha_is_kept() {
        let clear = RgbaImage::from_fn(16, 16, |x, _| Rgba([8, 16, 24, if x < 4 { 0 } else { 255 }]));
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Gif] {
            let image = decode("a", &encode(clear.clone(), format)).unwrap();
            assert_eq!(image.format(), PixelFormat::Rgba8, "{format:?}");
            assert_eq!((image.data()[3], image.data()[4 * 4 + 3]), (0, 255), "{format:?}");
        }
    }

    #[test]
    fn a_photo_is_turned_as_its_camera_was_held() {
        // Black on the left, white on the right.
        let upright = GrayImage::from_fn(32, 16, |x, _| Luma([if x < 16 { 0 } else { 255 }]));
        let jpeg = encode(upright, ImageFormat::Jpeg);
        // Orientation, then size, then what is in the top left and the bottom right corner.
        for (orientation, size, corners) in [
            (1, (32, 16), (0, 255)),
            (3, (32, 16), (255, 0)),
            (6, (16, 32), (0, 255)),
            (8, (16, 32), (255, 0)),
        ] {
            let image = decode("a.jpg", &with_exif(&jpeg, orientation)).unwrap();
            assert_eq!(image.format(), PixelFormat::Gray8);
            assert_eq!((image.width(), image.height()), size, "{orientation}");
            let data = image.data();
            assert_eq!((data[0], data[data.len() - 1]), corners, "{orientation}");
        }
        // Not an orientation at all.
        assert_eq!(decode("a.jpg", &with_exif(&jpeg, 77)).unwrap().width(), 32);
    }

    #[test]
    fn the_orientation_of_a_png_counts_too() {
        let mut bytes = Vec::new();
        let mut writer = png::Encoder::new(&mut bytes, 2, 1).write_header().unwrap();
        writer.write_chunk(png::chunk::eXIf, &exif(6)).unwrap();
        writer.write_image_data(&[10, 20]).unwrap();
        writer.finish().unwrap();
        let image = decode("a.png", &bytes).unwrap();
        assert_eq!((image.width(), image.height(), image.data()), (1, 2, &[10, 20][..]));
    }

    #[test]
    fn sixteen_bits_round_to_the_nearest_of_eight() {
        let all = ImageBuffer::<Luma<u16>, _>::from_fn(256, 256, |x, y| Luma([(y * 256 + x) as u16]));
        let image = decode("a.png", &encode(all, ImageFormat::Png)).unwrap();
        assert_eq!(image.format(), PixelFormat::Gray8);
        for (wide, &byte) in image.data().iter().enumerate() {
            assert_eq!(byte, (wide as f64 / 257.0).round() as u8, "{wide}");
        }
        let rgb = ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([65535, 128, 129]));
        assert_eq!(decode("a", &encode(rgb, ImageFormat::Tiff)).unwrap().data(), [255, 0, 1]);
        let alpha = ImageBuffer::<LumaA<u16>, _>::from_pixel(1, 1, LumaA([0x8080, 0x4040]));
        let image = decode("a", &encode(alpha, ImageFormat::Png)).unwrap();
        assert_eq!(image.data(), [0x80, 0x80, 0x80, 0x40]);
    }

    #[test]
    fn palettes_and_grey_with_alpha_become_what_they_show() {
        let indexed = |e: &mut png::Encoder<'_, &mut Vec<u8>>| {
            e.set_color(png::ColorType::Indexed);
            e.set_depth(png::BitDepth::Two);
            e.set_palette(&[1u8, 2, 3, 40, 50, 60][..]);
        };
        // Two bits each: entries 0, 1, 1, 0.
        let bytes = png(4, 1, indexed, &[0b0001_0100]);
        let image = decode("a.png", &bytes).unwrap();
        assert_eq!(image.format(), PixelFormat::Rgb8);
        assert_eq!(image.data(), [1, 2, 3, 40, 50, 60, 40, 50, 60, 1, 2, 3]);
        let clear = |e: &mut png::Encoder<'_, &mut Vec<u8>>| {
            indexed(e);
            e.set_trns(&[9u8][..]);
        };
        let image = decode("a.png", &png(4, 1, clear, &[0b0001_0100])).unwrap();
        assert_eq!(image.data()[..8], [1, 2, 3, 9, 40, 50, 60, 255]);
        let grey = ImageBuffer::<LumaA<u8>, _>::from_pixel(2, 1, LumaA([7, 99]));
        let image = decode("a.png", &encode(grey, ImageFormat::Png)).unwrap();
        assert_eq!((image.format(), image.data()), (PixelFormat::Rgba8, &[7, 7, 7, 99, 7, 7, 7, 99][..]));
        let ink = |e: &mut png::Encoder<'_, &mut Vec<u8>>| e.set_depth(png::BitDepth::One);
        let image = decode("a.png", &png(4, 1, ink, &[0b0101_0000])).unwrap();
        assert_eq!((image.format(), image.data()), (PixelFormat::Gray8, &[0, 255, 0, 255][..]));
    }

    #[test]
    fn a_whole_image_keeps_its_depth_its_greys_and_its_alpha() {
        let deep = ImageBuffer::<Rgb<u16>, _>::from_pixel(2, 1, Rgb([65535, 128, 129]));
        let image = decode_whole("a.png", &encode(deep, ImageFormat::Png)).unwrap();
        assert_eq!((image.format(), &image.data()[2..4]), (PixelFormat::Rgb16, &128u16.to_ne_bytes()[..]));
        let alpha = ImageBuffer::<LumaA<u16>, _>::from_pixel(1, 1, LumaA([0x8081, 0x4040]));
        let image = decode_whole("a", &encode(alpha, ImageFormat::Png)).unwrap();
        let expected = [0x8081u16, 0x4040].map(u16::to_ne_bytes).concat();
        assert_eq!((image.format(), image.data()), (PixelFormat::GrayAlpha16, &expected[..]));
        let grey = ImageBuffer::<LumaA<u8>, _>::from_pixel(1, 1, LumaA([7, 99]));
        let image = decode_whole("a.png", &encode(grey, ImageFormat::Png)).unwrap();
        assert_eq!((image.format(), image.data()), (PixelFormat::GrayAlpha8, &[7, 99][..]));
        for format in ALL {
            let image = decode_whole("a", &encode(noise(), format)).unwrap();
            assert_eq!((image.format(), image.profile()), (PixelFormat::Rgb8, None), "{format:?}");
        }
    }

    /// The header of a profile with nothing in it.
    fn profile(space: &[u8; 4]) -> Vec<u8> {
        let mut profile = vec![0; 132];
        profile[..4].copy_from_slice(&132u32.to_be_bytes());
        profile[16..20].copy_from_slice(space);
        profile[36..40].copy_from_slice(b"acsp");
        profile
    }

    #[test]
    fn a_colour_profile_comes_along_if_it_is_for_these_pixels() {
        let encoded = |space: &[u8; 4]| {
            let mut info = png::Info::with_size(1, 1);
            (info.color_type, info.bit_depth) = (png::ColorType::Rgb, png::BitDepth::Eight);
            info.icc_profile = Some(profile(space).into());
            let mut out = Vec::new();
            let mut writer = png::Encoder::with_info(&mut out, info).unwrap().write_header().unwrap();
            writer.write_image_data(&[1, 2, 3]).unwrap();
            writer.finish().unwrap();
            out
        };
        let image = decode_whole("a.png", &encoded(b"RGB ")).unwrap();
        assert_eq!(image.profile(), Some(&profile(b"RGB ")[..]));
        assert_eq!(decode_whole("a.png", &encoded(b"CMYK")).unwrap().profile(), None);
        assert_eq!(decode("a.png", &encoded(b"RGB ")).unwrap().profile(), None);
    }

    #[test]
    fn a_cut_off_file_is_an_error_in_every_format() {
        for format in ALL {
            let bytes = encode(noise(), format);
            for cut in [20, bytes.len() / 4, bytes.len() / 2, bytes.len() * 9 / 10] {
                let e = decode("cut", &bytes[..cut]).expect_err(&format!("{format:?} {cut}"));
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{format:?} {cut}: {e:?}");
                assert!(e.message().starts_with("cut begins as a"), "{e}");
                assert!(!e.hints().is_empty());
            }
        }
    }

    #[test]
    fn the_end_of_a_preview_is_not_the_end_of_a_jpeg() {
        let jpeg = encode(noise(), ImageFormat::Jpeg);
        let mut nested = jpeg[..2].to_vec();
        nested.extend([0xff, 0xe2]);
        nested.extend((jpeg.len() as u16 + 2).to_be_bytes());
        nested.extend(&jpeg);
        nested.extend(&jpeg[2..]);
        assert!(decode("a.jpg", &nested).is_ok());
        assert!(decode("a.jpg", &nested[..nested.len() - 2]).is_err());
        // What cameras write behind the end is theirs.
        nested.extend(b"trailer");
        assert!(decode("a.jpg", &nested).is_ok());
    }

    #[test]
    fn a_bomb_is_refused_by_its_claim() {
        let e = decode("bomb.png", &bomb(60_000, 50_000)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert_eq!(e.message(), "bomb.png has 60000x50000 pixels");
        assert!(e.hints()[0].contains("16384"));
        // A single row of it would be 16 GiB.
        let e = decode("bomb.png", &bomb(i32::MAX as u32, 1)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:?}");
        let mut bmp = encode(noise(), ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&20_000u32.to_le_bytes());
        assert_eq!(decode("bomb.bmp", &bmp).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn what_is_not_read_is_told_apart_from_what_is_not_an_image() {
        for (bytes, kind, words) in [
            (
                &b"hello\nworld, and more"[..],
                ErrorKind::Corrupt,
                "68 65 6c 6c 6f 0a 77 6f 72 6c 64 2c (\"hello.",
            ),
            (b"\0\0\0\x18ftypheic\0\0\0\0", ErrorKind::Unsupported, "in the format HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", ErrorKind::Unsupported, "in the format AVIF"),
            (b"\x89PN", ErrorKind::Corrupt, "89 50 4e"),
        ] {
            let e = decode("a", bytes).unwrap_err();
            assert_eq!(e.kind(), kind);
            assert!(e.message().contains(words), "{e}");
        }
        let floats = image::Rgb32FImage::from_pixel(1, 1, Rgb([0.5; 3]));
        let e = decode("a.tif", &encode(floats, ImageFormat::Tiff)).unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Unsupported, "the samples of a.tif are floats"));
    }

    #[test]
    fn a_large_gif_is_read_too() {
        let mut out = Vec::new();
        let white = vec![255; 5000 * 4000 * 3];
        let mut encoder = image::codecs::gif::GifEncoder::new_with_speed(&mut out, 30);
        encoder.encode(&white, 5000, 4000, ExtendedColorType::Rgb8).unwrap();
        drop(encoder);
        assert_eq!(decode("a.gif", &out).unwrap().width(), 5000);
    }

    fn fixture(name: &str) -> Image {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/images");
        decode(name, &std::fs::read(folder.join(name)).unwrap()).unwrap()
    }

    /// Adobe's programs store the inks inverted; read without that, red would be cyan's complement, black.
    #[test]
    fn a_jpeg_for_print_has_the_colours_of_its_inks() {
        let image = fixture("cmyk.jpg");
        assert_eq!((image.width(), image.height(), image.format()), (16, 16, PixelFormat::Rgb8));
        let near = |(found, wanted): (&u8, u8)| found.abs_diff(wanted) <= 4;
        assert!(image.data()[..3].iter().zip([255, 0, 0]).all(near), "{:?}", &image.data()[..3]);
    }

    #[test]
    fn of_an_animation_the_first_frame_counts() {
        for name in ["animated.gif", "animated.webp", "animated.png"] {
            let image = fixture(name);
            assert_eq!((image.width(), image.height()), (8, 8), "{name}");
            assert_eq!(&image.data()[..3], [255, 0, 0], "{name}");
        }
    }
}
