//! The images of a training: opened, chosen, counted, before anything else happens.

use crate::data::{Folder, Set, Subset, Wanted, Where};
use crate::params::TrainLora;
use atelier_sdk::files::write_atomic;
use atelier_sdk::{EngineCtx, Error, Event, Result, ResultExt, Stage};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is trained on, and what is validated on.
pub struct Sets {
    /// To train on.
    pub train: Set,
    /// To validate on.
    pub val: Option<Set>,
}

impl Sets {
    /// Opens all images, and says what is wrong with them.
    ///
    /// # Errors
    /// A folder that is nothing to train on; not a single good image; the request to stop.
    pub fn open(params: &TrainLora, ctx: &mut dyn EngineCtx) -> Result<Self> {
        ctx.event(Event::Stage { stage: Stage::Prepare })?;
        let filter = Where::parse(&params.filter)?;
        let sample = (params.prototype > 0).then(|| Subset {
            n: params.prototype as usize,
            seed: params.seed,
            by: Vec::new(),
        });
        let side = (params.resolution, params.resolution);
        let train = Wanted { filter: filter.clone(), prototype: sample, ..Wanted::all(side) };
        let train = load(&params.train_dir, params, &train, ctx)?;
        let val = match params.val_dir.as_str() {
            "" => None,
            folder => Some(load(folder, params, &Wanted { filter, ..Wanted::all(side) }, ctx)?),
        };
        let sets = Self { train, val };
        sets.warn_of_twins(ctx)?;
        Ok(sets)
    }

    /// An image that is trained on says nothing when it is validated on.
    fn warn_of_twins(&self, ctx: &mut dyn EngineCtx) -> Result<()> {
        let known: std::collections::HashSet<&str> =
            self.train.items.iter().map(|i| i.sha256.as_str()).collect();
        let val = self.val.iter().flat_map(|val| &val.items);
        let twins = val.filter(|i| known.contains(i.sha256.as_str())).count();
        match twins {
            0 => Ok(()),
            n => {
                let message =
                    format!("{n} validation images are also trained on: validation will look too good");
                ctx.event(Event::Warning { message })
            }
        }
    }

    /// How many of what, for people and ledgers.
    pub fn facts(&self) -> Value {
        let rejected = |set: &Set| set.rejected.len() + set.quarantine.len();
        let both = || std::iter::once(&self.train).chain(&self.val);
        json!({
            "layout": self.train.kind,
            "train": self.train.items.len(),
            "per_epoch": self.train.per_epoch(),
            "unwanted": self.train.unwanted,
            "val": self.val.as_ref().map_or(0, |val| val.items.len()),
            "rejected": both().map(rejected).sum::<usize>(),
            "stratified_by": self.train.stratified_by,
            "digest": self.train.digest(),
        })
    }

    /// Writes the list of what is not trained on, if there is any.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn write_quarantine(&self, out: &Path) -> Result<()> {
        let of = |set: &Set| json!({"rejected": set.rejected, "quarantine": set.quarantine, "remarks": set.remarks});
        let list = json!({"train": of(&self.train), "val": self.val.as_ref().map(of)});
        let text = serde_json::to_vec_pretty(&list).internal("a list that is no JSON")?;
        write_atomic(&out.join("quarantine.json"), &text)
    }
}

fn load(folder: &str, params: &TrainLora, wanted: &Wanted, ctx: &mut dyn EngineCtx) -> Result<Set> {
    let reader = Folder::new(folder).with_caption(Some(params.caption.clone()));
    let seen = AtomicUsize::new(0);
    let stop = std::sync::atomic::AtomicBool::new(ctx.cancelled());
    let tick = |n: usize| {
        seen.fetch_max(n, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    };
    let set = reader.load(wanted, &tick)?;
    let total = seen.load(Ordering::Relaxed) as u64;
    ctx.event(Event::Progress { done: total, total, unit: "images opened".into() })?;
    for message in set.summary() {
        tell(&message, &set, ctx)?;
    }
    Ok(set)
}

/// What is left out is a warning; what is there is none.
fn tell(message: &str, set: &Set, ctx: &mut dyn EngineCtx) -> Result<()> {
    let nothing_wrong = set.rejected.is_empty() && set.quarantine.is_empty() && set.remarks.is_empty();
    if nothing_wrong { Ok(()) } else { ctx.event(Event::Warning { message: message.into() }) }
}
