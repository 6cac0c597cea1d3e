//! Whether a file holds more than one frame.

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, ImageDecoder, ImageFormat, Limits};
use std::io::Cursor;

/// Whether there are more frames than the one that was decoded; what cannot tell has none.
pub(crate) fn follows(format: ImageFormat, bytes: &[u8], limits: Limits) -> bool {
    let bytes = Cursor::new(bytes);
    match format {
        ImageFormat::Png => PngDecoder::new(bytes).is_ok_and(|d| d.is_apng().unwrap_or(false)),
        ImageFormat::WebP => WebPDecoder::new(bytes).is_ok_and(|d| d.has_animation()),
        ImageFormat::Gif => GifDecoder::new(bytes).is_ok_and(|mut d| {
            let limited = d.set_limits(limits).is_ok();
            limited && d.into_frames().take(2).filter(|f| f.is_ok()).count() == 2
        }),
        _ => false,
    }
}
