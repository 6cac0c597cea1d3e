//! What PEFT keeps beside the tensors: `adapter_config.json`, or the same in the header of diffusers' files.

use super::keys::{Part, Spelling};
use super::modules::canonical;
use crate::config::ConfigFile;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The name under which diffusers keeps it in a header.
const IN_HEADER: &str = "lora_adapter_metadata";

/// Scales by module.
pub(super) struct Scales {
    /// Prefix of the fields and what they say; a folder has one, without prefix.
    parts: Vec<(Option<Part>, Fields)>,
}

struct Fields {
    rank: Option<f64>,
    alpha: Option<f64>,
    by_root: bool,
    ranks: Map<String, Value>,
    alphas: Map<String, Value>,
}

impl Fields {
    fn of(get: impl Fn(&str) -> Option<Value>) -> Self {
        let object = |name| get(name).and_then(|v| v.as_object().cloned()).unwrap_or_default();
        let number = |name| get(name).and_then(|v| v.as_f64()).filter(|v| v.is_finite());
        Self {
            rank: number("r").filter(|r| *r > 0.0),
            // LoHa and LoKr say `alpha`.
            alpha: number("lora_alpha").or_else(|| number("alpha")),
            by_root: get("use_rslora").and_then(|v| v.as_bool()).unwrap_or(false),
            ranks: object("rank_pattern"),
            alphas: object("alpha_pattern"),
        }
    }

    /// `alpha / r`, or `alpha / √r` (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732).
    fn scale(&self, module: &str) -> Option<f64> {
        let rank = pattern(&self.ranks, module).or(self.rank)?;
        let alpha = pattern(&self.alphas, module).or(self.alpha)?;
        Some(alpha / if self.by_root { rank.sqrt() } else { rank })
    }
}

/// The value whose name is the module's, or its end after a dot. Patterns may be regular expressions; of these only
/// the anchors that diffusers writes are understood.
fn pattern(patterns: &Map<String, Value>, module: &str) -> Option<f64> {
    let found = patterns.iter().find(|(name, _)| {
        let name = name.trim_start_matches('^').trim_end_matches('$').replace("\\.", ".");
        // Modules are known here without what libraries put before those of a text encoder.
        let name = canonical(&name);
        module == name || module.ends_with(&format!(".{name}"))
    });
    found.and_then(|(_, value)| value.as_f64()).filter(|v| v.is_finite() && *v > 0.0)
}

impl Scales {
    /// From a folder's `adapter_config.json`.
    ///
    /// Errors: unreadable; an adapter of another kind than LoRA, LoHa and LoKr; no rank or alpha.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let config = ConfigFile::read(path)?;
        let kind = config.text("peft_type", Some("LORA"))?;
        if !["LORA", "LOHA", "LOKR"].contains(&kind.to_uppercase().as_str()) {
            return Err(config.error("peft_type", format!("expected LORA, LOHA or LOKR, found {kind:?}")));
        }
        if config.flag("fan_in_fan_out", false)? {
            return Err(config.error("fan_in_fan_out", "transposed weights are not supported (only false)"));
        }
        let fields = Fields::of(|name| config.get(name).cloned());
        if fields.rank.is_none() {
            return Err(config.error("r", "expected the rank, a number above 0"));
        }
        if fields.alpha.is_none() {
            return Err(config.error("lora_alpha", "expected a number"));
        }
        Ok(Self { parts: vec![(None, fields)] })
    }

    /// From the remarks of a file; none if there are no such remarks.
    ///
    /// Errors: remarks that are no JSON object.
    pub(super) fn in_header(text: Option<&String>, path: &Path) -> Result<Option<Self>> {
        let Some(text) = text else { return Ok(None) };
        let parsed: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| Error::Json { path: path.into(), message: format!("in `{IN_HEADER}`: {e}") })?;
        let parts = [Part::Unet, Part::TextEncoder, Part::TextEncoder2];
        let fields =
            |part: Part| Fields::of(|name| parsed.get(&format!("{}.{name}", part.folder())).cloned());
        Ok(Some(Self { parts: parts.map(|part| (Some(part), fields(part))).into() }))
    }

    /// The remark's name.
    pub(super) fn key() -> &'static str {
        IN_HEADER
    }

    /// The scale of a module, if it is said.
    pub(super) fn of(&self, part: Part, module: &Spelling) -> Option<f64> {
        let Spelling::Path(module) = module else { return None };
        let own = self.parts.iter().find(|(p, _)| p.is_none() || *p == Some(part))?;
        own.1.scale(module)
    }
}
