//! What the environment says about places to pull from: the variables of Python's `huggingface_hub` and `pip`, which
//! mean the same here (<https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>).

use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use std::env;
use std::path::PathBuf;
use url::Url;

const ENDPOINT: &str = "https://huggingface.co";
const PYPI: &str = "https://pypi.org/simple";

/// A token, which is never printed.
#[derive(Clone)]
pub struct Token(pub(super) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The settings.
#[derive(Debug, Clone)]
pub struct Env {
    /// The hub: `HF_ENDPOINT`.
    pub endpoint: Url,
    /// The hub's cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or in `huggingface` in the user's cache folder.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or the content of the file `HF_TOKEN_PATH` or `token` in `HF_HOME`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: only what is in the cache.
    pub offline: bool,
    /// The package index: `ATELIER_PYPI_INDEX`, else `PIP_INDEX_URL`.
    pub pypi: Url,
}

impl Env {
    /// Reads the environment.
    ///
    /// # Errors
    /// An address that is none; no place for the cache; a token file that cannot be read.
    pub fn read() -> Result<Self> {
        let home = hf_home();
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| home.clone().map(|h| h.join("hub"))).ok_or_else(|| {
            Error::new(ErrorKind::Environment, "there is no place for the hub's cache")
                .hint("set HF_HOME or HOME")
        })?;
        let index = text("ATELIER_PYPI_INDEX").map(|v| ("ATELIER_PYPI_INDEX", v));
        let index = index.or_else(|| text("PIP_INDEX_URL").map(|v| ("PIP_INDEX_URL", v)));
        Ok(Self {
            endpoint: address("HF_ENDPOINT", text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT))?,
            cache,
            token: token(home)?,
            offline: text("HF_HUB_OFFLINE").is_some_and(|v| is_true(&v)),
            pypi: match index {
                Some((name, value)) => address(name, &value)?,
                None => address("the package index", PYPI)?,
            },
        })
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    let value = text(name)?;
    match value.strip_prefix("~/") {
        Some(rest) => env::var_os("HOME").map(|home| PathBuf::from(home).join(rest)),
        None => Some(value.into()),
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

/// As Python's tools have it, on every system.
fn hf_home() -> Option<PathBuf> {
    let user = || env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from);
    path("HF_HOME")
        .or_else(|| path("XDG_CACHE_HOME").map(|c| c.join("huggingface")))
        .or_else(|| user().map(|h| h.join(".cache/huggingface")))
}

fn token(home: Option<PathBuf>) -> Result<Option<Token>> {
    let checked = |token: String, from: &str| {
        // It becomes a header: nothing may end that early.
        if token.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Some(Token(token)));
        }
        Err(Error::invalid(format!("{from} is not a token")).hint("a token has letters, digits and `_` only"))
    };
    if let Some(token) = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
        return checked(token, "HF_TOKEN");
    }
    let Some(file) = path("HF_TOKEN_PATH").or_else(|| home.map(|h| h.join("token"))).filter(|f| f.is_file())
    else {
        return Ok(None);
    };
    let content = crate::fsx::read_text("token", &file)?;
    match content.trim() {
        "" => Ok(None),
        token => checked(token.into(), &file.display().to_string()),
    }
}

fn address(name: &str, value: &str) -> Result<Url> {
    let url = Url::parse(value)
        .kind(ErrorKind::InvalidRequest, || format!("{name} is not an address: {value:?}"))?;
    if !["http", "https"].contains(&url.scheme()) || url.cannot_be_a_base() {
        return Err(Error::invalid(format!("{name} is {value:?}")).hint("it begins with https:// or http://"));
    }
    Ok(url)
}

/// `base` with further parts of a path, escaped as needed.
pub(super) fn below<'a>(base: &Url, parts: impl IntoIterator<Item = &'a str>) -> Result<Url> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| Error::internal("an address without a path"))?
        .pop_if_empty()
        .extend(parts);
    Ok(url)
}
