//! Putting plugins into the user's own folder, and taking them out again.

use super::manifest::{FILE, Manifest};
use super::search::{self, Candidate, Origin};
use super::store;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result, key};
use std::path::{Path, PathBuf};

/// A text of the author's that is copied along.
const KEPT: [&str; 5] = ["license", "licence", "copying", "notice", "readme"];
const MAX_KEPT: u64 = 1 << 20;

/// What to call a plugin, and whether it may take another's place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Name for a library without a description.
    pub name: Option<&'a str>,
    /// Whether an installed one of this name is replaced.
    pub force: bool,
}

/// A plugin that is installed now.
#[derive(Debug)]
pub struct Installed {
    /// As it will be found.
    pub candidate: Candidate,
    /// Its folder.
    pub folder: PathBuf,
    /// The digest of its library.
    pub sha256: String,
    /// Whether it took another's place.
    pub replaced: bool,
}

/// Copies a plugin to `<data>/plugins/<name>/`: a folder with a `plugin.yaml`, or a library, for which a minimal
/// one is written. Of a folder the description, the library for this system and texts such as the licence are
/// taken.
///
/// # Errors
/// It is not a plugin for this system, others could have put it there, its digest is not the described one, or
/// the name is taken. What was installed before is untouched then.
pub fn install(source: &Path, data: &Path, cache: &Path, options: Options<'_>) -> Result<Installed> {
    let candidate = search::one(source, Origin::CommandLine)?;
    let name = choose_name(&candidate, options.name)?;
    let stored = store::take(&candidate.library, cache)?;
    store::verify(&stored.copy, &stored.sha256)?;
    if let Some(manifest) = &candidate.manifest {
        manifest.check_sha256(&candidate.library, &stored.sha256)?;
    }
    let plugins = search::folder_in(data);
    fsx::private_folder(&plugins)?;
    let target = plugins.join(&name);
    let replaced = check_target(&target, options.force)?;
    let temp = temporary(&plugins, ".installing-")?;
    let fresh = temp.path().join(&name);
    fsx::private_folder(&fresh)?;
    fill(&fresh, source, &candidate, &name, &stored)?;
    put(&fresh, &target, temp.path())?;
    fsx::sync_folder(&plugins);
    let folder = target.canonicalize().unwrap_or(target);
    let candidate = search::one(&folder, Origin::User)?;
    Ok(Installed { candidate, folder, sha256: stored.sha256, replaced })
}

fn choose_name(candidate: &Candidate, wanted: Option<&str>) -> Result<String> {
    match (wanted, &candidate.manifest) {
        (Some(wanted), Some(m)) if wanted != m.name => {
            Err(Error::invalid(format!("this plugin is named `{}`, not `{wanted}`, by its {FILE}", m.name))
                .hint("leave `--name` out; it is for libraries without a description"))
        }
        (Some(wanted), _) => key::check("plugin", wanted).map(|()| wanted.to_string()),
        (None, _) => Ok(candidate.name.clone()),
    }
}

/// Whether there is one to replace. Only what looks like a plugin is ever replaced or removed.
fn check_target(target: &Path, force: bool) -> Result<bool> {
    let Ok(meta) = std::fs::symlink_metadata(target) else { return Ok(false) };
    check_is_plugin(target, &meta)?;
    if force {
        return Ok(true);
    }
    Err(Error::invalid(format!("there is a plugin at {} already", target.display()))
        .hint("replace it with `--force`"))
}

fn check_is_plugin(folder: &Path, meta: &std::fs::Metadata) -> Result<()> {
    if meta.is_dir() && folder.join(FILE).exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, format!("{} is not the folder of a plugin", folder.display()))
        .hint("look at it, and move or remove it yourself"))
}

fn temporary(plugins: &Path, prefix: &str) -> Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(plugins);
    made.map_err(|e| fsx::cannot_write(plugins, e))
}

fn fill(
    fresh: &Path,
    source: &Path,
    candidate: &Candidate,
    name: &str,
    stored: &store::Stored,
) -> Result<()> {
    let (manifest, text) = description(source, candidate, name)?;
    let library = fresh.join(manifest.platform_library()?);
    if let Some(folder) = library.parent() {
        fsx::private_folder(folder)?;
    }
    // From the copy: it is what was looked at.
    let bytes = std::fs::read(&stored.copy)
        .map_err(|e| Error::io(format!("cannot read {}", stored.copy.display()), e))?;
    fsx::write_private(&library, &bytes)?;
    store::verify(&library, &stored.sha256)?;
    fsx::write_private(&fresh.join(FILE), text.as_bytes())?;
    match candidate.manifest {
        Some(_) => keep_texts(described_folder(source), fresh),
        None => Ok(()),
    }
}

/// The folder of a described plugin, whether it was named itself or by its library.
fn described_folder(source: &Path) -> &Path {
    if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) }
}

/// The description as its author wrote it, else a minimal one.
fn description(source: &Path, candidate: &Candidate, name: &str) -> Result<(Manifest, String)> {
    let Some(known) = &candidate.manifest else {
        let file = candidate.library.file_name().and_then(|n| n.to_str()).unwrap_or("plugin");
        let manifest = Manifest::minimal(name, file);
        let text = manifest.to_yaml()?;
        // It has to be found again: a file name may hold what a description may not.
        return Manifest::parse(&text).map(|m| (m, text));
    };
    let file = described_folder(source).join(FILE);
    let text = fsx::read_text("plugin description", &file)?;
    if Manifest::parse(&text)? == *known {
        return Ok((known.clone(), text));
    }
    Err(Error::new(ErrorKind::Environment, format!("{} was changed meanwhile", file.display()))
        .hint("install it again"))
}

/// Copies licence texts and the like: who passes a plugin on passes these on.
fn keep_texts(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot read {}", from.display()), e);
    let from = if from.as_os_str().is_empty() { Path::new(".") } else { from };
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let lower = name.to_string_lossy().to_lowercase();
        let target = to.join(&name);
        // Not through links: they may lead to files that are no part of the plugin.
        let is_text = entry.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_KEPT);
        if is_text && KEPT.iter().any(|k| lower.starts_with(k)) && !target.exists() {
            let bytes = std::fs::read(entry.path()).map_err(failed)?;
            fsx::write_private(&target, &bytes)?;
        }
    }
    Ok(())
}

/// Puts `fresh` in the place of `target`, which goes to the temporary folder and, if that fails, back.
fn put(fresh: &Path, target: &Path, temp: &Path) -> Result<()> {
    let failed = |e| fsx::cannot_write(target, e);
    let old = temp.join(".old");
    let had = match std::fs::rename(target, &old) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(failed(e)),
    };
    std::fs::rename(fresh, target).map_err(|e| {
        if had {
            let _ = std::fs::rename(&old, target);
        }
        failed(e)
    })
}

/// Takes an installed plugin out, and gives the folder where it was.
///
/// # Errors
/// It is not installed, or cannot be removed.
pub fn remove(name: &str, data: &Path) -> Result<PathBuf> {
    key::check("plugin", name)?;
    let plugins = search::folder_in(data);
    let folder = plugins.join(name);
    let meta = std::fs::symlink_metadata(&folder).map_err(|_| not_installed(name, &plugins))?;
    check_is_plugin(&folder, &meta)?;
    let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    // Out of sight at once, so that nobody finds half of it.
    let temp = temporary(&plugins, ".removing-")?;
    std::fs::rename(&folder, temp.path().join(name)).map_err(|e| fsx::cannot_write(&folder, e))?;
    temp.close().map_err(|e| fsx::cannot_write(&folder, e))?;
    Ok(real)
}

fn not_installed(name: &str, plugins: &Path) -> Error {
    let entries = std::fs::read_dir(plugins).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().join(FILE).exists())
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    let there = if names.is_empty() { "none".into() } else { names.join(", ") };
    Error::new(ErrorKind::NotFound, format!("no plugin `{name}` is installed in {}", plugins.display()))
        .hint(format!("installed: {there}"))
        .hint("only installed plugins are removed; others are files of your own")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::manifest::platform;
    use crate::plugins::store::tests_magic;
    use std::env::consts;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: &[u8]) -> PathBuf {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            path
        }

        fn library(&self, name: &str, rest: &str) -> PathBuf {
            self.write(name, &[tests_magic(), rest.as_bytes()].concat())
        }

        fn plugin(&self, folder: &str, more: &str) -> PathBuf {
            let text = format!(
                "# by hand\nschema_version: 1\nname: heun\nversion: 1.0.0\nlibrary: {{{}: bin/heun.x}}\n{more}",
                platform()
            );
            self.write(&format!("{folder}/plugin.yaml"), text.as_bytes());
            self.library(&format!("{folder}/bin/heun.x"), more);
            self.write(&format!("{folder}/LICENSE-MIT"), b"free");
            self.write(&format!("{folder}/secret.txt"), b"no");
            self.path(folder)
        }

        fn install(&self, source: &Path, options: Options<'_>) -> Result<Installed> {
            install(source, &self.path("data"), &self.path("cache"), options)
        }

        fn listing(&self) -> Vec<String> {
            let mut out: Vec<String> = walk(&self.path("data/plugins"));
            out.sort();
            out
        }
    }

    fn walk(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
        entries
            .flat_map(|e| {
                if e.path().is_dir() {
                    [vec![name(&e.path())], walk(&e.path())].concat()
                } else {
                    vec![name(&e.path())]
                }
            })
            .collect()
    }

    const FORCE: Options<'static> = Options { name: None, force: true };

    #[test]
    fn a_described_plugin_is_copied_with_its_licence_and_nothing_else() {
        let place = Place::new();
        let done = place.install(&place.plugin("src", ""), Options::default()).unwrap();
        assert_eq!(place.listing(), ["LICENSE-MIT", "bin", "heun", "heun.x", "plugin.yaml"]);
        assert_eq!(done.candidate.name, "heun");
        assert!(std::fs::read_to_string(done.folder.join(FILE)).unwrap().starts_with("# by hand"));
        let again = store::take(&done.candidate.library, &place.path("cache")).unwrap();
        assert_eq!(again.sha256, done.sha256);
    }

    #[test]
    fn a_library_gets_a_description_under_the_name_that_is_asked_for() {
        let place = Place::new();
        let file = format!("{}My_x.{}", consts::DLL_PREFIX, consts::DLL_EXTENSION);
        let library = place.library(&file, "");
        assert_eq!(place.install(&library, Options::default()).unwrap().candidate.name, "my-x");
        let named = Options { name: Some("other"), force: false };
        let manifest = place.install(&library, named).unwrap().candidate.manifest.unwrap();
        assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("other", "0.0.0"));
        let e = place.install(&library, Options { name: Some("../x"), force: true }).unwrap_err();
        assert!(e.message().contains("cannot be the key"), "{e}");
    }

    #[test]
    fn an_installed_plugin_is_replaced_only_by_force() {
        let place = Place::new();
        let first = place.install(&place.plugin("a", ""), FORCE).unwrap();
        assert!(!first.replaced);
        let newer = place.plugin("b", "license: MIT\n");
        assert!(place.install(&newer, Options::default()).unwrap_err().message().contains("already"));
        let second = place.install(&newer, FORCE).unwrap();
        assert!(second.replaced && second.sha256 != first.sha256);
        assert_eq!(place.listing(), ["LICENSE-MIT", "bin", "heun", "heun.x", "plugin.yaml"]);
    }

    #[test]
    fn an_install_that_fails_leaves_what_was_there_and_nothing_else() {
        let place = Place::new();
        let first = place.install(&place.plugin("a", ""), FORCE).unwrap();
        let before = place.listing();
        let wrong_digest = place.plugin("b", &format!("sha256: {}\n", "0".repeat(64)));
        let e = place.install(&wrong_digest, FORCE).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        let text = place.plugin("c", "");
        place.write("c/bin/heun.x", b"I am a text");
        assert!(place.install(&text, FORCE).is_err());
        let renamed = Options { name: Some("other"), force: true };
        assert!(place.install(&place.plugin("d", ""), renamed).is_err());
        assert_eq!(place.listing(), before);
        store::verify(&first.candidate.library, &first.sha256).unwrap();
    }

    #[test]
    fn what_is_not_a_plugin_is_neither_replaced_nor_removed() {
        let place = Place::new();
        place.write("data/plugins/heun/diary.txt", b"dear");
        assert!(place.install(&place.plugin("a", ""), FORCE).is_err());
        assert!(remove("heun", &place.path("data")).is_err());
        assert_eq!(place.listing(), ["diary.txt", "heun"]);
    }

    #[test]
    fn a_removed_plugin_is_gone_and_one_that_is_not_there_is_told_with_those_that_are() {
        let place = Place::new();
        place.install(&place.plugin("a", ""), FORCE).unwrap();
        let data = place.path("data");
        let e = remove("hune", &data).unwrap_err();
        assert!(e.hints()[0].contains("heun"), "{:?}", e.hints());
        assert!(remove("../plugins", &data).is_err());
        remove("heun", &data).unwrap();
        assert_eq!(place.listing(), [""; 0]);
    }
}
