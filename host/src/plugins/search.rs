//! Where libraries are looked for, and which of those found may be considered at all.
//!
//! In this order: `--plugin`, `$ATELIER_PLUGIN_PATH`, `plugins.paths` of the settings, the user's own folder,
//! `plugins` beside the program's folder. Never the working directory by itself: whoever can put a file there
//! would choose what runs.

use super::manifest::{FILE, Manifest};
use super::safety;
use super::settings::PluginSettings;
use crate::paths;
use atelier_sdk::{Error, ErrorKind, Result, key};
use std::collections::BTreeSet;
use std::env::{self, consts};
use std::fmt;
use std::path::{Path, PathBuf};

/// Files, folders with a `plugin.yaml`, or folders of both; as `PATH` is written.
pub const PATH_VARIABLE: &str = "ATELIER_PLUGIN_PATH";

/// How a plugin came to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Named on the command line.
    CommandLine,
    /// In [`PATH_VARIABLE`].
    Environment,
    /// In `plugins.paths` of the settings.
    Settings,
    /// In the user's own folder.
    User,
    /// Beside the program.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "the command line",
            Self::Environment => PATH_VARIABLE,
            Self::Settings => "the settings",
            Self::User => "the user's folder",
            Self::Program => "the program's folder",
        })
    }
}

/// A library that may be considered: nobody else could have put it there. Whether it may run is for
/// [`super::trust`] to say.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The name by its description, else made from the file's.
    pub name: String,
    /// The library, with links resolved.
    pub library: PathBuf,
    /// Its description, if it has one.
    pub manifest: Option<Manifest>,
    /// How it came to be found.
    pub origin: Origin,
}

/// Something that was found or named and is not considered.
#[derive(Debug)]
pub struct Refused {
    /// What it is, as it was found.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the search. A name may occur more than once, a file does not.
    pub candidates: Vec<Candidate>,
    /// What is not considered, and why.
    pub refused: Vec<Refused>,
}

impl Found {
    /// The candidate of a name.
    ///
    /// # Errors
    /// There is none (if something of that name was refused, its error), or there are several.
    pub fn named(&self, name: &str) -> Result<&Candidate> {
        let all: Vec<&Candidate> = self.candidates.iter().filter(|c| c.name == name).collect();
        match all.as_slice() {
            [one] => Ok(one),
            [] => Err(self.unknown(name)),
            several => {
                let files: Vec<_> = several.iter().map(|c| c.library.display().to_string()).collect();
                Err(Error::invalid(format!("there are several plugins named `{name}`"))
                    .hint(format!("name the file: {}", files.join(", "))))
            }
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let err = Error::new(ErrorKind::NotFound, format!("there is no plugin `{name}`"));
        if let Some(refused) = self.refused.iter().find(|r| name_of(&r.path) == name) {
            let chain = refused.error.chain().join(": ");
            let err = err.of_kind(refused.error.kind()).because(chain);
            return refused.error.hints().iter().fold(err, |e, hint| e.hint(hint));
        }
        let names: BTreeSet<&str> = self.candidates.iter().map(|c| c.name.as_str()).collect();
        let err = match atelier_sdk::registry::nearest(name, names.iter().copied()) {
            Some(near) => err.hint(format!("did you mean `{near}`?")),
            None => err,
        };
        let names: Vec<&str> = names.into_iter().collect();
        let there = if names.is_empty() { "none".into() } else { names.join(", ") };
        err.hint(format!("plugins found: {there}")).hint("for a file, give its path: ./FILE")
    }
}

/// Looks everywhere.
///
/// Places of the settings and of the installation that do not exist are passed over; those named on the command
/// line or in [`PATH_VARIABLE`] are refused.
pub fn find(explicit: &[PathBuf], settings: &PluginSettings) -> Found {
    let mut search = Search::default();
    for path in explicit {
        search.take(path, one(path, Origin::CommandLine));
    }
    let variable = env::var_os(PATH_VARIABLE).unwrap_or_default();
    // An empty part means the working directory to a shell. Here it means nothing.
    for path in env::split_paths(&variable).filter(|p| !p.as_os_str().is_empty()) {
        search.place(&path, Origin::Environment);
    }
    for path in &settings.paths {
        search.place(path, Origin::Settings);
    }
    if let Some(data) = paths::user_data_dir() {
        search.place(&folder_in(&data), Origin::User);
    }
    if let Some(folder) = beside_program() {
        search.place(&folder, Origin::Program);
    }
    search.found
}

/// The folder of installed plugins in a data folder.
pub fn folder_in(data: &Path) -> PathBuf {
    data.join("plugins")
}

fn beside_program() -> Option<PathBuf> {
    let exe = env::current_exe().ok()?.canonicalize().ok()?;
    Some(exe.parent()?.parent()?.join("plugins"))
}

/// A plugin that is named by a path: a library, or a folder with a `plugin.yaml`.
///
/// # Errors
/// Missing, not a plugin, or others could have put it there.
pub fn one(path: &Path, origin: Origin) -> Result<Candidate> {
    if path.is_dir() { described(path, origin) } else { library(path, origin) }
}

/// The plugin of a folder with a `plugin.yaml`.
fn described(folder: &Path, origin: Origin) -> Result<Candidate> {
    let file = folder.join(FILE);
    if !file.exists() {
        let what = format!("{} is a folder without a {FILE}", folder.display());
        return Err(Error::new(ErrorKind::NotFound, what)
            .hint(format!("name the library itself, or write a {FILE} beside it")));
    }
    safety::file(&file)?;
    let manifest = Manifest::read(&file)?;
    let library = safety::file(&folder.join(manifest.platform_library()?))?;
    Ok(Candidate { name: manifest.name.clone(), library, manifest: Some(manifest), origin })
}

/// The plugin that is a file; with its description, if one that means it lies beside it.
fn library(path: &Path, origin: Origin) -> Result<Candidate> {
    let real = safety::file(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    if folder.join(FILE).exists()
        && let described = described(folder, origin)?
        && described.library == real
    {
        return Ok(described);
    }
    Ok(Candidate { name: name_of(path), library: real, manifest: None, origin })
}

/// A name made from that of a file: `libMy_sampler.so` gives `my-sampler`.
pub fn name_of(file: &Path) -> String {
    let stem = file.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let stem = stem.strip_prefix(consts::DLL_PREFIX).unwrap_or(&stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name = stem.chars().map(plain).skip_while(|c| !c.is_ascii_lowercase());
    let name: String = name.take(key::MAX_KEY_LEN).collect();
    if name.is_empty() { "plugin".into() } else { name }
}

#[derive(Default)]
struct Search {
    found: Found,
    seen: BTreeSet<PathBuf>,
}

impl Search {
    fn take(&mut self, path: &Path, result: Result<Candidate>) {
        match result {
            Ok(candidate) => {
                if self.seen.insert(candidate.library.clone()) {
                    self.found.candidates.push(candidate);
                }
            }
            Err(error) => {
                if !self.found.refused.iter().any(|r| r.path == path) {
                    self.found.refused.push(Refused { path: path.to_path_buf(), error });
                }
            }
        }
    }

    /// A file, the folder of one plugin, or a folder of plugins.
    fn place(&mut self, path: &Path, origin: Origin) {
        if !path.exists() && origin != Origin::Environment {
            tracing::debug!(path = %path.display(), %origin, "no such plugin folder");
            return;
        }
        if !path.is_dir() || path.join(FILE).exists() {
            return self.take(path, one(path, origin));
        }
        match entries(path) {
            Ok(entries) => entries.into_iter().for_each(|path| self.take(&path, one(&path, origin))),
            Err(error) => self.take(path, Err(error)),
        }
    }
}

/// What may be a plugin in a folder: first the folders with a description, then loose libraries, each by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    safety::folder(folder)?;
    let failed = |e| Error::io(format!("cannot list {}", folder.display()), e);
    let mut folders = Vec::new();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Hidden: what is being installed or removed at this moment.
        if path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            folders.extend(path.join(FILE).exists().then_some(path));
        } else if path.extension().is_some_and(|e| e == consts::DLL_EXTENSION) {
            files.push(path);
        }
    }
    folders.sort();
    files.sort();
    folders.append(&mut files);
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::manifest::platform;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        }

        fn plugin(&self, folder: &str, name: &str) {
            let text = format!(
                "schema_version: 1\nname: {name}\nversion: 1.0.0\nlibrary: {{{}: lib.bin}}\n",
                platform()
            );
            self.write(&format!("{folder}/{FILE}"), &text);
            self.write(&format!("{folder}/lib.bin"), name);
        }

        fn loose(&self, stem: &str) -> PathBuf {
            self.write(&format!("{stem}.{}", consts::DLL_EXTENSION), stem)
        }

        fn look(&self, paths: &[&str], origin: Origin) -> Found {
            let mut search = Search::default();
            paths.iter().for_each(|p| search.place(&self.path(p), origin));
            search.found
        }
    }

    fn names(found: &Found) -> Vec<&str> {
        found.candidates.iter().map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn names_are_made_from_file_names() {
        let named = |stem: &str| name_of(Path::new(&format!("{}{stem}.so", consts::DLL_PREFIX)));
        for (stem, name) in [
            ("My_Sampler", "my-sampler"),
            ("2m-x", "m-x"),
            ("", "plugin"),
            ("a é.1", "a--.1"),
            ("_", "plugin"),
        ] {
            assert_eq!(named(stem), name);
            assert!(key::is_valid(&named(stem)), "{stem}");
        }
        assert!(key::is_valid(&named(&"a".repeat(99))));
    }

    #[test]
    fn a_folder_gives_its_described_plugins_then_its_loose_libraries_by_name() {
        let place = Place::new();
        place.plugin("p/z", "zeta");
        place.plugin("p/.hidden", "hidden");
        place.write("p/without/readme.md", "");
        place.write("p/readme.md", "");
        place.loose("p/b");
        place.loose("p/a");
        place.loose("p/.c");
        let found = place.look(&["p"], Origin::User);
        assert_eq!(names(&found), ["zeta", "a", "b"]);
        assert!(found.refused.is_empty(), "{:?}", found.refused);
        assert!(found.candidates[0].manifest.is_some() && found.candidates[1].manifest.is_none());
    }

    #[test]
    fn the_same_file_counts_once_whatever_leads_to_it() {
        let place = Place::new();
        place.plugin("p/x", "x");
        #[cfg(unix)]
        std::os::unix::fs::symlink(
            place.path("p/x/lib.bin"),
            place.path(&format!("p/x.{}", consts::DLL_EXTENSION)),
        )
        .unwrap();
        let found = place.look(&["p/x", "p", "p/../p", "p/x/lib.bin"], Origin::User);
        assert_eq!(names(&found), ["x"]);
    }

    #[test]
    fn a_library_is_described_by_the_file_beside_it_only_if_that_means_it() {
        let place = Place::new();
        place.plugin("p", "zeta");
        let other = place.loose("p/other");
        assert_eq!(one(&place.path("p/lib.bin"), Origin::CommandLine).unwrap().name, "zeta");
        let other = one(&other, Origin::CommandLine).unwrap();
        assert_eq!((other.name.as_str(), other.manifest), ("other", None));
    }

    #[test]
    fn what_is_named_and_missing_is_refused_and_what_is_merely_expected_is_not() {
        let place = Place::new();
        let none = place.path("none");
        let mut search = Search::default();
        search.take(&none, one(&none, Origin::CommandLine));
        assert_eq!(search.found.refused[0].error.kind(), ErrorKind::NotFound);
        assert_eq!(place.look(&["none"], Origin::Environment).refused.len(), 1);
        for origin in [Origin::Settings, Origin::User, Origin::Program] {
            assert!(place.look(&["none"], origin).refused.is_empty());
        }
        std::fs::create_dir(&none).unwrap();
        let e = one(&none, Origin::CommandLine).unwrap_err();
        assert!(e.message().contains("without a plugin.yaml"), "{e}");
    }

    #[test]
    fn a_bad_description_refuses_its_plugin_and_no_other() {
        let place = Place::new();
        place.plugin("p/a", "a");
        place.plugin("p/b", "b");
        place.write("p/a/plugin.yaml", "schema_version: 1\nname: a\ncolor: red\n");
        let found = place.look(&["p"], Origin::User);
        assert_eq!(names(&found), ["b"]);
        assert_eq!(found.refused[0].path, place.path("p/a"));
        let e = found.named("a").unwrap_err();
        assert!(e.chain().join(" ").contains("unknown field `color`"), "{:?}", e.chain());
    }

    #[cfg(unix)]
    #[test]
    fn what_everyone_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        let open = |name: &str| {
            std::fs::set_permissions(place.path(name), PermissionsExt::from_mode(0o777)).unwrap();
        };
        place.plugin("p/a", "a");
        place.plugin("p/b", "b");
        place.loose("p/c");
        place.loose("q/d");
        open("p/a/plugin.yaml");
        open("p/b");
        open(&format!("p/c.{}", consts::DLL_EXTENSION));
        open("q");
        let found = place.look(&["p", "q"], Origin::User);
        assert_eq!(names(&found), [""; 0]);
        assert_eq!(found.refused.len(), 4);
        // A folder is refused as a whole, not once for each file.
        assert_eq!(found.refused[3].path, place.path("q"));
    }

    #[test]
    fn a_name_that_two_plugins_have_is_told_with_both_files() {
        let place = Place::new();
        place.plugin("p/a", "x");
        place.plugin("p/b", "x");
        let e = place.look(&["p"], Origin::User).named("x").unwrap_err();
        assert_eq!(e.hints()[0].matches("lib.bin").count(), 2, "{:?}", e.hints());
        let e = place.look(&["p"], Origin::User).named("y").unwrap_err();
        assert!(e.hints().iter().any(|h| h == "plugins found: x"), "{:?}", e.hints());
    }
}
