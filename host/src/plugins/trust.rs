//! Which libraries may run.
//!
//! A plugin is native code with all rights of the user. So nothing that was found is loaded until the user says
//! so, and what the user agrees to is content, not a name or a place: a file that changes is untrusted again.

use super::manifest::is_sha256;
use super::safety;
use super::search::Candidate;
use super::store::{self, Stored};
use crate::config::check_version;
use crate::{fsx, paths, yaml};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;
/// Its name in the user's config folder.
pub const FILE: &str = "trusted-plugins.yaml";
/// Folders whose libraries count as trusted, as `PATH` is written.
pub const FOLDERS_VARIABLE: &str = "ATELIER_TRUST_PLUGINS_IN";
/// Shortest beginning of a digest that stands for it.
pub const MIN_PREFIX: usize = 8;

/// A library that may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The plugin's name at that time.
    pub name: String,
    /// The digest of the library.
    pub sha256: String,
    /// Where it was; for people, and to tell that it has changed.
    pub file: String,
    /// When the user agreed.
    pub added: String,
}

impl Entry {
    /// An entry of this moment.
    pub fn new(name: &str, stored: &Stored, file: &Path) -> Self {
        let now = jiff::Timestamp::now();
        let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self {
            name: name.into(),
            sha256: stored.sha256.clone(),
            file: file.display().to_string(),
            added: now.to_string(),
        }
    }
}

/// The libraries that may run.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    schema_version: u64,
    trusted: Vec<Entry>,
}

impl Trust {
    /// Where the list is kept.
    ///
    /// # Errors
    /// The user has no config folder.
    pub fn default_path() -> Result<PathBuf> {
        paths::user_config_dir().map(|d| d.join(FILE)).ok_or_else(|| {
            Error::new(ErrorKind::Environment, format!("there is no place for {FILE}"))
                .hint("set HOME or XDG_CONFIG_HOME")
        })
    }

    /// Reads the list; there is none before the first plugin is trusted.
    ///
    /// # Errors
    /// Unreadable, not a list, or others could have written it.
    pub fn load(path: &Path) -> Result<Self> {
        if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok(Self::default());
        }
        let read = || -> Result<Self> {
            let real = safety::file(path)?;
            let value = yaml::parse(&fsx::read_text("list of trusted plugins", &real)?)?;
            check_version("list of trusted plugins", &value, SCHEMA_VERSION)?;
            let mut trust: Self = serde_json::from_value(value)
                .kind(ErrorKind::InvalidRequest, || "not a list of trusted plugins".into())?;
            trust.trusted.iter_mut().try_for_each(settle)?;
            Ok(trust)
        };
        read().map_err(|e| e.context(format!("in {}", path.display())))
    }

    /// Changes the list: reads it, lets `change` change it, and writes it if that succeeds. Meanwhile nobody
    /// else can, so that two at once lose nothing.
    ///
    /// # Errors
    /// As for [`Trust::load`], those of `change`, or the list cannot be written.
    pub fn update<R>(path: &Path, change: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fsx::private_folder(folder)?;
        let lock = path.with_extension("yaml.lock");
        let guard = lock_file(&lock).map_err(|e| fsx::cannot_write(&lock, e))?;
        guard.lock().map_err(|e| {
            Error::io(format!("cannot lock {}", lock.display()), e)
                .hint("is it on a network file system without locks?")
        })?;
        let mut trust = Self::load(path)?;
        let out = change(&mut trust)?;
        trust.save(path)?;
        Ok(out)
    }

    /// Writes the list for the user alone. [`Trust::update`] is what others should call.
    fn save(&mut self, path: &Path) -> Result<()> {
        self.schema_version = SCHEMA_VERSION;
        let list = serde_yaml::to_string(self).internal("a list of trusted plugins that is not YAML")?;
        let text =
            format!("# Plugins that may run. `atelier plugins trust` and `untrust` write this.\n{list}");
        // Whoever keeps settings elsewhere and links to them keeps the link.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        fsx::write_private(&real, text.as_bytes())
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.trusted
    }

    /// Whether a library with this digest may run.
    pub fn is_trusted(&self, sha256: &str) -> bool {
        self.entry(sha256).is_some()
    }

    /// The entry of a digest.
    pub fn entry(&self, sha256: &str) -> Option<&Entry> {
        self.trusted.iter().find(|e| e.sha256 == sha256)
    }

    /// Adds an entry. It takes the place of those with the same digest or for the same file: what that file was
    /// before is not what the user wants any more.
    pub fn add(&mut self, entry: Entry) {
        self.trusted.retain(|e| e.sha256 != entry.sha256 && e.file != entry.file);
        self.trusted.push(entry);
    }

    /// Removes the entries of a name; if there is none, those whose digest begins so (with at least
    /// [`MIN_PREFIX`] digits).
    pub fn remove(&mut self, name_or_sha256: &str) -> Vec<Entry> {
        let by_name = self.take_if(|e| e.name == name_or_sha256);
        if !by_name.is_empty() || name_or_sha256.len() < MIN_PREFIX {
            return by_name;
        }
        let prefix = name_or_sha256.to_ascii_lowercase();
        self.take_if(|e| e.sha256.starts_with(&prefix))
    }

    /// Removes the entries for files below a folder.
    pub fn remove_below(&mut self, folder: &Path) -> Vec<Entry> {
        self.take_if(|e| Path::new(&e.file).starts_with(folder))
    }

    fn take_if(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let (out, rest) = std::mem::take(&mut self.trusted).into_iter().partition(|e| wanted(e));
        self.trusted = rest;
        out
    }
}

fn settle(entry: &mut Entry) -> Result<()> {
    entry.sha256.make_ascii_lowercase();
    if is_sha256(&entry.sha256) {
        return Ok(());
    }
    Err(Error::invalid(format!("the entry for `{}` has no whole sha256", entry.name))
        .hint("remove the entry and trust the plugin again"))
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Why a library may run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The user agreed to this content, then named so.
    ByHash {
        /// The plugin's name at that time.
        name: String,
    },
    /// It lies below a folder that this command trusts.
    Folder(PathBuf),
}

/// How a candidate stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The digest of the library.
    pub sha256: String,
    /// Why it may run; `None` if it may not.
    pub trusted: Option<How>,
    /// The user agreed to a library of this name or in this place that had another content.
    pub changed: bool,
}

/// Hashes a candidate and says whether it may run. `folders` are those of [`folders`].
///
/// # Errors
/// It cannot be read or stored, is not a shared library, or is not what its description says.
pub fn state(candidate: &Candidate, trust: &Trust, folders: &[PathBuf], cache: &Path) -> Result<Standing> {
    // Only what may run is copied.
    let sha256 = store::digest(&candidate.library, cache)?;
    if let Some(manifest) = &candidate.manifest {
        manifest.check_sha256(&candidate.library, &sha256)?;
    }
    let agreed = trust.entry(&sha256);
    let file = candidate.library.display().to_string();
    let changed =
        agreed.is_none() && trust.trusted.iter().any(|e| e.name == candidate.name || e.file == file);
    let by_folder = || folders.iter().find(|f| candidate.library.starts_with(f)).cloned().map(How::Folder);
    let trusted = agreed.map(|e| How::ByHash { name: e.name.clone() }).or_else(by_folder);
    Ok(Standing { sha256, trusted, changed })
}

/// The folders whose libraries count as trusted by this command: those named and those of
/// [`FOLDERS_VARIABLE`], with links resolved.
///
/// # Errors
/// A folder that was named does not exist. One of the variable that does not exist is passed over.
pub fn folders(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let variable = env::var_os(FOLDERS_VARIABLE).unwrap_or_default();
    let mut out = Vec::new();
    for folder in named {
        let real = folder.canonicalize().map_err(|e| {
            Error::io(format!("cannot trust plugins in {}", folder.display()), e)
                .hint("give a folder that exists to --trust-plugins-in")
        })?;
        out.push(real);
    }
    for folder in env::split_paths(&variable).filter(|p| !p.as_os_str().is_empty()) {
        match folder.canonicalize() {
            Ok(real) => out.push(real),
            Err(e) => tracing::debug!(folder = %folder.display(), %e, "no such folder of trusted plugins"),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::search::{Origin, one};

    fn entry(name: &str, digit: char, file: &str) -> Entry {
        let stored = Stored { sha256: digit.to_string().repeat(64), copy: PathBuf::new() };
        Entry::new(name, &stored, Path::new(file))
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config").join(FILE);
        (dir, path)
    }

    #[test]
    fn what_is_added_is_trusted_by_its_digest_until_it_is_removed() {
        let (_dir, path) = place();
        assert_eq!(Trust::load(&path).unwrap(), Trust::default());
        Trust::update(&path, |t| {
            t.add(entry("heun", 'a', "/p/heun"));
            t.add(entry("other", 'b', "/p/other"));
            Ok(())
        })
        .unwrap();
        let trust = Trust::load(&path).unwrap();
        assert!(trust.is_trusted(&"a".repeat(64)) && !trust.is_trusted(&"c".repeat(64)));
        let removed = Trust::update(&path, |t| Ok(t.remove("heun"))).unwrap();
        assert_eq!(removed[0].name, "heun");
        assert!(!Trust::load(&path).unwrap().is_trusted(&"a".repeat(64)));
    }

    #[test]
    fn a_digest_is_named_by_eight_digits_or_more() {
        let mut trust = Trust::default();
        trust.add(entry("heun", 'a', "/p/heun"));
        assert!(trust.remove("aaaaaaa").is_empty());
        assert_eq!(trust.remove("AAAAAAAA").len(), 1);
    }

    #[test]
    fn the_new_content_of_a_file_takes_the_place_of_the_old() {
        let mut trust = Trust::default();
        trust.add(entry("heun", 'a', "/p/heun"));
        trust.add(entry("heun", 'b', "/p/heun"));
        trust.add(entry("heun", 'c', "/q/heun"));
        assert!(!trust.is_trusted(&"a".repeat(64)));
        assert_eq!(trust.entries().len(), 2);
        assert_eq!(trust.remove_below(Path::new("/p")).len(), 1);
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let (_dir, path) = place();
        std::thread::scope(|s| {
            for digit in "0123456789abcdef".chars() {
                let path = &path;
                s.spawn(move || {
                    Trust::update(path, |t| {
                        t.add(entry(&format!("p{digit}"), digit, &format!("/{digit}")));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(Trust::load(&path).unwrap().entries().len(), 16);
    }

    #[test]
    fn a_change_that_fails_and_a_list_that_is_broken_leave_the_file_alone() {
        let (_dir, path) = place();
        let failed: Result<()> = Trust::update(&path, |_| Err(Error::cancelled()));
        assert!(failed.is_err() && !path.exists());
        for (text, words) in [
            ("trusted: []", "schema_version"),
            ("schema_version: 1\ntrusted: []\nall: true", "unknown field"),
            ("schema_version: 1\ntrusted: [{name: a, sha256: '12', file: f, added: now}]", "no whole sha256"),
        ] {
            std::fs::write(&path, text).unwrap();
            let e = Trust::update(&path, |t| Ok(t.remove("a"))).unwrap_err();
            assert!(e.chain().join(": ").contains(words), "{text}: {:?}", e.chain());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_list_is_for_the_user_alone_and_refused_when_everyone_can_write_it() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, path) = place();
        Trust::update(&path, |_| Ok(())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o606)).unwrap();
        let e = Trust::load(&path).unwrap_err();
        assert!(e.chain().join(" ").contains("world-writable"), "{:?}", e.chain());
    }

    #[test]
    fn a_candidate_is_trusted_by_content_or_by_its_folder_and_known_to_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("x.{}", env::consts::DLL_EXTENSION));
        let magic = |rest: &[u8]| [crate::plugins::store::tests_magic(), rest].concat();
        std::fs::write(&file, magic(b"one")).unwrap();
        let candidate = one(&file, Origin::CommandLine).unwrap();
        let cache = dir.path().join("cache");
        let mut trust = Trust::default();
        let stands = |trust: &Trust, folders: &[PathBuf]| state(&candidate, trust, folders, &cache).unwrap();

        let first = stands(&trust, &[]);
        assert!(first.trusted.is_none() && !first.changed);
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(stands(&trust, std::slice::from_ref(&real)).trusted, Some(How::Folder(real.clone())));
        assert_eq!(stands(&trust, &[real.join("y")]).trusted, None);

        // Nothing was copied of what may not run.
        let copies = || std::fs::read_dir(cache.join("plugins")).unwrap().flatten();
        let ending = std::ffi::OsStr::new(env::consts::DLL_EXTENSION);
        assert!(!copies().any(|e| e.path().extension() == Some(ending)));
        let stored = store::take(&candidate.library, &cache).unwrap();
        assert_eq!(stored.sha256, first.sha256);
        trust.add(Entry::new("x", &stored, &candidate.library));
        assert_eq!(stands(&trust, &[]).trusted, Some(How::ByHash { name: "x".into() }));
        std::fs::write(&file, magic(b"two")).unwrap();
        let second = stands(&trust, &[]);
        assert!(second.trusted.is_none() && second.changed);
    }

    #[test]
    fn a_folder_to_trust_must_exist() {
        let e = folders(&[PathBuf::from("/no/such/folder")]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }
}
