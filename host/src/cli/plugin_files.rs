//! `atelier plugins install`, `trust`, `untrust` and `remove`: which files there are, and which may run.

use super::args::{Cli, PluginInstall};
use super::say;
use crate::config::Config;
use crate::paths;
use crate::plugins::install::{self, Options};
use crate::plugins::search::{self, Candidate, Origin};
use crate::plugins::store::{self, Stored};
use crate::plugins::trust::{self, Entry, Trust};
use atelier_sdk::{Error, ErrorKind, Result};
use std::env::consts;
use std::path::{Path, PathBuf};

/// `atelier plugins install`.
pub fn install(args: &PluginInstall) -> Result<()> {
    let (data, cache) = (data_dir()?, cache_dir()?);
    let options = Options { name: args.name.as_deref(), force: args.force };
    let done = install::install(&args.path, &data, &cache, options)?;
    let candidate = &done.candidate;
    let word = if done.replaced { "replaced" } else { "installed" };
    say(format_args!("{word} {} in {}", title(candidate), done.folder.display()))?;
    if args.trust {
        return agree(candidate);
    }
    if Trust::load(&Trust::default_path()?)?.is_trusted(&done.sha256) {
        return say("it may run: this very library is trusted already");
    }
    say(format_args!("it does not run before you trust it: atelier plugins trust {}", candidate.name))
}

/// `atelier plugins trust`.
pub fn trust(which: &str, cli: &Cli, config: &Config) -> Result<()> {
    agree(&candidate(which, cli, config)?)
}

/// The plugin of a name, or of a path: with a separator in it, a dot before it, or a library's ending.
pub fn candidate(which: &str, cli: &Cli, config: &Config) -> Result<Candidate> {
    let path = Path::new(which);
    let is_library = path.extension().is_some_and(|e| e == consts::DLL_EXTENSION);
    if is_library || which.starts_with('.') || which.contains(['/', std::path::MAIN_SEPARATOR]) {
        return search::one(path, Origin::CommandLine);
    }
    search::find(&cli.plugin, config.plugins()).named(which).cloned()
}

/// Says what a plugin is, and adds it to the list. What is hashed here is what will be loaded.
fn agree(candidate: &Candidate) -> Result<()> {
    let list = Trust::default_path()?;
    let cache = cache_dir()?;
    let standing = trust::state(candidate, &Trust::load(&list)?, &[], &cache)?;
    let stored = store::take(&candidate.library, &cache)?;
    store::verify(&stored.copy, &stored.sha256)?;
    if stored.sha256 != standing.sha256 {
        return Err(
            Error::new(ErrorKind::Corrupt, "the library changes while it is looked at").hint("try again")
        );
    }
    tell(candidate, &stored)?;
    if standing.changed {
        say("changed   you trusted another content of this name or file before")?;
    }
    if standing.trusted.is_some() {
        return say("It is trusted already.");
    }
    let entry = Entry::new(&candidate.name, &stored, &candidate.library);
    Trust::update(&list, |t| {
        t.add(entry);
        Ok(())
    })?;
    say(
        "It is trusted: native code that runs with all rights you have. It can read, change and send whatever \
         you can.",
    )?;
    say(format_args!("To take that back: atelier plugins untrust {}", candidate.name))
}

fn tell(candidate: &Candidate, stored: &Stored) -> Result<()> {
    let license = candidate.manifest.as_ref().and_then(|m| m.license.as_deref());
    say(format_args!("plugin    {}", title(candidate)))?;
    say(format_args!("file      {}", candidate.library.display()))?;
    say(format_args!("sha256    {}", stored.sha256))?;
    say(format_args!("provides  {}", provides(candidate)))?;
    say(format_args!("licence   {}", license.unwrap_or("it does not say")))
}

fn provides(candidate: &Candidate) -> String {
    let items = candidate.manifest.iter().flat_map(|m| &m.provides);
    let items: Vec<String> = items.map(ToString::to_string).collect();
    if items.is_empty() { "it does not say".into() } else { items.join(", ") }
}

fn title(candidate: &Candidate) -> String {
    match &candidate.manifest {
        Some(m) => format!("{} {}", m.name, m.version),
        None => candidate.name.clone(),
    }
}

/// `atelier plugins untrust`.
pub fn untrust(which: &str) -> Result<()> {
    let removed = Trust::update(&Trust::default_path()?, |t| {
        let removed = t.remove(which);
        if removed.is_empty() { Err(not_trusted(which, t)) } else { Ok(removed) }
    })?;
    no_longer(&removed)
}

fn no_longer(removed: &[Entry]) -> Result<()> {
    removed
        .iter()
        .try_for_each(|e| say(format_args!("no longer trusted: {} {} {}", e.name, e.sha256, e.file)))
}

fn not_trusted(which: &str, trust: &Trust) -> Error {
    let names: Vec<&str> = trust.entries().iter().map(|e| e.name.as_str()).collect();
    let there = if names.is_empty() { "none".into() } else { names.join(", ") };
    Error::new(ErrorKind::NotFound, format!("no plugin `{which}` is trusted"))
        .hint(format!("trusted: {there}"))
        .hint(format!("a sha256 is named by at least its first {} digits", trust::MIN_PREFIX))
}

/// `atelier plugins remove`. What is gone is not trusted either, should it come back.
pub fn remove(name: &str) -> Result<()> {
    let folder = install::remove(name, &data_dir()?)?;
    say(format_args!("removed {name} from {}", folder.display()))?;
    let removed = Trust::update(&Trust::default_path()?, |t| Ok(t.remove_below(&folder)))?;
    no_longer(&removed)
}

fn data_dir() -> Result<PathBuf> {
    paths::user_data_dir().ok_or_else(|| no_place("plugins", "XDG_DATA_HOME"))
}

fn cache_dir() -> Result<PathBuf> {
    paths::cache_dir().ok_or_else(|| no_place("the cache", "XDG_CACHE_HOME"))
}

fn no_place(what: &str, variable: &str) -> Error {
    Error::new(ErrorKind::Environment, format!("there is no place for {what}"))
        .hint(format!("set HOME or {variable}"))
}
