//! Opens every image once, before anything is trained: what is bad is known and counted then.

use super::decode::{self, Picture};
use super::folder::{Item, Rejected, Remark};
use super::lots::hex;
use super::pixels::Geometry;
use atelier_sdk::Result;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Larger images are decoded one at a time: sixteen at once would not fit.
const LARGE: u64 = 25_000_000;

/// What images have to be like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Check {
    /// Width and height that the run trains at.
    pub resolution: (u32, u32),
    /// Images with a shorter side are left out; a quarter of the resolution's where nothing is said.
    pub min_side: Option<u32>,
    /// Images with more million pixels are left out before they are decoded.
    pub max_megapixels: f64,
}

impl Check {
    /// For a resolution (width, height), with the usual limits.
    pub fn new(resolution: (u32, u32)) -> Self {
        Self { resolution, min_side: None, max_megapixels: 100.0 }
    }

    fn shortest(&self) -> u32 {
        self.min_side.unwrap_or(self.resolution.0.min(self.resolution.1) / 4).max(1)
    }
}

/// An image that was opened and is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The image and its caption.
    pub item: Item,
    /// Digest of its file, in hex.
    pub sha256: String,
    /// Pixels in a row, upright.
    pub width: u32,
    /// Rows, upright.
    pub height: u32,
}

impl AsRef<Item> for Opened {
    fn as_ref(&self) -> &Item {
        &self.item
    }
}

/// What opening images gave, in their order.
#[derive(Debug, Default)]
pub struct Outcome {
    pub good: Vec<Opened>,
    pub bad: Vec<Rejected>,
    pub remarks: Vec<Remark>,
}

/// Opens images in parallel. `tick` hears how many are done, from any thread, and stops the work by an error.
pub fn open(items: Vec<Item>, check: &Check, tick: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Outcome> {
    let (done, large) = (AtomicUsize::new(0), Mutex::new(()));
    let one = |item: Item| {
        let result = look(&item, check, &large);
        tick(done.fetch_add(1, Ordering::Relaxed) + 1)?;
        Ok((item, result))
    };
    let all: Result<Vec<_>> = items.into_par_iter().map(one).collect();
    let mut out = Outcome::default();
    for (item, result) in all? {
        match result {
            Err(reason) => out.bad.push(Rejected { file: item.name, reason }),
            Ok(seen) => {
                let remark = |text: &&str| Remark { file: item.name.clone(), text: text.to_string() };
                out.remarks.extend(seen.remarks.iter().map(remark));
                let (width, height) = seen.size;
                out.good.push(Opened { item, sha256: seen.sha256, width, height });
            }
        }
    }
    Ok(out)
}

struct Seen {
    sha256: String,
    size: (u32, u32),
    remarks: Vec<&'static str>,
}

fn look(item: &Item, check: &Check, large: &Mutex<()>) -> Result<Seen, String> {
    let bytes = decode::read(&item.path)?;
    let alone = (decode::claimed(&bytes)? > LARGE).then(|| large.lock());
    let Picture { width, height, mut remarks, .. } = decode::decode(&bytes, check.max_megapixels)?;
    drop(alone);
    remarks.extend(fits((width, height), check)?);
    Ok(Seen { sha256: hex(&Sha256::digest(&bytes)), size: (width, height), remarks })
}

/// What is to be said of an image's size, or why it cannot be used.
fn fits((width, height): (u32, u32), check: &Check) -> Result<Vec<&'static str>, String> {
    let shortest = check.shortest();
    if width.min(height) < shortest {
        return Err(format!(
            "{width}x{height} is too small: its shorter side has fewer than {shortest} pixels"
        ));
    }
    let geometry = Geometry::new((width, height), check.resolution);
    let (w, h) = geometry.resized;
    if w as f64 * h as f64 > check.max_megapixels.max(1.0) * 1e6 {
        return Err(format!("{width}x{height} is too narrow: it would be {w}x{h} before it is cut"));
    }
    let mut remarks = Vec::new();
    if w > u64::from(width) || h > u64::from(height) {
        remarks.push("is smaller than the resolution; it is enlarged");
    }
    if geometry.share(check.resolution) < 0.5 {
        remarks.push("loses more than half of itself to the cut in the middle");
    }
    Ok(remarks)
}

/// Remarks about images whose files are the same, byte for byte.
pub fn twins(good: &[Opened]) -> Vec<Remark> {
    let mut seen = HashSet::new();
    let again = good.iter().filter(|o| !seen.insert(&o.sha256));
    again
        .map(|o| Remark { file: o.item.name.clone(), text: "is the same file as an earlier image".into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Folder;
    use crate::data::testing::{Dir, png};
    use atelier_sdk::{Error, ErrorKind};

    fn folder() -> Dir {
        let dir = Dir::new();
        for (name, bytes) in [
            ("a.png", png(64, 64)),
            ("b.png", png(40, 30)),
            ("c.png", png(64, 64)),
            ("d.png", png(9, 64)),
            ("e.png", png(64, 64)[..200].to_vec()),
            ("f.png", Vec::new()),
            ("g.png", b"<html>".to_vec()),
            ("h.png", png(64, 140)),
        ] {
            dir.put(name, bytes);
        }
        dir
    }

    fn items(dir: &Dir) -> Vec<Item> {
        Folder::new(dir.path()).with_caption(Some("x".into())).read().unwrap().items
    }

    #[test]
    fn bad_images_are_found_with_reasons_and_good_ones_stay_in_order() {
        let dir = folder();
        let out = open(items(&dir), &Check::new((64, 64)), &|_| Ok(())).unwrap();
        let names: Vec<_> = out.good.iter().map(|o| (o.item.name.as_str(), o.width, o.height)).collect();
        assert_eq!(names, [("a.png", 64, 64), ("b.png", 40, 30), ("c.png", 64, 64), ("h.png", 64, 140)]);
        assert_eq!(out.good[0].sha256, hex(&Sha256::digest(png(64, 64))));
        let bad: Vec<_> = out.bad.iter().map(|r| r.file.as_str()).collect();
        assert_eq!(bad, ["d.png", "e.png", "f.png", "g.png"]);
        for (bad, words) in out.bad.iter().zip(["too small", "cut off", "0 bytes", "no image"]) {
            assert!(bad.reason.contains(words), "{bad:?}");
        }
        let remarks: Vec<_> = out.remarks.iter().map(|r| r.file.as_str()).collect();
        assert_eq!(remarks, ["b.png", "h.png"]);
        assert_eq!(twins(&out.good)[0].file, "c.png");
    }

    #[test]
    fn a_line_of_pixels_is_not_made_a_wall() {
        let check = Check { min_side: Some(1), ..Check::new((512, 512)) };
        assert!(fits((60_000, 1), &check).unwrap_err().contains("too narrow"));
        assert!(fits((1, 1), &check).is_ok());
    }

    #[test]
    fn a_stop_is_heard_while_images_are_opened() {
        let stop = |n| if n < 2 { Ok(()) } else { Err(Error::cancelled()) };
        let e = open(items(&folder()), &Check::new((64, 64)), &stop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Cancelled);
    }
}
