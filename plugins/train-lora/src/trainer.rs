//! The state of a training, and the steps that move it.

use crate::agenda::Agenda;
use crate::base::{Base, values};
use crate::checkpoint::{Best, Position, Rows, State};
use crate::loss;
use crate::material::Material;
use crate::optim::{
    Ema, EmaConfig, LossScaler, LossScalerConfig, Optimizer, Slot, Verdict, clip_global_norm, global_norm,
};
use crate::params::TrainLora;
use crate::settings;
use crate::step::{Network as _, Trained};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use std::time::Instant;

/// Steps in a row that loss scaling may skip before something else is wrong.
const MOST_SKIPPED: u64 = 50;

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Mean loss of its samples.
    pub loss: f64,
    /// Learning rate of the UNet's factors.
    pub rate: f64,
    /// Length of all gradients together, before it was limited.
    pub norm: f64,
    /// What Prodigy takes the learning rate to be.
    pub estimate: Option<f64>,
    /// Whether gradients overflowed and the weights stayed.
    pub skipped: bool,
    /// Wall time.
    pub seconds: f64,
}

/// A training.
pub struct Trainer<'a> {
    params: &'a TrainLora,
    agenda: Agenda,
    train: &'a Material<'a>,
    val: Option<&'a Material<'a>>,
    trained: Trained<'a>,
    /// The values of what is trained; the networks have copies.
    weights: Vec<Vec<f32>>,
    optimizer: Optimizer,
    ema: Option<Ema>,
    scaler: Option<LossScaler>,
    slots: Vec<Slot>,
    step: u64,
    /// Validation before the first step.
    first: Option<f64>,
    best: Option<Best>,
    worse: u32,
}

impl<'a> Trainer<'a> {
    /// A training at its start.
    ///
    /// # Errors
    /// Networks that cannot be loaded, a target that matches nothing.
    pub fn new(
        base: &'a Base,
        params: &'a TrainLora,
        train: &'a Material<'a>,
        val: Option<&'a Material<'a>>,
    ) -> Result<Self> {
        let trained = Trained::new(base, params)?;
        let weights = trained.trainee.get()?;
        let slots = trained.trainee.slots();
        let optimizer = settings::optimizer(params, slots.clone()).map_err(wrong)?;
        let average = |decay| Ema::new(EmaConfig { decay, warmup: true }, &weights);
        let ema = (params.ema_decay > 0.0).then(|| average(params.ema_decay)).transpose().map_err(wrong)?;
        let scaler = trained.needs_scaling().then(|| LossScaler::new(LossScalerConfig::default()));
        let scaler = scaler.transpose().map_err(wrong)?;
        let agenda = Agenda::new(params, train.samples());
        Ok(Self {
            params,
            agenda,
            train,
            val,
            trained,
            weights,
            optimizer,
            ema,
            scaler,
            slots,
            step: 0,
            first: None,
            best: None,
            worse: 0,
        })
    }

    /// When what is to be done.
    pub fn agenda(&self) -> &Agenda {
        &self.agenda
    }

    /// Steps that are done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The best validation so far.
    pub fn best(&self) -> Option<Best> {
        self.best
    }

    /// The validation before the first step.
    pub fn first(&self) -> Option<f64> {
        self.first
    }

    /// Whether there is validation data.
    pub fn validates(&self) -> bool {
        self.val.is_some()
    }

    /// The networks with what is trained.
    pub fn trained(&self) -> &Trained<'a> {
        &self.trained
    }

    /// Whether validations have not become better for too long.
    pub fn is_stuck(&self) -> bool {
        self.params.early_stopping > 0 && self.worse >= self.params.early_stopping
    }

    /// One step of the weights. Nothing has changed if it fails or is stopped.
    ///
    /// # Errors
    /// A loss that is no number, the request to stop, a device that failed.
    pub fn step(&mut self, ctx: &mut dyn EngineCtx) -> Result<StepReport> {
        let began = Instant::now();
        let passes = u64::from(self.params.gradient_accumulation);
        let scale = f64::from(self.scaler.as_ref().map_or(1.0, LossScaler::scale));
        let mut loss = 0.0;
        let mut grads: Vec<Vec<f32>> = self.weights.iter().map(|w| vec![0.0; w.len()]).collect();
        for pass in 0..passes {
            if ctx.cancelled() {
                return Err(Error::cancelled());
            }
            let number = self.step * passes + pass;
            let batch = self.train.batch(number)?;
            let micro = atelier_ops::scope(|| self.trained.learn(&batch, scale / passes as f64))?;
            self.check_loss(micro.loss)?;
            loss += micro.loss / passes as f64;
            for (sum, grad) in grads.iter_mut().zip(&micro.grads) {
                sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g);
            }
        }
        self.apply(loss, grads, began)
    }

    /// In f32 and bf16 a loss that is no number stays so: there is nothing to wait for.
    fn check_loss(&self, loss: f64) -> Result<()> {
        if loss.is_finite() || self.scaler.is_some() {
            return Ok(());
        }
        Err(self.diverged(format!("the loss of step {} is {loss}", self.step + 1)))
    }

    fn diverged(&self, what: String) -> Error {
        Error::new(ErrorKind::InvalidRequest, format!("the training diverged: {what}"))
            .hint(format!("a lower `learning_rate` than {:e} helps most", self.params.learning_rate))
            .hint("the checkpoints before it are good")
    }

    fn apply(&mut self, loss: f64, mut grads: Vec<Vec<f32>>, began: Instant) -> Result<StepReport> {
        let rates = settings::rates(self.params, &self.optimizer, self.agenda.steps, self.step);
        let mut report =
            StepReport { loss, rate: rates[0], norm: 0.0, estimate: None, skipped: false, seconds: 0.0 };
        match &mut self.scaler {
            Some(scaler) => report.skipped = scaler.unscale(&mut grads) == Verdict::Skip,
            None => self.check_gradients(&grads)?,
        }
        if self.scaler.as_ref().is_some_and(|s| s.skipped() > MOST_SKIPPED) {
            return Err(self.diverged(format!("gradients overflowed {MOST_SKIPPED} times in a row")));
        }
        if !report.skipped {
            report.norm = match self.params.max_grad_norm {
                0.0 => global_norm(&grads),
                most => clip_global_norm(&mut grads, most).map_err(wrong)?,
            };
            self.optimizer.step(&mut self.weights, &grads, &rates).map_err(wrong)?;
            self.trained.trainee.set(&self.weights)?;
            if let Some(ema) = &mut self.ema {
                ema.update(&self.weights).map_err(wrong)?;
            }
        }
        report.estimate = self.optimizer.estimate();
        self.step += 1;
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    fn check_gradients(&self, grads: &[Vec<f32>]) -> Result<()> {
        match self.slots.iter().zip(grads).find(|(_, g)| g.iter().any(|v| !v.is_finite())) {
            None => Ok(()),
            Some((slot, _)) => Err(self.diverged(format!(
                "the gradient of {} is no number in step {}",
                slot.name,
                self.step + 1
            ))),
        }
    }

    /// The mean loss on validation images, at fixed noise and timesteps, with the weights that would be exported.
    /// None without validation data.
    ///
    /// # Errors
    /// As for [`Self::step`].
    pub fn validate(&mut self, ctx: &mut dyn EngineCtx) -> Result<Option<f64>> {
        let Some(val) = self.val else { return Ok(None) };
        let loss = self.with_exported(|t| t.validation_loss(val, ctx))?;
        if self.step == 0 {
            self.first = Some(loss);
        }
        if self.best.is_none_or(|best| loss < best.loss) {
            self.best = Some(Best { step: self.step, loss });
            self.worse = 0;
        } else {
            self.worse += 1;
        }
        Ok(Some(loss))
    }

    fn validation_loss(&self, val: &Material<'_>, ctx: &mut dyn EngineCtx) -> Result<f64> {
        let most = if self.params.val_images == 0 { usize::MAX } else { self.params.val_images as usize };
        let count = val.len().min(most);
        let levels = u64::from(self.params.val_timesteps);
        let mut sum = 0.0;
        for image in 0..count {
            for level in 0..levels {
                if ctx.cancelled() {
                    return Err(Error::cancelled());
                }
                let batch = val.fixed(image, level, levels)?;
                let prediction =
                    self.trained.predict(&batch.noisy, &batch.timesteps, &self.trained.context(&batch)?)?;
                let found = loss::weighted_mse(&values(&prediction)?, &batch.target, &batch.weights);
                sum += found.map_err(|e| Error::internal("a validation loss").because(e))?.loss;
            }
        }
        Ok(sum / (count as u64 * levels).max(1) as f64)
    }

    /// Has the networks use what would be exported: the moving average if there is one.
    ///
    /// # Errors
    /// Those of `f`; a device that failed.
    pub fn with_exported<R>(&self, f: impl FnOnce(&Self) -> Result<R>) -> Result<R> {
        if self.ema.is_none() {
            return f(self);
        }
        self.trained.trainee.set(self.exported())?;
        let result = f(self);
        self.trained.trainee.set(&self.weights)?;
        result
    }

    /// The values that are exported.
    pub fn exported(&self) -> &[Vec<f32>] {
        self.ema.as_ref().and_then(Ema::average).unwrap_or(&self.weights)
    }

    /// The values that a checkpoint would export.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for one that does not fit.
    pub fn exported_of(&self, state: State) -> Result<Vec<Vec<f32>>> {
        let (Some(ema), Some(saved)) = (&self.ema, state.position.ema) else {
            return self.ordered(state.adapter);
        };
        let mut ema = ema.clone();
        ema.restore(&self.slots, saved).map_err(misfit)?;
        Ok(ema.average().unwrap_or_default().to_vec())
    }

    /// All that the next step depends on; `settled` says whether what is due after the last step was done.
    ///
    /// # Errors
    /// None that a person could do something about.
    pub fn state(&self, settled: bool) -> Result<State> {
        let names = self.slots.iter().map(|slot| slot.name.clone());
        Ok(State {
            adapter: names.zip(self.weights.iter().cloned()).collect(),
            position: Position {
                step: self.step,
                settled,
                first: self.first,
                best: self.best,
                worse: self.worse,
                optimizer: self.optimizer.state(),
                scaler: self.scaler.as_ref().map(LossScaler::state),
                ema: self.ema.as_ref().map(|ema| ema.state(&self.slots)).transpose().map_err(wrong)?,
            },
        })
    }

    /// Goes to where a checkpoint was written.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for one that does not fit.
    pub fn restore(&mut self, state: State) -> Result<()> {
        let p = state.position;
        self.weights = self.ordered(state.adapter)?;
        self.optimizer.restore(p.optimizer).map_err(misfit)?;
        if let (Some(ema), Some(saved)) = (&mut self.ema, p.ema) {
            ema.restore(&self.slots, saved).map_err(misfit)?;
        }
        if let (Some(scaler), Some(saved)) = (&mut self.scaler, p.scaler) {
            scaler.restore(saved).map_err(misfit)?;
        }
        (self.step, self.first, self.best, self.worse) = (p.step, p.first, p.best, p.worse);
        self.trained.trainee.set(&self.weights)
    }

    /// The rows of an adapter in the order of the variables.
    fn ordered(&self, mut rows: Rows) -> Result<Vec<Vec<f32>>> {
        let mut values = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            match rows.remove(&slot.name) {
                Some(row) if row.len() == slot.len => values.push(row),
                Some(row) => {
                    return Err(misfit(format!("{} has {} numbers, not {}", slot.name, row.len(), slot.len)));
                }
                None => return Err(misfit(format!("{} is missing", slot.name))),
            }
        }
        match rows.keys().next() {
            None => Ok(values),
            Some(more) => Err(misfit(format!("nothing is called {more}"))),
        }
    }
}

/// What the optimiser refused: settings that the schema does not rule out.
fn wrong(e: crate::optim::Error) -> Error {
    Error::invalid(format!("training cannot go on: {e}"))
}

fn misfit(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the checkpoint does not fit: {what}"))
}
