//! `atelier plugins list`, `check` and `new`.

use super::args::{Cli, List, ListAction, PluginAction, PluginCheck, PluginNew};
use super::{Studio, lists, plugin_files, say, say_json};
use crate::config::Config;
use crate::plugins::catalog::{self, Problem};
use crate::plugins::plugin::Plugin;
use crate::plugins::template;
use crate::plugins::timing::{self, Timing};
use atelier_sdk::testkit::{Report, SamplerSubject, ScheduleSubject, check_sampler, check_schedule};
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// `atelier plugins list`.
pub fn list(action: &PluginAction, studio: &Studio) -> Result<()> {
    let PluginAction::List(args) = action else { return Ok(()) };
    let problems = &studio.registries.problems;
    if args.failed {
        return failed(problems, args.json);
    }
    lists::plugins(&List { action: ListAction::List { json: args.json } }, studio)?;
    if !problems.is_empty() && !args.json {
        eprintln!("{} not in use: `atelier plugins list --failed` says why", problems.len());
    }
    Ok(())
}

/// The libraries that are not in use, and why.
fn failed(problems: &[Problem], as_json: bool) -> Result<()> {
    let why = |p: &Problem| p.error.chain().join(": ");
    if as_json {
        let values = problems.iter().map(|p| {
            json!({"plugin": p.plugin, "file": p.file, "state": p.state, "kind": p.error.kind(),
                   "message": why(p), "hints": p.error.hints()})
        });
        return say_json(&values.collect());
    }
    if problems.is_empty() {
        return say("every plugin that was found is in use");
    }
    for p in problems {
        let state = json!(p.state);
        say(format_args!("{} ({}): {}", p.plugin, state.as_str().unwrap_or_default(), p.file.display()))?;
        for line in why(p).lines() {
            say(format_args!("  {line}"))?;
        }
        for hint in p.error.hints() {
            say(format_args!("  hint: {hint}"))?;
        }
    }
    Ok(())
}

/// `atelier plugins check`: loads a library in a process of its own and runs the conformance kit on all it has.
pub fn check(args: &PluginCheck, cli: &Cli, config: &Config) -> Result<()> {
    let candidate = plugin_files::candidate(&args.which, cli, config)?;
    let plugin = catalog::one(&candidate, &cli.trust_plugins_in, config.plugins())?;
    let reports = reports(&plugin);
    let wrong: usize = reports.iter().map(|r| r.failed().count()).sum();
    if !args.json {
        say(format_args!("plugin {} ({})", plugin.name, plugin.file.display()))?;
        for (kind, key) in plugin.description.keys() {
            say(format_args!("  has {kind} {key}"))?;
        }
        reports.iter().try_for_each(|r| say(r.to_string().trim_end()))?;
    }
    // In this process: only what has shown that it can be.
    let timing = if args.time && wrong == 0 { timing::time(&plugin)? } else { None };
    if args.json {
        say_json(&json!({
            "plugin": plugin.name, "version": plugin.version, "file": plugin.file, "sha256": plugin.sha256,
            "build": serde_json::from_str::<Value>(&plugin.build_info).unwrap_or_default(),
            "provides": provided(&plugin), "reports": reports, "timing": timing,
        }))?;
    } else {
        timing.iter().try_for_each(say_timing)?;
    }
    match wrong {
        0 => Ok(()),
        n => Err(Error::new(ErrorKind::Corrupt, format!("plugin `{}` fails {n} check(s)", plugin.name))
            .hint("docs/guides/write-a-sampler.md tells what each is about")),
    }
}

fn say_timing(t: &Timing) -> Result<()> {
    say(format_args!(
        "{}: library loaded in {:.1} ms, process started in {:.1} ms\n\
         a step: {:.0} ns for one value in this process; with 4x64x64 latents {:.1} us in this process, \
         {:.1} us on a thread, {:.1} us in a process of its own",
        t.sampler, t.load_ms, t.start_process_ms, t.direct_ns, t.direct_us, t.thread_us, t.process_us
    ))
}

fn provided(plugin: &Plugin) -> Vec<Value> {
    plugin.description.keys().into_iter().map(|(kind, key)| json!({"kind": kind, "key": key})).collect()
}

fn reports(plugin: &Arc<Plugin>) -> Vec<Report> {
    let none = json!({});
    let samplers = plugin.description.samplers.iter().map(|s| {
        let subject = SamplerSubject {
            key: &s.key,
            evaluations: s.evaluations,
            order: s.order,
            stochastic: s.stochastic,
            schema: &s.options_schema,
            make: &|options| plugin.sampler(&s.key, options),
        };
        check_sampler(&subject, &none)
    });
    let schedules = plugin.description.schedules.iter().map(|s| {
        let make: &dyn Fn(&Value) -> _ = &|options| plugin.schedule(&s.key, options);
        check_schedule(&ScheduleSubject { key: &s.key, schema: &s.options_schema, make }, &none)
    });
    samplers.chain(schedules).collect()
}

/// `atelier plugins new`.
pub fn new(args: &PluginNew) -> Result<()> {
    let sdk = template::find_sdk(args.sdk.as_deref())?;
    let folder = args.folder.as_deref().unwrap_or(Path::new("")).join(&args.name);
    let files = template::create(&args.name, args.kind, &folder, &sdk)?;
    files.iter().try_for_each(|file| say(file.display()))?;
    say(format_args!("next: cd {} && cargo test && cargo build --release", folder.display()))
}
