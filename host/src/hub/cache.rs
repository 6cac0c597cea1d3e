//! The cache of the Hugging Face hub, in the layout that Python's `huggingface_hub` has
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>):
//!
//! ```text
//! models--owner--name/
//!   blobs/<etag>              content; <etag>.incomplete while it comes
//!   refs/main                 the commit of a branch or tag
//!   snapshots/<commit>/<file> links to blobs, or copies where links do not work
//! .locks/models--owner--name/<etag>.lock
//! ```

use super::lock::folder_of;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

/// The folder of a repository.
#[derive(Debug, Clone)]
pub struct Repo {
    root: PathBuf,
    locks: PathBuf,
}

impl Repo {
    /// That of `owner/name` in `cache`.
    pub fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The content of an etag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The part of a blob that came so far.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// What to lock while a blob is fetched.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// A file of a commit.
    pub fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join("snapshots").join(commit).join(file)
    }

    /// The file as the cache has it, without asking the hub: of a commit, or of the commit a branch was at.
    pub fn find(&self, revision: &str, file: &str) -> Option<PathBuf> {
        let commit = std::fs::read_to_string(self.root.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_string(), |c| c.trim().to_string());
        let found = self.snapshot(&safe("commit", &commit).ok()?, file);
        found.is_file().then_some(found)
    }

    /// Notes what commit a branch or tag is at.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn note(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.root.join("refs").join(revision);
        if revision == commit || std::fs::read_to_string(&path).is_ok_and(|c| c == commit) {
            return Ok(());
        }
        folder_of(&path)?;
        fsx::write_atomic(&path, commit.as_bytes())
    }

    /// Shows a blob as a file of a commit, and says where.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn show(&self, etag: &str, commit: &str, file: &str) -> Result<PathBuf> {
        let place = self.snapshot(commit, file);
        let up = 1 + Path::new(file).components().filter(|c| matches!(c, Component::Normal(_))).count();
        let target: PathBuf = std::iter::repeat_n("..", up).chain(["blobs", etag]).collect();
        link(&target, &self.blob(etag), &place)?;
        Ok(place)
    }
}

/// Puts a link with the text `target` at `place`; where links do not work, another name of `content` or a copy of it.
///
/// # Errors
/// The folder cannot be written.
pub fn link(target: &Path, content: &Path, place: &Path) -> Result<()> {
    folder_of(place)?;
    let failed = |e| fsx::cannot_write(place, e);
    if std::fs::read_link(place).is_ok_and(|t| t == target) {
        return Ok(());
    }
    let mut name = place.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.atelier", std::process::id()));
    let temporary = place.with_file_name(name);
    // What an ended process of this number has left.
    let _ = std::fs::remove_file(&temporary);
    if symlink(target, &temporary).is_err() && std::fs::hard_link(content, &temporary).is_err() {
        let copied =
            std::fs::copy(content, &temporary).and_then(|_| std::fs::File::open(&temporary)?.sync_all());
        copied.map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            failed(e)
        })?;
    }
    std::fs::rename(&temporary, place).map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        failed(e)
    })?;
    fsx::sync_folder(place.parent().unwrap_or(Path::new(".")));
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(windows)]
fn symlink(target: &Path, place: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, place)
}

/// What a server calls a file or commit, if it may become the name of one here.
///
/// # Errors
/// It may not.
pub fn safe(what: &str, name: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let fine = !name.is_empty() && name.len() <= 128 && name.chars().all(plain) && !name.starts_with('.');
    if fine {
        return Ok(name.into());
    }
    Err(Error::new(
        ErrorKind::Environment,
        format!("the hub calls a {what} {name:?}, which cannot be a file's name"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_does_not_choose_paths() {
        for bad in ["", "..", "../x", "a/b", ".hidden", "a\\b", &"a".repeat(200)] {
            assert!(safe("file", bad).is_err(), "{bad}");
        }
        assert_eq!(safe("file", "abc-1.2").unwrap(), "abc-1.2");
    }

    #[test]
    fn a_blob_is_shown_by_a_link_that_survives_a_move_of_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::new(&dir.path().join("hub"), "o/n");
        folder_of(&repo.blob("e")).unwrap();
        std::fs::write(repo.blob("e"), "content").unwrap();
        let place = repo.show("e", "c0ffee", "unet/config.json").unwrap();
        assert!(place.ends_with("models--o--n/snapshots/c0ffee/unet/config.json"));
        repo.note("main", "c0ffee").unwrap();
        std::fs::rename(dir.path().join("hub"), dir.path().join("moved")).unwrap();
        let moved = Repo::new(&dir.path().join("moved"), "o/n");
        let found = moved.find("main", "unet/config.json").unwrap();
        assert_eq!(std::fs::read_to_string(found).unwrap(), "content");
        assert!(moved.find("main", "other").is_none() && moved.find("../..", "other").is_none());
    }
}
