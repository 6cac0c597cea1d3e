//! Checkpoints: everything that a step depends on, in one folder with one manifest.
//!
//! ```text
//! checkpoints/step-00000120/adapter.safetensors    what is trained, f32
//!                           optimizer.safetensors  its moments
//!                           ema.safetensors        the moving average, if there is one
//!                           manifest.json          where the training is, and the digests of the others
//! ```
//!
//! A folder gets its name when all of it is on the disk. Order, noise and timesteps need no state: they are functions
//! of the seed and of the number of the step.

use crate::base::hex;
use crate::optim;
use atelier_sdk::files::{cannot_write, sync_folder, write_atomic};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use atelier_weights::{Outline, StoredDtype, Weights, write_safetensors};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const SCHEMA_VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// Of a checkpoint that is being written.
const UNFINISHED: &str = ".unfinished-";

/// Named rows of numbers.
pub type Rows = BTreeMap<String, Vec<f32>>;

/// Where a training is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps of the weights that are done.
    pub step: u64,
    /// Whether everything that is due after that step was done, too.
    pub settled: bool,
    /// The validation before the first step.
    #[serde(with = "exact::option")]
    pub first: Option<f64>,
    /// The best validation so far.
    pub best: Option<Best>,
    /// Validations in a row that were no better.
    pub worse: u32,
    /// The optimiser's numbers that are no rows.
    pub optimizer: optim::State,
    /// The state of loss scaling, if there is any.
    pub scaler: Option<optim::State>,
    /// The moving average's numbers that are no rows, if there is one.
    pub ema: Option<optim::State>,
}

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After this step.
    pub step: u64,
    /// Its loss.
    #[serde(with = "exact")]
    pub loss: f64,
}

/// Numbers as the shortest text that gives their bits back: JSON readers do not promise that of a number.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{value:?}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

        pub fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
            value.map(|v| format!("{v:?}")).serialize(to)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|t| t.parse().map_err(D::Error::custom)).transpose()
        }
    }
}

/// Everything in a checkpoint. The rows of optimiser and moving average are in their states.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Where the training is.
    pub position: Position,
    /// What is trained.
    pub adapter: Rows,
}

/// What must be the same for a checkpoint to go on.
pub type Identity = Map<String, Value>;

#[derive(Serialize, Deserialize)]
struct Manifest {
    schema_version: u32,
    position: Position,
    identity: Identity,
    /// Digests by file.
    files: BTreeMap<String, String>,
}

/// The checkpoints of one training.
pub struct Checkpoints {
    folder: PathBuf,
    identity: Identity,
    keep: usize,
}

impl Checkpoints {
    /// Those below `out`. What an interrupted process left unfinished is removed.
    pub fn new(out: &Path, identity: Identity, keep: usize) -> Self {
        let folder = out.join("checkpoints");
        for name in names(&folder).into_iter().filter(|n| n.starts_with(UNFINISHED)) {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(folder.join(name));
        }
        Self { folder, identity, keep: keep.max(1) }
    }

    /// Steps of which there is a checkpoint, whole or not, in order.
    pub fn steps(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = names(&self.folder).iter().filter_map(|n| step_of(n)).collect();
        steps.sort_unstable();
        steps
    }

    /// The folder of a step.
    pub fn place(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// Writes a checkpoint, and removes those that are no longer kept.
    ///
    /// # Errors
    /// The folder is not writable, the disk is full; earlier checkpoints are untouched then.
    pub fn save(&self, state: &State) -> Result<PathBuf> {
        let place = self.place(state.position.step);
        if place.is_dir() {
            // The same step of the same training: what is there was read, or written by this process. A torn one
            // makes room.
            match self.load(state.position.step) {
                Ok(_) => return Ok(place),
                Err(_) => std::fs::remove_dir_all(&place).map_err(|e| cannot_write(&place, e))?,
            }
        }
        std::fs::create_dir_all(&self.folder).map_err(|e| cannot_write(&self.folder, e))?;
        let unfinished =
            self.folder.join(format!("{UNFINISHED}{}-{}", std::process::id(), state.position.step));
        let written = self.write(state, &unfinished).and_then(|()| {
            std::fs::rename(&unfinished, &place).map_err(|e| cannot_write(&place, e))?;
            sync_folder(&self.folder);
            Ok(())
        });
        if let Err(e) = written {
            // The error says more than a folder that could not be removed.
            let _ = std::fs::remove_dir_all(&unfinished);
            return Err(e.context(format!("the checkpoint of step {}", state.position.step)));
        }
        self.retain(state)?;
        Ok(place)
    }

    fn write(&self, state: &State, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, e))?;
        let p = &state.position;
        let parts = [
            ("adapter", Some(&state.adapter)),
            ("optimizer", Some(&p.optimizer.vectors)),
            ("ema", p.ema.as_ref().map(|ema| &ema.vectors)),
        ];
        let mut files = BTreeMap::new();
        for (name, rows) in parts {
            let Some(rows) = rows else { continue };
            let file = format!("{name}.safetensors");
            let bytes = encoded(rows)?;
            write_atomic(&folder.join(&file), &bytes)?;
            files.insert(file, hex(&Sha256::digest(&bytes)));
        }
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            position: state.position.clone(),
            identity: self.identity.clone(),
            files,
        };
        let text = serde_json::to_vec_pretty(&manifest).internal("a manifest that is no JSON")?;
        write_atomic(&folder.join(MANIFEST), &text)
    }

    /// Removes all but the last checkpoints and the best.
    fn retain(&self, state: &State) -> Result<()> {
        let steps = self.steps();
        let best = state.position.best.map(|b| b.step);
        let last = steps.len().saturating_sub(self.keep);
        for step in steps[..last].iter().filter(|s| Some(**s) != best) {
            let place = self.place(*step);
            std::fs::remove_dir_all(&place).map_err(|e| cannot_write(&place, e))?;
        }
        Ok(())
    }

    /// The last checkpoint that is whole, and what is wrong with those after it. None if there is none at all.
    ///
    /// # Errors
    /// A checkpoint of another training; checkpoints of which none is whole.
    pub fn last(&self) -> Result<Option<(State, Vec<String>)>> {
        let mut torn = Vec::new();
        for step in self.steps().into_iter().rev() {
            match self.load(step) {
                Ok(state) => return Ok(Some((state, torn))),
                Err(e) if e.kind() == ErrorKind::Corrupt => torn.push(e.chain().join(": ")),
                Err(e) => return Err(e),
            }
        }
        if torn.is_empty() {
            return Ok(None);
        }
        let e =
            Error::new(ErrorKind::Corrupt, format!("no checkpoint in {} is whole", self.folder.display()));
        let e = torn.into_iter().fold(e, Error::hint);
        Err(e.hint("remove the folder, or choose another `out`, to start anew"))
    }

    /// Reads the checkpoint of a step.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for one that is torn or damaged, another kind for one of another training.
    pub fn load(&self, step: u64) -> Result<State> {
        let place = self.place(step);
        let torn = |what: String| Error::new(ErrorKind::Corrupt, format!("{}: {what}", place.display()));
        let read = |file: &str| {
            std::fs::read(place.join(file)).map_err(|e| torn(format!("{file} cannot be read")).because(e))
        };
        let manifest: Manifest = serde_json::from_slice(&read(MANIFEST)?)
            .map_err(|e| torn(format!("{MANIFEST} is no manifest")).because(e))?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: checkpoints of version {} are not known here",
                    place.display(),
                    manifest.schema_version
                ),
            )
            .hint("it was written by another version of atelier"));
        }
        if manifest.position.step != step {
            return Err(torn(format!("its manifest is of step {}", manifest.position.step)));
        }
        self.same(&manifest.identity, &place)?;
        let mut rows = BTreeMap::new();
        for (file, digest) in &manifest.files {
            let bytes = read(file)?;
            if hex(&Sha256::digest(&bytes)) != *digest {
                return Err(torn(format!("{file} is not what was written")));
            }
            rows.insert(file.as_str(), decoded(bytes, file).map_err(|e| torn(format!("{file}: {e}")))?);
        }
        let mut take = |name: &str| {
            let found = rows.remove(format!("{name}.safetensors").as_str());
            found.ok_or_else(|| torn(format!("it has no {name}")))
        };
        let adapter = take("adapter")?;
        let mut position = manifest.position;
        position.optimizer.vectors = take("optimizer")?;
        if let Some(ema) = &mut position.ema {
            ema.vectors = take("ema")?;
        }
        Ok(State { position, adapter })
    }

    /// Whether a checkpoint is one of this training.
    fn same(&self, other: &Identity, place: &Path) -> Result<()> {
        let names: std::collections::BTreeSet<&String> = self.identity.keys().chain(other.keys()).collect();
        let differ = names.into_iter().filter(|n| self.identity.get(*n) != other.get(*n));
        let said: Vec<String> = differ.map(|n| difference(n, other.get(n), self.identity.get(n))).collect();
        if said.is_empty() {
            return Ok(());
        }
        let e = Error::invalid(format!("{} is a checkpoint of another training", place.display()));
        let e = said.into_iter().fold(e, Error::hint);
        Err(e.hint("go on with what it was started with, or choose another `out` to start anew"))
    }
}

fn difference(name: &str, before: Option<&Value>, now: Option<&Value>) -> String {
    let brief = |v: Option<&Value>| match v {
        Some(Value::String(s)) if s.len() == 64 => format!("{}...", &s[..12.min(s.len())]),
        Some(v) => v.to_string(),
        None => "nothing".into(),
    };
    format!("`{name}` was {}, and is {}", brief(before), brief(now))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Rows as a safetensors file.
pub fn encoded(rows: &Rows) -> Result<Vec<u8>> {
    let outline = |(name, row): (&String, &Vec<f32>)| Outline {
        name: name.clone(),
        dtype: StoredDtype::F32,
        shape: vec![row.len()],
    };
    let mut bytes = Vec::new();
    let content = |o: &Outline| -> io::Result<Vec<u8>> {
        Ok(rows[&o.name].iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    write_safetensors(&mut bytes, rows.iter().map(outline).collect(), &BTreeMap::new(), content)
        .map_err(|e| Error::internal("rows that are no safetensors file").because(e))?;
    Ok(bytes)
}

fn decoded(bytes: Vec<u8>, name: &str) -> std::result::Result<Rows, String> {
    let weights = Weights::from_bytes(bytes, name).map_err(|e| e.to_string())?;
    let read = |tensor: &str| {
        let shape = weights.info(tensor).map(|i| i.shape.clone()).unwrap_or_default();
        let row = weights.get(tensor, &shape, DType::F32, &Device::Cpu).map_err(|e| e.to_string())?;
        let row = row.flatten_all().and_then(|t| t.to_vec1()).map_err(|e| e.to_string())?;
        Ok((tensor.to_string(), row))
    };
    weights.names().map(read).collect()
}

/// Holds a folder for this process: two trainings into one folder would undo each other's work.
///
/// # Errors
/// Another process holds it; the folder is not writable.
pub fn hold(out: &Path) -> Result<File> {
    std::fs::create_dir_all(out).map_err(|e| cannot_write(out, e))?;
    let path = out.join(".lock");
    let file = File::create(&path).map_err(|e| cannot_write(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Environment,
            format!("another training is at work in {}", out.display()),
        )
        .hint("wait for it, or choose another `out`")),
        Err(std::fs::TryLockError::Error(e)) => Err(cannot_write(&path, e)),
    }
}
