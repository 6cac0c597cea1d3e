//! Whatever a plugin library does - crash, hang, lie, lack - atelier says so, ends as it should, works again.

mod boundary;
mod crashes;
mod engine;
mod files;
mod names;
mod records;
mod stalls;
mod stop;
mod streams;
mod thread;
mod trust;

use crate::plugin_fixtures::{file_name, library};
use crate::support::{Place, Said, pixels};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything here may take, however slow the machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A place with plugin libraries. When it goes, no process that worked in it may be left.
pub struct Studio {
    pub place: Place,
    settings: Option<PathBuf>,
}

impl Studio {
    /// Without libraries.
    pub fn new() -> Self {
        Self { place: Place::new(), settings: None }
    }

    /// With libraries that are trusted.
    pub fn with(libraries: &[PathBuf]) -> Self {
        let studio = Self::new();
        for library in libraries {
            studio.put(library);
            studio.trust(library.file_name().unwrap().to_str().unwrap()).ok();
        }
        studio
    }

    /// With the library `failing`, trusted.
    pub fn failing() -> Self {
        Self::with(&[library("failing")])
    }

    /// What `atelier.yaml` says under `plugins:`.
    pub fn settings(mut self, plugins: &str) -> Self {
        let text = format!("schema_version: 1\nplugins: {plugins}\n");
        self.settings = Some(self.place.write("settings.yaml", text));
        self
    }

    /// The folder in which a user's plugins are found.
    pub fn folder(&self) -> PathBuf {
        let data = if cfg!(target_os = "macos") { "Library/Application Support" } else { "data" };
        self.place.path(data).join("atelier/plugins")
    }

    /// Copies a library into the folder.
    pub fn put(&self, library: &Path) -> PathBuf {
        self.put_bytes(library.file_name().unwrap().to_str().unwrap(), &std::fs::read(library).unwrap())
    }

    /// Writes a file into the folder.
    pub fn put_bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.folder().join(name);
        std::fs::create_dir_all(self.folder()).unwrap();
        std::fs::write(&file, bytes).unwrap();
        file
    }

    /// Trusts a file of the folder.
    pub fn trust(&self, name: &str) -> Said {
        self.run(&["plugins", "trust", self.folder().join(name).to_str().unwrap()])
    }

    /// The command, ready for arguments.
    pub fn command(&self) -> Command {
        let mut command = self.place.command();
        command.env("XDG_DATA_HOME", self.place.path("data"));
        command.env("XDG_CACHE_HOME", self.place.path("cache"));
        command.env_remove("ATELIER_PLUGIN_PATH");
        if let Some(file) = &self.settings {
            command.arg("--config").arg(file);
        }
        command
    }

    /// Runs atelier.
    pub fn run(&self, args: &[&str]) -> Said {
        let mut command = self.command();
        command.args(args);
        run(command)
    }

    fn generate(&self, sets: &[&str], more: &[&str]) -> Said {
        let mut args = vec!["generate", "-p", "tiny/quick"];
        args.extend(sets.iter().flat_map(|set| ["-s", set]));
        args.extend(more);
        self.run(&args)
    }

    /// The image of a run.
    pub fn image(&self, sets: &[&str]) -> PathBuf {
        let said = self.generate(sets, &["--json"]).ok();
        self.place.path(said.json()["images"][0].as_str().expect("an image"))
    }

    /// The pixels of a run's image.
    pub fn picture(&self, sets: &[&str]) -> (u32, u32, Vec<u8>) {
        pixels(&self.image(sets))
    }

    /// How a run failed, with this exit code and kind.
    pub fn failure(&self, code: i32, kind: &str, sets: &[&str]) -> Failure {
        let said = self.generate(sets, &["--json"]);
        let failure = Failure::of(&said);
        assert_eq!((said.code, failure.kind.as_str()), (code, kind), "{sets:?}: {said:?}");
        failure
    }

    /// Asserts that atelier can be used after whatever happened.
    pub fn still_works(&self) {
        self.image(&["sampler=euler"]);
        let list = self.run(&["plugins", "list", "--json"]).ok().json();
        assert!(list.as_array().is_some_and(|l| l.iter().any(|i| i["key"] == "euler")), "{list}");
    }

    /// What `plugins list --failed` says of the library of this name.
    pub fn problem(&self, library: &str) -> Problem {
        let list = self.run(&["plugins", "list", "--failed", "--json"]).ok().json();
        let name = file_name(library);
        let found = list.as_array().unwrap().iter().find(|p| text(&p["file"]).ends_with(&name));
        let found = found.unwrap_or_else(|| panic!("nothing about {name} in {list}"));
        let hints = found["hints"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        Problem {
            plugin: text(&found["plugin"]),
            state: text(&found["state"]),
            message: text(&found["message"]),
            hints: hints.join("\n"),
        }
    }

    /// The log.
    pub fn log(&self) -> String {
        let mac = cfg!(target_os = "macos");
        let folder = if mac { "Library/Logs/atelier" } else { "state/atelier" };
        std::fs::read_to_string(self.place.path(folder).join("atelier.log")).unwrap_or_default()
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            no_process_is_left(self.place.dir.path());
        }
    }
}

/// A failure as `--json` tells it.
#[derive(Debug)]
pub struct Failure {
    pub kind: String,
    pub causes: String,
    pub hints: String,
}

impl Failure {
    fn of(said: &Said) -> Self {
        let error = said.json()["error"].clone();
        assert!(error.is_object(), "no error in {said:?}");
        let lines = |field: &str| {
            let lines: Vec<_> = error[field].as_array().into_iter().flatten().map(text).collect();
            lines.join("\n")
        };
        Self { kind: text(&error["kind"]), causes: lines("causes"), hints: lines("hints") }
    }

    /// Asserts that the causes hold all of `words`.
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.causes.contains(word), "no {word:?} in {self:?}");
        }
        self
    }

    /// Asserts that the causes name an item, its plugin and the file of it, and that something can be done.
    pub fn names(&self, item: &str, plugin: &str) -> &Self {
        assert!(!self.hints.is_empty(), "{self:?}");
        self.says(&[item, &plugin.replace('_', "-"), &file_name(plugin)])
    }
}

/// An entry of `plugins list --failed`.
#[derive(Debug)]
pub struct Problem {
    pub plugin: String,
    pub state: String,
    pub message: String,
    pub hints: String,
}

impl Problem {
    /// Asserts the state, and that the message holds all of `words`.
    pub fn is(&self, state: &str, words: &[&str]) -> &Self {
        assert_eq!(self.state, state, "{self:?}");
        for word in words {
            assert!(self.message.contains(word), "no {word:?} in {self:?}");
        }
        self
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Runs a command that must end, and that nobody may outlive with its output in hand.
pub fn run(mut command: Command) -> Said {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, err) = (drain(child.stdout.take().unwrap()), drain(child.stderr.take().unwrap()));
    let code = wait(&mut child, LIMIT);
    Said { code, out: drained(&out), err: drained(&err) }
}

fn drain(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8(bytes).expect("atelier prints UTF-8"));
    });
    receive
}

fn drained(pipe: &Receiver<String>) -> String {
    let seconds = Duration::from_secs(10);
    pipe.recv_timeout(seconds).expect("a process that atelier left behind still holds its output")
}

/// The exit code of a process, which is killed and fails the test if it takes longer than `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> i32 {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not ended after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that no process has anything to do with a folder, once those that are ending have had their time.
pub fn no_process_is_left(folder: &Path) {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let left = processes_of(folder);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "still running: {left:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Processes that name the folder in their command line or environment, or work in it.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mut found = Vec::new();
    // Only Linux shows all of this as files.
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id.parse::<u32>().is_err() {
            continue;
        }
        let text = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
        };
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if text("cmdline").contains(folder) || text("environ").contains(folder) || cwd.starts_with(folder) {
            found.push(format!("{id}: {}", text("cmdline").replace('\0', " ")));
        }
    }
    found
}

/// Sends a signal, as `kill` names it.
#[cfg(unix)]
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
