//! Checks a prepared set: every image loads, captions match images, nothing is there twice, splits are disjoint and
//! balanced, nothing is there that does not belong. What is bad is put aside and listed, never dropped in silence.

use crate::images::{load, sha256};
use crate::prepare::plan::{Balance, cross};
use crate::prepare::set::{ImageFile, Manifest};
use crate::prepare::{MANIFEST, OWN, PROTOTYPE, QUARANTINE};
use crate::stats::chi_square;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{EngineCtx, Error, Event, Result, ResultExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Images between two looks at whether to stop.
const CHUNK: usize = 64;
/// Splits whose fields differ with a smaller probability by chance are not balanced.
const SIGNIFICANT: f64 = 0.05;

/// Something wrong with a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The file below the set's folder.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is an image that is bad in itself.
    pub quarantine: bool,
}

fn fault(file: &str, reason: impl Into<String>) -> Fault {
    Fault { file: file.into(), reason: reason.into(), quarantine: false }
}

/// The verdict.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Images by part.
    pub images: BTreeMap<String, usize>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// How alike the parts are.
    pub balance: Vec<Balance>,
    /// Files that were put aside.
    pub quarantined: usize,
}

impl Verdict {
    /// Whether the set can be trained on.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Checks a set. With `quarantine`, bad images go to a folder of that name, with their reasons.
///
/// # Errors
/// There is no set, it cannot be written to, the run is to stop. A bad set is no error here.
pub fn check(folder: &Path, quarantine: bool, ctx: &mut dyn EngineCtx) -> Result<Verdict> {
    let manifest = Manifest::read(folder)?;
    let mut faults = image_faults(folder, &manifest, ctx)?;
    faults.extend(strangers(folder, &manifest));
    faults.extend(text_faults(folder, &manifest));
    faults.extend(duplicates(&manifest));
    faults.extend(torn_groups(&manifest));
    let lines = captions(folder, &manifest, &mut faults);
    let balance = balance(&manifest, &lines);
    for b in &balance {
        if let Some(test) = b.test.filter(|t| t.p < SIGNIFICANT) {
            let why = format!(
                "the splits differ in `{}`: chi-square {:.1}, {} df, p {:.4}",
                b.field, test.chi2, test.df, test.p
            );
            faults.push(fault(MANIFEST, why));
        }
    }
    faults.sort();
    faults.dedup();
    let mut images: BTreeMap<String, usize> = manifest.parts.iter().map(|p| (p.clone(), 0)).collect();
    manifest.images.keys().for_each(|f| *images.entry(part(f).to_string()).or_default() += 1);
    let quarantined = if quarantine { put_aside(folder, &faults)? } else { 0 };
    Ok(Verdict { images, faults, balance, quarantined })
}

fn part(file: &str) -> &str {
    file.split('/').next().unwrap_or_default()
}

fn image_faults(folder: &Path, manifest: &Manifest, ctx: &mut dyn EngineCtx) -> Result<Vec<Fault>> {
    let all: Vec<(&String, &ImageFile)> = manifest.images.iter().collect();
    let mut faults = Vec::new();
    for (i, chunk) in all.chunks(CHUNK).enumerate() {
        faults.par_extend(
            chunk.par_iter().filter_map(|(name, file)| image_fault(folder, name, file, manifest.size)),
        );
        let done = (i * CHUNK + chunk.len()) as u64;
        ctx.event(Event::Progress { done, total: all.len() as u64, unit: "images".into() })?;
        if ctx.cancelled() {
            return Err(Error::cancelled());
        }
    }
    Ok(faults)
}

fn image_fault(folder: &Path, name: &str, file: &ImageFile, size: u32) -> Option<Fault> {
    let path = folder.join(name);
    if !path.exists() {
        return Some(fault(name, "it is missing"));
    }
    let bad = |reason: String| Some(Fault { file: name.into(), reason, quarantine: true });
    let bytes = match load::read(&path) {
        Ok(bytes) => bytes,
        Err(refusal) => return bad(refusal.reason),
    };
    match load::decode(&bytes, 64.0) {
        Err(refusal) => bad(refusal.reason),
        Ok(photo) if (photo.pixels.width, photo.pixels.height) != (size, size) => {
            bad(format!("it is {}x{}, not {size}x{size}", photo.pixels.width, photo.pixels.height))
        }
        Ok(_) if sha256(&bytes) != file.sha256 => {
            bad("it is not the image that was made: its digest differs".into())
        }
        Ok(_) => None,
    }
}

/// Files that the manifest does not know.
fn strangers(folder: &Path, manifest: &Manifest) -> Vec<Fault> {
    let mut faults = Vec::new();
    let entries = |at: &Path| std::fs::read_dir(at).into_iter().flatten().flatten().collect::<Vec<_>>();
    let known = |file: &str| manifest.images.contains_key(file) || manifest.files.contains_key(file);
    for entry in entries(folder) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.path().is_dir();
        let is_link = entry.path().is_symlink();
        if [OWN, QUARANTINE, MANIFEST, "check.json", "check.txt"].contains(&name.as_str()) && !is_link {
            continue;
        }
        if is_folder && manifest.folders().contains(&name.as_str()) && !is_link {
            for inner in entries(&entry.path()) {
                let file = format!("{name}/{}", inner.file_name().to_string_lossy());
                if inner.path().is_symlink() {
                    faults.push(fault(&file, "it is a link, which leads outside"));
                } else if !known(&file) {
                    faults.push(fault(&file, "it does not belong to the set"));
                }
            }
        } else if is_link || is_folder || !known(&name) {
            faults.push(fault(&name, "it does not belong to the set"));
        }
    }
    faults
}

fn text_faults(folder: &Path, manifest: &Manifest) -> Vec<Fault> {
    let of = |(name, digest): (&String, &String)| match std::fs::read(folder.join(name)) {
        Err(e) => Some(fault(name, format!("it cannot be read: {e}"))),
        Ok(text) if sha256(&text) != *digest => {
            Some(fault(name, "it is not what was written: its digest differs"))
        }
        Ok(_) => None,
    };
    manifest.files.iter().filter_map(of).collect()
}

/// Images with the same content, or from the same photo. The prototype repeats images of the first part.
fn duplicates(manifest: &Manifest) -> Vec<Fault> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    let mut faults = Vec::new();
    for (name, file) in manifest.images.iter().filter(|i| part(i.0) != PROTOTYPE) {
        for digest in [file.sha256.as_str(), file.source_sha256.as_str()] {
            match seen.insert(digest, name) {
                Some(other) if other != name => {
                    faults.push(fault(name, format!("it shows the same as {other}")))
                }
                _ => {}
            }
        }
    }
    faults
}

/// Groups of photos that show the same and lie in more than one split; ids that do.
fn torn_groups(manifest: &Manifest) -> Vec<Fault> {
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, file) in manifest.images.iter().filter(|i| part(i.0) != PROTOTYPE) {
        let id = name.rsplit('/').next().and_then(|f| f.strip_suffix(".png")).unwrap_or_default();
        for of in [file.group.as_str(), id] {
            let first = *parts.entry(of).or_insert(part(name));
            if first != part(name) {
                faults.push(fault(name, format!("{of} is in {first}, too: the splits are not disjoint")));
            }
        }
    }
    faults
}

/// The lines of `metadata.jsonl` by image, after a comparison with the images and the captions.
fn captions(folder: &Path, manifest: &Manifest, faults: &mut Vec<Fault>) -> BTreeMap<String, Value> {
    let mut lines: BTreeMap<String, Value> = BTreeMap::new();
    let present: BTreeSet<&str> = manifest.images.keys().map(|f| part(f)).collect();
    for part in present.iter().copied() {
        let file = format!("{part}/metadata.jsonl");
        let text = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        for (i, line) in text.lines().enumerate() {
            let value: Option<Value> = serde_json::from_str(line).ok();
            let name = value.as_ref().and_then(|v| v["file_name"].as_str()).map(|n| format!("{part}/{n}"));
            match (value, name) {
                (Some(value), Some(name)) => drop(lines.insert(name, value)),
                _ => faults.push(fault(&file, format!("line {} is no JSON with a file_name", i + 1))),
            }
        }
        let captions = format!("captions_{part}.json");
        let list: Vec<Value> = std::fs::read(folder.join(&captions))
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok())
            .unwrap_or_default();
        let by_image: HashMap<&str, &Value> =
            list.iter().filter_map(|c| Some((c["image"].as_str()?, &c["caption"]))).collect();
        for name in manifest.images.keys().filter(|f| self::part(f) == part) {
            match (lines.get(name).map(|l| &l["text"]), by_image.get(name.as_str())) {
                (Some(text), Some(caption))
                    if text == *caption && text.as_str().is_some_and(|t| !t.is_empty()) => {}
                (None, _) => faults.push(fault(&file, format!("{name} has no line"))),
                (_, None) => faults.push(fault(&captions, format!("{name} has no caption"))),
                _ => faults
                    .push(fault(&captions, format!("the caption of {name} is empty or not that of {file}"))),
            }
        }
    }
    for name in lines.keys().filter(|n| !manifest.images.contains_key(*n)) {
        faults
            .push(fault(&format!("{}/metadata.jsonl", part(name)), format!("{name} is no image of the set")));
    }
    lines
}

fn balance(manifest: &Manifest, lines: &BTreeMap<String, Value>) -> Vec<Balance> {
    let place = |f: &str| manifest.parts.iter().position(|p| p == part(f));
    let of = |field: &String| {
        let rows = lines.iter().filter_map(|(f, line)| Some((line[field].as_str().unwrap_or(""), place(f)?)));
        Balance { field: field.clone(), test: chi_square(&cross(rows, manifest.parts.len())) }
    };
    manifest.stratify.iter().map(of).collect()
}

/// Moves bad images to the quarantine and lists them there, with what was listed before.
fn put_aside(folder: &Path, faults: &[Fault]) -> Result<usize> {
    let bad: Vec<&Fault> = faults.iter().filter(|f| f.quarantine).collect();
    if bad.is_empty() {
        return Ok(0);
    }
    let place = folder.join(QUARANTINE);
    let list = place.join("quarantine.json");
    let mut all: BTreeMap<String, Value> =
        std::fs::read(&list).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    for f in &bad {
        let to = place.join(&f.file);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|e| cannot_write(parent, e))?;
        }
        all.insert(f.file.clone(), json!({"reason": f.reason}));
        // The list first: a file that is listed and still in its place is put aside by the next check.
        write_atomic(&list, &serde_json::to_vec_pretty(&all).internal("a list that is no JSON")?)?;
        std::fs::rename(folder.join(&f.file), &to).map_err(|e| cannot_write(&to, e))?;
    }
    Ok(bad.len())
}

/// The verdict in words.
pub fn words(verdict: &Verdict) -> String {
    let mut out = String::new();
    let total: usize = verdict.images.iter().filter(|i| i.0 != PROTOTYPE).map(|i| i.1).sum();
    let parts: Vec<String> = verdict.images.iter().map(|(p, n)| format!("{p} {n}")).collect();
    out += &format!("{total} images: {}\n", parts.join(", "));
    for b in &verdict.balance {
        out += &match b.test {
            Some(t) => {
                let even = if t.p < SIGNIFICANT { "NOT balanced" } else { "balanced" };
                format!("{}: {even}, chi-square {:.2}, {} df, p {:.3}\n", b.field, t.chi2, t.df, t.p)
            }
            None => format!("{}: one value only, nothing to balance\n", b.field),
        };
    }
    out += &match verdict.faults.len() {
        0 => "nothing is wrong\n".to_string(),
        n => format!("{n} faults, {} files put aside\n", verdict.quarantined),
    };
    for f in &verdict.faults {
        out += &format!("  {}: {}{}\n", f.file, f.reason, if f.quarantine { " (bad image)" } else { "" });
    }
    out
}
