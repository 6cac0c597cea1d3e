//! `atelier.yaml`: settings of this machine.

use crate::paths::{self, Paths};
use crate::plugins::settings::PluginSettings;
use crate::{fsx, yaml};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;

/// The settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always 1.
    #[allow(dead_code)] // checked before the rest is read
    schema_version: u64,
    /// Tasks switched on or off without a rebuild.
    #[serde(default)]
    features: BTreeMap<String, bool>,
    /// Plugins that are not linked in.
    #[serde(default)]
    plugins: PluginSettings,
    /// Folders with LoRAs, beside those of the config folders; relative ones start at the file's folder.
    #[serde(default)]
    lora_dirs: Vec<PathBuf>,
    /// Whether what the file says about plugins was passed over.
    #[serde(skip)]
    passed_over: bool,
    #[serde(skip)]
    file: Option<PathBuf>,
}

impl Config {
    /// Reads the first of: the file named, `./atelier.yaml`, `atelier.yaml` in or beside a config folder.
    /// None of them existing is fine.
    ///
    /// # Errors
    /// A file that is named and missing, not YAML, or has unknown fields or a newer version.
    pub fn load(named: Option<&Path>, paths: &Paths) -> Result<Self> {
        let file = match named {
            Some(file) => file.to_path_buf(),
            None => match Self::candidates(paths).into_iter().find(|p| p.is_file()) {
                Some(file) => file,
                None => return Ok(Self::default()),
            },
        };
        let mut config = Self::read(&file).map_err(|e| e.context(format!("in {}", file.display())))?;
        // Whoever can put a file into the working directory must not choose how plugins run.
        let own = paths::user_config_dir().is_some_and(|dir| file.starts_with(dir));
        if named.is_none() && !own && config.plugins != PluginSettings::default() {
            config.plugins = PluginSettings::default();
            config.passed_over = true;
        }
        config.file = Some(file);
        Ok(config)
    }

    fn candidates(paths: &Paths) -> Vec<PathBuf> {
        let mut out = vec![PathBuf::from("atelier.yaml")];
        for dir in &paths.configs {
            out.push(dir.join("atelier.yaml"));
            out.extend(dir.parent().map(|p| p.join("atelier.yaml")));
        }
        out
    }

    fn read(file: &Path) -> Result<Self> {
        let value = yaml::parse(&fsx::read_text("settings", file)?)?;
        check_version("settings", &value, SCHEMA_VERSION)?;
        let mut config: Self =
            serde_json::from_value(value).kind(ErrorKind::InvalidRequest, || "not valid settings".into())?;
        let folder = file.parent().unwrap_or(Path::new(""));
        config.plugins.settle(folder)?;
        config.lora_dirs.iter_mut().for_each(|dir| *dir = folder.join(&*dir));
        Ok(config)
    }

    /// Refuses a task that is switched off.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], naming the file.
    pub fn check_task(&self, task: &str) -> Result<()> {
        if self.features.get(task).copied().unwrap_or(true) {
            return Ok(());
        }
        let file = self.file.as_deref().unwrap_or(Path::new("atelier.yaml"));
        Err(Error::new(ErrorKind::Unsupported, format!("task `{task}` is switched off"))
            .hint(format!("set `features: {{{task}: true}}` in {}", file.display())))
    }

    /// Checks the names of the switches against the tasks that exist.
    ///
    /// # Errors
    /// A switch for something unheard of.
    pub fn check_names<'a>(&self, tasks: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
        for name in self.features.keys() {
            if !tasks.clone().any(|t| t == name) {
                let file = self.file.as_deref().unwrap_or(Path::new("atelier.yaml"));
                let all: Vec<_> = tasks.collect();
                return Err(Error::invalid(format!("{}: there is no feature `{name}`", file.display()))
                    .hint(format!("features are: {}", all.join(", "))));
            }
        }
        Ok(())
    }

    /// The switches as given.
    pub fn features(&self) -> &BTreeMap<String, bool> {
        &self.features
    }

    /// Folders with LoRAs.
    pub fn lora_dirs(&self) -> &[PathBuf] {
        &self.lora_dirs
    }

    /// What is said about plugins that are not linked in.
    pub fn plugins(&self) -> &PluginSettings {
        &self.plugins
    }

    /// What a person should know about the settings.
    pub fn warning(&self) -> Option<String> {
        let file = self.file.as_deref().filter(|_| self.passed_over)?.display();
        Some(format!(
            "`plugins:` in {file} is not read there: name the file by --config, or put it in your config folder"
        ))
    }

    /// The file they come from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// Reads `schema_version` before anything else of a document is looked at, so that a newer document gets
/// a message about its version instead of one about a field this version has not heard of.
///
/// # Errors
/// No version, not a whole number, or not one of 1 ..= `newest`.
pub fn check_version(what: &str, document: &serde_json::Value, newest: u64) -> Result<()> {
    let Some(map) = document.as_object() else {
        return Err(Error::invalid(format!("a {what} document is a mapping of fields"))
            .hint("the first line is usually `schema_version: 1`"));
    };
    let version = map.get("schema_version").ok_or_else(|| {
        Error::invalid("`schema_version` is missing").hint(format!("add `schema_version: {newest}`"))
    })?;
    match version.as_u64() {
        Some(v) if (1..=newest).contains(&v) => Ok(()),
        Some(v) if v > newest => Err(Error::new(
            ErrorKind::Unsupported,
            format!("`schema_version` is {v}, and this atelier reads up to {newest}"),
        )
        .hint("use a newer atelier")),
        _ => Err(Error::invalid(format!("`schema_version` is {version}"))
            .hint(format!("give a whole number from 1 to {newest}, without quotes"))),
    }
}
