//! Samplers and schedules over a conversation: the same code whichever side has them and whichever uses them.

use super::conn::{Conn, Object, Serve, unexpected};
use super::frame::{Frame, Out, Tag};
use atelier_sdk::{Error, NoiseLevels, Result, Run, SampleCtx, Sampler, Schedule};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;

/// A key with options.
#[derive(Serialize, Deserialize)]
pub struct Make {
    /// The key.
    pub key: String,
    /// The options.
    pub options: Value,
}

impl Make {
    /// As a frame's text.
    pub fn json(key: &str, options: &Value) -> String {
        serde_json::json!({"key": key, "options": options}).to_string()
    }
}

/// What of a run is neither sigmas nor latents.
#[derive(Serialize, Deserialize)]
struct RunJson {
    shape: [usize; 4],
    /// Number of sigmas before the latents.
    sigmas: usize,
    extra: Value,
}

/// An object of the other side; gone there when dropped here.
pub struct Handle {
    /// The way to it.
    pub conn: Arc<Conn>,
    /// Its number.
    pub object: u32,
}

impl Handle {
    /// The object that an answer names.
    pub fn of(conn: &Arc<Conn>, answer: &Frame) -> Self {
        Self { conn: conn.clone(), object: answer.object }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.conn.tell(Out { object: self.object, ..Out::new(Tag::Drop) });
    }
}

/// A sampler of the other side.
pub struct LinkSampler(pub Handle);

impl Sampler for LinkSampler {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let json = RunJson { shape: run.shape, sigmas: run.sigmas.len(), extra: run.extra.clone() };
        let json =
            serde_json::to_string(&json).map_err(|e| Error::internal("a run that is not JSON").because(e))?;
        let (object, n) = (self.0.object, x.len());
        let request = Out { object, json: &json, floats: [run.sigmas, x], ..Out::new(Tag::Sample) };
        let mut spare = Vec::new();
        let answer = self.0.conn.call(request, &mut |frame| serve_sampler(frame, n, ctx, &mut spare))?;
        if answer.floats.len() != n {
            return Err(wrong_size("the result", answer.floats.len(), n));
        }
        x.copy_from_slice(&answer.floats);
        Ok(())
    }
}

fn wrong_size(what: &str, found: usize, expected: usize) -> Error {
    Error::internal(format!("{what} has a wrong size: expected {expected} values, found {found}"))
}

/// What a sampler on the other side asks of its context here. `spare` is a buffer to reuse.
fn serve_sampler(frame: Frame, n: usize, ctx: &mut dyn SampleCtx, spare: &mut Vec<f32>) -> Result<Frame> {
    let sized =
        |found: usize| if found == n { Ok(()) } else { Err(wrong_size("what the sampler gave", found, n)) };
    let wanted = || usize::try_from(frame.n).map_err(|e| Error::internal("a size beyond memory").because(e));
    match frame.tag {
        Tag::Denoise => {
            sized(frame.floats.len())?;
            sized(wanted()?)?;
            let mut out = std::mem::take(spare);
            out.resize(n, 0.0);
            ctx.denoise(&frame.floats, frame.a, &mut out)?;
            *spare = frame.floats;
            Ok(Frame { floats: out, ..Frame::new(Tag::Ok) })
        }
        Tag::Noise => {
            sized(wanted()?)?;
            let mut out = std::mem::take(spare);
            out.resize(n, 0.0);
            ctx.noise(frame.a, frame.b, &mut out)?;
            Ok(Frame { floats: out, ..Frame::new(Tag::Ok) })
        }
        Tag::StepDone => {
            sized(frame.floats.len())?;
            ctx.step_done(wanted()?, &frame.floats)?;
            Ok(Frame::new(Tag::Ok))
        }
        Tag::Cancelled => Ok(Frame { n: u64::from(ctx.cancelled()), ..Frame::new(Tag::Ok) }),
        other => Err(unexpected(other)),
    }
}

/// The context of a sampler here, whose user is on the other side.
struct LinkSampleCtx<'a> {
    conn: &'a Conn,
    /// What else the other side may ask for while it answers: its denoiser may be an engine's.
    serve: RefCell<Serve<'a>>,
}

impl LinkSampleCtx<'_> {
    fn ask(&self, request: Out<'_>) -> Result<Frame> {
        self.conn.call(request, &mut **self.serve.borrow_mut())
    }
}

impl SampleCtx for LinkSampleCtx<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let n = out.len() as u64;
        let answer = self.ask(Out { a: sigma, n, floats: [x, &[]], ..Out::new(Tag::Denoise) })?;
        fill(out, &answer)
    }
    fn noise(&mut self, from: f32, to: f32, out: &mut [f32]) -> Result<()> {
        let n = out.len() as u64;
        let answer = self.ask(Out { a: from, b: to, n, ..Out::new(Tag::Noise) })?;
        fill(out, &answer)
    }
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        self.ask(Out { n: i as u64, floats: [x, &[]], ..Out::new(Tag::StepDone) }).map(drop)
    }
    fn cancelled(&self) -> bool {
        // Someone who is gone wants no more work.
        self.ask(Out::new(Tag::Cancelled)).map_or(true, |answer| answer.n != 0)
    }
}

fn fill(out: &mut [f32], answer: &Frame) -> Result<()> {
    if answer.floats.len() != out.len() {
        return Err(wrong_size("an answer", answer.floats.len(), out.len()));
    }
    out.copy_from_slice(&answer.floats);
    Ok(())
}

/// A schedule of the other side.
pub struct LinkSchedule(pub Handle);

impl Schedule for LinkSchedule {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let bytes = bytemuck::cast_slice(levels.as_slice());
        let request = Out { object: self.0.object, n: steps as u64, bytes, ..Out::new(Tag::Sigmas) };
        Ok(self.0.conn.ask(request)?.floats)
    }
}

/// Answers a request about a sampler or schedule that is kept here, and meanwhile serves the other side.
///
/// # Errors
/// What the sampler or schedule gives; a request that is none of theirs.
pub fn answer(conn: &Conn, frame: &Frame, serve: Serve<'_>) -> Result<Frame> {
    conn.with(frame.object, |object| match (frame.tag, object) {
        (Tag::Sample, Object::Sampler(sampler)) => sample(conn, sampler.as_mut(), frame, serve),
        (Tag::Sigmas, Object::Schedule(schedule)) => {
            let levels = frame.bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
            let steps = usize::try_from(frame.n).map_err(|e| Error::invalid("too many steps").because(e))?;
            let floats = schedule.sigmas(steps, &NoiseLevels::new(levels)?)?;
            Ok(Frame { floats, ..Frame::new(Tag::Ok) })
        }
        (tag, _) => Err(unexpected(tag)),
    })
}

fn sample(conn: &Conn, sampler: &mut dyn Sampler, frame: &Frame, serve: Serve<'_>) -> Result<Frame> {
    let run: RunJson = frame.parse()?;
    let (sigmas, x) = frame
        .floats
        .split_at_checked(run.sigmas)
        .ok_or_else(|| wrong_size("a run", frame.floats.len(), run.sigmas))?;
    let mut x = x.to_vec();
    let run = Run { sigmas, shape: run.shape, extra: &run.extra };
    let mut ctx = LinkSampleCtx { conn, serve: RefCell::new(serve) };
    sampler.sample(&run, &mut ctx, &mut x)?;
    Ok(Frame { floats: x, ..Frame::new(Tag::Ok) })
}
