//! A low-rank adapter of the difference of two models.

use crate::inspect::needed;
use crate::model::{Model, Network};
use crate::svd::low_rank;
use crate::{EXTRACT, error, write};
use atelier_sdk::{EngineCtx, Error, Event, PlanCtx, Result, TaskInfo, TaskParams, Violation};
use atelier_weights::lora::layouts::{self, Tensors};
use atelier_weights::lora::{Delta, Part};
use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Number format of a written adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 16-bit floats.
    #[default]
    F16,
    /// 32-bit floats.
    F32,
}

/// Makes an adapter of the difference of two models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Extract {
    /// The model without the change: a diffusers folder or a checkpoint.
    #[schemars(extend("x-file" = "path"))]
    pub base: String,
    /// The model with it.
    #[schemars(extend("x-file" = "path"))]
    pub tuned: String,
    /// The rank of the factors.
    #[schemars(range(min = 1, max = 1024))]
    pub rank: usize,
    /// Where the adapter goes, in kohya's layout.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Its number format.
    pub format: Format,
    /// Replace a file that is there.
    pub overwrite: bool,
}

impl Default for Extract {
    fn default() -> Self {
        Self {
            base: String::new(),
            tuned: String::new(),
            rank: 16,
            out: String::new(),
            format: Format::default(),
            overwrite: false,
        }
    }
}

impl TaskParams for Extract {
    const TASK: &'static TaskInfo = &EXTRACT;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        needed(&[("base", &self.base), ("tuned", &self.tuned), ("out", &self.out)])?;
        free(&self.out, self.overwrite).map(|()| self)
    }
}

/// Refuses a place where something is already.
pub(crate) fn free(out: &str, overwrite: bool) -> Result<(), Vec<Violation>> {
    if Path::new(out).exists() && !overwrite {
        let message = format!("{out} is there already");
        return Err(vec![Violation::new("/out", message).hint("name another place, or overwrite it")]);
    }
    Ok(())
}

/// A module that differs.
struct Difference {
    part: Part,
    module: String,
    matrix: Tensor,
}

pub(crate) fn run(params: &Extract, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let base = Model::open(Path::new(&params.base))?.networks()?;
    let tuned = Model::open(Path::new(&params.tuned))?.networks()?;
    let places = places(&base, &tuned)?;
    let (mut tensors, mut kept, mut whole) = (Tensors::new(), 0.0, 0.0);
    let (mut changed, total) = (0, places.len());
    for (done, (part, module, a, b)) in places.iter().enumerate() {
        ctx.event(Event::Progress { done: done as u64, total: total as u64, unit: "modules".into() })?;
        let Some(difference) = difference(*part, module, a, b)? else { continue };
        let squares = squares(&difference.matrix)?;
        let (delta, energy) = factors(&difference, params)?;
        layouts::kohya(*part, module, &delta, &mut tensors).map_err(error::tensor("writing factors"))?;
        (changed, kept, whole) = (changed + 1, kept + energy * squares, whole + squares);
    }
    if changed == 0 {
        return Err(Error::invalid("the two models do not differ in any module that an adapter can change"));
    }
    let metadata = BTreeMap::from([
        ("ss_network_module".to_string(), "networks.lora".to_string()),
        ("ss_network_dim".to_string(), params.rank.to_string()),
        ("ss_network_alpha".to_string(), params.rank.to_string()),
    ]);
    write::tensors(Path::new(&params.out), &tensors, &metadata)?;
    Ok(json!({"file": params.out, "modules": changed, "unchanged": total - changed, "rank": params.rank,
        "energy": kept / whole}))
}

type Place<'a> = (Part, String, &'a Network, &'a Network);

/// The modules of both models: linear layers and convolutions.
fn places<'a>(base: &'a [(Part, Network)], tuned: &'a [(Part, Network)]) -> Result<Vec<Place<'a>>> {
    let mut out = Vec::new();
    for (part, a) in base {
        let Some((_, b)) = tuned.iter().find(|(p, _)| p == part) else { continue };
        for module in a.modules.names() {
            let shape = a.modules.shape(module).unwrap_or_default();
            // Tables of embeddings are matrices, but no layers.
            if shape.len() < 2
                || module.ends_with("token_embedding")
                || module.ends_with("position_embedding")
            {
                continue;
            }
            if b.modules.shape(module) != Some(shape) {
                return Err(Error::invalid(format!(
                    "module {module} of the {} is {shape:?} in one model and {} in the other",
                    part.folder(),
                    b.modules.shape(module).map_or("not there".into(), |s| format!("{s:?}"))
                ))
                .hint("both models must be of one architecture"));
            }
            out.push((*part, module.to_string(), a, b));
        }
    }
    Ok(out)
}

fn difference(part: Part, module: &str, a: &Network, b: &Network) -> Result<Option<Difference>> {
    let read = |n: &Network| match n.weight_of(module) {
        Some((name, _)) => n.tensor(name),
        None => Err(Error::internal(format!("module {module} has no weight"))),
    };
    let matrix = (read(b)? - read(a)?).map_err(error::tensor("subtracting weights"))?;
    let changed = squares(&matrix)? > 0.0;
    Ok(changed.then(|| Difference { part, module: module.into(), matrix }))
}

fn squares(matrix: &Tensor) -> Result<f64> {
    let sum = || matrix.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    sum().map_err(error::tensor("measuring a difference"))
}

/// The change in factors, and the part of the difference's squares that they keep.
fn factors(difference: &Difference, params: &Extract) -> Result<(Delta, f64)> {
    let shape = difference.matrix.dims().to_vec();
    let seed =
        difference.module.bytes().fold(difference.part as u64, |h, b| h.wrapping_mul(31) + u64::from(b));
    let format = if params.format == Format::F16 { DType::F16 } else { DType::F32 };
    let factored = || {
        let found = low_rank(&difference.matrix.flatten_from(1)?, params.rank, seed)?;
        let rank = found.right.dim(0)?;
        let down: Vec<usize> = std::iter::once(rank).chain(shape.iter().skip(1).copied()).collect();
        let (down, up) = (found.right.reshape(down)?.to_dtype(format)?, found.left.to_dtype(format)?);
        Ok((Delta::lora(down, up, 1.0), found.energy))
    };
    factored().map_err(error::tensor("factoring a difference"))
}
