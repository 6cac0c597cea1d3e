//! The modules of a network that an adapter may change, under all the names that files have for them.

use super::keys::Spelling;
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
        let blocks = Blocks::of(&self.shapes);
        for module in self.shapes.keys() {
            self.by_flat.insert(module.replace('.', "_"), module.clone());
            if let Some(ldm) = blocks.ldm(module) {
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

/// Sorts numbers in names as numbers.
fn natural(name: &str) -> Vec<(usize, String)> {
    name.split('.').map(|item| (item.parse().unwrap_or(0), item.into())).collect()
}

/// How many layers each block of a UNet has.
struct Blocks {
    /// (residual blocks, attends, halves or doubles), downwards.
    down: Vec<(usize, bool, bool)>,
    up: Vec<(usize, bool, bool)>,
}

impl Blocks {
    fn of(shapes: &BTreeMap<String, Vec<usize>>) -> Self {
        let has = |start: String| shapes.keys().any(|name| name.starts_with(&start));
        let side = |side: &str| {
            let block = |i: usize| {
                let at = format!("{side}_blocks.{i}.");
                let resnets = (0..).take_while(|j| has(format!("{at}resnets.{j}."))).count();
                (resnets, has(format!("{at}attentions.")), has(format!("{at}{side}samplers.")))
            };
            (0..).map(block).take_while(|(resnets, ..)| *resnets > 0).collect()
        };
        Self { down: side("down"), up: side("up") }
    }

    /// The first programs' name of a module.
    fn ldm(&self, module: &str) -> Option<String> {
        const ENDS: [(&str, &str); 5] = [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ];
        if let Some((_, ldm)) = ENDS.iter().find(|(name, _)| *name == module) {
            return Some(ldm.to_string());
        }
        if let Some(rest) = module.strip_prefix("mid_block.") {
            let (kind, number, rest) = three(rest)?;
            let at = if kind == "resnets" { 2 * number } else { 1 + number };
            return Some(format!("middle_block.{at}.{}", layer(kind, rest)));
        }
        match (module.strip_prefix("down_blocks."), module.strip_prefix("up_blocks.")) {
            (Some(rest), _) => self.down(rest),
            (_, Some(rest)) => self.up(rest),
            _ => None,
        }
    }

    fn down(&self, rest: &str) -> Option<String> {
        let (block, rest) = rest.split_once('.')?;
        let block: usize = block.parse().ok()?;
        let (kind, number, rest) = three(rest)?;
        let before: usize = self.down.get(..block)?.iter().map(|b| b.0 + usize::from(b.2)).sum();
        let first = 1 + before;
        match kind {
            "downsamplers" => Some(format!("input_blocks.{}.0.op", first + self.down.get(block)?.0)),
            "resnets" => Some(format!("input_blocks.{}.0.{}", first + number, layer(kind, rest))),
            _ => Some(format!("input_blocks.{}.1.{rest}", first + number)),
        }
    }

    fn up(&self, rest: &str) -> Option<String> {
        let (block, rest) = rest.split_once('.')?;
        let block: usize = block.parse().ok()?;
        let (kind, number, rest) = three(rest)?;
        let first: usize = self.up.get(..block)?.iter().map(|b| b.0).sum();
        let (resnets, attends, _) = *self.up.get(block)?;
        match kind {
            "upsamplers" => {
                Some(format!("output_blocks.{}.{}.conv", first + resnets - 1, 1 + usize::from(attends)))
            }
            "resnets" => Some(format!("output_blocks.{}.0.{}", first + number, layer(kind, rest))),
            _ => Some(format!("output_blocks.{}.1.{rest}", first + number)),
        }
    }
}

/// `resnets.0.conv1` in three.
fn three(rest: &str) -> Option<(&str, usize, &str)> {
    let (kind, rest) = rest.split_once('.')?;
    let (number, rest) = rest.split_once('.')?;
    Some((kind, number.parse().ok()?, rest))
}

/// The layers of a residual block have other names.
fn layer(kind: &str, rest: &str) -> String {
    const RESNET: [(&str, &str); 6] = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    let found = RESNET.iter().find(|(name, _)| kind == "resnets" && *name == rest);
    found.map_or(rest, |(_, ldm)| ldm).into()
}
