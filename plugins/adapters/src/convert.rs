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

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_weights::lora::Delta;
    use candle_core::{DType, Device, Tensor};
    use std::sync::Arc;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden").join(name)
    }

    /// Converts a file of the fixtures; gives the folder with the result.
    fn converted(file: &str, to: Target) -> (tempfile::TempDir, Result<Value>) {
        let place = tempfile::tempdir().unwrap();
        let text = |path: PathBuf| path.display().to_string();
        let params = Convert {
            lora: text(golden("lora").join(file)),
            to,
            // Its own sizes: Stable Diffusion's would only take time.
            model: text(golden("tiny-sd")),
            out: text(place.path().join(if to == Target::Peft { "out" } else { "out.safetensors" })),
            ..Convert::default()
        };
        let said = run(&params);
        (place, said)
    }

    type Weights = BTreeMap<(Part, String), Vec<f32>>;

    /// What a file changes in weights of zeros.
    fn changes(file: &Path) -> Weights {
        let (unet, text) = model::modules_of(&golden("tiny-sd")).unwrap();
        let found = Adapter::open(file).unwrap().resolve(&unet, &text).unwrap();
        assert_eq!(found.unmatched, Vec::<String>::new());
        let parts = [(Part::Unet, &unet, found.unet), (Part::TextEncoder, &text, found.text)];
        let of = |(part, modules, changes): (Part, &Modules, Changes)| -> Weights {
            let one = |(name, delta): (String, Arc<Delta>)| {
                let zeros = Tensor::zeros(modules.shape(&name).unwrap(), DType::F32, &Device::Cpu).unwrap();
                let change = delta.change(&zeros).unwrap().flatten_all().unwrap();
                ((part, name), change.to_vec1().unwrap())
            };
            changes.into_iter().map(one).collect()
        };
        parts.into_iter().flat_map(of).collect()
    }

    #[test]
    fn every_layout_holds_the_same_change() {
        let files = ["kohya.safetensors", "kohya_alpha8.safetensors", "kohya_locon.safetensors"];
        let layouts = [Target::Kohya, Target::Diffusers, Target::Peft];
        for (file, to) in files.iter().flat_map(|file| layouts.map(|to| (file, to))) {
            let want = changes(&golden("lora").join(file));
            let (_place, said) = converted(file, to);
            let said = said.unwrap();
            assert_eq!(said["modules"], json!(want.len()));
            let written =
                said["files"].as_array().unwrap().iter().map(|file| PathBuf::from(file.as_str().unwrap()));
            let tensors = written.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
            let got: Weights = tensors.flat_map(|file| changes(&file)).collect();
            // The scales are powers of two: nothing is rounded wherever they stand.
            assert!(got == want, "{file} {to:?}");
        }
    }

    #[test]
    fn what_a_layout_cannot_hold_names_the_one_that_can() {
        let e = error::layout(layouts::LayoutError::Kind { module: "a".into(), kind: "LoHa".into() });
        assert_eq!(
            (e.kind(), e.message()),
            (ErrorKind::Unsupported, "module a is changed by LoHa, which only kohya's layout can hold")
        );
        assert_eq!(e.hints(), ["convert it with `--to kohya`"]);
    }
}
