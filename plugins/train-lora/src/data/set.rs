//! From a folder to what is trained on: chosen, opened, counted, and known by a digest.

use super::folder::{Folder, Found, Item, Kind, Rejected, Remark, counted};
use super::lots::{Parts, hex};
use super::open::{self, Check, Opened, Outcome};
use super::{Subset, Where};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// After so many bad choices all images are opened: then at the latest it is known which can be chosen.
const ROUNDS: usize = 4;

/// Which images of a folder are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What they have to be like.
    pub check: Check,
    /// Only those with these attributes.
    pub filter: Where,
    /// Only a sample of those.
    pub prototype: Option<Subset>,
}

impl Wanted {
    /// All images, for a resolution (width, height).
    pub fn all(resolution: (u32, u32)) -> Self {
        Self { check: Check::new(resolution), filter: Where::default(), prototype: None }
    }
}

/// What is trained on.
#[derive(Debug, Clone)]
pub struct Set {
    /// The layout that the folder has.
    pub kind: Kind,
    /// What names are relative to.
    pub root: PathBuf,
    /// Good images with captions, by name.
    pub items: Vec<Opened>,
    /// Names and captions that lead to no image, and images without caption.
    pub rejected: Vec<Rejected>,
    /// Images that cannot be used.
    pub quarantine: Vec<Rejected>,
    /// What is odd about images that are used.
    pub remarks: Vec<Remark>,
    /// Images that are not wanted: of other attributes, or not in the sample.
    pub unwanted: usize,
    /// What the sample was stratified by, when one was wanted.
    pub stratified_by: Option<String>,
    /// Files in the folder that have nothing to do with it.
    pub others: usize,
}

impl Folder {
    /// Reads the folder, chooses what is wanted, and opens it. Where a chosen image is bad, another is chosen.
    ///
    /// `tick` hears how many images were opened, from any thread, and stops the work by an error.
    ///
    /// # Errors
    /// Those of [`Folder::read`] and of the choice; no image is good.
    pub fn load(&self, wanted: &Wanted, tick: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Set> {
        let (w, h) = wanted.check.resolution;
        if w == 0 || h == 0 {
            return Err(Error::invalid(format!("a resolution of {w}x{h} has no pixels")));
        }
        let Found { kind, root, items, rejected, remarks, others } = self.read()?;
        let all = items.len();
        let items = wanted.filter.apply(items)?;
        let mut by = None;
        let mut outcome = match &wanted.prototype {
            None => open::open(items, &wanted.check, tick)?,
            Some(subset) => sample(items, subset, &wanted.check, tick, &mut by)?,
        };
        if outcome.good.is_empty() {
            return Err(none_good(&outcome.bad));
        }
        outcome.remarks.extend(open::twins(&outcome.good));
        outcome.remarks.extend(remarks);
        let used: std::collections::HashSet<&str> =
            outcome.good.iter().map(|o| o.item.name.as_str()).collect();
        // What is said of the folder as a whole is said of no image.
        let known = |r: &Remark| used.contains(r.file.as_str()) || r.file == "metadata.json";
        outcome.remarks.retain(known);
        outcome.remarks.sort();
        outcome.bad.sort();
        let unwanted = all - outcome.good.len() - outcome.bad.len();
        let Outcome { good: items, bad: quarantine, remarks } = outcome;
        Ok(Set { kind, root, items, rejected, quarantine, remarks, unwanted, stratified_by: by, others })
    }
}

/// A sample of good images: chosen, opened, and chosen again without those that proved bad.
fn sample(
    items: Vec<Item>,
    subset: &Subset,
    check: &Check,
    tick: &(dyn Fn(usize) -> Result<()> + Sync),
    by: &mut Option<String>,
) -> Result<Outcome> {
    let mut pool = items;
    let mut good = BTreeMap::<String, Opened>::new();
    let (mut bad, mut remarks) = (Vec::new(), Vec::new());
    for round in 1.. {
        let (chosen, how) = subset.choose(pool.clone())?;
        *by = Some(how);
        let look_at = if round > ROUNDS { pool.clone() } else { chosen.clone() };
        let fresh: Vec<Item> = look_at.into_iter().filter(|i| !good.contains_key(&i.name)).collect();
        let before = good.len() + bad.len();
        let seen = open::open(fresh, check, &|n| tick(before + n))?;
        good.extend(seen.good.into_iter().map(|o| (o.item.name.clone(), o)));
        remarks.extend(seen.remarks);
        if seen.bad.is_empty() {
            let good = chosen.iter().filter_map(|i| good.remove(&i.name)).collect();
            return Ok(Outcome { good, bad, remarks });
        }
        let names: std::collections::HashSet<&str> = seen.bad.iter().map(|r| r.file.as_str()).collect();
        pool.retain(|i| !names.contains(i.name.as_str()));
        bad.extend(seen.bad);
        if pool.is_empty() {
            break;
        }
    }
    Ok(Outcome { good: Vec::new(), bad, remarks })
}

fn none_good(bad: &[Rejected]) -> Error {
    let message = format!("none of the {} images to train on can be used", bad.len());
    let error = Error::new(ErrorKind::Corrupt, message);
    bad.iter().take(5).fold(error, |e, r| e.hint(format!("{}: {}", r.file, r.reason)))
}

impl Set {
    /// The folder of another part of the same prepared set, when there is one: `val` to measure on.
    pub fn sibling(&self, part: &str) -> Option<PathBuf> {
        self.kind.sibling(&self.root, part)
    }

    /// How many images an epoch shows: each as often as it is repeated.
    pub fn per_epoch(&self) -> u64 {
        self.items.iter().map(|o| u64::from(o.item.repeats)).sum()
    }

    /// Identifies the data, for checkpoints: a digest over names, captions, repeats and what is in the files.
    /// Neither place nor layout of the folder matter.
    pub fn digest(&self) -> String {
        let parts = self.items.iter().fold(Parts::default().with("training data 1"), |d, o| {
            d.with(&o.item.name).with(&o.item.caption).with(o.item.repeats.to_le_bytes()).with(&o.sha256)
        });
        hex(&parts.finish())
    }

    /// Lines that say what is trained on and what is not, for a person.
    pub fn summary(&self) -> Vec<String> {
        let mut out = vec![format!("{} from {}", images(self.items.len()), self.kind)];
        if self.per_epoch() != self.items.len() as u64 {
            out.push(format!("{} in an epoch, with repeats", self.per_epoch()));
        }
        if let Some(by) = &self.stratified_by {
            out.push(format!("a sample, stratified by {by}"));
        }
        if self.unwanted > 0 {
            out.push(format!("{} not wanted", images(self.unwanted)));
        }
        if !self.rejected.is_empty() {
            out.push(format!("{} left out for names or captions", self.rejected.len()));
        }
        if !self.quarantine.is_empty() {
            out.push(format!("{} in quarantine", images(self.quarantine.len())));
        }
        out.extend(counted(&self.remarks).into_iter().map(|(text, n)| format!("{n} x {text}")));
        out
    }

    /// Writes what is not trained on, with reasons and counts. Images stay where they are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_quarantine(&self, path: &Path) -> Result<()> {
        let value = serde_json::json!({
            "schema_version": 1,
            "used": self.items.len(),
            "quarantined": self.quarantine.len(),
            "rejected": self.rejected.len(),
            "quarantine": self.quarantine,
            "left_out": self.rejected,
            "remarks": counted(&self.remarks).into_iter().map(|(text, n)| serde_json::json!({"images": n, "text": text}))
                .collect::<Vec<_>>(),
        });
        let mut text = serde_json::to_vec_pretty(&value).internal("a quarantine that is no JSON")?;
        text.push(b'\n');
        files::write_atomic(path, &text)
    }
}

fn images(n: usize) -> String {
    if n == 1 { "1 image".into() } else { format!("{n} images") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Dir, png};

    fn folder() -> (Dir, Folder) {
        let dir = Dir::new();
        let mut lines = String::new();
        for i in 0..20u32 {
            let bytes = if i % 4 == 3 { b"broken".to_vec() } else { png(32 + i, 32) };
            dir.put(&format!("{i:02}.png"), bytes);
            let colour = ["Red", "Blue"][i as usize % 2];
            lines += &format!(
                "{{\"file_name\":\"{i:02}.png\",\"text\":\"a {colour} thing\",\"colour\":\"{colour}\"}}\n"
            );
        }
        dir.put("metadata.jsonl", lines);
        let folder = Folder::new(dir.path());
        (dir, folder)
    }

    fn load(folder: &Folder, filter: &[&str], n: Option<usize>) -> Result<Set> {
        let prototype = n.map(|n| Subset { n, seed: 3, by: vec!["colour".into()] });
        folder
            .load(&Wanted { filter: Where::parse(filter)?, prototype, ..Wanted::all((32, 32)) }, &|_| Ok(()))
    }

    #[test]
    fn bad_images_are_counted_and_written_before_the_run() {
        let (dir, folder) = folder();
        let set = load(&folder, &[], None).unwrap();
        assert_eq!((set.items.len(), set.quarantine.len(), set.unwanted), (15, 5, 0));
        let path = dir.path().join("quarantine.json");
        set.write_quarantine(&path).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(
            (&written["quarantined"], &written["quarantine"][0]["file"]),
            (&5.into(), &"03.png".into())
        );
        assert_eq!(set.summary()[0], "15 images from an image folder (captions in metadata.jsonl)");
    }

    #[test]
    fn a_sample_has_as_many_good_images_as_were_wanted() {
        let (_dir, folder) = folder();
        let set = load(&folder, &[], Some(6)).unwrap();
        assert_eq!(set.items.len(), 6);
        assert_eq!(set.stratified_by.as_deref(), Some("colour"));
        assert_eq!(load(&folder, &[], Some(6)).unwrap().digest(), set.digest());
        let set = load(&folder, &["colour=Blue"], Some(100)).unwrap();
        assert_eq!((set.items.len(), set.quarantine.len(), set.unwanted), (5, 5, 10));
        assert!(set.items.iter().all(|o| o.item.attributes["colour"] == "Blue"));
    }

    #[test]
    fn a_folder_without_a_good_image_says_why() {
        let dir = Dir::new();
        dir.put("a.png", "broken");
        dir.put("a.txt", "a");
        for n in [None, Some(2)] {
            let prototype = n.map(|n| Subset { n, seed: 1, by: vec![] });
            let wanted = Wanted { prototype, ..Wanted::all((32, 32)) };
            let e = Folder::new(dir.path()).load(&wanted, &|_| Ok(())).unwrap_err();
            assert!(e.kind() == ErrorKind::Corrupt && e.hints()[0].starts_with("a.png: "), "{e:?}");
        }
    }

    #[test]
    fn the_digest_knows_names_captions_repeats_and_content() {
        let read = |files: &[(&str, &[u8])]| {
            let dir = Dir::new();
            files.iter().for_each(|f| dir.put(f.0, f.1));
            Folder::new(dir.path()).load(&Wanted::all((8, 8)), &|_| Ok(())).unwrap().digest()
        };
        let (one, other) = (png(8, 8), png(9, 8));
        let base = read(&[("2_a/a.png", &one), ("2_a/a.txt", b"x")]);
        assert_eq!(base, read(&[("2_a/a.png", &one), ("2_a/a.caption", b" x\n"), ("README.md", b"")]));
        for different in [
            read(&[("2_a/a.png", &other), ("2_a/a.txt", b"x")]),
            read(&[("2_a/b.png", &one), ("2_a/b.txt", b"x")]),
            read(&[("2_a/a.png", &one), ("2_a/a.txt", b"y")]),
            read(&[("a.png", &one), ("a.txt", b"x")]),
        ] {
            assert_ne!(base, different);
        }
    }
}
