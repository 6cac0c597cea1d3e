//! Engines: code that performs tasks with a model.

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, PreviewOf};
use crate::image::Image;
use crate::model::ModelSpec;
use crate::params::{PlanCtx, TaskParams, Violation, plan_json, schema_json};
use crate::registry::Keyed;
use crate::sampler::Sampler;
use crate::schedule::Schedule;
use crate::task::TaskInfo;
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The best device present: Metal, then CUDA, then the CPU.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// Apple's GPU number `n`.
    Metal(usize),
    /// NVIDIA's GPU number `n`.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let (name, ordinal) = match s.split_once(':') {
            None => (s, Some(0)),
            Some((name, n)) => (name, n.parse().ok()),
        };
        match (name, ordinal) {
            ("auto", Some(0)) => Ok(Self::Auto),
            ("cpu", Some(0)) => Ok(Self::Cpu),
            ("metal", Some(n)) => Ok(Self::Metal(n)),
            ("cuda", Some(n)) => Ok(Self::Cuda(n)),
            _ => Err(Error::invalid(format!("`{s}` is not a device"))
                .hint("devices are: auto, cpu, metal, metal:N, cuda, cuda:N")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Metal(n) => write!(f, "metal:{n}"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// A device as an engine sees it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct DeviceInfo {
    /// `cpu`, `metal:0`, ...
    pub device: String,
    /// Whether it can be used now.
    pub available: bool,
    /// Its name, or why it cannot be used.
    pub detail: String,
}

/// The number format of weights, and of products where the device has such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// What suits the device: f32 on the CPU, f16 on Metal and CUDA.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with f32's exponent.
    Bf16,
    /// Weights in 8-bit integers that share scales, or in the fewer bits that a file has them in.
    Int8,
}

impl FromStr for Dtype {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::invalid(format!(
                "`{s}` is not a number format: there are auto, f32, f16, bf16 and int8"
            ))),
        }
    }
}

/// What to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadRequest<'a> {
    /// The model; none for an engine that needs none ([`EngineInfo::architectures`] is empty).
    pub model: Option<&'a ModelSpec>,
    /// Where to compute.
    pub device: Device,
    /// In which numbers.
    pub dtype: Dtype,
    /// Use random weights of the model's shapes instead of its files: for benchmarks.
    pub fake_weights: bool,
}

impl<'a> LoadRequest<'a> {
    /// The model, for an engine that needs one.
    ///
    /// # Errors
    /// There is none.
    pub fn model(&self) -> Result<&'a ModelSpec> {
        self.model
            .ok_or_else(|| Error::invalid("no model is given").hint("name one with `model:` or `--model`"))
    }
}

/// Services that the host gives a running engine. The caller owns progress, preview, cancel and saving; an
/// engine only emits.
pub trait EngineCtx {
    /// Reports progress.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Cancelled`] when the run is to stop: return it.
    fn event(&mut self, event: Event) -> Result<()>;

    /// Whether the run is to stop.
    fn cancelled(&self) -> bool;

    /// A sampler by key, with options that its own schema accepts.
    ///
    /// # Errors
    /// Unknown key, wrong options.
    fn sampler(&mut self, key: &str, options: &Value) -> Result<Box<dyn Sampler>>;

    /// A schedule by key, with options that its own schema accepts.
    ///
    /// # Errors
    /// Unknown key, wrong options.
    fn schedule(&mut self, key: &str, options: &Value) -> Result<Box<dyn Schedule>>;

    /// The image that parameter `field` names, decoded and upright. The field's schema says `x-file: image`.
    ///
    /// # Errors
    /// The field is empty or names no file parameter; the file is missing, damaged or no image.
    fn input_image(&mut self, field: &str) -> Result<Image>;

    /// The bytes of the file that parameter `field` names. The field's schema says `x-file: any`.
    ///
    /// # Errors
    /// As for [`Self::input_image`].
    fn input_bytes(&mut self, field: &str) -> Result<Vec<u8>>;

    /// The image that parameter `field` names, upright, and otherwise as its file has it: with samples of 16 bits, grey,
    /// alpha and colour profile. Of a field that names a folder (`x-file: path`), the file `name` in it; else `name` is
    /// empty.
    ///
    /// # Errors
    /// As for [`Self::input_image`]; a host that reads no images of folders.
    fn input_picture(&mut self, field: &str, name: &str) -> Result<Image> {
        match name {
            "" => self.input_image(field),
            _ => Err(Error::new(ErrorKind::Unsupported, "this host reads no images of a folder")),
        }
    }

    /// A file that a request means by its name, such as `<lora:shoes:1>` in a prompt: looked for in the folders for
    /// files of this kind (`lora`) or among the described models (`upscaler`), or the path itself if a field of the request names it. What was found stands in
    /// the metadata of the run.
    ///
    /// # Errors
    /// No such file, with the nearest name and the folders; several files of one name; a kind that is unknown, or
    /// a host that finds no files.
    fn find_file(&mut self, kind: &str, name: &str) -> Result<FoundFile> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this host finds no file `{name}` of the kind {kind}"),
        )
        .hint("use a newer atelier, or name the file by its path"))
    }

    /// Hands over a finished image. `facts` joins the image's metadata: what differs from image to image
    /// of one run (its seed, its index).
    ///
    /// # Errors
    /// The image could not be kept; the run should end.
    fn image(&mut self, image: Image, facts: Value) -> Result<()>;

    /// Hands over a finished image that is to stand as `name` in the folder that parameter `field` names. The field's
    /// schema says `x-file: out`. The name ends in `.png`; its metadata stand beside it.
    ///
    /// # Errors
    /// As for [`Self::image`]; `field` is no such parameter, `name` no plain name.
    fn image_named(&mut self, image: Image, facts: Value, _field: &str, _name: &str) -> Result<()> {
        self.image(image, facts)
    }

    /// Shows what an image looks like so far. Nothing depends on it: whoever has no use for previews leaves this as it
    /// is.
    ///
    /// # Errors
    /// The preview could not be kept, or [`crate::ErrorKind::Cancelled`]: return it.
    fn preview(&mut self, _image: Image, _of: PreviewOf) -> Result<()> {
        Ok(())
    }
}

/// A file found by its name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FoundFile {
    /// Where it is: a file, or a folder with one file that matters.
    pub path: PathBuf,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

/// An engine: loads models.
pub trait Engine: Send {
    /// Loads a model.
    ///
    /// # Errors
    /// Missing or damaged files, another architecture, a device that is not there.
    fn load(&self, request: &LoadRequest<'_>, ctx: &mut dyn EngineCtx) -> Result<Box<dyn Session>>;
}

/// An engine with a model loaded; serves many requests.
pub trait Session: Send {
    /// Performs `task` as planned. Returns facts about the run for its metadata (timings, hashes).
    ///
    /// # Errors
    /// Anything that kept the run from finishing.
    fn run(&mut self, task: &str, plan: &Value, ctx: &mut dyn EngineCtx) -> Result<Value>;

    /// The device and number format in use, for logs and metadata: `cpu f32`.
    fn describe(&self) -> String;
}

/// Describes an engine.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct EngineInfo {
    /// `stable-diffusion`, ...
    pub key: &'static str,
    /// A few words.
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Model architectures it loads: `sd` (see [`ModelSpec::architecture`]); none if it works without a model.
    pub architectures: &'static [&'static str],
}

/// One task of an engine: its parameters.
#[derive(Debug, Clone, Copy)]
pub struct EngineTask {
    /// The task.
    pub task: &'static TaskInfo,
    /// JSON schema of the parameters.
    pub schema: fn() -> Value,
    /// Checks and completes parameters that the schema accepted.
    pub plan: fn(Value, &PlanCtx) -> Result<Value, Vec<Violation>>,
}

impl EngineTask {
    /// The task whose parameters are `P`.
    pub const fn of<P: TaskParams>() -> Self {
        Self { task: P::TASK, schema: schema_json::<P>, plan: plan_json::<P> }
    }
}

/// Registers an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineReg {
    /// What it is.
    pub info: &'static EngineInfo,
    /// What it can do.
    pub tasks: &'static [EngineTask],
    /// The devices it sees.
    pub devices: fn() -> Vec<DeviceInfo>,
    /// Makes one. Cheap: weights are loaded by [`Engine::load`].
    pub make: fn() -> Result<Box<dyn Engine>>,
    /// The crate that registers it.
    pub origin: &'static str,
}

impl Keyed for EngineReg {
    fn key(&self) -> &str {
        self.info.key
    }
    fn origin(&self) -> &str {
        self.origin
    }
}

inventory::collect!(EngineReg);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for s in ["auto", "cpu", "metal:0", "cuda:3"] {
            assert_eq!(s.parse::<Device>().unwrap().to_string(), s);
        }
        assert_eq!("metal".parse::<Device>().unwrap(), Device::Metal(0));
        for bad in ["", "gpu", "cuda:x", "cpu:1", "metal:-1"] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }
}
