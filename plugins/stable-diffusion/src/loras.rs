//! Adapters of a request: which, how much of them, and on the networks.

use crate::pipeline::Pipeline;
use crate::prompt::tags;
use atelier_diffusion::error;
use atelier_models::{ClipTextModel, Network, UNet2DConditionModel};
use atelier_sdk::{EngineCtx, Error, Event, Result, Violation};
use atelier_weights::lora::{Adaptation, Adapter, BlockWeights, Mode, Modules, Resolved, Stack, Strength};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// An adapter and how much of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraFile {
    /// Its name in the folders for LoRAs. One of name and path is needed.
    pub name: String,
    /// Its file, or its folder of PEFT.
    #[schemars(extend("x-file" = "path"))]
    pub path: String,
    /// How much of it, in text encoder and UNet.
    pub weight: f64,
    /// How much of it in the text encoder, if not as much.
    pub te: Option<f64>,
    /// How much of it in the UNet, if not as much.
    pub unet: Option<f64>,
    /// Factors for blocks of the UNet.
    pub blocks: Option<Blocks>,
}

impl Default for LoraFile {
    fn default() -> Self {
        Self { name: String::new(), path: String::new(), weight: 1.0, te: None, unet: None, blocks: None }
    }
}

/// Factors for blocks: a list (`BASE`, then the blocks with attention, or all of them), or names with their factors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Blocks {
    /// 17 or 26 numbers for Stable Diffusion 1.x.
    List(Vec<f64>),
    /// `BASE`, `IN04`, `M00`, `OUT11`, or beginnings of modules' paths; others count 1.
    Named(BTreeMap<String, f64>),
}

/// Where adapters are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraMode {
    /// Added to the weights as they are loaded: costs nothing per step.
    #[default]
    Merge,
    /// Applied beside the weights in every step.
    Live,
}

/// What is wrong with a list of adapters, field by field.
pub(crate) fn check_loras(loras: &[LoraFile]) -> Vec<Violation> {
    let named = |(i, lora): (usize, &LoraFile)| {
        let message = match (lora.name.trim().is_empty(), lora.path.is_empty()) {
            (true, true) => "a LoRA needs a name or a file",
            (false, false) => "a LoRA has a name or a file, not both",
            _ => return None,
        };
        Some(Violation::new(format!("/loras/{i}/name"), message))
    };
    loras.iter().enumerate().filter_map(named).collect()
}

/// An adapter that an image is to be drawn with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Its name or path.
    name: String,
    strength: Strength,
}

/// The adapters of one image: those listed, then those of the tags in its prompt.
///
/// # Errors
/// A broken tag.
pub(crate) fn wanted(listed: &[LoraFile], prompt: &str) -> Result<Vec<Wanted>> {
    let (_, tags) = tags::extract(prompt).map_err(|p| Error::invalid(format!("`prompt`: {p}")))?;
    let of_list = listed.iter().map(|lora| {
        let name = if lora.path.is_empty() { lora.name.trim() } else { &lora.path };
        let blocks = lora.blocks.as_ref().map(|blocks| match blocks {
            Blocks::List(list) => BlockWeights::List(list.clone()),
            Blocks::Named(named) => BlockWeights::Named(named.clone()),
        });
        let (text, unet) = (lora.te.unwrap_or(lora.weight), lora.unet.unwrap_or(lora.weight));
        Wanted { name: name.into(), strength: Strength { text, unet, blocks } }
    });
    let of_tags = tags.iter().map(|tag| Wanted {
        name: tag.name.clone(),
        strength: Strength { text: tag.te, unet: tag.unet, blocks: None },
    });
    Ok(of_list.chain(of_tags).collect())
}

/// The adapters on the networks of a session.
#[derive(Default)]
pub(crate) struct Loras {
    /// Those on the networks, with the digests of their files.
    on: Vec<(Wanted, String)>,
    mode: LoraMode,
    /// Their files, read, by place and digest.
    files: BTreeMap<(PathBuf, String), Arc<Resolved>>,
    /// The modules of UNet and text encoder.
    modules: Option<(Modules, Modules)>,
}

impl Loras {
    /// Puts these adapters on the networks, in place of those that are on them. Gives whether anything changed.
    ///
    /// # Errors
    /// A file that is not found, damaged, or for another kind of model; not a single module of it in this model.
    pub(crate) fn put(
        &mut self,
        pipeline: &Pipeline,
        wanted: &[Wanted],
        mode: LoraMode,
        ctx: &mut dyn EngineCtx,
    ) -> Result<bool> {
        let mut found = Vec::new();
        for lora in wanted {
            let file = ctx.find_file("lora", &lora.name)?;
            found.push((lora.clone(), file));
        }
        let on: Vec<_> = found.iter().map(|(lora, file)| (lora.clone(), file.sha256.clone())).collect();
        if on == self.on && (mode == self.mode || on.is_empty()) {
            return Ok(false);
        }
        let mut stack = Stack::new();
        let mut files = BTreeMap::new();
        for (lora, file) in found {
            let key = (file.path, file.sha256);
            let read = match self.files.get(&key) {
                Some(known) => known.clone(),
                None => self.read(pipeline, &key.0, ctx)?,
            };
            let (unet, _) = self.modules(pipeline)?;
            let misfit = error::weights_of("the LoRA does not fit the model");
            stack.push(&read, &lora.strength, unet).map_err(misfit)?;
            files.insert(key, read);
        }
        let mode_of = if mode == LoraMode::Live { Mode::Live } else { Mode::Merge };
        pipeline.adapt(&Adaptation { stack, mode: mode_of });
        (self.on, self.mode, self.files) = (on, mode, files);
        Ok(true)
    }

    fn read(
        &mut self,
        pipeline: &Pipeline,
        path: &PathBuf,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Arc<Resolved>> {
        let here = || path.display().to_string();
        let adapter = Adapter::open(path).map_err(error::weights_of("cannot read the LoRA"))?;
        let (unet, text) = self.modules(pipeline)?;
        let misfit = error::weights_of("the LoRA does not fit the model");
        let resolved = adapter.resolve(unet, text).map_err(misfit)?;
        if let Some(remark) = resolved.remark() {
            ctx.event(Event::Warning { message: format!("{}: {remark}", here()) })?;
        }
        if !adapter.embeddings().is_empty() {
            let names = adapter.embeddings().join(", ");
            let message = format!("{}: it brings embeddings of words, which are not used: {names}", here());
            ctx.event(Event::Warning { message })?;
        }
        Ok(Arc::new(resolved))
    }

    fn modules(&mut self, pipeline: &Pipeline) -> Result<&(Modules, Modules)> {
        if self.modules.is_none() {
            let failed = |e| error::model("cannot outline the model", e);
            let unet = UNet2DConditionModel::modules(pipeline.unet_config()).map_err(failed)?;
            let text = ClipTextModel::modules(pipeline.text_config()).map_err(failed)?;
            self.modules = Some((unet, text));
        }
        self.modules.as_ref().ok_or_else(|| Error::internal("a model without an outline"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_tags_join_and_the_order_is_theirs() {
        let listed = LoraFile { path: "a.safetensors".into(), te: Some(0.0), ..LoraFile::default() };
        let found = wanted(&[listed], "x <lora:b:0.5:0.25> <lora:c>").unwrap();
        let plain: Vec<_> =
            found.iter().map(|w| (w.name.as_str(), w.strength.text, w.strength.unet)).collect();
        assert_eq!(plain, [("a.safetensors", 0.0, 1.0), ("b", 0.5, 0.25), ("c", 1.0, 1.0)]);
    }

    #[test]
    fn blocks_are_a_list_or_names() {
        let read = |text: &str| serde_json::from_str::<LoraFile>(text).unwrap().blocks;
        assert_eq!(read(r#"{"name":"a","blocks":[1,0.5]}"#), Some(Blocks::List(vec![1.0, 0.5])));
        let named = read(r#"{"name":"a","blocks":{"IN04":0}}"#);
        assert_eq!(named, Some(Blocks::Named([("IN04".to_string(), 0.0)].into())));
        assert!(serde_json::from_str::<LoraFile>(r#"{"name":"a","blocks":"x"}"#).is_err());
    }

    #[test]
    fn one_of_name_and_file_is_needed() {
        let lora =
            |name: &str, path: &str| LoraFile { name: name.into(), path: path.into(), ..LoraFile::default() };
        let wrong = check_loras(&[lora("a", ""), lora("", "b"), lora(" ", ""), lora("a", "b")]);
        let at: Vec<_> = wrong.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(at, ["/loras/2/name", "/loras/3/name"]);
    }
}
