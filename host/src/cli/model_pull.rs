//! `atelier models pull`.

use super::args::ModelPull;
use super::{Studio, say, say_json};
use crate::machine::human_bytes;
use crate::model_store;
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result};

/// `atelier models pull`: first everything that could stop it is looked at, then files are fetched.
pub fn run(args: &ModelPull, studio: &Studio) -> Result<()> {
    let specs: Vec<&ModelSpec> =
        args.models.iter().map(|m| studio.registries.model(m).map(|m| &m.spec)).collect::<Result<_>>()?;
    for spec in &specs {
        if spec.files.is_empty() {
            return Err(nothing_to_pull(spec));
        }
        if !args.json {
            describe(spec)?;
        }
    }
    if args.dry_run {
        return if args.json { say_json(&serde_json::json!(specs)) } else { Ok(()) };
    }
    if let Some(spec) = specs.iter().find(|s| s.terms.is_some() && !args.accept_licence && !is_pulled(s)) {
        return Err(unaccepted(spec));
    }
    fetch(args, &specs)
}

fn is_pulled(spec: &ModelSpec) -> bool {
    let Ok(folder) = model_store::folder(&spec.key) else { return false };
    spec.files.iter().all(|f| folder.join(&f.path).is_file())
}

fn nothing_to_pull(spec: &ModelSpec) -> Error {
    let e = Error::new(
        ErrorKind::NotFound,
        format!("the description of model `{}` has no files to pull", spec.key),
    );
    match spec.path.as_deref() {
        Some(path) if path.exists() => e.hint(format!("it is there already: {}", path.display())),
        _ => e.hint("add `files:` to it, see docs/reference/models.md"),
    }
}

fn unaccepted(spec: &ModelSpec) -> Error {
    Error::invalid(format!("the licence of model `{}` has terms to accept: {}", spec.key, spec.license))
        .hint(format!("read them: {}", spec.terms.as_deref().unwrap_or_default()))
        .hint(format!("then: atelier models pull {} --accept-licence", spec.key))
}

/// What will be fetched, and under what licence.
fn describe(spec: &ModelSpec) -> Result<()> {
    let size: Option<u64> = spec.files.iter().map(|f| f.size).sum();
    let size = size.map_or_else(|| "size not known".into(), human_bytes);
    say(format_args!("model    {}: {}", spec.key, spec.title))?;
    say(format_args!("licence  {}", spec.license))?;
    spec.terms.iter().try_for_each(|terms| say(format_args!("terms    {terms}")))?;
    say(format_args!("source   {}", spec.source))?;
    say(format_args!("files    {} ({size})", spec.files.len()))?;
    say(format_args!("to       {}", model_store::folder(&spec.key)?.display()))
}

#[cfg(not(feature = "hub"))]
fn fetch(_: &ModelPull, _: &[&ModelSpec]) -> Result<()> {
    Err(Error::new(ErrorKind::Unsupported, "`models pull` is not compiled in")
        .hint("rebuild with `--features hub`"))
}

#[cfg(feature = "hub")]
fn fetch(args: &ModelPull, specs: &[&ModelSpec]) -> Result<()> {
    use serde_json::json;
    let mut bar = bar::Bar::new(args.json);
    let mut values = Vec::new();
    for spec in specs {
        let files = crate::hub::Pull::new(&mut bar)?.model(spec)?;
        let place = model_store::place(spec)?;
        bar.finish();
        if !args.json {
            for (path, file, state) in &files {
                say(format_args!("{}  {path}  {}", bar::word(*state), file.sha256))?;
            }
            say(format_args!("{} is ready: {}", spec.key, place.display()))?;
        }
        let files: Vec<_> = files
            .iter()
            .map(|(path, f, s)| json!({"path": path, "sha256": f.sha256, "size": f.size, "from": f.from, "state": s}))
            .collect();
        values.push(json!({"model": spec.key, "path": place, "files": files}));
    }
    if args.json { say_json(&json!(values)) } else { Ok(()) }
}

#[cfg(feature = "hub")]
mod bar {
    use crate::hub::{State, Watch};
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    /// How a file came, in words.
    pub fn word(state: State) -> &'static str {
        match state {
            State::Present => "was there  ",
            State::Pulled => "checked    ",
            State::FirstSeen => "first seen ",
        }
    }

    /// Bytes, speed and time left, on stderr when that is a terminal; remarks go there in any case.
    pub struct Bar {
        bar: ProgressBar,
        begun: bool,
    }

    impl Bar {
        /// A bar, or none if `quiet`.
        pub fn new(quiet: bool) -> Self {
            let bar = ProgressBar::no_length();
            bar.set_draw_target(if quiet {
                ProgressDrawTarget::hidden()
            } else {
                ProgressDrawTarget::stderr()
            });
            Self { bar, begun: false }
        }

        /// Takes it away.
        pub fn finish(&self) {
            self.bar.finish_and_clear();
        }
    }

    impl Watch for Bar {
        fn begin(&mut self, file: &str, size: Option<u64>) {
            let template = match size {
                Some(_) => "{msg} {bytes}/{total_bytes} [{bar:30}] {bytes_per_sec}, {eta} left",
                None => "{msg} {bytes} {bytes_per_sec}",
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar.reset();
            self.bar.set_style(style.progress_chars("=> "));
            self.bar.set_length(size.unwrap_or_default());
            self.bar.set_message(file.to_string());
            self.begun = false;
        }

        fn at(&mut self, bytes: u64) {
            if !self.begun {
                // What was there already was not fetched at any speed.
                self.bar.set_position(bytes);
                self.bar.reset_eta();
                self.begun = true;
            }
            self.bar.set_position(bytes);
        }

        fn note(&mut self, text: &str) {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }
}
