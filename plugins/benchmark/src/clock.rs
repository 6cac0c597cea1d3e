//! Measuring.

use atelier_ops::{peak, threads};
use atelier_sdk::{EngineCtx, Event, Result, Stage};
use candle_core::Device;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the processor alone is measured, before and after a piece of work.
const PEAK_TIME: Duration = Duration::from_millis(200);

/// How often a piece of work is measured, and where it computes.
pub struct Clock<'a> {
    pub runs: u32,
    pub device: &'a Device,
}

/// What a measurement gave.
pub struct Measured {
    /// Of each run.
    pub seconds: Vec<f64>,
    /// Multiply-adds of the processor in GFLOP/s, right before and right after; none where something else computes.
    pub peaks: Option<[f64; 2]>,
}

impl Clock<'_> {
    /// Does a piece of work once unmeasured, as memory is taken and weights are read, and then by the clock.
    ///
    /// # Errors
    /// Those of the work; that it is to stop.
    pub fn measure(&self, ctx: &mut dyn EngineCtx, mut work: impl FnMut() -> Result<()>) -> Result<Measured> {
        let mut once = || -> Result<f64> {
            let began = Instant::now();
            atelier_ops::scope(|| {
                work()?;
                // Other devices are still at work when a call returns.
                self.device.synchronize().map_err(atelier_diffusion::error::tensor("waiting for the device"))
            })?;
            Ok(began.elapsed().as_secs_f64())
        };
        ctx.event(Event::Stage { stage: Stage::Prepare })?;
        once()?;
        let before = self.peak();
        let mut seconds = Vec::new();
        let steps = self.runs as usize;
        for step in 1..=steps {
            let taken = once()?;
            seconds.push(taken);
            ctx.event(Event::Step { step, steps, seconds: taken })?;
        }
        let peaks = before.zip(self.peak()).map(|(before, after)| [before, after]);
        Ok(Measured { seconds, peaks })
    }

    /// What all threads reach together now.
    fn peak(&self) -> Option<f64> {
        self.device.is_cpu().then(|| peak(threads(), PEAK_TIME))
    }
}

/// The processor alone, by one thread and by all of them.
pub fn processor() -> Value {
    let threads = threads();
    json!({"threads": threads, "peak_one": peak(1, PEAK_TIME), "peak": peak(threads, PEAK_TIME)})
}
