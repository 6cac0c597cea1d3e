//! An adapter in another layout.

use crate::extract::free;
use crate::inspect::{needed, open};
use crate::write::Tensors;
use crate::{CONVERT, error, model, write};
use atelier_sdk::files::write_atomic;
use atelier_sdk::{Error, ErrorKind, PlanCtx, Result, ResultExt, TaskInfo, TaskParams, Violation};
use atelier_weights::lora::{Adapter, Delta, Modules, Part, Resolved, Update};
use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

type Changes = BTreeMap<String, Arc<Delta>>;

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
                write::kohya(part, module, delta, &mut tensors).map_err(error::tensor("writing factors"))?;
            }
            file(out, &tensors, adapter.metadata())?
        }
        Target::Diffusers => {
            let mut tensors = Tensors::new();
            for (part, module, delta) in flat(&parts) {
                diffusers(part, module, delta, &mut tensors)?;
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

/// The factors of plain LoRA, and its magnitude. Errors: another kind.
fn plain<'a>(module: &str, delta: &'a Delta) -> Result<(&'a Tensor, &'a Tensor, f64)> {
    match &delta.update {
        Update::Lora { down, up, mid: None, scale } if delta.bias.is_none() => Ok((down, up, *scale)),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!("module {module} is changed by {}, which only kohya's layout can hold", delta.kind()),
        )
        .hint("convert it with `--to kohya`")),
    }
}

/// In diffusers' layout, which has no alpha: the scale is multiplied into `lora_B`.
fn diffusers(part: Part, module: &str, delta: &Delta, out: &mut Tensors) -> Result<()> {
    let (down, up, scale) = plain(module, delta)?;
    let text = if part == Part::Unet { "" } else { "text_model." };
    let name = format!("{}.{text}{module}", part.folder());
    let failed = error::tensor("writing factors");
    let up = scaled(up, down, scale).map_err(&failed)?;
    out.insert(format!("{name}.lora_A.weight"), down.clone());
    out.insert(format!("{name}.lora_B.weight"), up);
    if let Some(magnitude) = &delta.magnitude {
        out.insert(format!("{name}.lora_magnitude_vector"), by_rows(module, magnitude)?);
    }
    Ok(())
}

fn scaled(up: &Tensor, down: &Tensor, scale: f64) -> candle_core::Result<Tensor> {
    let up = match (up.dims(), down.dims().len()) {
        ([a, b], 4) => up.reshape((*a, *b, 1, 1))?,
        _ => up.clone(),
    };
    if scale == 1.0 {
        return Ok(up);
    }
    let dtype = up.dtype();
    (up.to_dtype(candle_core::DType::F32)? * scale)?.to_dtype(dtype)
}

/// PEFT knows one magnitude for each output only.
fn by_rows(module: &str, magnitude: &Tensor) -> Result<Tensor> {
    let rows = magnitude.dims().first().copied().unwrap_or(0);
    if magnitude.elem_count() != rows {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("module {module} has a magnitude for each input, which only kohya's layout can hold"),
        ));
    }
    magnitude.flatten_all().map_err(error::tensor("writing a magnitude"))
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
        let text = if *part == Part::Unet { "" } else { "text_model." };
        let mut tensors = Tensors::new();
        for (module, delta) in changes.iter() {
            let (down, up, _) = plain(module, delta)?;
            let name = format!("base_model.model.{text}{module}");
            tensors.insert(format!("{name}.lora_A.weight"), down.clone());
            let up = scaled(up, down, 1.0).map_err(error::tensor("writing factors"))?;
            tensors.insert(format!("{name}.lora_B.weight"), up);
            if let Some(magnitude) = &delta.magnitude {
                tensors.insert(format!("{name}.lora_magnitude_vector"), by_rows(module, magnitude)?);
            }
        }
        let config = serde_json::to_string_pretty(&config(changes, text)).internal("a configuration")?;
        let (config_file, file) =
            (folder.join("adapter_config.json"), folder.join("adapter_model.safetensors"));
        write::tensors(&file, &tensors, &BTreeMap::from([("format".into(), "pt".into())]))?;
        write_atomic(&config_file, config.as_bytes())?;
        written.extend([file, config_file]);
    }
    Ok(written)
}

/// Rank and alpha that most modules have, and the others by name.
fn config(changes: &Changes, text: &str) -> Value {
    let of = |delta: &Delta| (delta.rank().unwrap_or(1), delta.alpha().unwrap_or(1.0));
    let mut counts: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for delta in changes.values() {
        let (rank, alpha) = of(delta);
        *counts.entry((rank, alpha.to_bits())).or_default() += 1;
    }
    let most =
        counts.into_iter().max_by_key(|(_, n)| *n).map_or((1, 1.0), |((r, a), _)| (r, f64::from_bits(a)));
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (module, delta) in changes {
        let (rank, alpha) = of(delta);
        if rank != most.0 {
            ranks.insert(format!("{text}{module}"), json!(rank));
        }
        if alpha != most.1 {
            alphas.insert(format!("{text}{module}"), json!(alpha));
        }
    }
    let names: Vec<String> = changes.keys().map(|module| format!("{text}{module}")).collect();
    json!({
        "peft_type": "LORA",
        "r": most.0,
        "lora_alpha": most.1,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": names,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": false,
        "use_dora": changes.values().any(|delta| delta.magnitude.is_some()),
    })
}
