//! A new plugin to start from: a crate of its own that builds, passes its tests and does something.
//!
//! The sampler is that of `plugins/example-sampler` under another name, so that its guide explains both.

use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result, key};
use std::env;
use std::path::{Path, PathBuf};

/// What a new plugin provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Kind {
    /// A sampler.
    #[default]
    Sampler,
    /// An engine with a task of its own.
    Engine,
}

/// A file of a new plugin: its place, and its content with placeholders.
type Template = (&'static str, &'static str);

const SAMPLER: [Template; 5] = [
    ("Cargo.toml", include_str!("template/sampler/Cargo.toml.tmpl")),
    ("src/lib.rs", include_str!("template/sampler/lib.rs.tmpl")),
    ("plugin.yaml", include_str!("template/sampler/plugin.yaml.tmpl")),
    ("README.md", include_str!("template/sampler/README.md.tmpl")),
    (".gitignore", include_str!("template/gitignore.tmpl")),
];

const ENGINE: [Template; 5] = [
    ("Cargo.toml", include_str!("template/engine/Cargo.toml.tmpl")),
    ("src/lib.rs", include_str!("template/engine/lib.rs.tmpl")),
    ("plugin.yaml", include_str!("template/engine/plugin.yaml.tmpl")),
    ("README.md", include_str!("template/engine/README.md.tmpl")),
    (".gitignore", include_str!("template/gitignore.tmpl")),
];

/// Writes a new plugin into `folder`, to be built against the sdk in the folder `sdk`. Gives the files.
///
/// # Errors
/// A name that no crate can have, a folder that is not empty, a folder `sdk` without the sdk, or the files
/// cannot be written.
pub fn create(name: &str, kind: Kind, folder: &Path, sdk: &Path) -> Result<Vec<PathBuf>> {
    check_name(name)?;
    check_sdk(sdk)?;
    check_folder(folder)?;
    let names = Names::of(name, kind, sdk)?;
    let mut written = Vec::new();
    for (file, text) in kind.templates() {
        written.push(write(folder, file, names.fill(text).as_bytes())?);
    }
    // The versions that the sdk is tested with; a copy of the sdk alone has none.
    if let Some(lock) = sdk.ancestors().nth(2).map(|root| root.join("Cargo.lock")).filter(|l| l.is_file()) {
        written.push(write(folder, "Cargo.lock", fsx::read_text("versions", &lock)?.as_bytes())?);
    }
    Ok(written)
}

impl Kind {
    fn templates(self) -> &'static [Template] {
        match self {
            Self::Sampler => &SAMPLER,
            Self::Engine => &ENGINE,
        }
    }

    /// What the name of its type ends with.
    fn suffix(self) -> &'static str {
        match self {
            Self::Sampler => "Sampler",
            Self::Engine => "Engine",
        }
    }
}

fn write(folder: &Path, file: &str, content: &[u8]) -> Result<PathBuf> {
    let path = folder.join(file);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(|e| fsx::cannot_write(parent, e))?;
    fsx::write_atomic(&path, content)?;
    Ok(path)
}

/// What the placeholders stand for.
struct Names([(&'static str, String); 6]);

impl Names {
    fn of(name: &str, kind: Kind, sdk: &Path) -> Result<Self> {
        let words: Vec<String> = name.split('-').map(capital).collect();
        let mut type_name = words.concat();
        // No type of the sdk's ends so, except the trait `Sampler` or `Engine` itself.
        if !type_name.ends_with(kind.suffix()) || type_name == kind.suffix() {
            type_name += kind.suffix();
        }
        Ok(Self([
            ("{{name}}", name.into()),
            ("{{key}}", name.into()),
            ("{{crate}}", name.replace('-', "_")),
            ("{{type}}", type_name),
            ("{{title}}", words.join(" ")),
            // Last: a path may hold anything.
            ("{{sdk}}", toml_string(sdk)?),
        ]))
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// A path in quotes, as `Cargo.toml` wants it: absolute, so that the new plugin can be moved.
fn toml_string(path: &Path) -> Result<String> {
    let absolute =
        std::path::absolute(path).map_err(|e| Error::io(format!("cannot find {}", path.display()), e))?;
    let text = absolute.to_str().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("the path {} is not UTF-8 text", path.display()))
            .hint("put the sdk somewhere else: Cargo.toml cannot hold this path")
    })?;
    // What JSON escapes, and how, is the same in TOML.
    Ok(serde_json::Value::from(text).to_string())
}

/// Words that cannot name a crate: the language's own, the crates that every build has, and the sdk.
const TAKEN: &str = "abstract alloc as async atelier-abi atelier-sdk await become box break const continue core \
    crate do dyn else enum extern false final fn for gen if impl in let loop macro match mod move mut override priv \
    proc-macro pub ref return self static std struct super test trait true try type typeof union unsafe unsized use \
    virtual where while yield";

/// Shorter than a key may be: names that are made of it fit on a line.
const MAX_NAME: usize = 40;

fn check_name(name: &str) -> Result<()> {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    // The compiler wants snake case, which has no two or trailing underscores.
    let dashes = !name.contains("--") && !name.ends_with('-');
    if !letters || !dashes || name.len() > MAX_NAME || !key::is_valid(name) {
        return Err(Error::invalid(format!("`{name}` cannot be the name of a plugin")).hint(format!(
            "a name has 1 to {MAX_NAME} characters of a-z 0-9, starts with a letter, and has a - only between others"
        )));
    }
    if TAKEN.split_whitespace().any(|taken| taken == name) {
        return Err(Error::invalid(format!(
            "`{name}` cannot be the name of a plugin: it means something else"
        ))
        .hint(format!("name it `my-{name}`, for example")));
    }
    Ok(())
}

/// Nothing is ever written among files of someone else.
fn check_folder(folder: &Path) -> Result<()> {
    let meta = match std::fs::metadata(folder) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("cannot look at {}", folder.display()), e)),
    };
    let entries = std::fs::read_dir(folder);
    if meta.is_dir() && entries.map_err(|e| fsx::cannot_write(folder, e))?.next().is_none() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} exists already", folder.display()))
        .hint("choose another name or another folder; an empty one will do"))
}

/// Whether `folder` is that of the sdk.
fn is_sdk(folder: &Path) -> bool {
    let manifest = fsx::read_text("manifest", &folder.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line.replace(' ', "") == "name=\"atelier-sdk\"")
}

fn check_sdk(folder: &Path) -> Result<()> {
    if is_sdk(folder) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, format!("{} is not the folder of atelier's sdk", folder.display()))
        .hint("it is the folder `sdk/api` of atelier's source"))
}

/// The sdk's folder: the one named, else `sdk/api` above the executable, else above the working directory.
///
/// # Errors
/// The one named is not it, or none is found.
pub fn find_sdk(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = named {
        return check_sdk(folder).map(|()| folder.to_path_buf());
    }
    let program = env::current_exe().ok().and_then(|e| e.canonicalize().ok());
    let starts = program.into_iter().chain(env::current_dir().ok());
    starts.filter_map(|start| sdk_above(&start)).next().ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "atelier's sdk is not found, to build plugins against")
            .hint("get atelier's source, and name its folder `sdk/api` with `--sdk DIR`")
    })
}

fn sdk_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join("sdk/api")).find(|folder| is_sdk(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::manifest::Manifest;

    /// The repository.
    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
    }

    fn sdk() -> PathBuf {
        root().join("sdk/api")
    }

    fn read(folder: &Path, file: &str) -> String {
        std::fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn a_new_plugin_has_its_files_under_its_own_names() {
        for (kind, type_name) in [(Kind::Sampler, "MyOwnSampler"), (Kind::Engine, "MyOwnEngine")] {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("deep/my-own");
            let written = create("my-own", kind, &folder, &sdk()).unwrap();
            assert_eq!(written.len(), 6, "{written:?}");
            for file in &written {
                assert!(!read(&folder, file.to_str().unwrap()).contains("{{"), "{}", file.display());
            }
            let source = read(&folder, "src/lib.rs");
            assert!(source.contains(&format!("struct {type_name}")) && source.contains("key: \"my-own\""));
            assert!(read(&folder, "Cargo.toml").contains("name = \"my-own\""));
            assert_eq!(read(&folder, "Cargo.lock"), read(&root(), "Cargo.lock"));
            let manifest = Manifest::parse(&read(&folder, "plugin.yaml")).unwrap();
            assert_eq!(manifest.name, "my-own");
            assert!(manifest.library["linux-x86_64"].ends_with("release/libmy_own.so"));
            assert!(manifest.provides.iter().all(|p| p.key == "my-own"));
        }
    }

    #[test]
    fn the_new_sampler_is_the_example_under_another_name() {
        let names = [("{{key}}", "ralston"), ("{{type}}", "Ralston"), ("{{title}}", "Ralston 2S")];
        let source = names.iter().fold(SAMPLER[1].1.to_string(), |text, (from, to)| text.replace(from, to));
        assert_eq!(source, read(&root(), "plugins/example-sampler/src/lib.rs"));
    }

    #[test]
    fn types_do_not_take_the_names_of_the_sdk() {
        for (name, kind, type_name) in [
            ("ralston", Kind::Sampler, "RalstonSampler"),
            ("my-sampler", Kind::Sampler, "MySampler"),
            ("sampler", Kind::Sampler, "SamplerSampler"),
            ("my-sampler", Kind::Engine, "MySamplerEngine"),
            ("x-2m", Kind::Sampler, "X2mSampler"),
        ] {
            let names = Names::of(name, kind, &sdk()).unwrap();
            assert_eq!(names.fill("{{type}}"), type_name);
        }
        assert_eq!(Names::of("my-2nd-try", Kind::Engine, &sdk()).unwrap().fill("{{title}}"), "My 2nd Try");
    }

    #[test]
    fn names_that_no_crate_can_have_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = "a".repeat(41);
        for name in [
            "",
            "My",
            "2m",
            "a_b",
            "a.b",
            "a--b",
            "a-",
            "-a",
            "é",
            "../x",
            "fn",
            "test",
            "atelier-sdk",
            &long,
        ] {
            let e = create(name, Kind::Sampler, &dir.path().join("x"), &sdk()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidRequest, "{name}");
            assert!(e.message().contains("cannot be the name"), "{name}: {e}");
        }
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn files_of_someone_else_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("diary.txt"), "dear").unwrap();
        for folder in [dir.path().to_path_buf(), dir.path().join("diary.txt")] {
            let e = create("my-own", Kind::Sampler, &folder, &sdk()).unwrap_err();
            assert!(e.message().contains("exists already"), "{e}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        create("my-own", Kind::Sampler, &empty, &sdk()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_the_sdk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = root().join("sdk/abi");
        for folder in [dir.path(), &other] {
            let e = create("my-own", Kind::Sampler, &dir.path().join("x"), folder).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
            assert_eq!(find_sdk(Some(folder)).unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert!(!dir.path().join("x").exists());
    }

    #[test]
    fn the_sdk_is_found_above_a_folder() {
        assert_eq!(find_sdk(Some(&sdk())).unwrap(), sdk());
        assert_eq!(sdk_above(&root().join("host/src")), Some(sdk()));
        assert_eq!(sdk_above(tempfile::tempdir().unwrap().path()), None);
    }

    #[test]
    fn a_path_with_quotes_and_backslashes_is_one_text() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a \"b\" {{name}}").join("c");
        std::fs::create_dir_all(&odd).unwrap();
        std::fs::write(odd.join("Cargo.toml"), "[package]\nname = \"atelier-sdk\"\n").unwrap();
        let folder = dir.path().join("x");
        let written = create("my-own", Kind::Sampler, &folder, &odd).unwrap();
        // Without a lock file above the sdk there is none to copy.
        assert_eq!(written.len(), 5);
        let wanted = format!("path = \"{}/a \\\"b\\\" {{{{name}}}}/c\"", dir.path().display());
        assert!(read(&folder, "Cargo.toml").contains(&wanted), "{}", read(&folder, "Cargo.toml"));
    }
}
