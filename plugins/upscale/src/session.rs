//! A model at work.

use crate::batch::{self, Source, Wanted};
use crate::params::Upscale;
use atelier_diffusion::device::Precision;
use atelier_diffusion::upscale::{Network, UpscalerFiles};
use atelier_diffusion::{device, memory};
use atelier_sdk::{
    EngineCtx, Error, ErrorKind, Event, Image, LoadRequest, Result, ResultExt, Session, Stage, task,
};
use candle_core::Device;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Instant;

/// An engine session.
pub struct UpscaleSession {
    model: String,
    files: UpscalerFiles,
    device: Device,
    precision: Precision,
    /// The network that was used last, and how much noise it takes away.
    loaded: Option<(Option<f64>, Network)>,
}

/// Opens the model of a request.
///
/// # Errors
/// No device, no files, damaged files, a model of another kind.
pub fn load(request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<UpscaleSession> {
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let device = device::open(request.device)?;
    let precision = device::precision(request.dtype, &device)?;
    let model = request.model()?;
    if request.fake_weights {
        return Err(Error::new(ErrorKind::Unsupported, "an upscaler has no made-up weights"));
    }
    let path = model.weights()?;
    let files =
        UpscalerFiles::find(path).map_err(|e| e.context(format!("cannot load model `{}`", model.key)))?;
    for (role, path) in files.paths() {
        ctx.event(Event::File { role: role.into(), path: path.into() })?;
    }
    Ok(UpscaleSession { model: model.key.clone(), files, device, precision, loaded: None })
}

/// What became of the images of a folder.
#[derive(Default)]
struct Tally {
    done: usize,
    stood: usize,
    bad: Vec<Value>,
}

impl UpscaleSession {
    fn upscale(&mut self, params: &Upscale, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let began = Instant::now();
        let strength = self.ready(params.how.denoise_strength)?;
        let mut facts = match params.folder.is_empty() {
            true => {
                self.one(params, strength, ctx)?;
                json!({})
            }
            false => self.folder(params, strength, ctx)?,
        };
        facts["seconds"] = json!(began.elapsed().as_secs_f64());
        Ok(facts)
    }

    /// Loads the network of a request; gives how much noise it takes away.
    fn ready(&mut self, denoise: Option<f64>) -> Result<Option<f64>> {
        let strength = self.files.strength(denoise)?;
        if self.loaded.as_ref().is_none_or(|(known, _)| *known != strength) {
            self.loaded = None;
            self.loaded = Some((strength, self.files.load(strength, self.precision, &self.device)?));
        }
        Ok(strength)
    }

    fn network(&self) -> Result<&Network> {
        let network = self.loaded.as_ref().map(|(_, network)| network);
        network.ok_or_else(|| Error::internal("the upscaler is not loaded"))
    }

    fn outscale(&self, params: &Upscale) -> Result<f64> {
        Ok(params.how.outscale.unwrap_or(self.network()?.scale() as f64))
    }

    /// What is decided here, for the metadata: the same again makes the same again.
    fn decided(&self, params: &Upscale, strength: Option<f64>) -> Result<Map<String, Value>> {
        let mut decided = Map::from_iter([("outscale".to_string(), json!(self.outscale(params)?))]);
        decided.extend(strength.map(|s| ("denoise_strength".to_string(), json!(s))));
        Ok(decided)
    }

    fn one(&self, params: &Upscale, strength: Option<f64>, ctx: &mut dyn EngineCtx) -> Result<()> {
        let image = ctx.input_picture("image", "")?;
        let large = self.enlarged(&image, params, &mut |event| ctx.event(event))?;
        let facts = Value::Object(self.decided(params, strength)?);
        if params.out.is_empty() {
            return ctx.image(large, facts);
        }
        let stem = Path::new(&params.image).file_stem().unwrap_or_default().to_string_lossy();
        let name = params.name_of(&stem, &self.model, self.outscale(params)?);
        ctx.image_named(large, facts, "out", &format!("{name}.png"))
    }

    fn enlarged(
        &self,
        image: &Image,
        params: &Upscale,
        tell: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<Image> {
        tell(Event::Stage { stage: Stage::Upscale })?;
        let began = Instant::now();
        let limit = memory::limit(params.memory_limit, memory::available(&self.device));
        let large = self.network()?.enlarge(image, &params.how, params.alpha, limit, tell)?;
        tell(Event::Metric { name: "seconds.upscale".into(), value: began.elapsed().as_secs_f64() })?;
        Ok(large)
    }

    fn folder(&self, params: &Upscale, strength: Option<f64>, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let sources = batch::sources(params, ctx)?;
        let total = sources.len() as u64;
        let mut tally = Tally::default();
        for (i, source) in sources.iter().enumerate() {
            self.in_folder(params, strength, source, &mut tally, ctx)?;
            ctx.event(Event::Progress { done: i as u64 + 1, total, unit: "images".into() })?;
        }
        if tally.done + tally.stood == 0 && !tally.bad.is_empty() {
            let message = format!("none of the {total} images of {} can be enlarged", params.folder);
            return Err(Error::new(ErrorKind::Corrupt, message).hint(first_reason(&tally.bad)));
        }
        Ok(json!({"done": tally.done, "there_already": tally.stood, "skipped": tally.bad}))
    }

    /// One image of a folder. An image that cannot be enlarged is no reason to leave the others.
    fn in_folder(
        &self,
        params: &Upscale,
        strength: Option<f64>,
        source: &Source,
        tally: &mut Tally,
        ctx: &mut dyn EngineCtx,
    ) -> Result<()> {
        let path = batch::path(params, source);
        let mut decided = self.decided(params, strength)?;
        decided.insert("image".into(), json!(path));
        decided.insert("folder".into(), json!(""));
        decided.insert("skip".into(), json!(""));
        let name = params.name_of(&source.stem, &self.model, self.outscale(params)?) + ".png";
        let mut all = serde_json::to_value(params).internal("parameters that are not JSON")?;
        if let Value::Object(all) = &mut all {
            all.extend(decided.clone());
            let wanted =
                Wanted { source: &path, model: &self.model, params: batch::that_matter(all.clone()) };
            if wanted.stands_at(&Path::new(&params.out).join(&name)) {
                tally.stood += 1;
                return Ok(());
            }
        }
        let large = ctx.input_picture("folder", &source.file).and_then(|image| {
            self.enlarged(&image, params, &mut |event| match event {
                // The bar counts images.
                Event::Progress { .. } | Event::Stage { .. } if !ctx.cancelled() => Ok(()),
                Event::Progress { .. } | Event::Stage { .. } => Err(Error::cancelled()),
                other => ctx.event(other),
            })
        });
        match large {
            Ok(large) => {
                tally.done += 1;
                ctx.image_named(large, Value::Object(decided), "out", &name)
            }
            Err(e) if is_the_image_s(&e) => {
                let reason = e.chain().join(": ");
                tally.bad.push(json!({"file": source.file, "reason": reason}));
                ctx.event(Event::Warning { message: format!("{} is left out: {reason}", source.file) })
            }
            Err(e) => Err(e.context(format!("in {}", path.display()))),
        }
    }
}

/// Whether an error is one of this image alone.
fn is_the_image_s(e: &Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::InvalidRequest
    )
}

fn first_reason(bad: &[Value]) -> String {
    let text = |field: &str| bad.first().and_then(|b| b[field].as_str()).unwrap_or_default();
    format!("{}: {}", text("file"), text("reason"))
}

impl Session for UpscaleSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        if task != task::UPSCALE.key {
            return Err(Error::internal(format!("the session was given task `{task}`")));
        }
        let params = serde_json::from_value(plan.clone()).internal("a plan of another shape")?;
        self.upscale(&params, ctx)
    }

    fn describe(&self) -> String {
        device::describe(&self.device, self.precision)
    }
}
