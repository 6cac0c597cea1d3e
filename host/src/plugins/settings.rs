//! `plugins:` in `atelier.yaml`.

use super::manifest::Isolation;
use atelier_sdk::{Error, Result, key};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A day: longer is a plugin that nobody waits for.
const MAX_STALL: u64 = 86_400;

/// What the settings say about plugins that are not linked in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSettings {
    /// Libraries, folders of them, or folders of plugins; relative to the settings file.
    pub paths: Vec<PathBuf>,
    /// A bare key to the `plugin/key` that it stands for instead of the built-in one.
    #[serde(rename = "override")]
    pub overrides: BTreeMap<String, String>,
    /// How a plugin is kept apart, by its name.
    pub isolation: BTreeMap<String, Isolation>,
    /// How long a plugin may show no sign of life.
    pub stall_seconds: u64,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self { paths: Vec::new(), overrides: BTreeMap::new(), isolation: BTreeMap::new(), stall_seconds: 30 }
    }
}

impl PluginSettings {
    /// How long a plugin may show no sign of life.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_seconds)
    }

    /// Checks what a type cannot, and makes the paths relative to `folder`.
    ///
    /// # Errors
    /// A name that cannot be one, a time out of range.
    pub fn settle(&mut self, folder: &Path) -> Result<()> {
        if !(1..=MAX_STALL).contains(&self.stall_seconds) {
            return Err(Error::invalid(format!("`plugins.stall_seconds` is {}", self.stall_seconds))
                .hint(format!("give whole seconds from 1 to {MAX_STALL}")));
        }
        for name in self.isolation.keys() {
            key::check("plugin", name).map_err(|e| e.context("in `plugins.isolation`"))?;
        }
        for (bare, id) in &self.overrides {
            check_override(bare, id).map_err(|e| e.context("in `plugins.override`"))?;
        }
        for path in &mut self.paths {
            if path.as_os_str().is_empty() {
                return Err(Error::invalid("`plugins.paths` holds an empty path")
                    .hint("remove it; for the folder of the settings file write `.`"));
            }
            *path = folder.join(&path);
        }
        Ok(())
    }
}

fn check_override(bare: &str, id: &str) -> Result<()> {
    key::check("plugin's item", bare)?;
    let Some((plugin, item)) = id.split_once('/') else {
        return Err(Error::invalid(format!("`{bare}` is overridden by `{id}`, which names no plugin"))
            .hint(format!("write `{bare}: PLUGIN/{id}`")));
    };
    key::check("plugin", plugin)?;
    key::check("plugin's item", item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PluginSettings> {
        let mut out: PluginSettings = serde_json::from_value(crate::yaml::parse(text)?)
            .map_err(|e| Error::invalid("not valid").because(e))?;
        out.settle(Path::new("base")).map(|()| out)
    }

    #[test]
    fn all_that_can_be_set_is_read_and_paths_are_relative_to_the_file() {
        let text = "paths: [lib, /opt/x]\noverride: {euler: vendor/euler}\nisolation: {heun: process}\n";
        let s = read(text).unwrap();
        assert_eq!(s.paths, [PathBuf::from("base/lib"), PathBuf::from("/opt/x")]);
        assert_eq!(s.overrides["euler"], "vendor/euler");
        assert_eq!(s.isolation["heun"], Isolation::Process);
        assert_eq!(s.stall(), Duration::from_secs(30));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_place() {
        for (text, words) in [
            ("stall_seconds: 0", "stall_seconds"),
            ("stall_seconds: 86401", "stall_seconds"),
            ("override: {euler: heun}", "names no plugin"),
            ("override: {euler: a/b/c}", "plugins.override"),
            ("isolation: {Heun: process}", "plugins.isolation"),
            ("isolation: {heun: none}", "unknown variant"),
            ("paths: ['']", "empty path"),
            ("path: [a]", "unknown field"),
        ] {
            let chain = read(text).unwrap_err().chain().join(": ");
            assert!(chain.contains(words), "{text}: {chain}");
        }
    }
}
