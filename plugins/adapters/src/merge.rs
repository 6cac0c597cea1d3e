//! A model with adapters added to its weights.

use crate::extract::free;
use crate::inspect::{needed, open};
use crate::model::{Model, Network};
use crate::{MERGE, error};
use atelier_sdk::files::AtomicFile;
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, PlanCtx, Result, TaskInfo, TaskParams, Violation};
use atelier_weights::lora::{Mode, Modules, Part, Stack, Strength};
use atelier_weights::{Checkpoint, Outline, Provider, StoredDtype, Weights, bytes_of, write_safetensors};
use candle_core::{DType, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An adapter and how much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weighted {
    /// The adapter: a file, or a folder of PEFT.
    #[schemars(extend("x-file" = "path"))]
    pub lora: String,
    /// How much of it, in text encoder and UNet.
    pub weight: f64,
    /// How much of it in the text encoder, if not as much.
    pub te: Option<f64>,
    /// How much of it in the UNet, if not as much.
    pub unet: Option<f64>,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { lora: String::new(), weight: 1.0, te: None, unet: None }
    }
}

/// Adds adapters to a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Merge {
    /// The model: a diffusers folder or a checkpoint.
    #[schemars(extend("x-file" = "path"))]
    pub model: String,
    /// The adapters.
    #[schemars(length(min = 1))]
    pub loras: Vec<Weighted>,
    /// Where the model goes: a folder for a folder, a safetensors file for a file.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Replace a file that is there; a folder is never replaced.
    pub overwrite: bool,
}

impl TaskParams for Merge {
    const TASK: &'static TaskInfo = &MERGE;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        needed(&[("model", &self.model), ("out", &self.out)])?;
        let replaces = self.overwrite && !Path::new(&self.out).is_dir();
        free(&self.out, replaces).map(|()| self)
    }
}

pub(crate) fn run(params: &Merge, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let model = Model::open(Path::new(&params.model))?;
    let networks = model.networks()?;
    let modules = |part| networks.iter().find(|(p, _)| *p == part).map(|(_, n)| n.modules.clone());
    let (unet, text) =
        (modules(Part::Unet).unwrap_or_default(), modules(Part::TextEncoder).unwrap_or_default());
    let (stack, used) = stack(params, &unet, &text, ctx)?;
    let out = Path::new(&params.out);
    match &model {
        Model::File(file) => merge_file(file, &networks, &stack, out, ctx)?,
        Model::Folder(root) => merge_folder(root, &networks, &stack, out, ctx)?,
    }
    Ok(json!({"out": params.out, "loras": used}))
}

fn stack(
    params: &Merge,
    unet: &Modules,
    text: &Modules,
    ctx: &mut dyn EngineCtx,
) -> Result<(Stack, Vec<Value>)> {
    let (mut stack, mut used) = (Stack::new(), Vec::new());
    for weighted in &params.loras {
        let adapter = open(&weighted.lora)?;
        let misfit = || error::weights("the adapter does not fit the model");
        let found = adapter.resolve(unet, text).map_err(misfit())?;
        if let Some(remark) = found.remark() {
            ctx.event(Event::Warning { message: format!("{}: {remark}", weighted.lora) })?;
        }
        let (te, in_unet) =
            (weighted.te.unwrap_or(weighted.weight), weighted.unet.unwrap_or(weighted.weight));
        stack.push(&found, &Strength { text: te, unet: in_unet, blocks: None }, unet).map_err(misfit())?;
        used.push(json!({"lora": weighted.lora, "te": te, "unet": in_unet,
            "matched": found.matched(), "total": found.total()}));
    }
    Ok((stack, used))
}

/// The networks with the changes on them.
fn adapted(networks: &[(Part, Network)], stack: &Stack) -> Vec<(Part, Arc<dyn Provider>)> {
    let on = |(part, n): &(Part, Network)| -> (Part, Arc<dyn Provider>) {
        (*part, Arc::new(stack.on(*part, n.provider.clone(), Mode::Merge)))
    };
    networks.iter().map(on).collect()
}

/// Writes all tensors of `weights`, those that `changed` knows anew, the others as they are.
fn write_all(
    weights: &Weights,
    out: &Path,
    changed: &dyn Fn(&str) -> Result<Option<Tensor>>,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    let outlines: Vec<Outline> = weights
        .names()
        .filter_map(|name| {
            let info = weights.info(name)?;
            // Blocks of fewer bits would lose most of a change.
            let dtype = if info.dtype == StoredDtype::Quantized { StoredDtype::F16 } else { info.dtype };
            Some(Outline { name: name.into(), dtype, shape: info.shape.clone() })
        })
        .collect();
    let total = outlines.len() as u64;
    let mut done = 0;
    let mut file = AtomicFile::create(out)?;
    let bytes = |t: &Outline| -> std::result::Result<Vec<u8>, Failed> {
        ctx.event(Event::Progress { done, total, unit: "tensors".into() })?;
        done += 1;
        let float =
            matches!(t.dtype, StoredDtype::F16 | StoredDtype::BF16 | StoredDtype::F32 | StoredDtype::F64);
        if float && let Some(tensor) = changed(&t.name)? {
            return Ok(bytes_of(&tensor, t.dtype).map_err(error::tensor("writing a tensor"))?);
        }
        Ok(weights.encoded(&t.name, Some(t.dtype)).map_err(error::weights("cannot read the model"))?)
    };
    write_safetensors(&mut BufWriter::new(&mut file), outlines, weights.metadata(), bytes)
        .map_err(|Failed(e)| e.context(format!("cannot write {}", out.display())))?;
    file.commit()
}

/// What stops writing: the disk, or a tensor that cannot be made.
struct Failed(Error);

impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Self {
        Self(Error::io("the file", e).of_kind(ErrorKind::Environment))
    }
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        Self(e)
    }
}

/// A checkpoint keeps its own names. One matrix there may be three here (OpenCLIP).
fn merge_file(
    file: &Checkpoint,
    networks: &[(Part, Network)],
    stack: &Stack,
    out: &Path,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    let mut sources: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    for (i, (part, network)) in networks.iter().enumerate() {
        let found = if *part == Part::Unet { file.unet() } else { file.text_encoder() };
        let found = found.map_err(error::weights("cannot open the model"))?;
        for name in network.tensors.keys() {
            let stored = found.name_in_file(name).unwrap_or(name).to_string();
            sources.entry(stored).or_default().push((i, name.clone()));
        }
    }
    // Thirds stand in the order queries, keys, values.
    let order = |name: &str| ["q_proj", "k_proj", "v_proj"].iter().position(|p| name.contains(p));
    sources.values_mut().for_each(|names| names.sort_by_key(|(_, name)| order(name)));
    let adapted = adapted(networks, stack);
    let changed = |stored: &str| -> Result<Option<Tensor>> {
        let Some(names) = sources.get(stored) else { return Ok(None) };
        let mut parts = Vec::new();
        for (i, name) in names {
            let shape = networks[*i].1.tensors.get(name).cloned().unwrap_or_default();
            let read = adapted[*i].1.tensor(name, &shape, DType::F32, &Device::Cpu);
            parts.push(read.map_err(error::weights("cannot add the adapters"))?);
        }
        Tensor::cat(&parts, 0).map(Some).map_err(error::tensor("joining parts of a matrix"))
    };
    write_all(file.weights(), out, &changed, ctx)
}

/// A folder is copied, its text encoder and UNet written anew. It has its name once it is whole.
fn merge_folder(
    root: &Path,
    networks: &[(Part, Network)],
    stack: &Stack,
    out: &Path,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    let cannot = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| Error::io(format!("cannot write {path}"), e).of_kind(ErrorKind::Environment)
    };
    let temporary = PathBuf::from(format!("{}.part", out.display().to_string().trim_end_matches('/')));
    std::fs::create_dir(&temporary).map_err(cannot(&temporary))?;
    let mut made = || -> Result<()> {
        copy(root, &temporary, 0).map_err(cannot(&temporary))?;
        for ((part, network), (_, provider)) in networks.iter().zip(adapted(networks, stack)) {
            let weights =
                Weights::open(root.join(part.folder())).map_err(error::weights("cannot open the model"))?;
            let stem = if *part == Part::Unet { "diffusion_pytorch_model" } else { "model" };
            let file = temporary.join(part.folder()).join(format!("{stem}.safetensors"));
            let changed = |name: &str| -> Result<Option<Tensor>> {
                let shape = network.tensors.get(name).cloned().unwrap_or_default();
                let read = provider.tensor(name, &shape, DType::F32, &Device::Cpu);
                read.map(Some).map_err(error::weights("cannot add the adapters"))
            };
            write_all(&weights, &file, &changed, ctx)?;
        }
        std::fs::rename(&temporary, out).map_err(cannot(out))
    };
    let result = made();
    if result.is_err() {
        // What went wrong says more than a folder that cannot be removed.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result
}

/// Copies a folder without the weights of UNet and text encoder, and without hidden files.
fn copy(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    const WEIGHTS: [&str; 4] = [".safetensors", ".bin", ".index.json", ".index.fp16.json"];
    let rewritten = [Part::Unet, Part::TextEncoder].iter().any(|p| from.ends_with(p.folder())) && depth == 1;
    for entry in std::fs::read_dir(from)? {
        let (path, name) = entry.map(|e| (e.path(), e.file_name()))?;
        let text = name.to_string_lossy();
        if text.starts_with('.') || (rewritten && WEIGHTS.iter().any(|end| text.ends_with(end))) {
            continue;
        }
        let target = to.join(&name);
        if path.is_dir() && depth < 4 {
            std::fs::create_dir(&target)?;
            copy(&path, &target, depth + 1)?;
        } else if path.is_file() {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
