//! The engine: parameters to work, work to facts.

use crate::analyze;
use crate::check;
use crate::definition::Definition;
use crate::demo;
use crate::issue;
use crate::params::{Analyze, Check, Demo, Prepare};
use crate::prepare::plan::{self, Choice, Plan};
use crate::prepare::{OWN, write};
use crate::source::{Places, Source};
use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{
    Device, Engine, EngineCtx, EngineInfo, EngineReg, EngineTask, Error, ErrorKind, Event, LoadRequest,
    Result, ResultExt, Session,
};
use serde_json::{Value, from_value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The file of what is known about photos, below a folder of results.
const MEMORY: &str = "measures.json";

struct Workshop;

impl Engine for Workshop {
    fn load(&self, request: &LoadRequest<'_>, _: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        match request.device {
            Device::Auto | Device::Cpu => Ok(Box::new(Workshop)),
            other => {
                let what = format!("engine `dataset` does not compute on {other}");
                Err(Error::new(ErrorKind::Unsupported, what).hint("it needs no more than `--device cpu`"))
            }
        }
    }
}

impl Session for Workshop {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let began = Instant::now();
        let plan = plan.clone();
        let shape = "a plan of another shape";
        let mut facts = match task {
            "dataset-analyze" => run_analyze(&from_value(plan).internal(shape)?, ctx),
            "dataset-prepare" => run_prepare(&from_value(plan).internal(shape)?, ctx),
            "dataset-check" => run_check(&from_value(plan).internal(shape)?, ctx),
            "dataset-demo" => run_demo(&from_value(plan).internal(shape)?),
            other => Err(Error::internal(format!("engine `dataset` has no task `{other}`"))),
        }?;
        facts["seconds"] = json!(began.elapsed().as_secs_f64());
        Ok(facts)
    }

    fn describe(&self) -> String {
        format!("cpu, {} threads", rayon::current_num_threads())
    }
}

fn some_paths(paths: &[String]) -> Vec<PathBuf> {
    paths.iter().filter(|p| !p.is_empty()).map(PathBuf::from).collect()
}

fn some_path(path: Option<&String>) -> Option<PathBuf> {
    path.filter(|p| !p.is_empty()).map(PathBuf::from)
}

fn folder(path: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(path);
    std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    Ok(folder)
}

fn run_analyze(p: &Analyze, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let definition = Definition::read(&ctx.input_bytes("definition")?)?;
    let places = Places {
        input: (&p.input).into(),
        records: some_path(p.records.as_ref()),
        images: some_paths(&p.images),
    };
    let began = Instant::now();
    let source = Source::read(definition, &places, p.filter.as_deref())?;
    let read = began.elapsed().as_secs_f64();
    if !source.has_images {
        let message = "there is no folder of images: the report is about records alone".into();
        ctx.event(Event::Warning { message })?;
    }
    let out = folder(&p.out)?;
    let analysis = analyze::analyze(source, &out.join(OWN).join(MEMORY), ctx)?;
    let written = Instant::now();
    let figures = analyze::write::write(&analysis, &out, p.seed)?;
    let s = &analysis.source;
    warn_about_issues(s, ctx)?;
    Ok(json!({
        "folder": out,
        "report": out.join("report.html"),
        "records": {"read": s.table.len(), "selected": s.rows.len()},
        "photos": analysis.photos.len(),
        "figures": figures.len(),
        "timings": {
            "records": read + analysis.seconds.counts,
            "photos": analysis.seconds.photos,
            "report": written.elapsed().as_secs_f64(),
        },
        "issues": issue::count(&s.issues),
    }))
}

fn warn_about_issues(source: &Source, ctx: &mut dyn EngineCtx) -> Result<()> {
    for (kind, n) in issue::count(&source.issues) {
        let what = if kind.excludes() { "left out" } else { "kept" };
        ctx.event(Event::Warning { message: format!("{n} x {} ({what})", kind.title()) })?;
    }
    Ok(())
}

fn run_prepare(p: &Prepare, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let mut definition = Definition::read(&ctx.input_bytes("definition")?)?;
    let rules = &mut definition.images;
    rules.size = p.size.unwrap_or(rules.size);
    rules.frame = p.frame.unwrap_or(rules.frame);
    rules.pad = p.pad.unwrap_or(rules.pad);
    rules.min_side = p.min_side.unwrap_or(rules.min_side);
    let places = Places {
        input: (&p.input).into(),
        records: some_path(p.records.as_ref()),
        images: some_paths(&p.images),
    };
    let out = PathBuf::from(&p.out);
    refuse_overlap(&out, &places)?;
    let source = Source::read(definition, &places, p.filter.as_deref())?;
    let choice = Choice { seed: p.seed, locales: p.locales.clone(), prototype: p.prototype as usize };
    // A dry run leaves no trace.
    let held = if p.dry_run { None } else { Some(write::lock(&folder(&p.out)?)?) };
    let memory = held.is_some().then(|| out.join(OWN).join(MEMORY));
    let plan = plan::plan(source, &choice, memory.as_deref(), ctx)?;
    let work = write::compare(&plan, &choice, p.txt, &out)?;
    let mut facts = plan_facts(&plan, &out);
    facts["made"] = json!(work.make.len());
    facts["kept"] = json!(work.keep.len());
    facts["removed"] = json!(work.remove.len());
    facts["texts"] = json!(work.texts.len());
    facts["dry_run"] = json!(p.dry_run);
    if held.is_some() {
        write::perform(&plan, work, &out, ctx)?;
    }
    warn_about_issues(&plan.source, ctx)?;
    Ok(facts)
}

/// A set inside of its own source would be taken for photos by the next run.
fn refuse_overlap(out: &Path, places: &Places) -> Result<()> {
    let real = |p: &Path| p.canonicalize().ok();
    let Some(out_real) = real(out) else { return Ok(()) };
    let sources = [Some(places.input.clone()), places.records.clone()]
        .into_iter()
        .flatten()
        .chain(places.images.clone());
    if let Some(same) = sources.into_iter().find(|s| real(s).is_some_and(|s| s == out_real)) {
        return Err(Error::invalid(format!(
            "the training set would be written into its source {}",
            same.display()
        ))
        .hint("choose another folder with `out`"));
    }
    Ok(())
}

fn plan_facts(plan: &Plan, out: &Path) -> Value {
    let parts: Vec<Value> = plan.parts.iter().map(|(name, n)| json!({"name": name, "images": n})).collect();
    json!({
        "folder": out,
        "records": {"read": plan.source.table.len(), "selected": plan.source.rows.len()},
        "splits": parts,
        "strata": plan.strata.len(),
        "pooled_strata": plan.pooled,
        "largest_deviation": plan.deviation,
        "groups": plan.groups,
        "balance": plan.balance,
        "size": plan.size,
        "issues": issue::count(&plan.source.issues),
    })
}

fn run_check(p: &Check, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let folder = PathBuf::from(&p.input);
    let verdict = check::check(&folder, p.quarantine, ctx)?;
    let words = check::words(&verdict);
    let value = serde_json::to_value(&verdict).internal("a verdict that is no JSON")?;
    let text = serde_json::to_vec_pretty(&value).internal("a verdict that is no JSON")?;
    let kept = write_atomic(&folder.join("check.txt"), words.as_bytes())
        .and_then(|()| write_atomic(&folder.join("check.json"), &text));
    // A set on a disk that takes nothing can be checked as well: the verdict counts, not the copy of it.
    if let Err(e) = kept {
        ctx.event(Event::Warning { message: format!("the verdict is not kept: {}", e.chain().join(": ")) })?;
    }
    if verdict.is_good() {
        return Ok(value);
    }
    let n = verdict.faults.len();
    let said = verdict.faults.iter().take(10).map(|f| format!("{}: {}", f.file, f.reason));
    let error = Error::new(
        ErrorKind::Corrupt,
        format!("{} has {n} faults, {} images were put aside", folder.display(), verdict.quarantined),
    );
    let error = said.fold(error, Error::hint);
    Err(error.hint(format!(
        "all are in {}; `dataset prepare` makes again what is missing",
        folder.join("check.txt").display()
    )))
}

fn run_demo(p: &Demo) -> Result<Value> {
    let out = folder(&p.out)?;
    let made = demo::write(&out, p.count as usize, p.seed, p.broken)?;
    Ok(json!({"folder": out, "products": made.products, "broken": made.broken}))
}

fn devices() -> Vec<DeviceInfo> {
    vec![DeviceInfo { device: "cpu".into(), available: true, detail: std::env::consts::ARCH.into() }]
}

/// The registration of the engine.
pub const ENGINE: EngineReg = EngineReg {
    info: &EngineInfo {
        key: "dataset",
        title: "Dataset workshop",
        summary: "Analyses raw product data, prepares training sets, checks them, draws a demo set.",
        architectures: &[],
    },
    tasks: &[
        EngineTask::of::<Analyze>(),
        EngineTask::of::<Prepare>(),
        EngineTask::of::<Check>(),
        EngineTask::of::<Demo>(),
    ],
    devices,
    make: || Ok(Box::new(Workshop)),
    origin: env!("CARGO_PKG_NAME"),
};
