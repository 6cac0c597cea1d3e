//! Measures all photos of a data set, in parallel, once: what is known of a file's content is kept beside the report.

use crate::images::measure::{Measures, VERSION, measure};
use crate::images::{find::shown, load, sha256};
use crate::issue::{Issue, IssueKind};
use atelier_sdk::files::write_atomic;
use atelier_sdk::{EngineCtx, Error, Event, Result, ResultExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Photos between two looks at whether to stop.
const CHUNK: usize = 64;
/// Fewest new measures that are worth a write.
const WORTH: usize = 512;

/// A photo that was measured.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Its record.
    pub row: u32,
    /// Its file.
    pub path: PathBuf,
    /// Digest of the file.
    pub sha256: String,
    /// The measures.
    pub measures: Measures,
}

/// What is known of a content.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Known {
    Good(Measures),
    Bad(Issue),
}

/// What is known, by digest.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    version: u32,
    max_megapixels: f64,
    known: BTreeMap<String, Known>,
}

impl Memory {
    /// What was kept; nothing if it is of another version, or damaged: then it is made anew.
    fn read(path: Option<&Path>, max_megapixels: f64) -> Self {
        let kept =
            path.and_then(|p| std::fs::read(p).ok()).and_then(|b| serde_json::from_slice::<Self>(&b).ok());
        kept.filter(|m| m.version == VERSION && m.max_megapixels == max_megapixels).unwrap_or(Self {
            version: VERSION,
            max_megapixels,
            known: BTreeMap::new(),
        })
    }

    fn write(&self, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| atelier_sdk::files::cannot_write(folder, e))?;
        }
        write_atomic(path, &serde_json::to_vec(self).internal("measures that are no JSON")?)
    }
}

struct Looked {
    sha256: String,
    /// Unless it was known before.
    new: Option<Known>,
    issue: Option<Issue>,
}

/// Measures the photos of rows. Those that cannot be opened become issues. `memory` is where measures are kept.
///
/// # Errors
/// The run is to stop, or the memory cannot be written.
pub fn measure_all(
    files: &[(u32, PathBuf)],
    max_megapixels: f64,
    memory: Option<&Path>,
    issues: &mut Vec<Issue>,
    ctx: &mut dyn EngineCtx,
) -> Result<Vec<Photo>> {
    let mut kept = Memory::read(memory, max_megapixels);
    let (mut photos, mut unsaved) = (Vec::with_capacity(files.len()), 0);
    for (i, chunk) in files.chunks(CHUNK).enumerate() {
        let looked: Vec<Looked> = chunk.par_iter().map(|(_, path)| look(path, &kept)).collect();
        for ((row, path), looked) in chunk.iter().zip(looked) {
            issues.extend(looked.issue);
            if let Some(new) = looked.new {
                kept.known.insert(looked.sha256.clone(), new);
                unsaved += 1;
            }
            match kept.known.get(&looked.sha256) {
                Some(Known::Good(measures)) => photos.push(Photo {
                    row: *row,
                    path: path.clone(),
                    sha256: looked.sha256,
                    measures: measures.clone(),
                }),
                Some(Known::Bad(issue)) => issues.push(Issue { what: shown(path), ..issue.clone() }),
                None => {}
            }
        }
        // More is written when more is known, so that all writes together stay in proportion.
        if unsaved >= WORTH.max(kept.known.len() / 4) {
            kept.write(memory)?;
            unsaved = 0;
        }
        let done = (i * CHUNK + chunk.len()) as u64;
        ctx.event(Event::Progress { done, total: files.len() as u64, unit: "photos".into() })?;
        if ctx.cancelled() {
            kept.write(memory)?;
            return Err(Error::cancelled());
        }
    }
    if unsaved > 0 {
        kept.write(memory)?;
    }
    Ok(photos)
}

fn look(path: &Path, kept: &Memory) -> Looked {
    let name = shown(path);
    let bytes = match load::read(path) {
        Ok(bytes) => bytes,
        Err(refusal) => {
            return Looked { sha256: String::new(), new: None, issue: Some(refusal.of(&name)) };
        }
    };
    let digest = sha256(&bytes);
    let other = |note: String| Issue::new(IssueKind::WrongExtension, name.clone(), note);
    if let Some(known) = kept.known.get(&digest) {
        let note = match known {
            Known::Good(m) => load::ending_differs(&name, &m.format).map(other),
            Known::Bad(_) => None,
        };
        return Looked { sha256: digest, new: None, issue: note };
    }
    match load::decode(&bytes, kept.max_megapixels) {
        Ok(photo) => {
            let issue = load::ending_differs(&name, photo.format).map(other);
            let measures = measure(&photo.pixels, photo.format);
            Looked { sha256: digest, new: Some(Known::Good(measures)), issue }
        }
        Err(refusal) => Looked { sha256: digest, new: Some(Known::Bad(refusal.of(&name))), issue: None },
    }
}
