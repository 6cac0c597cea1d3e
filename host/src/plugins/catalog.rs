//! The libraries that were found: those that are in use, and why others are not.

use super::manifest::Isolation;
use super::open;
use super::plugin::Plugin;
use super::probe::Probes;
use super::search::{self, Candidate};
use super::settings::PluginSettings;
use super::store;
use super::trust::{self, Standing, Trust};
use crate::paths;
use atelier_sdk::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a library is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody said that it may run.
    Untrusted,
    /// It may not even be looked at, or what it brings cannot be added.
    Refused,
    /// It cannot be loaded.
    Failed,
    /// The same library is in use under another name.
    Duplicate,
}

/// A library, or a part of one, that is not in use.
#[derive(Debug)]
pub struct Problem {
    /// Its name.
    pub plugin: String,
    /// Where it was found.
    pub file: PathBuf,
    /// What sort of problem it is.
    pub state: State,
    /// What it says that it brings: kind and key.
    pub provides: Vec<(String, String)>,
    /// Whether it was named on the command line.
    pub named: bool,
    /// What is wrong.
    pub error: Error,
}

/// The libraries.
#[derive(Debug, Default)]
pub struct Catalog {
    /// In use.
    pub plugins: Vec<Arc<Plugin>>,
    /// Not in use.
    pub problems: Vec<Problem>,
}

/// What is looked at, and what is trusted, by one command.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `--plugin`.
    pub plugins: &'a [PathBuf],
    /// `--trust-plugins-in`.
    pub trusted_folders: &'a [PathBuf],
    /// The settings.
    pub settings: &'a PluginSettings,
}

impl Catalog {
    /// Looks for libraries and finds out what the trusted ones bring, in processes of their own.
    ///
    /// # Errors
    /// A folder to trust that does not exist. A library is never the cause: it becomes a problem to be listed.
    pub fn find(wanted: Wanted<'_>) -> Result<Self> {
        let folders = trust::folders(wanted.trusted_folders)?;
        let found = search::find(wanted.plugins, wanted.settings);
        let mut catalog = Self::default();
        for refused in found.refused {
            let plugin = search::name_of(&refused.path);
            let problem = Problem {
                plugin,
                named: wanted.plugins.contains(&refused.path),
                file: refused.path,
                state: State::Refused,
                provides: Vec::new(),
                error: refused.error,
            };
            catalog.problems.push(problem);
        }
        // Nothing else costs time, or can go wrong, where there are no plugins.
        if found.candidates.is_empty() {
            return Ok(catalog);
        }
        match Look::new(&folders) {
            Ok(mut look) => {
                for candidate in found.candidates {
                    catalog.consider(&candidate, &mut look, wanted.settings);
                }
                look.probes.save();
            }
            Err(e) => {
                let text = e.chain().join(": ");
                for candidate in &found.candidates {
                    let error = Error::new(e.kind(), text.clone());
                    catalog.problems.push(problem(candidate, State::Failed, error));
                }
            }
        }
        Ok(catalog)
    }

    fn consider(&mut self, candidate: &Candidate, look: &mut Look<'_>, settings: &PluginSettings) {
        match self.admit(candidate, look, settings) {
            Ok(plugin) => self.plugins.push(Arc::new(plugin)),
            Err((state, error)) => self.problems.push(problem(candidate, state, error)),
        }
    }

    fn admit(
        &self,
        candidate: &Candidate,
        look: &mut Look<'_>,
        settings: &PluginSettings,
    ) -> Result<Plugin, (State, Error)> {
        let standing = look.standing(candidate).map_err(|e| (State::Failed, e))?;
        let sha256 = &standing.sha256;
        if let Some(same) = self.plugins.iter().find(|p| p.sha256 == *sha256) {
            let message = format!("the same library as {}", same.file.display());
            return Err((State::Duplicate, Error::invalid(message).hint("remove one of them")));
        }
        if standing.trusted.is_none() {
            return Err((State::Untrusted, untrusted(candidate, standing.changed)));
        }
        if let Some(other) = self.plugins.iter().find(|p| p.name == candidate.name) {
            let message = format!("another plugin is named `{}`: {}", candidate.name, other.file.display());
            return Err((State::Refused, Error::invalid(message).hint("remove or rename one of them")));
        }
        look.plugin(candidate, &standing, false, settings).map_err(|e| (State::Failed, e))
    }
}

/// What is needed to look at libraries.
struct Look<'a> {
    cache: PathBuf,
    trust: Trust,
    folders: &'a [PathBuf],
    probes: Probes,
}

impl<'a> Look<'a> {
    fn new(folders: &'a [PathBuf]) -> Result<Self> {
        let cache = cache()?;
        Ok(Self {
            trust: Trust::load(&Trust::default_path()?)?,
            folders,
            probes: Probes::load(&cache),
            cache,
        })
    }

    /// Takes a trusted library into use. What is taken has the digest that is trusted, whatever the file is by now.
    fn plugin(
        &mut self,
        candidate: &Candidate,
        standing: &Standing,
        anew: bool,
        settings: &PluginSettings,
    ) -> Result<Plugin> {
        let stored = store::take(&candidate.library, &self.cache)?;
        if stored.sha256 != standing.sha256 {
            return Err(untrusted(candidate, true));
        }
        let probes = &mut self.probes;
        let stall = settings.stall();
        let hello = if anew { probes.probe(&stored, stall) } else { probes.get(&stored, stall) };
        let hello = hello.map_err(|e| unusable(candidate, e))?;
        let chosen = settings.isolation.get(&candidate.name).copied().unwrap_or(Isolation::Process);
        let isolation = candidate.manifest.as_ref().map_or(chosen, |m| m.isolation(chosen));
        if isolation == Isolation::Thread {
            open::check_unwinds(&hello.build_info)?;
        }
        Ok(Plugin {
            name: candidate.name.clone(),
            version: candidate.manifest.as_ref().map(|m| m.version.to_string()),
            file: candidate.library.clone(),
            copy: stored.copy.clone(),
            sha256: stored.sha256.clone(),
            isolation,
            stall,
            build_info: hello.build_info,
            description: hello.description,
        })
    }

    fn standing(&self, candidate: &Candidate) -> Result<Standing> {
        trust::state(candidate, &self.trust, self.folders, &self.cache)
    }
}

/// The cache folder.
///
/// # Errors
/// There is none.
pub fn cache() -> Result<PathBuf> {
    paths::cache_dir().ok_or_else(|| {
        Error::new(ErrorKind::Environment, "there is no place for the cache")
            .hint("set HOME or XDG_CACHE_HOME")
    })
}

/// One candidate, looked at anew.
///
/// # Errors
/// It is not trusted, or cannot be loaded.
pub fn one(
    candidate: &Candidate,
    trusted_folders: &[PathBuf],
    settings: &PluginSettings,
) -> Result<Arc<Plugin>> {
    let folders = trust::folders(trusted_folders)?;
    let mut look = Look::new(&folders)?;
    let standing = look.standing(candidate)?;
    if standing.trusted.is_none() {
        return Err(untrusted(candidate, standing.changed));
    }
    let plugin = look.plugin(candidate, &standing, true, settings);
    look.probes.save();
    plugin.map(Arc::new)
}

fn untrusted(candidate: &Candidate, changed: bool) -> Error {
    let name = &candidate.name;
    let message = match changed {
        false => format!("plugin `{name}` is not trusted"),
        true => format!("plugin `{name}` has changed since it was trusted"),
    };
    Error::new(ErrorKind::Unsupported, message).hint(format!(
        "it is native code with all your rights; if you trust it: {}",
        trust_command(candidate)
    ))
}

fn trust_command(candidate: &Candidate) -> String {
    // A file that was only named on the command line is not found by its name.
    match candidate.origin {
        search::Origin::CommandLine => format!("atelier plugins trust {}", candidate.library.display()),
        _ => format!("atelier plugins trust {}", candidate.name),
    }
}

fn unusable(candidate: &Candidate, e: Error) -> Error {
    let e = match e.hints().is_empty() {
        true => e.hint("it is damaged, or at fault: get it again, or tell its author"),
        false => e,
    };
    e.hint(format!("`atelier plugins check {}` tries again", candidate.name))
        .context(format!("plugin library {} cannot be used", candidate.library.display()))
}

fn problem(candidate: &Candidate, state: State, error: Error) -> Problem {
    let says = candidate.manifest.iter().flat_map(|m| &m.provides);
    Problem {
        plugin: candidate.name.clone(),
        file: candidate.library.clone(),
        state,
        provides: says.map(|p| (p.kind.to_string(), p.key.clone())).collect(),
        named: candidate.origin == search::Origin::CommandLine,
        error,
    }
}
