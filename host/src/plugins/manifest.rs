//! `plugin.yaml`: what a plugin says about itself, readable without running it.

use crate::config::check_version;
use crate::{fsx, yaml};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt, key};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env::consts;
use std::fmt;
use std::path::{Component, Path};

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;
/// Its name in the plugin's folder.
pub const FILE: &str = "plugin.yaml";

/// A plugin's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    schema_version: u64,
    /// Its name: the part before `/` of the ids of what it provides.
    pub name: String,
    /// Its own version.
    pub version: Version,
    /// The versions of the binary interface it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<VersionReq>,
    /// For each platform, such as `linux-x86_64`, the library relative to this file.
    pub library: BTreeMap<String, String>,
    /// Digests of the libraries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Digests>,
    /// What it says it provides; what it does provide only the library knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<Provided>,
    /// Its licence, as an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// How it wishes to be kept apart; see [`Manifest::isolation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<Isolation>,
}

/// One digest for the one library, or one for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`sha256` is one hex digest, or a mapping of platforms to hex digests")]
enum Digests {
    One(String),
    Each(BTreeMap<String, String>),
}

/// A thing a plugin provides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provided {
    /// What it is.
    pub kind: Kind,
    /// Its key.
    pub key: String,
}

impl fmt::Display for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// The kinds of things that plugins provide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What can be asked for.
    Task,
    /// What performs tasks.
    Engine,
    /// What integrates.
    Sampler,
    /// What chooses noise levels.
    Schedule,
    /// What can be loaded.
    Model,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task => "task",
            Self::Engine => "engine",
            Self::Sampler => "sampler",
            Self::Schedule => "schedule",
            Self::Model => "model",
        })
    }
}

/// How far a plugin is kept from the host; later is further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A thread of the host: it can hang without hanging the host.
    Thread,
    /// A process of its own: it can crash without taking the host along.
    Process,
}

/// The name of the system this program runs on: `linux-x86_64`, `macos-aarch64`.
pub fn platform() -> String {
    format!("{}-{}", consts::OS, consts::ARCH)
}

impl Manifest {
    /// A description of one library for this system, when its author gave none.
    pub fn minimal(name: &str, library: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            name: name.into(),
            version: Version::new(0, 0, 0),
            sdk: None,
            library: BTreeMap::from([(platform(), library.to_string())]),
            sha256: None,
            provides: Vec::new(),
            license: None,
            isolation: None,
        }
    }

    /// Reads a description.
    ///
    /// # Errors
    /// Unreadable, not a description, one of a newer version; the file is named.
    pub fn read(file: &Path) -> Result<Self> {
        let parsed = fsx::read_text("plugin description", file).and_then(|text| Self::parse(&text));
        parsed.map_err(|e| e.context(format!("in {}", file.display())))
    }

    /// Reads the text of a description.
    ///
    /// # Errors
    /// Not a description, one of a newer version, names that cannot be, libraries outside its folder.
    pub fn parse(text: &str) -> Result<Self> {
        let value = yaml::parse(text)?;
        check_version("plugin", &value, SCHEMA_VERSION)?;
        if let Some(version) = value.get("version").filter(|v| !v.is_string()) {
            return Err(Error::invalid(format!("`version: {version}` is a number, not a version"))
                .hint("a version has three parts: `version: 1.0.0`"));
        }
        let mut out: Self = serde_json::from_value(value)
            .kind(ErrorKind::InvalidRequest, || "not a valid plugin description".into())?;
        out.check()?;
        if let Some(digests) = &mut out.sha256 {
            digests.make_lower_case();
        }
        Ok(out)
    }

    /// As YAML.
    ///
    /// # Errors
    /// None that are known.
    pub fn to_yaml(&self) -> Result<String> {
        serde_yaml::to_string(self).internal("a plugin description that is not YAML")
    }

    fn check(&self) -> Result<()> {
        key::check("plugin", &self.name)?;
        if self.library.is_empty() {
            return Err(Error::invalid("`library` names no library")
                .hint(format!("name one for each platform: `library: {{{}: FILE}}`", platform())));
        }
        for (platform, path) in &self.library {
            check_platform(platform)?;
            check_inside(path).map_err(|e| e.context(format!("at `library.{platform}`")))?;
        }
        let mut seen = std::collections::BTreeSet::new();
        for item in &self.provides {
            key::check(&item.kind.to_string(), &item.key).map_err(|e| e.context("in `provides`"))?;
            if !seen.insert(item) {
                return Err(
                    Error::invalid(format!("`provides` lists {item} twice")).hint("remove one of them")
                );
            }
        }
        self.sha256.as_ref().map_or(Ok(()), |d| d.check(&self.library))
    }

    /// The library for this system, relative to the description.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the platforms there are.
    pub fn platform_library(&self) -> Result<&Path> {
        let platform = platform();
        self.library.get(&platform).map(Path::new).ok_or_else(|| {
            let all: Vec<&str> = self.library.keys().map(String::as_str).collect();
            let what = format!("plugin `{}` has no library for {platform}", self.name);
            Error::new(ErrorKind::Unsupported, what)
                .hint(format!("there are libraries for: {}", all.join(", ")))
                .hint("build it for this system, or ask its author to")
        })
    }

    /// The digest of the library for this system, if one is given, in lower case.
    pub fn sha256(&self) -> Option<&str> {
        match self.sha256.as_ref()? {
            Digests::One(hex) => Some(hex),
            Digests::Each(all) => all.get(&platform()).map(String::as_str),
        }
    }

    /// Checks a library's digest against the one given, if one is.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming both.
    pub fn check_sha256(&self, library: &Path, found: &str) -> Result<()> {
        match self.sha256() {
            Some(expected) if expected != found => {
                let what = format!("{} is not the library that its {FILE} describes", library.display());
                Err(Error::new(ErrorKind::Corrupt, what)
                    .because(format!("expected sha256 {expected}, found {found}"))
                    .hint(format!("get the plugin again, or correct `sha256` in {FILE} if you built it")))
            }
            _ => Ok(()),
        }
    }

    /// How it is kept apart where the host would do it by `default`: a plugin may ask for more, never for less.
    pub fn isolation(&self, default: Isolation) -> Isolation {
        self.isolation.map_or(default, |wish| wish.max(default))
    }
}

impl Digests {
    fn check(&self, library: &BTreeMap<String, String>) -> Result<()> {
        match self {
            Self::One(_) if library.len() > 1 => {
                Err(Error::invalid("`sha256` is one digest, and there are several libraries")
                    .hint("give a mapping of platforms to digests"))
            }
            Self::One(hex) => check_hex("sha256", hex),
            Self::Each(all) => all.iter().try_for_each(|(platform, hex)| {
                if !library.contains_key(platform) {
                    return Err(Error::invalid(format!("`sha256.{platform}` has no library beside it"))
                        .hint(format!("add `library.{platform}`, or remove the digest")));
                }
                check_hex(&format!("sha256.{platform}"), hex)
            }),
        }
    }

    fn make_lower_case(&mut self) {
        match self {
            Self::One(hex) => hex.make_ascii_lowercase(),
            Self::Each(all) => all.values_mut().for_each(|hex| hex.make_ascii_lowercase()),
        }
    }
}

/// Whether `text` is a whole sha256 in hex.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn check_hex(field: &str, text: &str) -> Result<()> {
    if is_sha256(text) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{field}` is not a sha256"))
        .hint("it is 64 hexadecimal digits; `sha256sum FILE` prints it"))
}

fn check_platform(name: &str) -> Result<()> {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let arch = |w: &str| w.split('_').all(word);
    if name.split_once('-').is_some_and(|(os, a)| word(os) && arch(a)) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{name}` under `library` is not a platform"))
        .hint(format!("a platform is system-processor; this one is {}", platform())))
}

fn check_inside(path: &str) -> Result<()> {
    let mut parts = Path::new(path).components();
    // A backslash or a colon means something else on another system than here.
    let plain = !path.is_empty() && !path.contains(['\\', ':', '\0']);
    if plain && !path.ends_with('/') && parts.all(|c| matches!(c, Component::Normal(_))) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{path}` is not a path inside the plugin's folder"))
        .hint(format!("give a path relative to {FILE}, with `/` between folders and without `..`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "AB34567890123456789012345678901234567890123456789012345678901234";

    fn with(lines: &str) -> Result<Manifest> {
        let here = platform();
        let rest = if lines.contains("library:") { "" } else { "library: {HERE: libheun.so}\n" };
        let version = if lines.contains("version:") { "" } else { "version: 1.2.0\n" };
        let text = format!("schema_version: 1\nname: heun\n{version}{rest}{lines}\n");
        Manifest::parse(&text.replace("HERE", &here))
    }

    #[test]
    fn a_full_description_is_read() {
        let m = with(&format!(
            "sdk: ^1.0\nlibrary: {{HERE: bin/libheun.so, plan9-x86_64: heun}}\nsha256: {{HERE: {HEX}}}\n\
             provides: [{{kind: sampler, key: heun}}]\nlicense: MIT\nisolation: process"
        ))
        .unwrap();
        assert_eq!(m.platform_library().unwrap(), Path::new("bin/libheun.so"));
        assert_eq!(m.sha256(), Some(HEX.to_lowercase().as_str()));
        assert_eq!(m.provides[0].to_string(), "sampler heun");
        assert!(m.sdk.unwrap().matches(&Version::new(1, 4, 0)));
    }

    #[test]
    fn a_written_description_reads_back_as_the_same() {
        let m = Manifest::minimal("heun", "libheun.so");
        assert_eq!(Manifest::parse(&m.to_yaml().unwrap()).unwrap(), m);
    }

    #[test]
    fn a_plugin_may_ask_for_more_isolation_and_never_for_less() {
        let thread = with("isolation: thread").unwrap();
        let process = with("isolation: process").unwrap();
        assert_eq!(thread.isolation(Isolation::Process), Isolation::Process);
        assert_eq!(process.isolation(Isolation::Thread), Isolation::Process);
        assert_eq!(with("").unwrap().isolation(Isolation::Thread), Isolation::Thread);
    }

    #[test]
    fn a_library_for_other_systems_only_is_an_error_that_lists_them() {
        let e = with("library: {plan9-mips: a, beos-ppc: b}").unwrap().platform_library().map(|_| ());
        let e = e.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.hints()[0].contains("beos-ppc, plan9-mips"), "{:?}", e.hints());
    }

    #[test]
    fn a_digest_that_differs_names_both() {
        let m = with(&format!("sha256: {HEX}")).unwrap();
        m.check_sha256(Path::new("x"), &HEX.to_lowercase()).unwrap();
        let e = m.check_sha256(Path::new("x"), "00ff").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        let chain = e.chain().join(" ");
        assert!(chain.contains("00ff") && chain.contains(&HEX.to_lowercase()), "{chain}");
    }

    #[test]
    fn libraries_outside_the_folder_are_refused() {
        for path in ["../x.so", "/x.so", "a/../../x.so", "''", "a/", "'a\\..\\x'", "'c:x'"] {
            let e = with(&format!("library: {{HERE: {path}}}")).unwrap_err();
            assert!(e.chain().join(" ").contains("inside the plugin's folder"), "{path}: {:?}", e.chain());
        }
    }

    #[test]
    fn every_other_mistake_is_named() {
        for (lines, words) in [
            ("color: red", "unknown field `color`"),
            ("library: {}", "names no library"),
            ("library: {linux: a}", "`linux` under `library` is not a platform"),
            ("version: 1.0", "is a number, not a version"),
            ("sdk: newest", "not a valid plugin description"),
            ("sha256: abc", "`sha256` is not a sha256"),
            ("sha256: 7", "one hex digest, or a mapping"),
            ("sha256: {plan9-mips: abc}", "has no library beside it"),
            ("provides: [{kind: sampler, key: Heun}]", "cannot be the key of a sampler"),
            ("provides: [{kind: colour, key: heun}]", "unknown variant"),
            ("provides: [{kind: sampler, key: a}, {kind: sampler, key: a}]", "lists sampler a twice"),
            ("isolation: none", "unknown variant"),
        ] {
            let chain = with(lines).unwrap_err().chain().join(": ");
            assert!(chain.contains(words), "{lines}: {chain}");
        }
        let two = with(&format!("library: {{HERE: a, plan9-mips: b}}\nsha256: {HEX}")).unwrap_err();
        assert!(two.message().contains("several libraries"), "{two}");
        let bad = Manifest::parse("schema_version: 1\nname: Heun\nversion: 1.0.0\nlibrary: {a-b: c}");
        assert!(bad.unwrap_err().message().contains("cannot be the key of a plugin"));
        let new = Manifest::parse("schema_version: 2\nanything: 1").unwrap_err();
        assert_eq!(new.kind(), ErrorKind::Unsupported);
    }
}
