//! Where things are: configs, models, outputs, logs.

use atelier_sdk::{Error, ErrorKind, Result};
use std::env;
use std::path::{Path, PathBuf};

/// The folders that presets and model descriptions are looked for in, first match wins.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Config folders: those named, those of the project or installation, the user's.
    pub configs: Vec<PathBuf>,
}

impl Paths {
    /// Finds the config folders.
    ///
    /// Order: `--configs` (or `$ATELIER_CONFIGS`), then `configs/` beside the working directory or above it,
    /// then `configs/` above the executable, then `../share/atelier/configs`, then the user's own folder.
    ///
    /// # Errors
    /// The named folder does not exist.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let mut configs = Vec::new();
        if let Some(dir) = named {
            if !dir.is_dir() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("there is no config folder {}", dir.display()),
                ));
            }
            configs.push(dir.to_path_buf());
        } else {
            configs.extend(env::current_dir().ok().and_then(|d| configs_above(&d)));
            if let Some(exe) = env::current_exe().ok().and_then(|e| e.canonicalize().ok()) {
                configs.extend(exe.parent().and_then(configs_above));
                configs.extend(exe.ancestors().nth(2).map(|p| p.join("share/atelier/configs")));
            }
        }
        configs.extend(user_config_dir());
        configs.retain(|p| p.is_dir());
        let mut seen = std::collections::BTreeSet::new();
        configs.retain(|p| seen.insert(p.canonicalize().unwrap_or_else(|_| p.clone())));
        Ok(Self { configs })
    }

    /// Files with ending `.yaml` below `<configs>/<sub>` of each config folder: (name without ending, path).
    /// A name found in two folders counts once: the first folder wins.
    pub fn yaml_files(&self, sub: &str) -> Vec<(String, PathBuf)> {
        let mut found = std::collections::BTreeMap::new();
        for root in &self.configs {
            let base = root.join(sub);
            for path in walk(&base, 3) {
                let Ok(relative) = path.strip_prefix(&base) else { continue };
                let name = relative.with_extension("");
                let parts: Option<Vec<&str>> = name.iter().map(|p| p.to_str()).collect();
                if let Some(parts) = parts {
                    found.entry(parts.join("/")).or_insert(path);
                }
            }
        }
        found.into_iter().collect()
    }

    /// The folder `<configs>/<sub>/<name>` of the first config folder that has it.
    pub fn folder(&self, sub: &str, name: &str) -> Option<PathBuf> {
        let plain = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let places = self.configs.iter().map(|root| root.join(sub).join(name));
        places.into_iter().find(|p| plain && !name.is_empty() && p.is_dir())
    }
}

fn configs_above(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|p| p.join("configs")).find(|p| p.join("presets").is_dir())
}

fn walk(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut out = Vec::new();
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() && depth > 0 {
            out.extend(walk(&path, depth - 1));
        } else if path.extension().is_some_and(|e| e == "yaml") && path.is_file() {
            out.push(path);
        }
    }
    out.sort();
    out
}

fn home() -> Option<PathBuf> {
    env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from)
}

fn absolute_env(name: &str) -> Option<PathBuf> {
    // The XDG base directory specification: relative paths are to be ignored.
    env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute())
}

/// The user's config folder.
pub fn user_config_dir() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return home().map(|h| h.join("Library/Application Support/atelier/configs"));
    }
    absolute_env("XDG_CONFIG_HOME").or_else(|| home().map(|h| h.join(".config"))).map(|p| p.join("atelier"))
}

/// The folder for logs.
pub fn state_dir() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return home().map(|h| h.join("Library/Logs/atelier"));
    }
    absolute_env("XDG_STATE_HOME")
        .or_else(|| home().map(|h| h.join(".local/state")))
        .map(|p| p.join("atelier"))
}

/// The folder for what the user adds: `plugins/` is in it.
pub fn user_data_dir() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return home().map(|h| h.join("Library/Application Support/atelier"));
    }
    absolute_env("XDG_DATA_HOME")
        .or_else(|| home().map(|h| h.join(".local/share")))
        .map(|p| p.join("atelier"))
}

/// The folder for what can be made again.
pub fn cache_dir() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return home().map(|h| h.join("Library/Caches/atelier"));
    }
    absolute_env("XDG_CACHE_HOME").or_else(|| home().map(|h| h.join(".cache"))).map(|p| p.join("atelier"))
}
