//! Contexts on their way across the boundary: the caller's, offered as ABI objects, and such objects in use.

use crate::engine::{EngineCtx, FoundFile};
use crate::error::{Error, Result};
use crate::event::{Event, PreviewOf};
use crate::guard::guard;
use crate::image::{Image, PixelFormat};
use crate::library::{SamplerShim, ScheduleShim};
use crate::remote::{RemoteSampler, RemoteSchedule};
use crate::sampler::{SampleCtx, Sampler};
use crate::schedule::Schedule;
use abi_stable::std_types::{RResult, RSlice, RSliceMut, RStr, RVec};
use atelier_abi::{
    AbiError, Blob, BoxSampler, BoxSchedule, EngineCtxAbi, EngineCtxMut, ErrorCode, SampleCtxAbi,
    SampleCtxMut,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Runs one side's code for the other: no panic and no error gets lost.
pub(crate) fn enter<R>(what: &str, f: impl FnOnce() -> Result<R>) -> RResult<R, AbiError> {
    // The conversion runs foreign `Display` code, so it is guarded, too.
    guard(what, || Ok(f().map_err(|e| to_abi(&e)))).unwrap_or_else(|e| Err(to_abi(&e))).into()
}

fn to_abi(e: &Error) -> AbiError {
    let (code, message, detail) = e.to_parts();
    AbiError { code: ErrorCode(code), message: message.into(), detail_json: detail.into() }
}

pub(crate) fn from_abi(e: AbiError) -> Error {
    Error::from_parts(e.code.0, &e.message, &e.detail_json)
}

/// What is said of an image beside its pixels.
#[derive(Serialize, Deserialize)]
struct ImageMeta {
    width: u32,
    height: u32,
    format: PixelFormat,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    profile: Vec<u8>,
}

impl ImageMeta {
    fn of(image: &Image) -> Self {
        let profile = image.profile().unwrap_or_default().to_vec();
        Self { width: image.width(), height: image.height(), format: image.format(), profile }
    }
}

/// Where an image is to stand.
#[derive(Serialize, Deserialize)]
struct Place {
    field: String,
    name: String,
}

/// What an engine asks of [`EngineCtxAbi::input`].
#[derive(Serialize, Deserialize)]
struct Input<'a> {
    field: std::borrow::Cow<'a, str>,
    #[serde(rename = "as")]
    wanted: Wanted,
    /// With [`Wanted::File`], of which kind; the field is then its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<std::borrow::Cow<'a, str>>,
    /// With [`Wanted::Picture`], which file of a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Image,
    Bytes,
    File,
    Picture,
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| Error::internal(format!("{what} cannot be read")).because(e))
}

pub(crate) fn write<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal("not writable as JSON").because(e))
}

// ---- A safe context, offered across.

pub(crate) struct OfferedSampleCtx<'a>(pub &'a mut dyn SampleCtx);

impl SampleCtxAbi for OfferedSampleCtx<'_> {
    fn denoise(
        &mut self,
        x: RSlice<'_, f32>,
        sigma: f32,
        mut out: RSliceMut<'_, f32>,
    ) -> RResult<(), AbiError> {
        enter("denoise", || self.0.denoise(x.as_slice(), sigma, out.as_mut_slice()))
    }
    fn noise(&mut self, from: f32, to: f32, mut out: RSliceMut<'_, f32>) -> RResult<(), AbiError> {
        enter("noise", || self.0.noise(from, to, out.as_mut_slice()))
    }
    fn step_done(&mut self, i: u64, x: RSlice<'_, f32>) -> RResult<(), AbiError> {
        enter("step_done", || self.0.step_done(usize::try_from(i).unwrap_or(usize::MAX), x.as_slice()))
    }
    fn cancelled(&self) -> bool {
        guard("cancelled", || Ok(self.0.cancelled())).unwrap_or(true)
    }
}

pub(crate) struct OfferedEngineCtx<'a>(pub &'a mut dyn EngineCtx);

impl EngineCtxAbi for OfferedEngineCtx<'_> {
    fn event(&mut self, event: RStr<'_>) -> RResult<(), AbiError> {
        enter("event", || match serde_json::from_str::<Event>(&event) {
            Ok(event) => self.0.event(event),
            // A newer side may know events that this one does not.
            Err(e) => {
                crate::log::log(crate::log::Level::Debug, "atelier_sdk", &format!("unknown event: {e}"));
                Ok(())
            }
        })
    }
    fn cancelled(&self) -> bool {
        guard("cancelled", || Ok(self.0.cancelled())).unwrap_or(true)
    }
    fn sampler(&mut self, key: RStr<'_>, options: RStr<'_>) -> RResult<BoxSampler, AbiError> {
        enter("sampler", || {
            let options: Value = parse("options", &options)?;
            Ok(SamplerShim::boxed(self.0.sampler(&key, &options)?))
        })
    }
    fn schedule(&mut self, key: RStr<'_>, options: RStr<'_>) -> RResult<BoxSchedule, AbiError> {
        enter("schedule", || {
            let options: Value = parse("options", &options)?;
            Ok(ScheduleShim::boxed(self.0.schedule(&key, &options)?))
        })
    }
    fn input(&mut self, what: RStr<'_>) -> RResult<Blob, AbiError> {
        enter("input", || {
            let input: Input<'_> = parse("the wish for an input", &what)?;
            match input.wanted {
                Wanted::Image => image_blob(self.0.input_image(&input.field)?),
                Wanted::Bytes => {
                    let bytes = self.0.input_bytes(&input.field)?.into();
                    Ok(Blob { meta_json: "{}".into(), bytes })
                }
                Wanted::Picture => {
                    let name = input.name.unwrap_or_default();
                    image_blob(self.0.input_picture(&input.field, &name)?)
                }
                Wanted::File => {
                    let kind = input.kind.unwrap_or_default();
                    let found = self.0.find_file(&kind, &input.field)?;
                    Ok(Blob { meta_json: write(&found)?.into(), bytes: RVec::new() })
                }
            }
        })
    }
    fn output(&mut self, meta: RStr<'_>, bytes: RSlice<'_, u8>) -> RResult<(), AbiError> {
        enter("output", || {
            let meta: Value = parse("the description of an output", &meta)?;
            if meta["kind"] == "preview" {
                let image = blob_image(meta.clone(), bytes.to_vec())?;
                return self.0.preview(image, parse("what a preview shows", &meta["of"].to_string())?);
            }
            if meta["kind"] != "image" {
                return Err(Error::new(
                    crate::ErrorKind::Unsupported,
                    format!("this atelier does not know what to do with an output of kind {}", meta["kind"]),
                ));
            }
            let image = blob_image(meta.clone(), bytes.to_vec())?;
            match meta.get("at") {
                None => self.0.image(image, meta["facts"].clone()),
                Some(at) => {
                    let at: Place = parse("where an image is to stand", &at.to_string())?;
                    self.0.image_named(image, meta["facts"].clone(), &at.field, &at.name)
                }
            }
        })
    }
}

fn image_blob(image: Image) -> Result<Blob> {
    Ok(Blob { meta_json: write(&ImageMeta::of(&image))?.into(), bytes: RVec::from(image.into_data()) })
}

fn blob_image(meta: Value, bytes: Vec<u8>) -> Result<Image> {
    let meta: ImageMeta =
        serde_json::from_value(meta).map_err(|e| Error::internal("an image without its size").because(e))?;
    Ok(Image::new(meta.width, meta.height, meta.format, bytes)?.with_profile(meta.profile))
}

/// What is said of an image that is handed over.
fn output_meta(image: &Image, kind: &str, more: (&str, Value)) -> Result<Value> {
    let mut meta = serde_json::to_value(ImageMeta::of(image))
        .map_err(|e| Error::internal("not writable as JSON").because(e))?;
    meta["kind"] = json!(kind);
    meta[more.0] = more.1;
    Ok(meta)
}

// ---- A context from across, in use.

pub(crate) struct UsedSampleCtx<'a>(pub SampleCtxMut<'a>);

impl SampleCtx for UsedSampleCtx<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        self.0.denoise(x.into(), sigma, out.into()).into_result().map_err(from_abi)
    }
    fn noise(&mut self, from: f32, to: f32, out: &mut [f32]) -> Result<()> {
        self.0.noise(from, to, out.into()).into_result().map_err(from_abi)
    }
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        self.0.step_done(i as u64, x.into()).into_result().map_err(from_abi)
    }
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

pub(crate) struct UsedEngineCtx<'a>(pub EngineCtxMut<'a>);

impl UsedEngineCtx<'_> {
    fn input(&mut self, field: &str, wanted: Wanted) -> Result<Blob> {
        self.ask(&Input { field: field.into(), wanted, kind: None, name: None })
    }

    fn ask(&mut self, input: &Input<'_>) -> Result<Blob> {
        self.0.input(write(input)?.as_str().into()).into_result().map_err(from_abi)
    }

    fn hand_over(&mut self, image: &Image, meta: &Value) -> Result<()> {
        self.0.output(meta.to_string().as_str().into(), image.data().into()).into_result().map_err(from_abi)
    }
}

impl EngineCtx for UsedEngineCtx<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.0.event(write(&event)?.as_str().into()).into_result().map_err(from_abi)
    }
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>> {
        let made = self.0.sampler(key.into(), options.to_string().as_str().into());
        Ok(Box::new(RemoteSampler::new(made.into_result().map_err(from_abi)?)))
    }
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>> {
        let made = self.0.schedule(key.into(), options.to_string().as_str().into());
        Ok(Box::new(RemoteSchedule::new(made.into_result().map_err(from_abi)?)))
    }
    fn input_image(&mut self, field: &str) -> Result<Image> {
        let blob = self.input(field, Wanted::Image)?;
        blob_image(parse("the description of an image", &blob.meta_json)?, blob.bytes.into())
    }
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>> {
        Ok(self.input(field, Wanted::Bytes)?.bytes.into())
    }
    fn find_file(&mut self, kind: &str, name: &str) -> Result<FoundFile> {
        let input = Input { field: name.into(), wanted: Wanted::File, kind: Some(kind.into()), name: None };
        parse("the file that was found", &self.ask(&input)?.meta_json)
    }
    fn input_picture(&mut self, field: &str, name: &str) -> Result<Image> {
        let named = Some(name).filter(|n| !n.is_empty()).map(Into::into);
        let input = Input { field: field.into(), wanted: Wanted::Picture, kind: None, name: named };
        match self.ask(&input) {
            Ok(blob) => blob_image(parse("the description of an image", &blob.meta_json)?, blob.bytes.into()),
            // An atelier that does not know this wish cannot read it; it has the image in 8 bits.
            Err(e) if e.kind() == crate::ErrorKind::Internal && name.is_empty() => self.input_image(field),
            Err(e) => Err(e),
        }
    }
    fn image(&mut self, image: Image, facts: Value) -> Result<()> {
        self.hand_over(&image, &output_meta(&image, "image", ("facts", facts))?)
    }
    fn image_named(&mut self, image: Image, facts: Value, field: &str, name: &str) -> Result<()> {
        let mut meta = output_meta(&image, "image", ("facts", facts))?;
        meta["at"] = json!(Place { field: field.into(), name: name.into() });
        self.hand_over(&image, &meta)
    }
    fn preview(&mut self, image: Image, of: PreviewOf) -> Result<()> {
        let meta = output_meta(&image, "preview", ("of", json!(of)))?;
        match self.hand_over(&image, &meta) {
            // An atelier from before there were previews; nothing depends on them.
            Err(e) if e.kind() == crate::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }
}
