//! Engines over a conversation: the host uses [`LinkEngine`], the worker answers.

use super::conn::{Conn, Object, unexpected};
use super::frame::{Frame, Out, Tag};
use super::parts::{self, Handle, LinkSampler, LinkSchedule, Make};
use atelier_sdk::engine::{DeviceInfo, FoundFile};
use atelier_sdk::remote::RemoteLibrary;
use atelier_sdk::{
    Device, Dtype, Engine, EngineCtx, Error, Event, Image, LoadRequest, ModelSpec, PixelFormat, PlanCtx,
    PreviewOf, Result, Sampler, Schedule, Session, Violation,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
struct PlanJson {
    engine: String,
    task: String,
    params: Value,
    ctx: PlanCtx,
}

#[derive(Serialize, Deserialize)]
struct LoadJson {
    engine: String,
    model: Option<ModelSpec>,
    device: String,
    dtype: Dtype,
    fake_weights: bool,
}

#[derive(Serialize, Deserialize)]
struct RunJson {
    task: String,
    plan: Value,
}

#[derive(Serialize, Deserialize)]
struct ImageJson {
    width: u32,
    height: u32,
    format: PixelFormat,
    facts: Value,
    #[serde(default)]
    profile: Vec<u8>,
    /// The field and the name of its place, if it is to have one.
    #[serde(default)]
    at: Option<(String, String)>,
}

impl ImageJson {
    fn of(image: &Image, facts: Value) -> Self {
        let profile = image.profile().unwrap_or_default().to_vec();
        let (width, height, format) = (image.width(), image.height(), image.format());
        Self { width, height, format, facts, profile, at: None }
    }

    fn image(&self, bytes: Vec<u8>) -> Result<Image> {
        Ok(Image::new(self.width, self.height, self.format, bytes)?.with_profile(self.profile.clone()))
    }
}

/// The number of a wish for a file by its name; 0 wants bytes, 1 an image.
const FILE: u64 = 2;
/// The number of a wish for an image as its file has it.
const PICTURE: u64 = 3;

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("not writable as JSON").because(e))
}

fn ok_json<T: Serialize>(value: &T) -> Result<Frame> {
    Ok(Frame { json: json(value)?, ..Frame::new(Tag::Ok) })
}

// ---- The host's side.

/// An engine in a worker.
pub struct LinkEngine {
    /// The way to it.
    pub conn: Arc<Conn>,
    /// Its key.
    pub key: String,
}

impl LinkEngine {
    /// Checks and completes parameters.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn plan(&self, task: &str, params: Value, ctx: &PlanCtx) -> Result<Result<Value, Vec<Violation>>> {
        let request = PlanJson { engine: self.key.clone(), task: task.into(), params, ctx: *ctx };
        self.conn.ask(Out { json: &json(&request)?, ..Out::new(Tag::Plan) })?.parse()
    }

    /// The devices it sees.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        self.conn.ask(Out { json: &json(&self.key)?, ..Out::new(Tag::Devices) })?.parse()
    }
}

impl Engine for LinkEngine {
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
        let text = json(&LoadJson {
            engine: self.key.clone(),
            model: request.model.cloned(),
            device: request.device.to_string(),
            dtype: request.dtype,
            fake_weights: request.fake_weights,
        })?;
        let conn = &self.conn;
        let request = Out { json: &text, ..Out::new(Tag::Load) };
        let answer = conn.call(request, &mut |frame| serve_engine(conn, frame, ctx))?;
        Ok(Box::new(LinkSession(Handle::of(conn, &answer))))
    }
}

struct LinkSession(Handle);

impl Session for LinkSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let text = json(&RunJson { task: task.into(), plan: plan.clone() })?;
        let conn = &self.0.conn;
        let request = Out { object: self.0.object, json: &text, ..Out::new(Tag::Run) };
        conn.call(request, &mut |frame| serve_engine(conn, frame, ctx))?.parse()
    }
    fn describe(&self) -> String {
        let answer = self.0.conn.ask(Out { object: self.0.object, ..Out::new(Tag::Describe) });
        answer.and_then(|a| a.parse()).unwrap_or_else(|e| e.to_string())
    }
}

/// What an engine in the worker asks of its context here.
fn serve_engine(conn: &Conn, frame: Frame, ctx: &mut dyn EngineCtx) -> Result<Frame> {
    match frame.tag {
        Tag::Event => {
            // The worker is this very program: it knows the same events.
            ctx.event(frame.parse()?)?;
            Ok(Frame::new(Tag::Ok))
        }
        Tag::Cancelled => Ok(Frame { n: u64::from(ctx.cancelled()), ..Frame::new(Tag::Ok) }),
        Tag::MakeSampler => {
            let make: Make = frame.parse()?;
            Ok(conn.keep(Object::Sampler(ctx.sampler(&make.key, &make.options)?)))
        }
        Tag::MakeSchedule => {
            let make: Make = frame.parse()?;
            Ok(conn.keep(Object::Schedule(ctx.schedule(&make.key, &make.options)?)))
        }
        Tag::Sample | Tag::Sigmas => parts::answer(conn, &frame, &mut |frame| serve_engine(conn, frame, ctx)),
        Tag::Input if frame.n == 0 => {
            let bytes = ctx.input_bytes(&frame.parse::<String>()?)?;
            Ok(Frame { bytes, ..Frame::new(Tag::Ok) })
        }
        Tag::Input if frame.n == FILE => {
            let (kind, name) = frame.parse::<(String, String)>()?;
            ok_json(&ctx.find_file(&kind, &name)?)
        }
        Tag::Input => {
            let image = match frame.n {
                PICTURE => {
                    let (field, name) = frame.parse::<(String, String)>()?;
                    ctx.input_picture(&field, &name)?
                }
                _ => ctx.input_image(&frame.parse::<String>()?)?,
            };
            let json = json(&ImageJson::of(&image, Value::Null))?;
            Ok(Frame { json, bytes: image.into_data(), ..Frame::new(Tag::Ok) })
        }
        Tag::Image => {
            let about: ImageJson = frame.parse()?;
            let image = about.image(frame.bytes)?;
            match &about.at {
                None => ctx.image(image, about.facts)?,
                Some((field, name)) => ctx.image_named(image, about.facts, field, name)?,
            }
            Ok(Frame::new(Tag::Ok))
        }
        Tag::Preview => {
            let about: ImageJson = frame.parse()?;
            let of: PreviewOf = serde_json::from_value(about.facts.clone())
                .map_err(|e| Error::internal("a preview of nothing").because(e))?;
            ctx.preview(about.image(frame.bytes)?, of)?;
            Ok(Frame::new(Tag::Ok))
        }
        other => Err(unexpected(other)),
    }
}

// ---- The worker's side.

/// The context of an engine in a worker.
struct LinkEngineCtx<'a>(&'a Arc<Conn>);

impl LinkEngineCtx<'_> {
    /// Asks while samplers of the host, which denoise here, may run.
    fn make(&self, tag: Tag, key: &str, options: &Value) -> Result<Handle> {
        let answer = self.0.ask(Out { json: &Make::json(key, options), ..Out::new(tag) })?;
        Ok(Handle::of(self.0, &answer))
    }

    fn hand_over(&self, tag: Tag, image: &Image, about: &ImageJson) -> Result<()> {
        self.0.ask(Out { json: &json(about)?, bytes: image.data(), ..Out::new(tag) }).map(drop)
    }
}

impl EngineCtx for LinkEngineCtx<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.0.ask(Out { json: &json(&event)?, ..Out::new(Tag::Event) }).map(drop)
    }
    fn cancelled(&self) -> bool {
        self.0.ask(Out::new(Tag::Cancelled)).map_or(true, |answer| answer.n != 0)
    }
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        Ok(Box::new(LinkSampler(self.make(Tag::MakeSampler, key, options)?)))
    }
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(LinkSchedule(self.make(Tag::MakeSchedule, key, options)?)))
    }
    fn input_image(&mut self, field: &str) -> Result<Image> {
        let answer = self.0.ask(Out { n: 1, json: &json(&field)?, ..Out::new(Tag::Input) })?;
        answer.parse::<ImageJson>()?.image(answer.bytes)
    }
    fn input_picture(&mut self, field: &str, name: &str) -> Result<Image> {
        let text = json(&(field, name))?;
        let answer = self.0.ask(Out { n: PICTURE, json: &text, ..Out::new(Tag::Input) })?;
        answer.parse::<ImageJson>()?.image(answer.bytes)
    }
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>> {
        Ok(self.0.ask(Out { json: &json(&field)?, ..Out::new(Tag::Input) })?.bytes)
    }
    fn find_file(&mut self, kind: &str, name: &str) -> Result<FoundFile> {
        self.0.ask(Out { n: FILE, json: &json(&(kind, name))?, ..Out::new(Tag::Input) })?.parse()
    }
    fn image(&mut self, image: Image, facts: Value) -> Result<()> {
        self.hand_over(Tag::Image, &image, &ImageJson::of(&image, facts))
    }
    fn image_named(&mut self, image: Image, facts: Value, field: &str, name: &str) -> Result<()> {
        let at = Some((field.to_string(), name.to_string()));
        self.hand_over(Tag::Image, &image, &ImageJson { at, ..ImageJson::of(&image, facts) })
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        self.hand_over(Tag::Preview, &image, &ImageJson::of(&image, serde_json::json!(of)))
    }
}

/// Answers a request about an engine of `library`.
///
/// # Errors
/// What the engine gives; a request that is none of an engine's.
pub fn answer(library: &RemoteLibrary, conn: &Arc<Conn>, frame: &Frame) -> Result<Frame> {
    match frame.tag {
        Tag::Plan => {
            let r: PlanJson = frame.parse()?;
            ok_json(&library.engine(&r.engine)?.plan(&r.task, &r.params, &r.ctx)?)
        }
        Tag::Devices => ok_json(&library.engine(&frame.parse::<String>()?)?.devices()?),
        Tag::Load => {
            let r: LoadJson = frame.parse()?;
            let device: Device = r.device.parse()?;
            let request =
                LoadRequest { model: r.model.as_ref(), device, dtype: r.dtype, fake_weights: r.fake_weights };
            let session = library.engine(&r.engine)?.load(&request, &mut LinkEngineCtx(conn))?;
            Ok(conn.keep(Object::Session(session)))
        }
        Tag::Run => {
            let r: RunJson = frame.parse()?;
            let run = |object: &mut Object| match object {
                Object::Session(session) => session.run(&r.task, &r.plan, &mut LinkEngineCtx(conn)),
                _ => Err(unexpected(Tag::Run)),
            };
            ok_json(&conn.with(frame.object, run)?)
        }
        Tag::Describe => conn.with(frame.object, |object| match object {
            Object::Session(session) => ok_json(&session.describe()),
            _ => Err(unexpected(Tag::Describe)),
        }),
        other => Err(unexpected(other)),
    }
}
