//! The modules of a model that an adapter changes.

use super::base::Base;
use super::delta::Delta;
use super::keys::{Part, Spelling};
use super::modules::Modules;
use super::{Adapter, Layout};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An adapter's changes under the paths of a model's modules.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Of the UNet.
    pub unet: BTreeMap<String, Arc<Delta>>,
    /// Of the text encoder.
    pub text: BTreeMap<String, Arc<Delta>>,
    /// Modules in the file that the model has not, as the file spells them, sorted.
    pub unmatched: Vec<String>,
}

impl Resolved {
    /// Modules found.
    pub fn matched(&self) -> usize {
        self.unet.len() + self.text.len()
    }

    /// Modules in the file.
    pub fn total(&self) -> usize {
        self.matched() + self.unmatched.len()
    }

    /// A remark for people if something was not found: counts, and some of the names.
    pub fn remark(&self) -> Option<String> {
        if self.unmatched.is_empty() {
            return None;
        }
        let some: Vec<&str> = self.unmatched.iter().take(3).map(String::as_str).collect();
        let more = if self.unmatched.len() > some.len() { ", ..." } else { "" };
        Some(format!(
            "{} of {} modules of the adapter are in the model; not: {}{more}",
            self.matched(),
            self.total(),
            some.join(", ")
        ))
    }
}

impl Adapter {
    /// Finds the modules of a model with these networks.
    ///
    /// Errors: an adapter for another kind of model, a module of another size, not a single module found.
    pub fn resolve(&self, unet: &Modules, text: &Modules) -> Result<Resolved> {
        let (own, model) = (self.base(), Base::of_modules(unet));
        if !own.may_be(model) {
            return Err(Error::AdapterBase {
                path: self.path.clone(),
                found: own.to_string(),
                expected: model.to_string(),
            });
        }
        self.find(unet, text, &|module, delta, modules, name| {
            self.check(module, delta, modules.shape(name).unwrap_or_default())?;
            Ok(delta.bias.is_none() || modules.has_bias(name))
        })
    }

    /// Finds the paths of its modules among those of networks of any sizes.
    ///
    /// Errors: not a single module found.
    pub fn named(&self, unet: &Modules, text: &Modules) -> Result<Resolved> {
        self.find(unet, text, &|_, _, _, _| Ok(true))
    }

    /// `fits` is asked of every module found.
    fn find(
        &self,
        unet: &Modules,
        text: &Modules,
        fits: &dyn Fn(&Spelling, &Delta, &Modules, &str) -> Result<bool>,
    ) -> Result<Resolved> {
        let numbered = Numbered::of(self, unet, text);
        let mut resolved = Resolved::default();
        for ((part, module), delta) in &self.changes {
            let (modules, order, found) = match part {
                Part::Unet => (unet, &numbered.unet, &mut resolved.unet),
                Part::TextEncoder => (text, &numbered.text, &mut resolved.text),
                Part::TextEncoder2 => {
                    resolved.unmatched.push(format!("{}.{module}", part.folder()));
                    continue;
                }
            };
            match modules.find(module, order) {
                Some(name) if fits(module, delta, modules, name)? => {
                    found.insert(name.into(), delta.clone());
                }
                Some(_) => resolved.unmatched.push(format!("{}.{module} (its bias)", part.folder())),
                None => resolved.unmatched.push(format!("{}.{module}", part.folder())),
            }
        }
        if resolved.matched() == 0 {
            return Err(Error::NothingMatches {
                path: self.path.clone(),
                total: resolved.total(),
                names: resolved.unmatched.into_iter().take(3).collect(),
            });
        }
        Ok(resolved)
    }

    fn check(&self, module: &Spelling, delta: &Delta, shape: &[usize]) -> Result<()> {
        if delta.fits(shape) {
            return Ok(());
        }
        let found = delta.size().map_or("a bias of another size".into(), |(rows, columns)| {
            format!("{rows} outputs and {columns} inputs")
        });
        Err(Error::Adapter {
            path: self.path.clone(),
            module: module.to_string(),
            message: format!(
                "expected a change of a weight {shape:?}, found one of {found}: this adapter is for {}, or for a model of other sizes",
                self.base()
            ),
        })
    }
}

/// What cloneofsimo's numbers stand for.
struct Numbered {
    unet: Vec<String>,
    text: Vec<String>,
}

impl Numbered {
    fn of(adapter: &Adapter, unet: &Modules, text: &Modules) -> Self {
        if adapter.layout() != Layout::Cloneofsimo {
            return Self { unet: Vec::new(), text: Vec::new() };
        }
        // The remark names the classes whose linear layers were trained.
        let gates = adapter.metadata().get("unet").is_none_or(|classes| classes.contains("GEGLU"));
        Self { unet: unet.cloneofsimo_unet(gates), text: text.cloneofsimo_text() }
    }
}
