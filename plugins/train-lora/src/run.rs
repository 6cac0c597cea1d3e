//! A training from its parameters to its exports.

use crate::agenda::Agenda;
use crate::base::Base;
use crate::checkpoint::{self, Checkpoints};
use crate::encodings::Encodings;
use crate::exports;
use crate::identity;
use crate::ledger::{Ledger, Status};
use crate::log::Log;
use crate::material::Material;
use crate::params::TrainLora;
use crate::samples::{self, Sampling, Scene};
use crate::sets::Sets;
use crate::trainer::{StepReport, Trainer};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, Result, Stage};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Trains on sets that are opened. Gives the facts of the run.
///
/// # Errors
/// Whatever stopped it: what was reached is saved then.
pub fn train(base: &Base, params: &TrainLora, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let began = Instant::now();
    let out = Path::new(&params.out);
    let _held = checkpoint::hold(out)?;
    let steps = Agenda::new(params, sets.train.per_epoch()).steps;
    let identity = identity::of(base, params, sets, steps)?;
    let checkpoints = Checkpoints::new(out, identity, params.keep_checkpoints as usize);
    let found = if params.resume { checkpoints.last()? } else { refuse_old(&checkpoints, out)? };
    let mut ledger = Ledger::begin(out, base, params, sets)?;
    let encodings = Encodings::keep(base, params, sets, ctx)?;
    let train = Material::new(base, params, &sets.train, &encodings)?;
    let val = sets.val.as_ref().map(|val| Material::new(base, params, val, &encodings)).transpose()?;
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let mut trainer = Trainer::new(base, params, &train, val.as_ref())?;
    let mut settled = true;
    if let Some((state, torn)) = found {
        for message in torn {
            ctx.event(Event::Warning { message: format!("a checkpoint is passed over: {message}") })?;
        }
        settled = state.position.settled;
        trainer.restore(state)?;
    }
    let log = Log::open(out, trainer.steps_done())?;
    let mut course =
        Course { base, params, out, trainer, checkpoints, log, encodings: &encodings, settled, last: None };
    let result = course.go(ctx);
    let result = course.close(result);
    match &result {
        Ok(stopped) => {
            ledger.end(if *stopped { Status::StoppedEarly } else { Status::Done }, course.steps(), None)?
        }
        Err(e) if e.kind() == ErrorKind::Cancelled => ledger.end(Status::Stopped, course.steps(), None)?,
        Err(e) => ledger.end(Status::Failed, course.steps(), Some(e))?,
    }
    let stopped_early = result?;
    let files = exports::write(&course.trainer, base, params, sets, &course.checkpoints, ledger.started())?;
    Ok(json!({
        "folder": out,
        "steps": course.steps(),
        "stopped_early": stopped_early,
        "seconds": began.elapsed().as_secs_f64(),
        "train_loss": course.last.map(|r| r.loss),
        "val": {
            "first": course.trainer.first(),
            "best": course.trainer.best().map(|b| b.loss),
            "best_step": course.trainer.best().map(|b| b.step),
        },
        "data": sets.facts(),
        "modules": course.trainer.trained().trainee.factors.len(),
        "trained": course.trainer.trained().trainee.count(),
        "exports": files,
    }))
}

type Found = Option<(checkpoint::State, Vec<String>)>;

/// A new training does not write over an old one.
fn refuse_old(checkpoints: &Checkpoints, out: &Path) -> Result<Found> {
    let Some(step) = checkpoints.steps().pop() else { return Ok(None) };
    Err(Error::invalid(format!("{} holds a training that reached step {step}", out.display()))
        .hint(format!("go on with it: atelier train --resume {}", out.display()))
        .hint("or choose another `out` (`--out`)"))
}

/// A training under way.
struct Course<'a> {
    base: &'a Base,
    params: &'a TrainLora,
    out: &'a Path,
    trainer: Trainer<'a>,
    checkpoints: Checkpoints,
    log: Log,
    encodings: &'a Encodings,
    /// Whether everything that is due after the last step was done.
    settled: bool,
    last: Option<StepReport>,
}

impl Course<'_> {
    fn steps(&self) -> u64 {
        self.trainer.steps_done()
    }

    /// To the last step, or until validation does not get better. Gives whether it was the latter.
    fn go(&mut self, ctx: &mut dyn EngineCtx) -> Result<bool> {
        let agenda = *self.trainer.agenda();
        if self.steps() == 0 {
            self.validate(ctx)?;
            self.sample(ctx)?;
        } else if !self.settled {
            self.settle(ctx)?;
        }
        ctx.event(Event::Stage { stage: Stage::Train })?;
        while self.steps() < agenda.steps && !self.trainer.is_stuck() {
            let report = self.trainer.step(ctx)?;
            self.settled = false;
            self.last = Some(report);
            self.tell(&report, ctx)?;
            self.settle(ctx)?;
        }
        Ok(self.steps() < agenda.steps)
    }

    /// What is due after a step.
    fn settle(&mut self, ctx: &mut dyn EngineCtx) -> Result<()> {
        let (agenda, step) = (*self.trainer.agenda(), self.steps());
        let better = agenda.validates(step) && self.validate(ctx)?;
        if agenda.samples(step) {
            self.sample(ctx)?;
        }
        self.settled = true;
        if better || agenda.saves(step) || self.trainer.is_stuck() {
            self.save()?;
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        self.log.sync()?;
        self.checkpoints.save(&self.trainer.state(self.settled)?).map(drop)
    }

    /// Saves what was reached when the training was stopped. A failure to do so is not passed over.
    fn close(&mut self, result: Result<bool>) -> Result<bool> {
        match result {
            Err(e) if e.kind() == ErrorKind::Cancelled => {
                if self.steps() > 0 {
                    self.save()?;
                }
                Err(e.hint(format!("go on with: atelier train --resume {}", self.out.display())))
            }
            other => other,
        }
    }

    fn tell(&mut self, r: &StepReport, ctx: &mut dyn EngineCtx) -> Result<()> {
        let (step, agenda) = (self.steps(), *self.trainer.agenda());
        let mut values = vec![
            ("train.loss", r.loss),
            ("train.learning_rate", r.rate),
            ("train.grad_norm", r.norm),
            ("train.epoch", agenda.epochs(step)),
            ("train.seconds", r.seconds),
            ("train.memory", crate::ledger::memory() as f64),
        ];
        values.extend(r.estimate.map(|d| ("train.estimate", d)));
        self.log.write(step, &values)?;
        if r.skipped {
            let message =
                format!("step {step}: gradients overflowed and the weights stayed; the scale is halved");
            ctx.event(Event::Warning { message })?;
        }
        for (name, value) in values {
            ctx.event(Event::Metric { name: name.into(), value })?;
        }
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        ctx.event(Event::Step { step: number(step), steps: number(agenda.steps), seconds: r.seconds })
    }

    /// Gives whether it is the best so far.
    fn validate(&mut self, ctx: &mut dyn EngineCtx) -> Result<bool> {
        if !self.trainer.validates() {
            return Ok(false);
        }
        ctx.event(Event::Stage { stage: Stage::Validate })?;
        let Some(loss) = self.trainer.validate(ctx)? else { return Ok(false) };
        let step = self.steps();
        self.log.write(step, &[("val.loss", loss)])?;
        ctx.event(Event::Metric { name: "val.loss".into(), value: loss })?;
        Ok(step > 0 && self.trainer.best().is_some_and(|best| best.step == step))
    }

    fn sample(&mut self, ctx: &mut dyn EngineCtx) -> Result<()> {
        if self.params.sample_prompts.is_empty() {
            return Ok(());
        }
        ctx.event(Event::Stage { stage: Stage::Denoise })?;
        let p = self.params;
        let sampling = Sampling {
            base: self.base,
            steps: p.sample_steps as usize,
            cfg_scale: p.sample_cfg_scale,
            side: p.resolution as usize,
            seed: p.seed,
            sampler: &p.sampler,
            schedule: &p.schedule,
        };
        let (scenes, images) = self.trainer.with_exported(|t| {
            let scenes = self.scenes()?;
            let images = sampling.draw(t.trained(), &scenes, ctx)?;
            Ok((scenes, images))
        })?;
        let folder = self.out.join("samples").join(format!("step-{:08}", self.steps()));
        let files = samples::write(&folder, &images, &scenes, p.seed)?;
        self.log.pictures(self.steps(), &files)
    }

    /// The prompts of the samples with their embeddings, as the text encoder in training sees them.
    fn scenes(&self) -> Result<Vec<Scene>> {
        let embed = |text: &str| {
            let trained = self.trainer.trained();
            trained.embed(&[text.to_string()], |_| self.encodings.text(self.base, text))
        };
        let negative = embed("")?;
        let scene = |prompt: &String| {
            Ok(Scene { prompt: prompt.clone(), positive: embed(prompt)?, negative: negative.clone() })
        };
        self.params.sample_prompts.iter().map(scene).collect()
    }
}
