//! An adapter in another layout.

use crate::extract::free;
use crate::inspect::{needed, open};
use crate::{CONVERT, error, model, write};
use atelier_sdk::files::write_atomic;
use atelier_sdk::{Error, ErrorKind, PlanCtx, Result, ResultExt, TaskInfo, TaskParams, Violation};
use atelier_weights::lora::layouts::{self, Changes, Peft, Tensors};
use atelier_weights::lora::{Adapter, Delta, Modules, Part, Resolved};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Layouts that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// `lora_unet_….lora_down.weight`: every kind of adapter.
    #[default]
    Kohya,
    /// `unet.….lora_A.weight` in one file: LoRA.
    Diffusers,
    /// A folder with `adapter_config.json`: LoRA.
    Peft,
}

/// Writes an adapter in another layout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Convert {
    /// The adapter: a file, or a folder of PEFT.
    #[schemars(extend("x-file" = "path"))]
    pub lora: String,
    /// The layout.
    pub to: Target,
    /// A model that has its modules, where it is not for Stable Diffusion 1.x or 2.x: a folder or a checkpoint.
    #[schemars(extend("x-file" = "path"))]
    pub model: String,
    /// Where it goes: a file, for PEFT a folder.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Replace a file that is there.
    pub overwrite: bool,
}

impl TaskParams for Convert {
    const TASK: &'static TaskInfo = &CONVERT;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        needed(&[("lora", &self.lora), ("out", &self.out)])?;
        free(&self.out, self.overwrite).map(|()| self)
    }
}

pub(crate) fn run(params: &Convert) -> Result<Value> {
    let adapter = open(&params.lora)?;
    let (unet, text) = match params.model.as_str() {
        "" => model::names_of_sd()?,
        path => model::modules_of(Path::new(path))?,
    };
    let found = named(&adapter, &unet, &text, params.model.is_empty())?;
    if let Some(remark) = found.remark() {
        return Err(Error::invalid(format!("the adapter cannot be converted whole: {remark}"))
            .hint("name a model that has its modules with `--model`"));
    }
    let parts = [(Part::Unet, &found.unet), (Part::TextEncoder, &found.text)];
    let out = Path::new(&params.out);
    let written = match params.to {
        Target::Kohya => {
            let mut tensors = Tensors::new();
            for (part, module, delta) in flat(&parts) {
                layouts::kohya(part, module, delta, &mut tensors)
                    .map_err(error::tensor("writing factors"))?;
            }
            file(out, &tensors, adapter.metadata())?
        }
        Target::Diffusers => {
            let mut tensors = Tensors::new();
            for (part, module, delta) in flat(&parts) {
                layouts::diffusers(part, module, delta, &mut tensors).map_err(error::layout)?;
            }
            file(out, &tensors, &BTreeMap::from([("format".into(), "pt".into())]))?
        }
        Target::Peft => peft(out, &parts)?,
    };
    Ok(json!({"files": written, "modules": found.matched(), "from": adapter.layout().name(), "to": params.to,
        "left_out": adapter.embeddings()}))
}

/// The changes under the paths of modules. Without a model only names count: sizes are the adapter's own.
fn named(adapter: &Adapter, unet: &Modules, text: &Modules, any_size: bool) -> Result<Resolved> {
    let found = if any_size { adapter.named(unet, text) } else { adapter.resolve(unet, text) };
    found.map_err(error::weights("cannot convert the adapter"))
}

fn flat<'a>(parts: &'a [(Part, &'a Changes)]) -> impl Iterator<Item = (Part, &'a str, &'a Delta)> {
    parts.iter().flat_map(|(part, changes)| changes.iter().map(|(m, d)| (*part, m.as_str(), d.as_ref())))
}

fn file(out: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<Vec<PathBuf>> {
    write::tensors(out, tensors, metadata)?;
    Ok(vec![out.into()])
}

/// A folder of PEFT; one below it for each network if both are changed, since PEFT adapts one at a time.
fn peft(out: &Path, parts: &[(Part, &Changes)]) -> Result<Vec<PathBuf>> {
    let used: Vec<_> = parts.iter().filter(|(_, changes)| !changes.is_empty()).collect();
    let mut written = Vec::new();
    for (part, changes) in &used {
        let folder = if used.len() > 1 { out.join(part.folder()) } else { out.to_path_buf() };
        std::fs::create_dir_all(&folder).map_err(|e| {
            Error::io(format!("cannot make {}", folder.display()), e).of_kind(ErrorKind::Environment)
        })?;
        let Peft { tensors, config } = layouts::peft(changes).map_err(error::layout)?;
        let config = serde_json::to_string_pretty(&config).internal("a configuration")?;
        let (config_file, file) =
            (folder.join("adapter_config.json"), folder.join("adapter_model.safetensors"));
        write::tensors(&file, &tensors, &BTreeMap::from([("format".into(), "pt".into())]))?;
        write_atomic(&config_file, config.as_bytes())?;
        written.extend([file, config_file]);
    }
    Ok(written)
}
