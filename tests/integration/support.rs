//! What the tests share: folders, and a way to run atelier.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The references: `ATELIER_GOLDEN_DIR`, else those that the repository carries.
pub fn golden() -> PathBuf {
    std::env::var_os("ATELIER_GOLDEN_DIR").map_or_else(|| root().join("tests/fixtures/golden"), PathBuf::from)
}

/// A folder of its own to run atelier in.
pub struct Place {
    pub dir: tempfile::TempDir,
    configs: PathBuf,
}

/// What a run said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Asserts success.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts a failure with this exit code whose message holds all of `words`.
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in:\n{}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
        self
    }
}

impl From<Output> for Said {
    fn from(o: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8(b).expect("atelier prints UTF-8");
        Self { code: o.status.code().unwrap_or(-1), out: text(o.stdout), err: text(o.stderr) }
    }
}

impl Place {
    /// With the tests' own presets and the tiny model.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), configs: root().join("tests/fixtures/configs") }
    }

    /// With presets and models that the test writes itself, by [`Self::write`] below `configs/`.
    pub fn with_own_configs() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let configs = dir.path().join("configs");
        std::fs::create_dir_all(configs.join("presets")).unwrap();
        Self { dir, configs }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The command, ready for arguments.
    pub fn command(&self) -> Command {
        self.wrap(Command::new(env!("CARGO_BIN_EXE_atelier")))
    }

    /// Gives any command this place's folder and environment.
    pub fn wrap(&self, mut command: Command) -> Command {
        command
            .current_dir(self.dir.path())
            .env("ATELIER_CONFIGS", &self.configs)
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("ATELIER_PLUGIN_PATH")
            .env_remove("ATELIER_TRUST_PLUGINS_IN")
            .env_remove("ATELIER_LOG")
            .env_remove("ATELIER_CONFIG")
            .env_remove("ATELIER_MODELS");
        command
    }

    /// Runs atelier.
    pub fn run(&self, args: &[&str]) -> Said {
        self.command().args(args).output().unwrap().into()
    }

    /// Runs `generate --json` and gives the image.
    pub fn generate(&self, args: &[&str]) -> PathBuf {
        let mut all = vec!["generate", "--json"];
        all.extend(args);
        let said = self.run(&all).ok();
        self.path(said.json()["images"][0].as_str().expect("an image"))
    }
}

/// The pixels of a PNG.
pub fn pixels(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    data.truncate(info.buffer_size());
    (info.width, info.height, data)
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Names of the files in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_dir(folder)
        .map(|d| d.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    out.sort();
    out
}
