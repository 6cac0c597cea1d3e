//! The modules of a network that an adapter may change, under all the names that files have for them.

use super::keys::Spelling;
use crate::checkpoint::{Network, ldm_name};
use crate::error::Result;
use crate::source::{Provider, Source};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The modules of one network by their paths in diffusers' layout, each with the shape of its weight.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    shapes: BTreeMap<String, Vec<usize>>,
    /// By the names of the first programs, `input_blocks.1.1.proj_in`.
    by_ldm: HashMap<String, String>,
    /// By both names with underscores for dots.
    by_flat: HashMap<String, String>,
    ldm: HashMap<String, String>,
    with_bias: BTreeSet<String>,
}

/// Gives zeros that take no memory, and keeps what was asked for.
#[derive(Default)]
struct Outline(Mutex<Vec<(String, Vec<usize>)>>);

impl Provider for Outline {
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, _: &Device) -> Result<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), shape.to_vec()));
        let zeros = Tensor::zeros((), dtype, &Device::Cpu).and_then(|t| t.broadcast_as(shape));
        zeros.map_err(|source| crate::Error::Tensor {
            place: "the outline of a network".into(),
            tensor: name.into(),
            source: Box::new(source),
        })
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}

impl Modules {
    /// The modules that `build` asks a source for: those of a network, without its weights.
    ///
    /// Errors: those of `build`.
    pub fn of<T, E>(
        build: impl FnOnce(&Source) -> std::result::Result<T, E>,
    ) -> std::result::Result<Self, E> {
        let outline = Arc::new(Outline::default());
        build(&Source::new(outline.clone(), DType::F16, &Device::Cpu))?;
        let asked = outline.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self::from_tensors(asked.iter().cloned()))
    }

    /// The modules of the tensors `x.weight` among these names and shapes.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Self {
        let mut modules = Self::default();
        for (name, shape) in tensors {
            if let Some(module) = name.strip_suffix(".weight") {
                modules.shapes.insert(canonical(module).into(), shape);
            } else if let Some(module) = name.strip_suffix(".bias") {
                modules.with_bias.insert(canonical(module).into());
            }
        }
        modules.name();
        modules
    }

    /// Fills the other names.
    fn name(&mut self) {
        let weights: BTreeSet<String> = self.shapes.keys().map(|module| format!("{module}.weight")).collect();
        for module in self.shapes.keys() {
            self.by_flat.insert(module.replace('.', "_"), module.clone());
            if let Some(ldm) = ldm(module, &weights) {
                self.by_flat.entry(ldm.replace('.', "_")).or_insert_with(|| module.clone());
                self.by_ldm.insert(ldm.clone(), module.clone());
                self.ldm.insert(module.clone(), ldm);
            }
        }
    }

    /// All paths, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The shape of a module's weight.
    pub fn shape(&self, module: &str) -> Option<&[usize]> {
        self.shapes.get(module).map(Vec::as_slice)
    }

    /// Whether a module has a bias.
    pub fn has_bias(&self, module: &str) -> bool {
        self.with_bias.contains(module)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// The path of the module that a file spells so; `numbered` is the order that numbers follow.
    pub(super) fn find(&self, spelling: &Spelling, numbered: &[String]) -> Option<&str> {
        let name = match spelling {
            Spelling::Flat(flat) => self.by_flat.get(flat)?,
            Spelling::Path(path) => {
                self.shapes.get_key_value(path).map(|(k, _)| k).or(self.by_ldm.get(path))?
            }
            Spelling::Number(n) => self.shapes.get_key_value(numbered.get(*n)?)?.0,
        };
        Some(name)
    }

    /// The block of a UNet's module as A1111's block weights name it: `IN00`..., `M00`, `OUT00`..., else `BASE`.
    pub fn block(&self, module: &str) -> String {
        let Some(ldm) = self.ldm.get(module) else { return "BASE".into() };
        let mut items = ldm.split('.');
        let (head, number) = (items.next().unwrap_or_default(), items.next().unwrap_or_default());
        match head {
            "input_blocks" => format!("IN{number:0>2}"),
            "middle_block" => "M00".into(),
            "output_blocks" => format!("OUT{number:0>2}"),
            _ => "BASE".into(),
        }
    }

    /// The names of all blocks in order after `BASE`; with `attending` those only that have attention.
    pub fn blocks(&self, attending: bool) -> Vec<String> {
        let wanted = |m: &&String| !attending || m.contains(".attentions.");
        let mut names: Vec<String> = self.shapes.keys().filter(wanted).map(|m| self.block(m)).collect();
        names.retain(|name| name != "BASE");
        let order =
            |name: &String| (["IN", "M0", "OU"].iter().position(|s| name.starts_with(s)), name.clone());
        names.sort_by_key(order);
        names.dedup();
        names
    }

    /// The order in which cloneofsimo's program walks a UNet: downwards, upwards, then the middle, in each
    /// transformer the attention to the image, the feed-forward's gate if `gates`, the attention to the prompt.
    pub(super) fn cloneofsimo_unet(&self, gates: bool) -> Vec<String> {
        let mut roots: Vec<&str> =
            self.shapes.keys().filter_map(|name| name.strip_suffix(".attn1.to_q")).collect();
        let place = |name: &&str| ["down", "up", "mid"].iter().position(|s| name.starts_with(s));
        roots.sort_by_key(|name| (place(name), natural(name)));
        let attention = |n: u8| ["to_q", "to_k", "to_v", "to_out.0"].map(|l| format!("attn{n}.{l}"));
        let gate = gates.then(|| "ff.net.0.proj".to_string());
        let layers: Vec<String> = attention(1).into_iter().chain(gate).chain(attention(2)).collect();
        roots.iter().flat_map(|root| layers.iter().map(move |layer| format!("{root}.{layer}"))).collect()
    }

    /// The same of a text encoder, whose layers transformers declares in this order.
    pub(super) fn cloneofsimo_text(&self) -> Vec<String> {
        let mut roots: Vec<&str> =
            self.shapes.keys().filter_map(|name| name.strip_suffix(".self_attn.q_proj")).collect();
        roots.sort_by_key(|name| natural(name));
        let layers = ["k_proj", "v_proj", "q_proj", "out_proj"];
        roots.iter().flat_map(|root| layers.map(|layer| format!("{root}.self_attn.{layer}"))).collect()
    }
}

/// A module's path without what some files put before it.
pub(super) fn canonical(module: &str) -> &str {
    module.strip_prefix("text_model.").unwrap_or(module)
}

/// The first programs' name of a UNet's module.
fn ldm(module: &str, weights: &BTreeSet<String>) -> Option<String> {
    let (name, _) = ldm_name(Network::UNet, &format!("{module}.weight"), weights)?;
    Some(name.strip_prefix("model.diffusion_model.")?.strip_suffix(".weight")?.into())
}

/// Sorts numbers in names as numbers.
fn natural(name: &str) -> Vec<(usize, String)> {
    name.split('.').map(|item| (item.parse().unwrap_or(0), item.into())).collect()
}
