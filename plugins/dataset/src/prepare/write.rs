//! Brings a folder to what is planned: makes what is missing or changed, removes what is ours and not planned, leaves
//! the rest. Every file is whole or absent, and each PNG knows what it was made of, so a run that was cut short at any
//! point is continued by the next one.

use super::plan::{Choice, Entry, Plan};
use super::set::{ImageFile, Manifest, VERSION};
use super::tables::{Texts, texts};
use super::{MANIFEST, OWN, PROTOTYPE};
use crate::images::{find::shown, load, png_file, resize, sha256};
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, Result, ResultExt};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Images between two looks at whether to stop.
const CHUNK: usize = 32;
/// How the temporary files of the sdk are called.
const TEMPORARY: &str = ".atelier-";

/// What has to be done.
#[derive(Debug)]
pub struct Work {
    /// Entries (by their places) whose image is missing or changed.
    pub make: Vec<usize>,
    /// Images that are as planned.
    pub keep: BTreeMap<String, ImageFile>,
    /// Files of an earlier run that are not planned.
    pub remove: Vec<PathBuf>,
    /// Text files that are missing or changed.
    pub texts: Texts,
    /// Digests of all text files.
    pub all_texts: BTreeMap<String, String>,
}

/// Compares a folder with a plan. Changes nothing.
///
/// # Errors
/// None in practice.
pub fn compare(plan: &Plan, choice: &Choice, txt: bool, out: &Path) -> Result<Work> {
    let before = Manifest::read(out).ok();
    let states: Vec<Option<ImageFile>> =
        plan.entries.par_iter().map(|e| as_planned(e, out, before.as_ref())).collect();
    let mut work = Work {
        make: Vec::new(),
        keep: BTreeMap::new(),
        remove: Vec::new(),
        texts: Texts::new(),
        all_texts: BTreeMap::new(),
    };
    for (i, (entry, state)) in plan.entries.iter().zip(states).enumerate() {
        match state {
            Some(file) => drop(work.keep.insert(entry.file(), file)),
            None => work.make.push(i),
        }
    }
    let all = texts(plan, choice, txt)?;
    work.all_texts = all.iter().map(|(name, text)| (name.clone(), sha256(text))).collect();
    work.texts = all
        .into_iter()
        .filter(|(name, text)| std::fs::read(out.join(name)).ok().as_ref() != Some(text))
        .collect();
    work.remove = superfluous(plan, &work.all_texts, out, before.as_ref());
    Ok(work)
}

/// The file of an entry, if it is what the plan wants: of the same key, and unchanged since the manifest was written.
fn as_planned(entry: &Entry, out: &Path, before: Option<&Manifest>) -> Option<ImageFile> {
    let path = out.join(entry.file());
    if png_file::key(&path)? != entry.key {
        return None;
    }
    let bytes = std::fs::read(&path).ok()?;
    let digest = sha256(&bytes);
    let listed = before.and_then(|m| m.images.get(&entry.file())).filter(|f| f.key == entry.key);
    if listed.is_some_and(|f| f.sha256 != digest) {
        return None;
    }
    // Without a manifest the file says itself whether it is whole.
    if listed.is_none() && load::decode(&bytes, 64.0).is_err() {
        return None;
    }
    Some(image_file(entry, digest, bytes.len()))
}

fn image_file(entry: &Entry, sha256: String, bytes: usize) -> ImageFile {
    ImageFile {
        sha256,
        bytes: bytes as u64,
        key: entry.key.clone(),
        source: shown(&entry.source),
        source_sha256: entry.source_sha256.clone(),
        group: entry.group.clone(),
    }
}

/// Files that an earlier run made and this plan does not want, and temporary files of one that was killed.
fn superfluous(
    plan: &Plan,
    texts: &BTreeMap<String, String>,
    out: &Path,
    before: Option<&Manifest>,
) -> Vec<PathBuf> {
    let wanted: BTreeSet<PathBuf> =
        plan.entries.iter().map(Entry::file).chain(texts.keys().cloned()).map(|f| out.join(f)).collect();
    let mut found: BTreeSet<PathBuf> = BTreeSet::new();
    if let Some(before) = before {
        found.extend(
            before.images.keys().chain(before.files.keys()).map(|f| out.join(f)).filter(|p| p.is_file()),
        );
    }
    let mut folders: Vec<PathBuf> = plan.parts.iter().map(|p| out.join(&p.0)).collect();
    folders.extend([out.join(PROTOTYPE), out.join(OWN), out.to_path_buf()]);
    for path in folders.iter().filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten().map(|e| e.path())
    {
        let name = shown(&path);
        let temporary = name.starts_with(TEMPORARY) && path.is_file();
        let ours = name.ends_with(".png") && png_file::key(&path).is_some();
        if temporary || ours {
            found.insert(path);
        }
    }
    found.difference(&wanted).cloned().collect()
}

/// Keeps two runs from writing to one folder.
///
/// # Errors
/// Another run writes to it, or it is not writable.
pub fn lock(out: &Path) -> Result<File> {
    let folder = out.join(OWN);
    std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|e| cannot_write(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Environment, format!("another run is writing to {}", out.display()))
                .hint("wait for it, or choose another folder"))
        }
        Err(std::fs::TryLockError::Error(e)) => Err(cannot_write(&path, e)),
    }
}

/// Does the work, the manifest last.
///
/// # Errors
/// The folder is not writable, the disk is full, a photo cannot be read any more, the run is to stop. What was done
/// stays and is not done again.
pub fn perform(plan: &Plan, mut work: Work, out: &Path, ctx: &mut dyn EngineCtx) -> Result<Manifest> {
    for folder in plan
        .entries
        .iter()
        .map(|e| e.part.as_str())
        .chain(plan.parts.iter().map(|p| p.0.as_str()))
        .collect::<BTreeSet<_>>()
    {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    }
    for path in &work.remove {
        std::fs::remove_file(path).map_err(|e| cannot_write(path, e))?;
    }
    let total = work.make.len() as u64;
    for (i, chunk) in work.make.chunks(CHUNK).enumerate() {
        let made: Vec<Result<(String, ImageFile)>> =
            chunk.par_iter().map(|i| make(plan, &plan.entries[*i], out)).collect();
        for made in made {
            let (name, file) = made?;
            work.keep.insert(name, file);
        }
        let done = (i * CHUNK + chunk.len()) as u64;
        ctx.event(Event::Progress { done, total, unit: "images".into() })?;
        if ctx.cancelled() {
            return Err(Error::cancelled());
        }
    }
    for (name, text) in &work.texts {
        write_atomic(&out.join(name), text)?;
    }
    let manifest = Manifest {
        schema_version: VERSION,
        size: plan.size,
        parts: plan.parts.iter().map(|p| p.0.clone()).collect(),
        stratify: plan.source.definition.split.stratify.clone(),
        images: work.keep,
        files: work.all_texts,
    };
    if Manifest::read(out).ok().as_ref() != Some(&manifest) {
        let text = serde_json::to_vec_pretty(&manifest).internal("a manifest that is no JSON")?;
        write_atomic(&out.join(MANIFEST), &text)?;
    }
    Ok(manifest)
}

fn make(plan: &Plan, entry: &Entry, out: &Path) -> Result<(String, ImageFile)> {
    let limit = plan.source.definition.images.max_megapixels;
    let photo = load::read(&entry.source).and_then(|bytes| {
        // The caption and the split are those of the photo that was measured.
        let same = sha256(&bytes) == entry.source_sha256;
        let changed = || load::Refusal::bad("it has changed since it was measured");
        if same { load::decode(&bytes, limit) } else { Err(changed()) }
    });
    let photo = photo.map_err(|r| {
        Error::new(ErrorKind::Corrupt, format!("{}: {}", entry.source.display(), r.reason))
            .hint("run it again")
    })?;
    let square = resize::square(&photo.pixels, &plan.source.definition.images)?;
    let png = png_file::encode(&square, Some(&entry.key))?;
    write_atomic(&out.join(entry.file()), &png)?;
    Ok((entry.file(), image_file(entry, sha256(&png), png.len())))
}
