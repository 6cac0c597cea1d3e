//! Files for the tests of upscaling: pictures of every kind, and networks of a few channels.

use crate::support::Place;
use candle_core::{Device, Tensor};
use png::{BitDepth, ColorType};
use std::collections::HashMap;
use std::path::Path;

/// A PNG, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub colour: ColorType,
    pub depth: BitDepth,
    /// Samples as in the file: of 16 bits with the high byte first.
    pub data: Vec<u8>,
    pub profile: Option<Vec<u8>>,
    /// The EXIF orientation.
    pub turned: Option<u8>,
}

impl Default for Picture {
    fn default() -> Self {
        let (colour, depth) = (ColorType::Rgb, BitDepth::Eight);
        Self { width: 1, height: 1, colour, depth, data: vec![0; 3], profile: None, turned: None }
    }
}

/// Writes a picture, and gives it back.
pub fn picture(place: &Place, name: &str, picture: Picture) -> Picture {
    let mut info = png::Info::with_size(picture.width, picture.height);
    (info.color_type, info.bit_depth) = (picture.colour, picture.depth);
    info.icc_profile = picture.profile.clone().map(Into::into);
    let mut out = Vec::new();
    let mut writer = png::Encoder::with_info(&mut out, info).unwrap().write_header().unwrap();
    if let Some(orientation) = picture.turned {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        writer.write_chunk(png::chunk::eXIf, &exif).unwrap();
    }
    writer.write_image_data(&picture.data).unwrap();
    writer.finish().unwrap();
    place.write(name, out);
    picture
}

/// Reads a picture.
pub fn read(path: &Path) -> Picture {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut data).unwrap();
    data.truncate(frame.buffer_size());
    let info = reader.info();
    let turned = info.exif_metadata.as_ref().and_then(|exif| exif.get(18).copied());
    Picture {
        width: info.width,
        height: info.height,
        colour: info.color_type,
        depth: info.bit_depth,
        data,
        profile: info.icc_profile.as_ref().map(|p| p.to_vec()),
        turned,
    }
}

/// Channels of the networks.
const CHANNELS: usize = 8;

/// Writes a network of the class SRVGGNetCompact with three convolutions whose weights are up to `size`: with 0 it
/// repeats pixels. It sees 3 pixels in each direction.
pub fn network(place: &Place, name: &str, scale: usize, size: f32, seed: u32) {
    let mut state = seed;
    let mut values = |shape: &[usize], size: f32| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * size
        };
        let all: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_vec(all, shape, &Device::Cpu).unwrap()
    };
    let out = 3 * scale * scale;
    let mut tensors = HashMap::new();
    for (layer, (from, to)) in [(0, (3, CHANNELS)), (2, (CHANNELS, CHANNELS)), (4, (CHANNELS, out))] {
        tensors.insert(format!("body.{layer}.weight"), values(&[to, from, 3, 3], size));
        tensors.insert(format!("body.{layer}.bias"), values(&[to], size / 10.0));
    }
    for layer in [1, 3] {
        tensors.insert(format!("body.{layer}.weight"), values(&[CHANNELS], 0.25));
    }
    let path = place.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    candle_core::safetensors::save(&tensors, path).unwrap();
}
