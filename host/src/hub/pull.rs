//! Gets the files of a description: from the first place that has each, into the model's folder.

use super::archive;
use super::cache::{Repo, link, safe};
use super::env::{Env, below};
use super::http::{Answer, Ask, Client, shown};
use super::lock::{Lock, folder_of};
use super::pypi;
use super::transfer::{Came, Expected, check, fetch, patiently};
use crate::fsx;
use crate::model_store::{self, Pulled, Record};
use crate::plugins::manifest::is_sha256;
use atelier_sdk::model::{Mirror, ModelFile};
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result, ResultExt};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use url::Url;

/// Who watches a pull.
pub trait Watch {
    /// A file begins, of this length if it is known.
    fn begin(&mut self, file: &str, size: Option<u64>);
    /// So many of its bytes are here.
    fn at(&mut self, bytes: u64);
    /// Something a person may want to know.
    fn note(&mut self, text: &str);
}

/// How a file came to be in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was.
    Present,
    /// It was fetched, or was in the hub's cache.
    Pulled,
    /// It was fetched, and nobody said beforehand what its digest should be: from now on it is this one.
    FirstSeen,
}

/// Pulls models.
pub struct Pull<'a> {
    env: Env,
    client: Client,
    watch: &'a mut dyn Watch,
}

/// A file that is on this machine, and where it came from.
struct Had {
    came: Came,
    from: String,
}

impl<'a> Pull<'a> {
    /// With what the environment says.
    ///
    /// # Errors
    /// See [`Env::read`].
    pub fn new(watch: &'a mut dyn Watch) -> Result<Self> {
        let env = Env::read()?;
        Ok(Self { client: Client::new(&env), env, watch })
    }

    /// Gets all files of a model that are not there, and says of each how it came.
    ///
    /// # Errors
    /// The first file that cannot be had; those before it are in their places.
    pub fn model(&mut self, spec: &ModelSpec) -> Result<Vec<(String, Pulled, State)>> {
        let folder = model_store::folder(&spec.key)?;
        let _turn = Lock::take(&folder.join(".pull.lock"), self.watch)?;
        let mut record = Record::load(&folder)?;
        let mut out = Vec::new();
        for file in &spec.files {
            let known = record.files.get(&file.path).cloned();
            let (pulled, state) = self
                .file(file, &folder, known)
                .map_err(|e| e.context(format!("cannot pull {} of model `{}`", file.path, spec.key)))?;
            record.files.insert(file.path.clone(), pulled.clone());
            record.save(&folder)?;
            out.push((file.path.clone(), pulled, state));
        }
        // Best effort: an archive that stays only takes room.
        let _ = std::fs::remove_dir_all(archives(&folder));
        Ok(out)
    }

    fn file(&mut self, file: &ModelFile, folder: &Path, known: Option<Pulled>) -> Result<(Pulled, State)> {
        let place = folder.join(&file.path);
        self.watch.begin(&file.path, file.size);
        if let Some(present) = present(file, &place, known.as_ref())? {
            return Ok((present, State::Present));
        }
        let expected = Expected {
            size: file.size,
            sha256: file.sha256.clone().or_else(|| known.as_ref().map(|k| k.sha256.clone())),
        };
        let had = self.any_place(file, &expected, &place).map_err(|e| match (&file.sha256, known) {
            (None, Some(k)) if e.kind() == ErrorKind::Corrupt => e.hint(format!(
                "the description names no digest, and the first pull had {}; to take what is there now, remove {}",
                k.sha256,
                folder.display()
            )),
            _ => e,
        })?;
        let state = if expected.sha256.is_some() { State::Pulled } else { State::FirstSeen };
        Ok((Pulled { sha256: had.came.sha256, size: had.came.size, from: had.from }, state))
    }

    /// One place after the other, until one has it.
    fn any_place(&mut self, file: &ModelFile, expected: &Expected, place: &Path) -> Result<Had> {
        let mut failures: Vec<(String, Error)> = Vec::new();
        for mirror in &file.from {
            match self.one_place(mirror, file, expected, place) {
                Ok(had) => return Ok(had),
                Err(e) => {
                    // A full disk is no better with another mirror.
                    if e.chain().iter().any(|c| c.starts_with("cannot write")) {
                        return Err(e);
                    }
                    if file.from.len() > 1 {
                        self.watch.note(&format!("{}: {}", named(mirror), e.chain().join(": ")));
                    }
                    failures.push((named(mirror), e));
                }
            }
        }
        if failures.len() == 1 {
            return Err(failures.remove(0).1);
        }
        let kind = failures.first().map_or(ErrorKind::NotFound, |(_, e)| e.kind());
        let e = Error::new(kind, format!("none of its {} places gives it", failures.len()));
        Err(failures.iter().fold(e, |e, (name, why)| e.hint(format!("{name}: {}", why.chain().join(": ")))))
    }

    fn one_place(
        &mut self,
        mirror: &Mirror,
        file: &ModelFile,
        expected: &Expected,
        place: &Path,
    ) -> Result<Had> {
        if mirror.hub.is_some() {
            return self.on_hub(mirror, file, expected, place);
        }
        if self.env.offline {
            return Err(Error::new(ErrorKind::Environment, "HF_HUB_OFFLINE is set").hint("unset it to pull"));
        }
        let (url, archive) = match (&mirror.url, &mirror.pypi, &mirror.archive) {
            (Some(url), ..) => {
                let parsed = Url::parse(url)
                    .kind(ErrorKind::InvalidRequest, || format!("{url:?} is not an address"))?;
                (parsed, Expected::default())
            }
            (_, Some(package), Some(archive)) => {
                pypi::find(&self.client, &self.env.pypi.clone(), package, archive, self.watch)?
            }
            _ => return Err(Error::internal("a place that the description should not have")),
        };
        let from = shown(&url);
        let came = match &mirror.inside {
            Some(inside) => self.in_archive(&url, &archive, inside, expected, place)?,
            None => {
                let part = with_ending(place, "incomplete");
                let came = fetch(&self.client, &url, expected, &part, self.watch)?;
                put(&part, place)?;
                came
            }
        };
        let inside = mirror.inside.as_ref().map(|i| format!("#{i}")).unwrap_or_default();
        Ok(Had { came, from: format!("{from}{inside}") })
    }

    fn in_archive(
        &mut self,
        url: &Url,
        archive: &Expected,
        inside: &str,
        expected: &Expected,
        place: &Path,
    ) -> Result<Came> {
        // Below the model's folder, however deep the file itself is.
        let folder = place.ancestors().find(|p| p.join(".pull.lock").exists()).unwrap_or(place);
        let name: String = crate::digests::hex(&Sha256::digest(url.as_str()))[..16].into();
        let whole = archives(folder).join(name);
        if !whole.is_file() {
            let part = with_ending(&whole, "incomplete");
            fetch(&self.client, url, archive, &part, self.watch)?;
            put(&part, &whole)?;
        }
        archive::unpack(&whole, inside, expected, place)
    }

    /// From a repository of the hub, through its cache.
    fn on_hub(
        &mut self,
        mirror: &Mirror,
        file: &ModelFile,
        expected: &Expected,
        place: &Path,
    ) -> Result<Had> {
        let id = mirror.hub.as_deref().unwrap_or_default();
        let revision = mirror.revision.as_deref().unwrap_or("main");
        let name = mirror.file.as_deref().unwrap_or(&file.path);
        let cache = std::path::absolute(&self.env.cache)
            .map_err(|e| Error::io(format!("cannot find {}", self.env.cache.display()), e))?;
        let repo = Repo::new(&cache, id);
        if self.env.offline {
            let found = repo.find(revision, name).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("HF_HUB_OFFLINE is set, and {name} of {id} is not in the cache"),
                )
                .hint("unset it to pull")
            })?;
            let came = digest(&found)?;
            check(&came, expected, &found.display().to_string())?;
            link(&found, &found, place)?;
            return Ok(Had { came, from: format!("hub:{id}@{revision}/{name}") });
        }
        let parts = id.split('/').chain(["resolve", revision]).chain(name.split('/'));
        let url = below(&self.env.endpoint, parts)?;
        let about = self.about(&url)?;
        let wanted = about.expected(expected, &url)?;
        let came = self.blob(&repo, &about.etag, &url, &wanted)?;
        let shown = repo.show(&about.etag, &about.commit, name)?;
        repo.note(revision, &about.commit)?;
        link(&shown, &shown, place)?;
        Ok(Had { came, from: format!("hub:{id}@{}/{name}", about.commit) })
    }

    fn about(&mut self, url: &Url) -> Result<About> {
        let client = &self.client;
        patiently(self.watch, || {
            let answer = client.ask(url, Ask::Head)?;
            Ok(About::of(&answer)?)
        })
    }

    /// Fetches a blob, unless the cache has it already and whole.
    fn blob(&mut self, repo: &Repo, etag: &str, url: &Url, expected: &Expected) -> Result<Came> {
        let _turn = Lock::take(&repo.lock(etag), self.watch)?;
        let blob = repo.blob(etag);
        if blob.is_file() {
            let came = digest(&blob)?;
            match check(&came, expected, &blob.display().to_string()) {
                Ok(()) => {
                    self.watch.at(came.size);
                    return Ok(came);
                }
                Err(e) => self.watch.note(&format!("{}; fetching it again", e.message())),
            }
        }
        let part = repo.incomplete(etag);
        let came = fetch(&self.client, url, expected, &part, self.watch)?;
        put(&part, &blob)?;
        Ok(came)
    }
}

/// What the hub says of a file.
struct About {
    commit: String,
    etag: String,
    size: Option<u64>,
}

impl About {
    fn of(answer: &Answer) -> Result<Self> {
        let strange = |what: &str| {
            Error::new(
                ErrorKind::Environment,
                format!("{} does not answer as a hub does: no {what}", shown(&answer.url)),
            )
            .hint("check HF_ENDPOINT")
        };
        let commit = answer.header("x-repo-commit").ok_or_else(|| strange("x-repo-commit"))?;
        let etag = answer
            .header("x-linked-etag")
            .or_else(|| answer.header("etag"))
            .ok_or_else(|| strange("etag"))?;
        let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
        let own = answer.number("content-length").filter(|_| answer.status == 200);
        Ok(Self {
            commit: safe("commit", commit)?,
            etag: safe("file", etag)?,
            size: answer.number("x-linked-size").or(own),
        })
    }

    /// What the file must be, by the description and by the hub; large files are named by their SHA-256 there.
    fn expected(&self, described: &Expected, url: &Url) -> Result<Expected> {
        let sha256 = Some(self.etag.to_ascii_lowercase()).filter(|e| is_sha256(e));
        let said = Came {
            sha256: sha256.clone().or_else(|| described.sha256.clone()).unwrap_or_default(),
            size: self.size.or(described.size).unwrap_or_default(),
        };
        let comparable = Expected { size: described.size, sha256: described.sha256.clone() };
        check(&said, &comparable, &shown(url))?;
        Ok(Expected { size: described.size.or(self.size), sha256: described.sha256.clone().or(sha256) })
    }
}

/// The file, if it is in its place and is the right one. One that was pulled is believed to be what it was; `models
/// verify` reads it again.
fn present(file: &ModelFile, place: &Path, known: Option<&Pulled>) -> Result<Option<Pulled>> {
    let Ok(meta) = std::fs::metadata(place) else { return Ok(None) };
    let fits = |p: &Pulled| {
        p.size == meta.len()
            && file.size.is_none_or(|size| size == p.size)
            && file.sha256.as_ref().is_none_or(|s| *s == p.sha256)
    };
    if let Some(known) = known.filter(|k| fits(k)) {
        return Ok(Some(known.clone()));
    }
    if file.sha256.is_none() || !meta.is_file() {
        return Ok(None);
    }
    let came = digest(place)?;
    let pulled = Pulled { sha256: came.sha256, size: came.size, from: "what was there already".into() };
    Ok(fits(&pulled).then_some(pulled))
}

fn digest(path: &Path) -> Result<Came> {
    crate::digests::read_anew(path).map(|(sha256, size)| Came { sha256, size })
}

fn archives(folder: &Path) -> PathBuf {
    folder.join(".archives")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}

fn put(part: &Path, place: &Path) -> Result<()> {
    folder_of(place)?;
    std::fs::rename(part, place).map_err(|e| fsx::cannot_write(place, e))?;
    fsx::sync_folder(place.parent().unwrap_or(Path::new(".")));
    Ok(())
}

/// A place in words.
fn named(mirror: &Mirror) -> String {
    match (&mirror.hub, &mirror.url, &mirror.pypi) {
        (Some(hub), ..) => format!("hub {hub}"),
        (_, Some(url), _) => Url::parse(url).map_or_else(|_| url.clone(), |u| shown(&u)),
        (_, _, package) => format!("package {}", package.as_deref().unwrap_or_default()),
    }
}
