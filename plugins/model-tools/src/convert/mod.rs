//! Writes a model differently: one tensor at a time, and nothing stands under its name before it is whole.

mod folder;
mod numbers;
mod single;
mod write;

use crate::error::weights as failed;
use crate::params::{ConvertModel, Layout};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, Result};
use atelier_weights::Checkpoint;
use numbers::{Container, Numbers};
use serde_json::{Value, json};
use std::path::Path;

/// What became of a model.
#[derive(Debug, Default)]
pub struct Report {
    /// Tensors written.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

pub fn run(params: &ConvertModel, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let (input, out) = (Path::new(&params.input), Path::new(&params.out));
    free(out, params.overwrite)?;
    let container = if params.to == Layout::Gguf { Container::Gguf } else { Container::Safetensors };
    let numbers = Numbers::new(container, params.dtype);
    let is_model = input.join("model_index.json").is_file();
    let report = match (params.to, input.is_dir()) {
        (Layout::Diffusers, false) => folder::write(&open(input)?, numbers, out, ctx)?,
        (Layout::Ldm | Layout::Gguf, _) if is_model => single::from_folder(input, numbers, out, ctx)?,
        (Layout::Ldm, false) => single::ldm(&open(input)?, numbers, out, ctx)?,
        (Layout::Gguf, _) => single::same_names(input, numbers, out, ctx)?,
        (Layout::Safetensors, _) if !is_model => single::same_names(input, numbers, out, ctx)?,
        (Layout::Safetensors, _) => {
            return Err(Error::invalid("a model's folder has a file for each network already")
                .hint("to make it one file: --to ldm")
                .hint("to convert one network: name its folder, such as unet/"));
        }
        (Layout::Diffusers | Layout::Ldm, true) => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} is not a model's folder", input.display()),
            )
            .hint("it has no model_index.json"));
        }
    };
    for message in &report.notes {
        ctx.event(Event::Warning { message: message.clone() })?;
    }
    Ok(json!({"out": params.out, "tensors": report.tensors, "bytes": report.bytes, "notes": report.notes}))
}

fn open(input: &Path) -> Result<Checkpoint> {
    Checkpoint::open(input).map_err(failed)
}

/// Refuses to write over something, unless that is asked for.
fn free(out: &Path, overwrite: bool) -> Result<()> {
    match std::fs::symlink_metadata(out) {
        Ok(_) if overwrite => Ok(()),
        Ok(_) => Err(Error::invalid(format!("{} exists", out.display()))
            .hint("name another place, or replace it with --overwrite")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("cannot look at {}", out.display()), e)),
    }
}
