//! The best of several settings: a training with each, compared by validation.

use crate::base::Base;
use crate::curves::{self, Curve};
use crate::log;
use crate::params::TrainLora;
use crate::run;
use crate::sets::Sets;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::{
    EngineCtx, Error, ErrorKind, Event, PlanCtx, Result, ResultExt, TaskInfo, TaskParams, Violation,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The task.
pub const TASK: TaskInfo = TaskInfo {
    key: "train-search",
    title: "Search for training settings",
    summary: "Trains a LoRA with each combination of ranks, rates and epochs, and compares them by validation.",
};

/// Trains with each combination of ranks, rates and epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainSearch {
    /// Ranks to try; none, that of `lora_rank`. Alpha keeps its proportion to the rank.
    #[serde(default)]
    pub ranks: Vec<u32>,
    /// Learning rates to try; none, `learning_rate`.
    #[serde(default)]
    pub rates: Vec<f64>,
    /// Numbers of epochs to try; none, `num_epochs`.
    #[serde(default)]
    pub epochs: Vec<u32>,
    /// What all trainings have in common.
    #[serde(flatten)]
    pub train: TrainLora,
}

impl TaskParams for TrainSearch {
    const TASK: &'static TaskInfo = &TASK;

    fn plan(self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let train = self.train.clone().plan(ctx)?;
        let mut wrong = Vec::new();
        if train.val_dir.is_empty() {
            let v = Violation::new("/val_dir", "there is nothing to compare the trainings by");
            wrong.push(v.hint("name a folder of validation images"));
        }
        if self.trials().is_empty() {
            wrong.push(Violation::new("/ranks", "a rank of 0, or a rate below 0, trains nothing"));
        }
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }
}

/// One training of a search.
struct Trial {
    name: String,
    params: TrainLora,
}

impl TrainSearch {
    fn trials(&self) -> Vec<Trial> {
        let t = &self.train;
        let or = |list: &[u32], one: u32| if list.is_empty() { vec![one] } else { list.to_vec() };
        let rates = if self.rates.is_empty() { vec![t.learning_rate] } else { self.rates.clone() };
        let mut trials = Vec::new();
        for rank in or(&self.ranks, t.lora_rank).into_iter().filter(|r| (1..=1024).contains(r)) {
            for rate in rates.iter().copied().filter(|r| *r >= 0.0) {
                for epochs in or(&self.epochs, t.num_epochs).into_iter().filter(|e| *e > 0) {
                    let name = format!("rank{rank}-rate{rate:e}-epochs{epochs}");
                    let out = Path::new(&t.out).join("trials").join(&name);
                    let params = TrainLora {
                        lora_rank: rank,
                        lora_alpha: t.lora_alpha / f64::from(t.lora_rank) * f64::from(rank),
                        learning_rate: rate,
                        num_epochs: epochs,
                        cache_dir: cache(t),
                        resume: true,
                        dry_run: false,
                        out: out.to_string_lossy().into_owned(),
                        ..t.clone()
                    };
                    trials.push(Trial { name, params });
                }
            }
        }
        trials
    }
}

/// All trials look at the same images.
fn cache(t: &TrainLora) -> String {
    match t.cache_dir.as_str() {
        "" => Path::new(&t.out).join("cache").to_string_lossy().into_owned(),
        named => named.into(),
    }
}

/// How a trial went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
    name: String,
    rank: u32,
    rate: f64,
    epochs: u32,
    steps: u64,
    train_loss: Option<f64>,
    first: Option<f64>,
    best: Option<f64>,
    best_step: Option<u64>,
    seconds: f64,
    /// Why it came to nothing.
    error: Option<String>,
}

/// Runs the trials that were not run yet, and compares all.
///
/// # Errors
/// The request to stop; not a single trial that came to an end.
pub fn run(base: &Base, search: &TrainSearch, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let out = PathBuf::from(&search.train.out);
    let sets = Sets::open(&search.train, ctx)?;
    let trials = search.trials();
    let mut outcomes = Vec::new();
    for (i, trial) in trials.iter().enumerate() {
        ctx.event(Event::Metric { name: "search.trial".into(), value: (i + 1) as f64 })?;
        outcomes.push(one(base, trial, &sets, ctx)?);
    }
    let best = outcomes.iter().filter(|o| o.error.is_none() && o.best.is_some());
    let best = best.min_by(|a, b| a.best.unwrap_or(f64::MAX).total_cmp(&b.best.unwrap_or(f64::MAX)));
    let Some(best) = best else {
        let e = Error::invalid("no trial came to an end");
        return Err(outcomes
            .iter()
            .filter_map(|o| Some(format!("{}: {}", o.name, o.error.as_ref()?)))
            .fold(e, Error::hint));
    };
    let table = table(&outcomes, &best.name);
    write_atomic(
        &out.join("comparison.md"),
        format!("# Trials\n\n{table}\n![Validation](comparison.svg)\n").as_bytes(),
    )?;
    write_atomic(&out.join("comparison.csv"), csv(&outcomes).as_bytes())?;
    let curves: Vec<Curve> = outcomes
        .iter()
        .map(|o| Curve {
            name: o.name.clone(),
            points: log::values(&out.join("trials").join(&o.name), "val.loss"),
        })
        .collect();
    let svg = curves::svg("Validation loss by step", "step", "validation loss", &curves);
    write_atomic(&out.join("comparison.svg"), svg.as_bytes())?;
    let chosen = trials.iter().find(|t| t.name == best.name);
    let preset = out.join("best.yaml");
    if let Some(trial) = chosen {
        write_atomic(&preset, yaml(base, trial, &search.train, best)?.as_bytes())?;
    }
    Ok(json!({"folder": out, "table": table, "best": best, "preset": preset, "trials": outcomes}))
}

/// Runs a trial, or reads how it went before.
fn one(base: &Base, trial: &Trial, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<Outcome> {
    let folder = PathBuf::from(&trial.params.out);
    let record = folder.join("trial.json");
    let known = std::fs::read(&record).ok().and_then(|b| serde_json::from_slice::<Outcome>(&b).ok());
    if let Some(outcome) = known.filter(|o| o.name == trial.name) {
        return Ok(outcome);
    }
    std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    let facts = run::train(base, &trial.params, sets, ctx);
    let p = &trial.params;
    let mut outcome = Outcome {
        name: trial.name.clone(),
        rank: p.lora_rank,
        rate: p.learning_rate,
        epochs: p.num_epochs,
        steps: 0,
        train_loss: None,
        first: None,
        best: None,
        best_step: None,
        seconds: 0.0,
        error: None,
    };
    match facts {
        Ok(f) => {
            outcome.steps = f["steps"].as_u64().unwrap_or(0);
            outcome.train_loss = f["train_loss"].as_f64();
            (outcome.first, outcome.best) = (f["val"]["first"].as_f64(), f["val"]["best"].as_f64());
            outcome.best_step = f["val"]["best_step"].as_u64();
            outcome.seconds = f["seconds"].as_f64().unwrap_or(0.0);
        }
        // Settings that diverge are a result. What the machine or a person stopped is none.
        Err(e) if e.kind() == ErrorKind::InvalidRequest => outcome.error = Some(e.chain().join(": ")),
        Err(e) => return Err(e.context(format!("trial {}", trial.name))),
    }
    write_atomic(&record, &serde_json::to_vec_pretty(&outcome).internal("an outcome that is no JSON")?)?;
    Ok(outcome)
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.5}"))
}

fn table(outcomes: &[Outcome], best: &str) -> String {
    let mut text = String::from(
        "| trial | rank | rate | epochs | steps | training loss | validation before | best | change | at step | seconds |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for o in outcomes {
        let change = match (o.first, o.best) {
            (Some(first), Some(best)) => format!("{:+.1} %", 100.0 * (best / first - 1.0)),
            _ => o.error.clone().unwrap_or_else(|| "-".into()),
        };
        let name = if o.name == best { format!("**{}**", o.name) } else { o.name.clone() };
        let step = o.best_step.map_or("-".into(), |s| s.to_string());
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {:e} | {} | {} | {} | {} | {} | {change} | {step} | {:.0} |",
            o.rank,
            o.rate,
            o.epochs,
            o.steps,
            shown(o.train_loss),
            shown(o.first),
            shown(o.best),
            o.seconds
        );
    }
    text
}

fn csv(outcomes: &[Outcome]) -> String {
    let mut text =
        String::from("trial,rank,rate,epochs,steps,train_loss,val_first,val_best,best_step,seconds,error\n");
    let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
    for o in outcomes {
        let error = o.error.as_deref().map_or(String::new(), |e| format!("\"{}\"", e.replace('"', "\"\"")));
        let _ = writeln!(
            text,
            "{},{},{:e},{},{},{},{},{},{},{:.1},{error}",
            o.name,
            o.rank,
            o.rate,
            o.epochs,
            o.steps,
            number(o.train_loss),
            number(o.first),
            number(o.best),
            o.best_step.map_or(String::new(), |s| s.to_string()),
            o.seconds
        );
    }
    text
}

/// The settings of a trial as a preset; JSON is YAML.
fn yaml(base: &Base, trial: &Trial, common: &TrainLora, best: &Outcome) -> Result<String> {
    // A trial may be of a part of the images; what is found is for all of them.
    let params = TrainLora {
        out: Path::new(&common.out).join("best").to_string_lossy().into_owned(),
        resume: false,
        prototype: 0,
        ..trial.params.clone()
    };
    let usual = serde_json::to_value(TrainLora::default()).internal("parameters that are no JSON")?;
    let all = serde_json::to_value(&params).internal("parameters that are no JSON")?;
    let mut text = format!(
        "schema_version: 1\ntitle: The best of a search\ndescription: {}\ntask: train-lora\nengine: lora-trainer\nmodel: {}\nparams:\n",
        json!(format!(
            "Validation loss {} after {} steps, in trial {}.",
            shown(best.best),
            best.steps,
            best.name
        )),
        json!(base.name)
    );
    for (name, value) in all.as_object().into_iter().flatten().filter(|(n, v)| usual[n.as_str()] != **v) {
        let _ = writeln!(text, "  {name}: {value}");
    }
    Ok(text)
}
