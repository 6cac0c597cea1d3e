//! What the tests of this module share: folders that vanish, and images in memory.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of its own, which goes with the value.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("atelier-data-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and the folders above it.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// No two pixels or sizes alike.
pub fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 37 + y * 11) as u8, (x * x * 3 + y * 29) as u8, (x * y * 5 + 40) as u8])
    })
}

pub fn png(width: u32, height: u32) -> Vec<u8> {
    encode(pattern(width, height), ImageFormat::Png)
}

/// An image that is not there, to choose from.
pub fn item(name: &str, caption: &str, attributes: &[(&str, &str)]) -> super::Item {
    super::Item {
        name: name.into(),
        path: name.into(),
        caption: caption.into(),
        repeats: 1,
        attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        stratum: None,
    }
}
