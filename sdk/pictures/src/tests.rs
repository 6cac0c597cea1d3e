use super::*;
use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba};

const ALL: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::Gif,
];

fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8]))
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn flat(bytes: &[u8]) -> Flat {
    decode(bytes, |_, _| true).unwrap().flat()
}

fn refused(bytes: &[u8]) -> String {
    decode(bytes, |w, h| u64::from(w) * u64::from(h) < 1 << 20).unwrap_err().to_string()
}

#[test]
fn every_format_is_read_and_a_cut_one_refused() {
    for format in ALL {
        let bytes = encode(pattern(64, 48), format);
        let picture = decode(&bytes, |_, _| true).unwrap();
        assert_eq!((picture.format, picture.animated), (format, false));
        let flat = picture.flat();
        assert_eq!((flat.width, flat.height, flat.rgb.len()), (64, 48, 64 * 48 * 3), "{format:?}");
        assert!(!flat.was_transparent);
        if !matches!(format, ImageFormat::Jpeg | ImageFormat::Gif) {
            assert_eq!(flat.rgb, *pattern(64, 48).as_raw(), "{format:?}");
        }
        for cut in [13, bytes.len() / 3, bytes.len() * 9 / 10] {
            let reason = refused(&bytes[..cut]);
            assert!(reason.contains("cut off") || reason.contains("no image"), "{format:?} {cut} {reason}");
        }
    }
}

#[test]
fn what_is_no_image_says_what_it_is() {
    for (bytes, words) in [
        (&b"<html>"[..], "no image: it begins with 3c 68 74 6d 6c 3e"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"", "no image"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ] {
        let reason = refused(bytes);
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_bomb_is_refused_by_its_head() {
    let mut bomb = encode(pattern(4, 4), ImageFormat::Png);
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(refused(&bomb).contains("50000x50000 are 2500 megapixels"));
    assert_eq!(claimed(&bomb).unwrap(), (50_000, 50_000));
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |c: u32, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
    !bytes.iter().fold(!0, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

#[test]
fn every_kind_of_pixel_becomes_rgb() {
    let clear = ImageBuffer::from_fn(3, 1, |x, _| Rgba([200u8, 0, 0, [0, 128, 255][x as usize]]));
    let picture = flat(&encode(clear, ImageFormat::Png));
    assert_eq!(picture.rgb, [255, 255, 255, 227, 127, 127, 200, 0, 0]);
    assert!(picture.was_transparent);
    let grey = GrayImage::from_pixel(1, 1, Luma([7]));
    assert_eq!(flat(&encode(grey, ImageFormat::Png)).rgb, [7, 7, 7]);
    let deep = ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([65535, 128, 129]));
    assert_eq!(flat(&encode(deep, ImageFormat::Tiff)).rgb, [255, 0, 1]);
    let floats = image::Rgb32FImage::from_pixel(1, 1, Rgb([0.5; 3]));
    assert!(refused(&encode(floats, ImageFormat::Tiff)).contains("floats"));
}

#[test]
fn a_photo_is_turned_as_its_camera_was_held() {
    let plain = encode(pattern(40, 20), ImageFormat::Jpeg);
    // An APP1 segment with one entry: orientation 6, turn right to view.
    let tiff = [b"II*\0\x08\0\0\0\x01\0".as_slice(), b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"].concat();
    let exif = [b"Exif\0\0".as_slice(), &tiff].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat();
    let (turned, plain) = (flat(&turned), flat(&plain));
    assert_eq!((turned.width, turned.height), (20, 40));
    // Its top right corner was the top left one.
    assert_eq!(turned.rgb[19 * 3..20 * 3], plain.rgb[..3]);
}

#[test]
fn of_an_animation_the_first_frame_counts_and_it_is_told() {
    for bytes in [
        &include_bytes!("../../../tests/fixtures/images/animated.gif")[..],
        include_bytes!("../../../tests/fixtures/images/animated.webp"),
        include_bytes!("../../../tests/fixtures/images/animated.png"),
    ] {
        let picture = decode(bytes, |_, _| true).unwrap();
        assert!(picture.animated);
        assert_eq!(picture.flat().rgb[..3], [255, 0, 0]);
    }
}

/// Adobe's programs store the inks inverted; read without that, red would be black.
#[test]
fn a_jpeg_for_print_has_the_colours_of_its_inks() {
    let picture = flat(include_bytes!("../../../tests/fixtures/images/cmyk.jpg"));
    for (found, wanted) in picture.rgb[..3].iter().zip([255u8, 0, 0]) {
        assert!(found.abs_diff(wanted) <= 4, "{:?}", &picture.rgb[..3]);
    }
}
