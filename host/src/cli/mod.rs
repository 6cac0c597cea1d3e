//! The command line.

mod args;
mod benchmark;
mod dataset;
mod doctor;
mod generate;
mod lists;
mod logging;
mod lora;
mod model_import;
mod model_inspect;
mod model_pull;
mod model_verify;
mod models;
mod plugin_files;
mod plugin_tools;
mod presets;
mod progress;
mod schema;
mod tool;
mod train;

use crate::config::Config;
use crate::dispatch::Cancel;
use crate::found::Folders;
use crate::machine;
use crate::paths::Paths;
use crate::plugins::catalog::{Catalog, Wanted};
use crate::plugins::worker;
use crate::profile::Profile;
use crate::registries::Registries;
use args::{Cli, Command, PluginAction};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use clap::Parser;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every command works with.
struct Studio {
    paths: Paths,
    config: Config,
    registries: Registries,
}

/// Parses the command line, runs the command, prints a failure, and gives the exit code.
pub fn main() -> ExitCode {
    machine::keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version come this way too; clap's own codes are 0 for those and 2 for mistakes.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    // A worker writes to the log of its host, and leaves it where it is.
    let rotate = !matches!(cli.command, Command::Worker { .. });
    let profile = cli.command.profile().map(Profile::new);
    logging::start(cli.verbose, rotate, profile.as_ref().map(Profile::recorder));
    let json = cli.command.json();
    match profiled(cli, profile.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            print_error(&e, json);
            ExitCode::from(e.kind().exit_code())
        }
    }
}

/// Runs the command, and says what it spent its time on if that is asked for.
fn profiled(cli: Cli, profile: Option<&Profile>) -> Result<()> {
    let Some(profile) = profile else { return run(cli) };
    profile.check()?;
    run(cli)?;
    let table = profile.finish()?;
    // Standard output is for results.
    let _ = writeln!(std::io::stderr(), "{table}");
    Ok(())
}

fn run(cli: Cli) -> Result<()> {
    if let Command::Worker { copy, sha256 } = &cli.command {
        return worker::main(copy, sha256);
    }
    let paths = Paths::find(cli.configs.as_deref())?;
    let config = Config::load(cli.config.as_deref(), &paths)?;
    config.warning().iter().for_each(|warning| eprintln!("warning: {warning}"));
    if let Command::Plugins(args) = &cli.command
        && let Some(done) = plugin_command(&args.action, &cli, &config)
    {
        return done;
    }
    let wanted =
        Wanted { plugins: &cli.plugin, trusted_folders: &cli.trust_plugins_in, settings: config.plugins() };
    let mut registries = Registries::discover(&paths, Catalog::find(wanted)?, &config.plugins().overrides)?;
    for problem in registries.problems.iter().filter(|p| p.named) {
        eprintln!(
            "warning: plugin {} is not in use: {}",
            problem.file.display(),
            problem.error.chain().join(": ")
        );
    }
    config.check_names(registries.task_infos().iter().map(|t| t.key.as_str()))?;
    registries.files = Folders::new(&paths, &config);
    let mut studio = Studio { paths, config, registries };
    match &cli.command {
        Command::Generate(args) => generate::run(args, &mut studio),
        Command::Dataset(args) => dataset::run(&args.action, &studio),
        Command::Train(args) => train::run(args, &mut studio),
        Command::Presets(args) => presets::run(args, &studio),
        Command::Plugins(args) => plugin_tools::list(&args.action, &studio),
        Command::Engines(args) => lists::engines(args, &studio),
        Command::Tasks(args) => lists::tasks(args, &studio),
        Command::Samplers(args) => lists::samplers(args, &studio),
        Command::Schedules(args) => lists::schedules(args, &studio),
        Command::Models(args) => models::run(args, &studio),
        Command::Lora(args) => lora::run(args, &studio),
        Command::Schema(args) => schema::run(args, &studio),
        Command::Doctor(args) => doctor::run(args, &studio),
        Command::Benchmark(args) => benchmark::run(args, &mut studio),
        Command::Worker { .. } => Ok(()), // done above
    }
}

/// The commands about plugins that do not look at what plugins and models there are: they have to work when one
/// of those is broken, because they are how to get rid of it.
fn plugin_command(action: &PluginAction, cli: &Cli, config: &Config) -> Option<Result<()>> {
    Some(match action {
        PluginAction::List(_) => return None,
        PluginAction::Install(args) => plugin_files::install(args),
        PluginAction::Trust { which } => plugin_files::trust(which, cli, config),
        PluginAction::Untrust { which } => plugin_files::untrust(which),
        PluginAction::Remove { name } => plugin_files::remove(name),
        PluginAction::Check(args) => plugin_tools::check(args, cli, config),
        PluginAction::New(args) => plugin_tools::new(args),
    })
}

/// A path as a parameter.
fn text(path: &Path) -> Result<Value> {
    let text =
        path.to_str().ok_or_else(|| Error::invalid(format!("the path {} is not Unicode", path.display())))?;
    Ok(text.into())
}

/// Prints a line to stdout; a reader that went away is an error that ends the command quietly.
fn say(text: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::io("cannot write to standard output", e))
}

fn say_json(value: &Value) -> Result<()> {
    say(serde_json::to_string_pretty(value).internal("a result that is not JSON")?)
}

fn is_broken_pipe(e: &Error) -> bool {
    std::error::Error::source(e)
        .and_then(|s| s.downcast_ref::<std::io::Error>())
        .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

fn print_error(e: &Error, as_json: bool) {
    if as_json {
        let value = json!({"error": {"kind": e.kind(), "causes": e.chain(), "hints": e.hints()}});
        // A stdout that is gone leaves only the exit code to speak.
        let _ = say_json(&value);
        return;
    }
    let mut lines = e.chain().into_iter();
    let mut text = match e.kind() {
        ErrorKind::Cancelled => "stopped on request".to_string(),
        _ => format!("error: {}", lines.next().unwrap_or_default()),
    };
    if e.kind() != ErrorKind::Cancelled {
        for cause in lines {
            text += &format!("\n  because: {cause}");
        }
    }
    for hint in e.hints() {
        text += &format!("\n  hint: {hint}");
    }
    if !e.kind().is_expected()
        && let Some(log) = logging::file()
    {
        text += &format!("\n  log: {}", log.display());
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A flag that Ctrl-C (or a polite kill) sets; a second one ends the process at once.
fn cancel_on_signal() -> Result<Cancel> {
    let cancel = Cancel::new(AtomicBool::new(false));
    let flag = cancel.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ErrorKind::Cancelled.exit_code()));
        }
        let _ = writeln!(std::io::stderr(), "\nstopping after this step; once more to stop at once");
    })
    .kind(ErrorKind::Environment, || "cannot listen for Ctrl-C".into())?;
    Ok(cancel)
}
