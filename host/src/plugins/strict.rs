//! The contexts that a plugin gets: the host's own, with an eye on what the plugin does with them.

use super::plugin::finite;
use atelier_sdk::engine::FoundFile;
use atelier_sdk::{
    EngineCtx, Error, ErrorKind, Event, Image, PreviewOf, Result, SampleCtx, Sampler, Schedule,
};
use serde_json::Value;

/// The last error of the host's that a plugin was given, to tell it from the plugin's own.
#[derive(Default)]
struct Given(Option<Error>);

impl Given {
    fn note<R>(&mut self, result: Result<R>) -> Result<R> {
        result.map_err(|e| {
            let copy = copy(&e);
            self.0 = Some(e);
            copy
        })
    }

    /// Asking for a field that is no file is the plugin's own mistake; a file that is damaged is not.
    fn note_if_expected<R>(&mut self, result: Result<R>) -> Result<R> {
        match result {
            Err(e) if !e.kind().is_expected() => Err(e),
            other => self.note(other),
        }
    }

    fn own_or(&mut self, e: Error, blame: impl FnOnce(Error) -> Error) -> Error {
        let cancelled = |e: &Error| e.kind() == ErrorKind::Cancelled;
        match self.0.take() {
            Some(given) if given.kind() == e.kind() && given.message() == e.message() => given,
            Some(given) if cancelled(&given) && cancelled(&e) => given,
            _ => blame(e),
        }
    }
}

fn copy(e: &Error) -> Error {
    let (code, message, detail) = e.to_parts();
    Error::from_parts(code, &message, &detail)
}

/// Both contexts have this.
pub trait Shared {
    /// The host's own error, if that is what ended the run; else what `blame` makes of the plugin's.
    fn own_or(&mut self, e: Error, blame: impl FnOnce(Error) -> Error) -> Error;
}

/// A sampler's context.
pub struct StrictSampleCtx<'a> {
    ctx: &'a mut dyn SampleCtx,
    steps: usize,
    given: Given,
}

impl<'a> StrictSampleCtx<'a> {
    /// Around the host's own, for a run of so many steps.
    pub fn new(ctx: &'a mut dyn SampleCtx, steps: usize) -> Self {
        Self { ctx, steps, given: Given::default() }
    }
}

impl Shared for StrictSampleCtx<'_> {
    fn own_or(&mut self, e: Error, blame: impl FnOnce(Error) -> Error) -> Error {
        self.given.own_or(e, blame)
    }
}

impl SampleCtx for StrictSampleCtx<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        // The plugin's own mistake, so not noted as an error that it was given.
        sensible(x, sigma)?;
        self.given.note(match self.ctx.cancelled() {
            true => Err(Error::cancelled()),
            false => self.ctx.denoise(x, sigma, out),
        })
    }
    fn noise(&mut self, from: f32, to: f32, out: &mut [f32]) -> Result<()> {
        self.given.note(self.ctx.noise(from, to, out))
    }
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        if i >= self.steps {
            return Err(Error::internal(format!("it reported step {i} of {}", self.steps)));
        }
        self.given.note(self.ctx.step_done(i, x))
    }
    fn cancelled(&self) -> bool {
        self.ctx.cancelled()
    }
}

fn sensible(x: &[f32], sigma: f32) -> Result<()> {
    if !(sigma > 0.0 && sigma.is_finite()) {
        return Err(Error::internal(format!("it asked to denoise at level {sigma}")));
    }
    finite("what it gave to be denoised", x)
}

/// An engine's context.
pub struct StrictEngineCtx<'a> {
    ctx: &'a mut dyn EngineCtx,
    given: Given,
}

impl<'a> StrictEngineCtx<'a> {
    /// Around the host's own.
    pub fn new(ctx: &'a mut dyn EngineCtx) -> Self {
        Self { ctx, given: Given::default() }
    }
}

impl Shared for StrictEngineCtx<'_> {
    fn own_or(&mut self, e: Error, blame: impl FnOnce(Error) -> Error) -> Error {
        self.given.own_or(e, blame)
    }
}

impl EngineCtx for StrictEngineCtx<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.given.note(self.ctx.event(event))
    }
    fn cancelled(&self) -> bool {
        self.ctx.cancelled()
    }
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        self.given.note(self.ctx.sampler(key, options))
    }
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        self.given.note(self.ctx.schedule(key, options))
    }
    fn input_image(&mut self, field: &str) -> Result<Image> {
        let result = self.ctx.input_image(field);
        self.given.note_if_expected(result)
    }
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>> {
        let result = self.ctx.input_bytes(field);
        self.given.note_if_expected(result)
    }
    fn find_file(&mut self, kind: &str, name: &str) -> Result<FoundFile> {
        let result = self.ctx.find_file(kind, name);
        self.given.note_if_expected(result)
    }
    fn image(&mut self, image: Image, facts: Value) -> Result<()> {
        self.given.note(self.ctx.image(image, facts))
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        self.given.note(self.ctx.preview(image, of))
    }
}
