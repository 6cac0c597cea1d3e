//! How much of an adapter is applied, and where.

use super::keys::Part;
use super::modules::Modules;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Factors for single blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockWeights {
    /// `BASE`, then the blocks in order: all of them, or those with attention. The lists of A1111's extension
    /// "lora-block-weight": 17 or 26 numbers for Stable Diffusion 1.x.
    List(Vec<f64>),
    /// By name: `BASE`, `IN04`, `M00`, `OUT11`, or the beginning of a module's path. Others count 1.
    Named(BTreeMap<String, f64>),
}

/// How much of an adapter is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Strength {
    /// In the text encoder.
    pub text: f64,
    /// In the UNet.
    pub unet: f64,
    /// Factors for single blocks.
    pub blocks: Option<BlockWeights>,
}

impl Strength {
    /// The same in all networks and blocks.
    pub fn all(weight: f64) -> Self {
        Self { text: weight, unet: weight, blocks: None }
    }

    /// The strength in each block of a UNet with these modules.
    ///
    /// Errors: a list of another length than the UNet has blocks, names that it does not have.
    pub fn over(&self, unet: &Modules) -> Result<Weights> {
        let blocks = match &self.blocks {
            None => BTreeMap::new(),
            Some(BlockWeights::List(list)) => of_list(list, unet)?,
            Some(BlockWeights::Named(named)) => {
                check_names(named, unet)?;
                named.clone()
            }
        };
        Ok(Weights { text: self.text, unet: self.unet, blocks })
    }
}

fn of_list(list: &[f64], unet: &Modules) -> Result<BTreeMap<String, f64>> {
    let choices = [unet.blocks(true), unet.blocks(false)];
    let fitting = choices.iter().find(|blocks| blocks.len() + 1 == list.len());
    let Some(blocks) = fitting else {
        return Err(Error::Blocks {
            message: format!(
                "expected {} numbers (BASE, then {}) or {} (BASE, then all blocks), found {}",
                choices[0].len() + 1,
                choices[0].join(", "),
                choices[1].len() + 1,
                list.len()
            ),
        });
    };
    let names = std::iter::once("BASE".to_string()).chain(blocks.iter().cloned());
    Ok(names.zip(list.iter().copied()).collect())
}

fn check_names(named: &BTreeMap<String, f64>, unet: &Modules) -> Result<()> {
    let blocks = unet.blocks(false);
    let known = |name: &str| {
        name == "BASE" || blocks.iter().any(|b| b == name) || unet.names().any(|m| is_at(m, name))
    };
    match named.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Blocks {
            message: format!(
                "expected a block, found {name:?}; there are: BASE, {}, and paths of modules such as \"down_blocks.0\"",
                blocks.join(", ")
            ),
        }),
    }
}

/// Whether `module` is at `path`.
fn is_at(module: &str, path: &str) -> bool {
    module.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Strengths of one adapter, by module.
#[derive(Clone, Debug)]
pub struct Weights {
    text: f64,
    unet: f64,
    blocks: BTreeMap<String, f64>,
}

impl Weights {
    /// The strength in a module.
    pub fn of(&self, part: Part, module: &str, modules: &Modules) -> f64 {
        let block = |name: &str| self.blocks.get(name).copied();
        if part != Part::Unet {
            return self.text * block("BASE").unwrap_or(1.0);
        }
        // The longest path is the most particular.
        let paths = self.blocks.iter().filter(|(path, _)| is_at(module, path));
        let path = paths.max_by_key(|(path, _)| path.len()).map(|(_, weight)| *weight);
        self.unet * path.or_else(|| block(&modules.block(module))).unwrap_or(1.0)
    }
}
