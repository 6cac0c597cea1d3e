//! Why a picture is not read.

use image::{ImageError, ImageFormat};
use std::fmt;

/// Why a picture is not read.
#[derive(Debug)]
pub enum Problem {
    /// No image: its first bytes.
    NotAnImage(Vec<u8>),
    /// An image of a format that is not read: its name.
    OtherFormat(String),
    /// A side of 0 pixels.
    NoPixels {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// More pixels than the caller opens.
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Samples that are floats, which have no agreed meaning.
    Floats(ImageFormat),
    /// A JPEG whose end is missing.
    CutOff,
    /// More memory than an image of its size may take.
    Memory(ImageError),
    /// A kind of its format that the decoder does not know.
    Rare(ImageError),
    /// Damaged or cut off.
    Damaged(ImageError),
}

impl From<ImageError> for Problem {
    fn from(e: ImageError) -> Self {
        match e {
            ImageError::Limits(_) => Self::Memory(e),
            ImageError::Unsupported(_) => Self::Rare(e),
            other => Self::Damaged(other),
        }
    }
}

/// Formats that people have, and that the decoders do not know: place, bytes, name.
const KNOWN: [(usize, &[u8], &str); 6] = [
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (0, &[0xff, 0x0a], "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
];

/// What a file is that no decoder takes.
pub(crate) fn unknown(head: &[u8]) -> Problem {
    match KNOWN.iter().find(|k| head.get(k.0..).is_some_and(|h| h.starts_with(k.1))) {
        Some(known) => Problem::OtherFormat(known.2.into()),
        None => Problem::NotAnImage(head[..head.len().min(12)].to_vec()),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage(head) => {
                let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
                write!(f, "it is no image: it begins with {}", hex.join(" "))
            }
            Self::OtherFormat(name) => {
                write!(f, "the format {name} is not read: convert it to PNG or JPEG")
            }
            Self::NoPixels { width, height } => write!(f, "it is {width}x{height}: it has no pixels"),
            Self::TooLarge { width, height } => {
                let megapixels = f64::from(*width) * f64::from(*height) / 1e6;
                write!(f, "{width}x{height} are {megapixels:.0} megapixels")
            }
            Self::Floats(_) => {
                f.write_str("its samples are floats, which have no agreed meaning: save it with 8 or 16 bits")
            }
            Self::CutOff => f.write_str("the JPEG is cut off"),
            Self::Memory(_) => f.write_str("it needs more memory than an image of its size may take"),
            Self::Rare(e) => write!(f, "it is of a rare kind, which is not read: {e}"),
            Self::Damaged(e) => write!(f, "damaged or cut off: {e}"),
        }
    }
}

impl std::error::Error for Problem {}
