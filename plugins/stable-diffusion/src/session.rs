//! A loaded model at work.

use crate::device;
use crate::files::Files;
use crate::guided::{Guidance, Guided, Timesteps};
use crate::params::Txt2Img;
use crate::pipeline::{Pipeline, Prompt};
use atelier_sdk::rng::NormalRng;
use atelier_sdk::{
    EngineCtx, Error, ErrorKind, Event, Result, ResultExt, Run, Sampler, Schedule, Session, Stage, task,
};
use serde_json::{Value, json};
use std::time::Instant;

/// An engine session.
pub struct SdSession {
    pipeline: Pipeline,
}

impl SdSession {
    /// A session on a loaded pipeline.
    pub fn new(pipeline: Pipeline) -> Self {
        Self { pipeline }
    }

    fn txt2img(&self, params: &Txt2Img, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let began = Instant::now();
        self.check_size(params)?;
        let mut sampler = ctx.sampler(&params.sampler, &options(&params.sampler_options))?;
        let schedule = ctx.schedule(&params.schedule, &options(&params.schedule_options))?;
        let sigmas = self.sigmas(schedule.as_ref(), params)?;
        ctx.event(Event::Stage { stage: Stage::Encode })?;
        let guidance = self.guidance(params, ctx)?;
        for i in 0..params.count {
            let seed = params.seed.wrapping_add(i64::from(i));
            let image = self.one_image(params, &guidance, &sigmas, sampler.as_mut(), seed, ctx)?;
            ctx.image(image, json!({"seed": seed, "count": 1}))?;
        }
        Ok(json!({"seconds": began.elapsed().as_secs_f64()}))
    }

    /// The schema knows no model; a decoder of another factor needs other multiples.
    fn check_size(&self, params: &Txt2Img) -> Result<()> {
        let [_, _, height, width] = self.pipeline.latent_shape(params.width, params.height);
        let factor = self.pipeline.factor();
        if width * factor == params.width as usize && height * factor == params.height as usize {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "this model draws sizes that are multiples of {factor}, not {}x{}",
            params.width, params.height
        ))
        .hint(format!("the nearest below is {}x{}", width * factor, height * factor)))
    }

    fn sigmas(&self, schedule: &dyn Schedule, params: &Txt2Img) -> Result<Vec<f32>> {
        let levels = &self.pipeline.process().levels;
        let sigmas = schedule.sigmas(params.steps as usize, levels)?;
        let descends = sigmas.windows(2).all(|w| w[0] > w[1]);
        if sigmas.len() < 2 || !descends || sigmas.iter().any(|s| !s.is_finite() || *s < 0.0) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("schedule `{}` gave levels that do not descend to 0", params.schedule),
            )
            .hint("fewer steps or other options of the schedule may help"));
        }
        Ok(sigmas)
    }

    fn guidance(&self, params: &Txt2Img, ctx: &mut dyn EngineCtx) -> Result<Guidance> {
        let positive = self.prompt("prompt", &params.prompt, ctx)?;
        let negative = match params.cfg_scale {
            1.0 => None,
            _ => Some(self.prompt("negative_prompt", &params.negative_prompt, ctx)?),
        };
        Ok(Guidance { positive, negative, scale: params.cfg_scale })
    }

    fn prompt(&self, field: &str, text: &str, ctx: &mut dyn EngineCtx) -> Result<candle_core::Tensor> {
        let Prompt { context, dropped } = self.pipeline.encode_prompt(text)?;
        if dropped > 0 {
            let message = format!("the last {dropped} tokens of `{field}` do not fit and are left out");
            ctx.event(Event::Warning { message })?;
        }
        Ok(context)
    }

    fn one_image(
        &self,
        params: &Txt2Img,
        guidance: &Guidance,
        sigmas: &[f32],
        sampler: &mut dyn Sampler,
        seed: i64,
        ctx: &mut dyn EngineCtx,
    ) -> Result<atelier_sdk::Image> {
        let shape = self.pipeline.latent_shape(params.width, params.height);
        ctx.event(Event::Stage { stage: Stage::Denoise })?;
        let mut rng = NormalRng::new(params.rng, seed as u64);
        let mut x = vec![0f32; shape.iter().product()];
        rng.fill_normal(&mut x);
        for v in &mut x {
            *v *= sigmas[0];
        }
        let extra = json!({"parameterization": "ve"});
        let run = Run { sigmas, shape, extra: &extra };
        let steps = sigmas.len() - 1;
        let mut guided =
            Guided::new(&self.pipeline, guidance, Timesteps::Levels, shape, steps, &mut rng, ctx)?;
        sampler.sample(&run, &mut guided, &mut x)?;
        ctx.event(Event::Stage { stage: Stage::Decode })?;
        let began = Instant::now();
        let image = atelier_ops::scope(|| self.pipeline.decode(&x, shape))?;
        let value = began.elapsed().as_secs_f64();
        ctx.event(Event::Metric { name: "seconds.decode".into(), value })?;
        Ok(image)
    }
}

fn options(map: &serde_json::Map<String, Value>) -> Value {
    Value::Object(map.clone())
}

impl Session for SdSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        if task != task::TXT2IMG.key {
            return Err(Error::internal(format!("the session was given task `{task}`")));
        }
        let params: Txt2Img = serde_json::from_value(plan.clone()).internal("a plan of another shape")?;
        self.txt2img(&params, ctx)
    }

    fn describe(&self) -> String {
        device::describe(self.pipeline.device(), self.pipeline.dtype())
    }
}

/// Opens the model of a request.
///
/// # Errors
/// No device, no files, damaged files, a model of another kind.
pub fn load(request: &atelier_sdk::LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let device = device::open(request.device)?;
    let dtype = device::dtype(request.dtype, &device);
    let model = request.model()?;
    if request.fake_weights {
        return Ok(Box::new(SdSession::new(fake(&model.key, dtype, &device)?)));
    }
    let here = || format!("cannot load model `{}`", model.key);
    let path = model
        .path
        .as_deref()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{}: it names no files", here())))?;
    if !path.exists() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{}: there is no folder or file {}", here(), path.display()),
        )
        .hint(format!("put a diffusers folder or a checkpoint there, from: {}", model.source)));
    }
    let (pipeline, remarks) = Files::of(model, path)
        .and_then(|files| Pipeline::load(&files, dtype, &device))
        .map_err(|e| e.context(format!("{} from {}", here(), path.display())))?;
    for message in remarks {
        ctx.event(Event::Warning { message })?;
    }
    Ok(Box::new(SdSession::new(pipeline)))
}

fn fake(key: &str, dtype: candle_core::DType, device: &candle_core::Device) -> Result<Pipeline> {
    match key {
        "sd15" => Pipeline::fake_sd15(dtype, device),
        other => Err(Error::new(ErrorKind::Unsupported, format!("no shapes are known for `{other}`"))
            .hint("made-up weights exist for: sd15")),
    }
}
