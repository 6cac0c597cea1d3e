//! What a training would take: counted, and measured in one step.

use crate::agenda::Agenda;
use crate::base::Base;
use crate::material::made_up;
use crate::params::TrainLora;
use crate::sets::Sets;
use crate::step::Trained;
use atelier_sdk::{EngineCtx, Event, Result, Stage};
use serde_json::{Value, json};
use std::time::Instant;

/// A pass forward alone takes about this share of one with the way back.
const FORWARD: f64 = 0.3;

/// Tries one step on made-up images, and keeps nothing.
///
/// # Errors
/// Networks that cannot be loaded, a target that matches nothing.
pub fn estimate(base: &Base, params: &TrainLora, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<Value> {
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let trained = Trained::new(base, params)?;
    let agenda = Agenda::new(params, sets.train.per_epoch());
    ctx.event(Event::Stage { stage: Stage::Train })?;
    let mut pass = 0.0;
    // The first pass also pages the weights in.
    for _ in 0..2 {
        let batch = made_up(base, params)?;
        let began = Instant::now();
        atelier_ops::scope(|| trained.learn(&batch, 1.0))?;
        pass = began.elapsed().as_secs_f64();
    }
    let step = pass * f64::from(params.gradient_accumulation);
    let checks = (1..=agenda.steps).filter(|s| agenda.validates(*s)).count() as f64 + 1.0;
    let looked_at = sets.val.as_ref().map_or(0, |val| match params.val_images {
        0 => val.items.len(),
        most => val.items.len().min(most as usize),
    });
    let one = pass * FORWARD / f64::from(params.batch_size);
    let validation = checks * looked_at as f64 * f64::from(params.val_timesteps) * one;
    Ok(json!({
        "dry_run": true,
        "steps": agenda.steps,
        "steps_per_epoch": agenda.samples.div_ceil(agenda.per_step),
        "seconds_per_step": step,
        "seconds_of_validation": validation,
        "seconds_in_all": step * agenda.steps as f64 + validation,
        "memory": crate::ledger::memory(),
        "data": sets.facts(),
        "modules": trained.trainee.factors.len(),
        "trained": trained.trainee.count(),
    }))
}
