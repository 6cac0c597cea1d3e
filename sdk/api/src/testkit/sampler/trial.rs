//! One run of a sampler: what it is given, and what came of it.

use super::SamplerSubject;
use super::probe::{Denoiser, Fault, Probe, posterior_mean};
use crate::error::Result;
use crate::rng::{NormalRng, RngKind};
use crate::sampler::{Run, Sampler};
use crate::testkit::guard::{PATIENCE, within};
use crate::testkit::report::{Checked, fail, words};
use serde_json::{Value, json};

/// The highest level of these runs, about that of Stable Diffusion.
pub(super) const TOP: f64 = 14.0;

/// How many times the expected calls end a run.
const EXCESS: usize = 100;

/// A run to be.
pub(super) struct Trial {
    sigmas: Vec<f32>,
    shape: [usize; 4],
    /// Of each image's noise.
    seeds: Vec<u64>,
    denoiser: Denoiser,
    fault: Option<Fault>,
}

/// A run that was.
pub(super) struct Seen {
    pub(super) sampler: Box<dyn Sampler>,
    pub(super) probe: Probe,
    pub(super) start: Vec<f32>,
    /// The latents at the end, wherever that was.
    pub(super) x: Vec<f32>,
    pub(super) result: Result<()>,
    /// The run, in words.
    pub(super) title: String,
}

impl Trial {
    /// One small image over these levels.
    pub(super) fn new(sigmas: impl Into<Vec<f32>>) -> Self {
        let (shape, seeds) = ([1, 4, 2, 3], vec![1]);
        Self { sigmas: sigmas.into(), shape, seeds, denoiser: posterior_mean, fault: None }
    }

    /// `steps` equal steps in log sigma from [`TOP`] to `last`; where that is 0, the last of them goes there.
    pub(super) fn steps(steps: usize, last: f32) -> Self {
        let end = if last > 0.0 { f64::from(last) } else { 0.05 };
        let ratio = (end / TOP).ln();
        let level = |i| (TOP * (ratio * i as f64 / steps as f64).exp()) as f32;
        let mut sigmas: Vec<f32> = (0..=steps).map(level).collect();
        sigmas[steps] = last;
        Self::new(sigmas)
    }

    pub(super) fn shape(self, image: [usize; 3]) -> Self {
        let [channels, height, width] = image;
        Self { shape: [self.seeds.len(), channels, height, width], ..self }
    }

    pub(super) fn seeds(self, seeds: &[u64]) -> Self {
        let [_, channels, height, width] = self.shape;
        Self { seeds: seeds.into(), shape: [seeds.len(), channels, height, width], ..self }
    }

    pub(super) fn denoiser(self, denoiser: Denoiser) -> Self {
        Self { denoiser, ..self }
    }

    pub(super) fn fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// Noisy standard normal data at the first level.
    fn start(&self) -> Vec<f32> {
        let sigma = self.sigmas.first().copied().filter(|s| s.is_finite()).unwrap_or(1.0);
        let scale = (1.0 + f64::from(sigma).powi(2)).sqrt() as f32;
        let mut x = vec![0f32; self.shape.iter().product()];
        let image = self.shape[1..].iter().product::<usize>().max(1);
        for (x, seed) in x.chunks_mut(image).zip(&self.seeds) {
            // Not the generator of the run's own noise.
            NormalRng::new(RngKind::Cpu, seed + 1000).fill_normal(x);
            x.iter_mut().for_each(|x| *x *= scale);
        }
        x
    }

    fn title(&self) -> String {
        let steps = self.sigmas.len().saturating_sub(1);
        let images =
            if self.seeds.len() > 1 { format!(", {} images", self.seeds.len()) } else { String::new() };
        format!("{steps} steps to level {}{images}", self.sigmas.last().copied().unwrap_or(0.0))
    }

    /// The run by a fresh sampler.
    pub(super) fn by(self, subject: &SamplerSubject<'_>, options: &Value) -> Checked<Seen> {
        self.by_this(subject.sampler(options)?, subject)
    }

    /// The run by a sampler that may be a used one. A sampler that panics or has no end fails the check.
    pub(super) fn by_this(
        self,
        mut sampler: Box<dyn Sampler>,
        subject: &SamplerSubject<'_>,
    ) -> Checked<Seen> {
        let (title, start) = (self.title(), self.start());
        let expected = self.sigmas.len().max(1) * subject.evaluations.max(1) as usize;
        let mut x = start.clone();
        let mut probe = Probe::new(self.denoiser, &self.seeds, x.len(), EXCESS * expected, self.fault);
        let seen = within(PATIENCE, move || {
            let extra = json!({"parameterization": "ve"});
            let run = Run { sigmas: &self.sigmas, shape: self.shape, extra: &extra };
            let result = sampler.sample(&run, &mut probe, &mut x);
            (sampler, probe, x, result)
        });
        let (sampler, probe, x, result) = seen.map_err(|outcome| outcome.of(&title))?;
        match &probe.excess {
            Some(excess) => fail(format!("{title}: {excess}")),
            None => Ok(Seen { sampler, probe, start, x, result, title }),
        }
    }
}

impl Seen {
    /// The run, if it did not fail.
    pub(super) fn completed(self) -> Checked<Self> {
        match &self.result {
            Ok(()) => Ok(self),
            Err(e) => fail(format!("{}: fails with `{}`", self.title, words(e))),
        }
    }

    /// Fails the check that this run is for.
    pub(super) fn fail<T>(&self, what: impl AsRef<str>) -> Checked<T> {
        fail(format!("{}: {}", self.title, what.as_ref()))
    }

    pub(super) fn ensure(&self, kept: bool, what: impl FnOnce() -> String) -> Checked {
        if kept { Ok(()) } else { self.fail(what()) }
    }
}

/// Whether two results are the same to the bit, which `==` does not say of NaN.
pub(super) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Whether the sampler draws noise with these options.
pub(super) fn draws_noise(subject: &SamplerSubject<'_>, options: &Value) -> Checked<bool> {
    Ok(Trial::steps(6, 0.1).by(subject, options)?.completed()?.probe.drawn > 0)
}
