//! A host that counts, and fails where it is asked to.

use crate::error::{Error, Result};
use crate::rng::{NormalRng, RngKind};
use crate::sampler::SampleCtx;

/// A model, value by value: `D(call, x, sigma)`.
pub(super) type Denoiser = fn(usize, f64, f64) -> f64;

/// The posterior mean of standard normal data.
pub(super) fn posterior_mean(_call: usize, x: f64, sigma: f64) -> f64 {
    x / (1.0 + sigma * sigma)
}

/// The end of the probability-flow ODE of standard normal data, which is what consistency models predict.
pub(super) fn consistency(_call: usize, x: f64, sigma: f64) -> f64 {
    x / (1.0 + sigma * sigma).sqrt()
}

/// The posterior mean of data that are one point, at 0: there it is the end of every trajectory as well.
pub(super) fn one_point(_call: usize, _x: f64, _sigma: f64) -> f64 {
    0.0
}

/// The same image from every evaluation.
pub(super) fn constant(_call: usize, _x: f64, _sigma: f64) -> f64 {
    4.25
}

/// An image that tells from which evaluation it is.
pub(super) fn numbered(call: usize, _x: f64, _sigma: f64) -> f64 {
    call as f64 + 0.25
}

/// What a sampler asks of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Denoise,
    Noise,
    StepDone,
}

/// A failure on request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) call: Call,
    /// Which call of that sort fails, from 0.
    pub(super) at: usize,
    pub(super) error: fn() -> Error,
    /// Whether everything after it fails too.
    pub(super) lasts: bool,
}

/// The host of one run.
pub(super) struct Probe {
    denoiser: Denoiser,
    rngs: Vec<NormalRng>,
    size: usize,
    /// How many calls of each sort are answered: enough for any honest run.
    limit: usize,
    fault: Option<Fault>,
    /// Levels of the evaluations so far.
    pub(super) evaluated: Vec<f32>,
    /// Calls of `noise` so far.
    pub(super) drawn: usize,
    /// Steps reported as done so far.
    pub(super) done: Vec<usize>,
    /// State at the last report.
    pub(super) state: Vec<f32>,
    /// Evaluations, then calls of any sort, up to and with the one that failed.
    pub(super) failed_after: Option<(usize, usize)>,
    /// The first request that no host can answer.
    pub(super) breach: Option<String>,
    /// Of what there was too much.
    pub(super) excess: Option<String>,
}

impl Probe {
    pub(super) fn new(
        denoiser: Denoiser,
        seeds: &[u64],
        size: usize,
        limit: usize,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            denoiser,
            rngs: seeds.iter().map(|s| NormalRng::new(RngKind::Cpu, *s)).collect(),
            size,
            limit,
            fault,
            evaluated: Vec::new(),
            drawn: 0,
            done: Vec::new(),
            state: Vec::new(),
            failed_after: None,
            breach: None,
            excess: None,
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.evaluated.len() + self.drawn + self.done.len()
    }

    /// Answers call number `count`, from 1, of its sort, once it is counted.
    fn answer(&mut self, call: Call, count: usize) -> Result<()> {
        if count > self.limit {
            let what = match call {
                Call::Denoise => "evaluations",
                Call::Noise => "draws of noise",
                Call::StepDone => "reports of steps",
            };
            let excess = format!("makes too many {what}: more than {} in one run", self.limit);
            return Err(Error::internal(self.excess.insert(excess).as_str()));
        }
        let Some(fault) = self.fault else { return Ok(()) };
        let first = fault.call == call && fault.at + 1 == count;
        if first {
            self.failed_after = Some((self.evaluated.len(), self.calls()));
        }
        if first || self.cancelled() { Err((fault.error)()) } else { Ok(()) }
    }

    /// A request that no host can answer is noted and answered as well as possible: it must not fail the
    /// checks that are about something else.
    fn require(&mut self, possible: bool, breach: impl FnOnce() -> String) {
        if !possible && self.breach.is_none() {
            self.breach = Some(breach());
        }
    }
}

impl SampleCtx for Probe {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let (size, lens) = (self.size, [x.len(), out.len()]);
        self.require(lens == [size; 2], || format!("evaluates {lens:?} values of a run of {size}"));
        self.require(sigma > 0.0 && sigma.is_finite(), || format!("evaluates the model at level {sigma}"));
        let call = self.evaluated.len();
        self.evaluated.push(sigma);
        self.answer(Call::Denoise, call + 1)?;
        let denoised = |x: &f32| (self.denoiser)(call, f64::from(*x), f64::from(sigma)) as f32;
        out.iter_mut().zip(x).for_each(|(o, x)| *o = denoised(x));
        Ok(())
    }

    fn noise(&mut self, sigma_from: f32, sigma_to: f32, out: &mut [f32]) -> Result<()> {
        let (size, len) = (self.size, out.len());
        self.require(len == size, || format!("draws {len} values of noise in a run of {size}"));
        let levels = [sigma_from, sigma_to];
        let possible = levels.iter().all(|s| s.is_finite() && *s >= 0.0) && sigma_from != sigma_to;
        self.require(possible, || format!("draws noise from level {sigma_from} to level {sigma_to}"));
        self.drawn += 1;
        self.answer(Call::Noise, self.drawn)?;
        let image = (size / self.rngs.len().max(1)).max(1);
        out.chunks_mut(image).zip(&mut self.rngs).for_each(|(o, rng)| rng.fill_normal(o));
        Ok(())
    }

    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        let (size, len) = (self.size, x.len());
        self.require(len == size, || format!("reports {len} values in a run of {size}"));
        self.done.push(i);
        self.state.clear();
        self.state.extend_from_slice(x);
        self.answer(Call::StepDone, self.done.len())
    }

    fn cancelled(&self) -> bool {
        self.failed_after.is_some() && self.fault.is_some_and(|f| f.lasts)
    }
}
