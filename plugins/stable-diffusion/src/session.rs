//! A loaded model at work.

use crate::decoding::{self, Decoder, Pieces, Tiny, VaeTiling};
use crate::enlarging::Upscalers;
use crate::guided::{Guided, Timesteps};
use crate::loras::{self, Loras, Wanted};
use crate::memory::{Need, Residency, choose};
use crate::params::Txt2Img;
use crate::pipeline::{Part, Pipeline};
use crate::preview::{Colours, Painter, Preview, Previews};
use crate::prompt::conditioning::Conditioning;
use crate::prompt::drawn::Drawn;
use crate::prompt::encode::Encoder;
use crate::prompt::inversion;
use crate::second::Second;
use crate::start::{Blended, Start};
use crate::together::{self, Denoise};
use crate::variation::Seeds;
use atelier_diffusion::files::Files;
use atelier_diffusion::upscale::Network;
use atelier_diffusion::{device, made_up, memory};
use atelier_sdk::rng::NormalRng;
use atelier_sdk::{
    EngineCtx, Error, ErrorKind, Event, Result, ResultExt, Run, Sampler, Schedule, Session, Stage, task,
};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

/// Images whose networks are loaded once in a staged run: their latents wait in memory, and none of them is finished
/// before all are denoised.
const GROUP: usize = 8;

/// An engine session.
pub struct SdSession {
    pub(crate) pipeline: Pipeline,
    residency: Residency,
    /// Networks whose unused tensors were told.
    told: RefCell<Vec<Part>>,
    pieces: Pieces,
    tiny: RefCell<Tiny>,
    colours: RefCell<Option<Colours>>,
    /// The adapters on the networks.
    loras: RefCell<Loras>,
    pub(crate) upscalers: Upscalers,
}

/// What the images of a request have in common.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub params: &'a Txt2Img,
    pub sigmas: &'a [f32],
    pub start: Option<&'a Start>,
    /// A second pass, at a larger size.
    pub second: Option<&'a Second>,
    /// What becomes of a decoded image.
    pub finish: &'a dyn Fn(atelier_sdk::Image) -> Result<atelier_sdk::Image>,
    /// What enlarges a finished image.
    pub upscaler: Option<&'a Network>,
}

pub(crate) fn for_inpainting() -> Error {
    Error::new(ErrorKind::Unsupported, "this model is for inpainting").hint("use task `inpaint`")
}

impl SdSession {
    /// A session on a loaded pipeline.
    pub fn new(pipeline: Pipeline) -> Self {
        Self {
            pipeline,
            residency: Residency::Resident,
            told: RefCell::default(),
            pieces: Pieces::Whole,
            tiny: RefCell::default(),
            colours: RefCell::default(),
            loras: RefCell::default(),
            upscalers: Upscalers::default(),
        }
    }

    /// Decides how the networks share the memory for images of this size, and loads them if all of them stay.
    pub(crate) fn settle(&mut self, params: &Txt2Img, source: bool, ctx: &mut dyn EngineCtx) -> Result<()> {
        // Those of the first image: what is loaded now need not be loaded again.
        self.adapt(&Draft::new(params, params.matrix()?.as_deref(), 0)?, params, ctx)?;
        let held = Part::ALL.into_iter().filter(|part| self.pipeline.is_loaded(*part));
        let held: u64 = held.map(|part| self.pipeline.bytes(part)).sum();
        let free = memory::available(self.pipeline.device()).map(|free| free + held);
        self.pieces = Pieces::of(params, self.pipeline.factor());
        let mut need = Need::of(&self.pipeline, params, source, &self.pieces);
        let limit = memory::limit(params.memory_limit, free);
        if params.vae_tiling == VaeTiling::Auto && limit.is_some_and(|limit| need.decoding() > limit) {
            self.pieces = Pieces::tiles(params);
            need = Need::of(&self.pipeline, params, source, &self.pieces);
            ctx.event(Event::Warning {
                message: "the autoencoder works in tiles: whole images would take more memory than there is"
                    .into(),
            })?;
        }
        let (residency, remark) = choose(&need, params.memory, params.memory_limit, free)?;
        self.residency = residency;
        ctx.event(Event::Metric { name: "memory.estimate".into(), value: need.total(residency) as f64 })?;
        if let Some(message) = remark {
            ctx.event(Event::Warning { message })?;
        }
        match residency {
            Residency::Resident => Part::ALL.into_iter().try_for_each(|part| self.ready(part, ctx)),
            Residency::Staged => {
                Part::ALL.into_iter().for_each(|part| self.pipeline.release(part));
                Ok(())
            }
        }
    }

    /// How the autoencoder goes over the images of the request in work.
    pub(crate) fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// Loads a network that is about to be used.
    pub(crate) fn ready(&self, part: Part, ctx: &mut dyn EngineCtx) -> Result<()> {
        if self.pipeline.is_loaded(part) {
            return Ok(());
        }
        ctx.event(Event::Stage { stage: Stage::Load })?;
        self.pipeline.load(part)?;
        let mut told = self.told.borrow_mut();
        if !told.contains(&part) {
            told.push(part);
            if let Some(message) = self.pipeline.unused(part) {
                ctx.event(Event::Warning { message })?;
            }
        }
        Ok(())
    }

    /// Puts an image's adapters on the networks. Gives whether that changed them.
    fn adapt(&self, draft: &Draft, params: &Txt2Img, ctx: &mut dyn EngineCtx) -> Result<bool> {
        self.loras.borrow_mut().put(&self.pipeline, &draft.loras, params.lora_mode, ctx)
    }

    /// A network is not needed for a while.
    pub(crate) fn leave(&self, part: Part) {
        match self.residency {
            Residency::Resident => self.pipeline.rest(part),
            Residency::Staged => self.pipeline.release(part),
        }
    }

    fn txt2img(&mut self, params: &Txt2Img, ctx: &mut dyn EngineCtx) -> Result<Value> {
        let began = Instant::now();
        self.check_size(params)?;
        if self.pipeline.is_inpainting() {
            return Err(for_inpainting());
        }
        let mut sampler = ctx.sampler(&params.sampler, &options(&params.sampler_options))?;
        let schedule = ctx.schedule(&params.schedule, &options(&params.schedule_options))?;
        let sigmas = self.sigmas(schedule.as_ref(), params, params.steps as usize)?;
        let second = params.hires.is_on().then(|| self.second(params, &params.hires, ctx)).transpose()?;
        let upscaler = self.last_upscaler(params, ctx)?;
        self.settle(params, false, ctx)?;
        let upscaler = upscaler.as_deref();
        let job =
            Job { params, sigmas: &sigmas, start: None, second: second.as_ref(), finish: &Ok, upscaler };
        self.images(&job, sampler.as_mut(), ctx)?;
        Ok(json!({"seconds": began.elapsed().as_secs_f64()}))
    }

    /// Draws the images of a request: groups of them, each group through one network after the other.
    pub(crate) fn images(
        &self,
        job: &Job<'_>,
        sampler: &mut dyn Sampler,
        ctx: &mut dyn EngineCtx,
    ) -> Result<()> {
        let matrix = job.params.matrix()?;
        let combinations = matrix.as_ref().map_or(1, Vec::len) as u32;
        let numbers: Vec<u32> = (0..combinations * job.params.count).collect();
        let together = job.params.batch_size.max(1) as usize;
        let group = if self.residency == Residency::Staged { GROUP.max(together) } else { together };
        let painter = self.painter(job.params, ctx)?;
        self.ready(Part::Text, ctx)?;
        let embeddings = inversion::named(&self.pipeline, &job.params.embeddings, ctx)?;
        let mut encoder = Encoder::new(&self.pipeline, job.params.encoding()).with_embeddings(embeddings);
        for numbers in numbers.chunks(group) {
            let drafts: Vec<Draft> = numbers
                .iter()
                .map(|i| Draft::new(job.params, matrix.as_deref(), *i))
                .collect::<Result<_>>()?;
            for alike in drafts.chunk_by(|a, b| a.loras == b.loras) {
                self.drawn_alike(job, alike, painter.as_ref(), &mut encoder, sampler, ctx)?;
            }
        }
        Ok(())
    }

    /// Draws images with the same adapters.
    fn drawn_alike(
        &self,
        job: &Job<'_>,
        drafts: &[Draft],
        painter: Option<&Painter>,
        encoder: &mut Encoder<'_>,
        sampler: &mut dyn Sampler,
        ctx: &mut dyn EngineCtx,
    ) -> Result<()> {
        let Some(first) = drafts.first() else { return Ok(()) };
        if self.adapt(first, job.params, ctx)? {
            encoder.forget();
            self.ready(Part::Text, ctx)?;
        }
        let texts = texts(job, drafts, encoder, ctx)?;
        self.leave(Part::Text);
        self.ready(Part::Unet, ctx)?;
        let drawings: Vec<Drawing> = texts
            .iter()
            .map(|text| Drawing { text, conditioning: &text.conditioning, start: job.start })
            .collect();
        let mut latents = self.denoised(job, &drawings, painter, sampler, ctx)?;
        if let Some(second) = job.second {
            latents = self.second_pass(job, second, &texts, latents, painter, ctx)?;
        }
        self.leave(Part::Unet);
        self.ready(Part::Vae, ctx)?;
        for (text, latents) in texts.iter().zip(latents) {
            let image = self.decoded(job.second.map_or(job.params, |s| &s.params), &latents, ctx)?;
            let mut image = (job.finish)(image)?;
            if let Some(network) = job.upscaler {
                let how = &job.params.upscale.how;
                image = self.enlarged_by(network, &image, how, job.params.memory_limit, ctx)?;
            }
            ctx.image(image, text.facts())?;
        }
        self.leave(Part::Vae);
        Ok(())
    }

    /// The schema knows no model; a decoder of another factor needs other multiples.
    pub(crate) fn check_size(&self, params: &Txt2Img) -> Result<()> {
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

    pub(crate) fn sigmas(&self, schedule: &dyn Schedule, params: &Txt2Img, steps: usize) -> Result<Vec<f32>> {
        let levels = &self.pipeline.process().levels;
        let sigmas = schedule.sigmas(steps, levels)?;
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

    /// Samples the latents of images, each with its conditioning and its own start if there is one.
    pub(crate) fn denoised(
        &self,
        job: &Job<'_>,
        images: &[Drawing<'_>],
        painter: Option<&Painter>,
        sampler: &mut dyn Sampler,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Vec<Vec<f32>>> {
        let network = self.pipeline.denoiser()?;
        let Job { params, sigmas, .. } = *job;
        let at = Sampling { pipeline: &self.pipeline, params, sigmas, painter };
        let mut latents = Vec::new();
        for together in images.chunks(params.batch_size.max(1) as usize) {
            ctx.event(Event::Stage { stage: Stage::Denoise })?;
            if let [one] = together {
                latents.push(at.one(one, sampler, network.clone(), ctx)?);
                continue;
            }
            let mut work = Vec::new();
            for image in together {
                let mut own = ctx.sampler(&params.sampler, &options(&params.sampler_options))?;
                work.push(move |network, ctx: &mut dyn EngineCtx| at.one(image, own.as_mut(), network, ctx));
            }
            latents.extend(together::run(network.clone(), work, ctx)?);
        }
        Ok(latents)
    }

    /// What makes the previews of a request; also finds the tiny autoencoder before anything is drawn.
    fn painter(&self, params: &Txt2Img, ctx: &mut dyn EngineCtx) -> Result<Option<Painter>> {
        let tiny = match Tiny::is_needed(params) {
            true => Some(self.tiny.borrow_mut().get(params, &self.pipeline)?),
            false => None,
        };
        if let Some(path) = self.tiny.borrow().path().filter(|path| tiny.is_some() && path.is_file()) {
            ctx.event(Event::File { role: "taesd".into(), path: path.into() })?;
        }
        Ok(match params.preview {
            Preview::Off => None,
            Preview::Taesd => tiny.map(Painter::Taesd),
            Preview::Rgb => Some(Painter::Rgb(self.colours(ctx)?)),
        })
    }

    fn colours(&self, ctx: &mut dyn EngineCtx) -> Result<Colours> {
        if let Some(known) = self.colours.borrow().clone().or(Colours::known(self.pipeline.vae_config())) {
            return Ok(known);
        }
        self.ready(Part::Vae, ctx)?;
        let fitted = Colours::fitted(&self.pipeline)?;
        self.leave(Part::Vae);
        *self.colours.borrow_mut() = Some(fitted.clone());
        Ok(fitted)
    }

    fn decoded(
        &self,
        params: &Txt2Img,
        latents: &[f32],
        ctx: &mut dyn EngineCtx,
    ) -> Result<atelier_sdk::Image> {
        let shape = self.pipeline.latent_shape(params.width, params.height);
        ctx.event(Event::Stage { stage: Stage::Decode })?;
        let began = Instant::now();
        let image = atelier_ops::scope(|| match params.decoder {
            Decoder::Vae => self.pipeline.decode(latents, shape, &self.pieces),
            Decoder::Taesd => {
                let tiny = self.tiny.borrow_mut().get(params, &self.pipeline)?;
                decoding::decode_tiny(&tiny, &self.pipeline, latents, shape)
            }
        })?;
        let value = began.elapsed().as_secs_f64();
        ctx.event(Event::Metric { name: "seconds.decode".into(), value })?;
        Ok(image)
    }
}

/// One image that is to be drawn.
pub(crate) struct Drawing<'a> {
    pub text: &'a Text,
    pub conditioning: &'a Conditioning,
    pub start: Option<&'a Start>,
}

/// What the sampling of every image needs.
#[derive(Clone, Copy)]
struct Sampling<'a> {
    pipeline: &'a Pipeline,
    params: &'a Txt2Img,
    sigmas: &'a [f32],
    painter: Option<&'a Painter>,
}

impl Sampling<'_> {
    /// Samples the latents of one image.
    fn one(
        &self,
        image: &Drawing<'_>,
        sampler: &mut dyn Sampler,
        network: Arc<dyn Denoise>,
        ctx: &mut dyn EngineCtx,
    ) -> Result<Vec<f32>> {
        let Self { params, sigmas, .. } = *self;
        let Drawing { text, conditioning, start } = *image;
        let shape = self.pipeline.latent_shape(params.width, params.height);
        let mut rng = NormalRng::new(params.rng, text.seeds.seed as u64);
        let mut x = vec![0f32; shape.iter().product()];
        rng.fill_normal(&mut x);
        text.seeds.vary(&mut x, shape, params.rng);
        match start {
            Some(start) => start.begin(&mut x, sigmas[0]),
            None => x.iter_mut().for_each(|v| *v *= sigmas[0]),
        }
        let extra = json!({"parameterization": "ve"});
        let run = Run { sigmas, shape, extra: &extra };
        let (steps, conditioning) = (sigmas.len() - 1, conditioning.clone());
        let guided =
            Guided::scheduled(self.pipeline, conditioning, Timesteps::Levels, shape, steps, &mut rng, ctx)?;
        let every = params.preview_every as usize;
        let previews = self.painter.map(|painter| Previews { painter, every, image: text.number });
        let channels = start.and_then(|s| s.channels.clone());
        let guided = guided.with_channels(channels).with_batch(params.cfg_batch).with_previews(previews);
        let mut guided = guided.with_network(network).with_reuse(params.deep_cache);
        match start {
            Some(start) => {
                sampler.sample(&run, &mut Blended { inner: &mut guided, start }, &mut x)?;
                start.blend(&mut x);
            }
            None => sampler.sample(&run, &mut guided, &mut x)?,
        }
        Ok(x)
    }
}

/// The prompts of one image.
pub(crate) struct Text {
    /// Of the image, from 1.
    number: usize,
    drawn: Drawn,
    seeds: Seeds,
    conditioning: Conditioning,
    /// That of the second pass.
    pub(crate) second: Option<Conditioning>,
}

impl Text {
    /// What is this image's own.
    fn facts(&self) -> Value {
        let mut facts = self.drawn.facts(self.seeds.seed);
        if self.seeds.strength > 0.0 {
            facts["subseed"] = json!(self.seeds.subseed);
        }
        facts
    }
}

/// What is known of an image before anything is loaded.
struct Draft {
    /// Which image of the request it is, from 1.
    number: usize,
    drawn: Drawn,
    seeds: Seeds,
    loras: Vec<Wanted>,
}

impl Draft {
    /// Image `i`: with a matrix, all images of a combination come before those of the next.
    fn new(params: &Txt2Img, matrix: Option<&[Drawn]>, i: u32) -> Result<Self> {
        let (combination, of_it) = (i / params.count.max(1), i % params.count.max(1));
        let seeds = Seeds::of(params, of_it);
        let drawn = match matrix.and_then(|all| all.get(combination as usize)) {
            Some(drawn) => drawn.clone(),
            None => {
                let (prompt, negative) = (&params.prompt, &params.negative_prompt);
                Drawn::new(prompt, negative, params.prompt_templates, seeds.seed)?
            }
        };
        let loras = loras::wanted(&params.loras, &drawn.prompt)?;
        Ok(Self { number: i as usize + 1, drawn, seeds, loras })
    }
}

/// The prompts of some images, encoded.
fn texts(
    job: &Job<'_>,
    drafts: &[Draft],
    encoder: &mut Encoder<'_>,
    ctx: &mut dyn EngineCtx,
) -> Result<Vec<Text>> {
    ctx.event(Event::Stage { stage: Stage::Encode })?;
    let params = job.params;
    let steps = job.sigmas.len() - 1;
    let text = |draft: &Draft| {
        let (drawn, seeds) = (draft.drawn.clone(), draft.seeds);
        let conditioning = encoder.conditioning(&drawn.prompt, &drawn.negative, params.strength(), steps)?;
        let second = job.second.map(|second| second.conditioning(&drawn, seeds.seed, encoder)).transpose()?;
        Ok(Text { number: draft.number, drawn, seeds, conditioning, second })
    };
    drafts.iter().map(text).collect()
}

pub(crate) fn options(map: &serde_json::Map<String, Value>) -> Value {
    Value::Object(map.clone())
}

impl Session for SdSession {
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value> {
        fn read<P: serde::de::DeserializeOwned>(plan: &Value) -> Result<P> {
            serde_json::from_value(plan.clone()).internal("a plan of another shape")
        }
        // Of this run alone.
        self.pipeline.take_operations();
        let mut facts = match task {
            t if t == task::TXT2IMG.key => self.txt2img(&read(plan)?, ctx),
            t if t == task::IMG2IMG.key => self.img2img(&read(plan)?, ctx),
            t if t == task::INPAINT.key => self.inpaint(&read(plan)?, ctx),
            other => Err(Error::internal(format!("the session was given task `{other}`"))),
        }?;
        facts["operations"] = json!(self.pipeline.take_operations());
        Ok(facts)
    }

    fn describe(&self) -> String {
        device::describe(self.pipeline.device(), self.pipeline.precision())
    }
}

/// Opens the model of a request.
///
/// # Errors
/// No device, no files, damaged files, a model of another kind.
pub fn load(request: &atelier_sdk::LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>> {
    ctx.event(Event::Stage { stage: Stage::Load })?;
    let device = device::open(request.device)?;
    let precision = device::precision(request.dtype, &device)?;
    let model = request.model()?;
    if request.fake_weights {
        made_up::check(&model.key)?;
        return Ok(Box::new(SdSession::new(Pipeline::fake_sd15(precision, &device)?)));
    }
    let path = model.weights()?;
    let place = format!("cannot load model `{}` from {}", model.key, path.display());
    let pipeline = Files::of(model, path)
        .and_then(|files| Pipeline::new(&files, precision, &device))
        .map_err(|e| e.context(place.clone()))?;
    for (role, path) in pipeline.paths() {
        ctx.event(Event::File { role: role.into(), path: path.into() })?;
    }
    if let Some(guess) = pipeline.guess() {
        ctx.event(Event::Warning { message: guess.into() })?;
    }
    Ok(Box::new(SdSession::new(pipeline.called(place))))
}
