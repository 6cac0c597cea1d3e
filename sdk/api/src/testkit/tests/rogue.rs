//! A sampler with one thing wrong.

use super::right::levels;
use crate::error::{Error, ErrorKind, Result};
use crate::sampler::{Run, SampleCtx, Sampler};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Nothing,
    TakesAnyLevels,
    EvaluatesWithoutSteps,
    IsNanInOneStep,
    GrowsInTwoSteps,
    PanicsInSevenSteps,
    HasNoEndInSevenSteps,
    ForgetsToReportTheLastStep,
    ReportsTheStateBefore,
    RunsOutOfBuffer,
    GivesLongerBuffers,
    EvaluatesAtLevelZero,
    EvaluatesOnceMoreToStart,
    EvaluatesTwiceInLongRuns,
    DrawsNoiseForNothing,
    AddsTooMuchNoise,
    LeavesABitOfNoise,
    EndsWrongInLongRuns,
    IsRandom,
    RemembersTheLastRun,
    MixesTheBatch,
    TakesCancellationForTheEnd,
    RewordsErrors,
    IgnoresErrorsOfDenoise,
    IgnoresErrorsOfNoise,
    IgnoresErrorsOfStepDone,
}
use Wrong::*;

/// Euler's method, with the noise of the reverse diffusion or without.
pub(super) struct Rogue {
    pub(super) wrong: Wrong,
    pub(super) noisy: bool,
    pub(super) last: f32,
}

impl Rogue {
    pub(super) fn new(wrong: Wrong, noisy: bool) -> Self {
        Self { wrong, noisy, last: 0.0 }
    }

    fn passed_on(&self, ignored: Wrong, result: Result<()>) -> Result<()> {
        match result {
            Err(e) if self.wrong == RewordsErrors => Err(Error::new(e.kind(), "it went wrong")),
            Err(_) if self.wrong == ignored => Ok(()),
            result => result,
        }
    }

    fn evaluate(&self, ctx: &mut dyn SampleCtx, x: &[f32], sigma: f32, steps: usize) -> Result<Vec<f32>> {
        let mut d = vec![0f32; x.len() + usize::from(self.wrong == GivesLongerBuffers)];
        self.passed_on(IgnoresErrorsOfDenoise, ctx.denoise(x, sigma, &mut d))?;
        match self.wrong {
            PanicsInSevenSteps if steps == 7 => panic!("seven"),
            HasNoEndInSevenSteps if steps == 7 => loop {
                ctx.denoise(x, sigma, &mut d)?;
            },
            _ => Ok(d),
        }
    }

    /// The step from one level to the next, in place.
    fn step(&self, ctx: &mut dyn SampleCtx, x: &mut [f32], d: &[f32], [s, s2]: [f32; 2]) -> Result<()> {
        let up = if self.noisy { s2 / s * (s * s - s2 * s2).sqrt() } else { 0.0 };
        let down = if self.wrong == AddsTooMuchNoise { s2 } else { (s2 * s2 - up * up).max(0.0).sqrt() };
        x.iter_mut().zip(d).for_each(|(x, d)| *x = d + down / s * (*x - d));
        if up > 0.0 || self.wrong == DrawsNoiseForNothing {
            let mut n = vec![0f32; x.len()];
            self.passed_on(IgnoresErrorsOfNoise, ctx.noise(s, s2, &mut n))?;
            x.iter_mut().zip(&n).for_each(|(x, n)| *x += up * n);
        }
        Ok(())
    }

    /// What needs nothing but the state after a step.
    fn spoil(&self, run: &Run<'_>, x: &mut [f32], i: usize) {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let (first, steps) = (i == 0, run.sigmas.len() - 1);
        match self.wrong {
            IsNanInOneStep if steps == 1 => x[0] = f32::NAN,
            GrowsInTwoSteps if steps == 2 => x[0] = 1e6,
            LeavesABitOfNoise if run.sigmas[i + 1] == 0.0 => x.iter_mut().for_each(|x| *x += 0.01),
            EndsWrongInLongRuns if steps > 100 && run.sigmas[i + 1] == 0.0 => x.fill(0.0),
            IsRandom if first => x[0] += 1e-3 * RUNS.fetch_add(1, Ordering::Relaxed) as f32,
            RemembersTheLastRun if first => x[0] += 1e-3 * self.last,
            MixesTheBatch if run.shape[0] > 1 => x[0] += 1e-3 * x[x.len() - 1],
            _ => {}
        }
    }

    fn run(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = if self.wrong == TakesAnyLevels { run.sigmas } else { levels(run)? };
        let steps = sigmas.len().saturating_sub(1);
        if self.wrong == RunsOutOfBuffer && x.len() > 50_000 {
            return Err(Error::internal("too large"));
        }
        if self.wrong == EvaluatesWithoutSteps && sigmas.len() == 1 {
            self.evaluate(ctx, x, sigmas[0], 0)?;
        }
        for (i, pair) in sigmas.windows(2).enumerate() {
            let before = x.to_vec();
            let d = self.evaluate(ctx, x, pair[0], steps)?;
            let more = match self.wrong {
                EvaluatesOnceMoreToStart => i == 0,
                EvaluatesTwiceInLongRuns => steps > 7,
                _ => false,
            };
            let d = if more { self.evaluate(ctx, x, pair[0], steps)? } else { d };
            if self.wrong == EvaluatesAtLevelZero && pair[1] == 0.0 && steps == 3 {
                self.evaluate(ctx, x, pair[1], steps)?;
            }
            self.step(ctx, x, &d, [pair[0], pair[1]])?;
            self.spoil(run, x, i);
            let state = if self.wrong == ReportsTheStateBefore { &before } else { &*x };
            if self.wrong != ForgetsToReportTheLastStep || i + 1 < steps {
                self.passed_on(IgnoresErrorsOfStepDone, ctx.step_done(i, state))?;
            }
        }
        Ok(())
    }
}

impl Sampler for Rogue {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let result = self.run(run, ctx, x);
        self.last = x.first().copied().unwrap_or(0.0);
        match result {
            Err(e) if self.wrong == TakesCancellationForTheEnd && e.kind() == ErrorKind::Cancelled => Ok(()),
            result => result,
        }
    }
}
