//! Drawing in two passes: at the size a model was trained for, then at a larger one from what the first gave.
//!
//! Source: A1111's "Hires. fix".

use crate::latent_scale::Filter;
use crate::params::Txt2Img;
use atelier_sdk::Violation;
use image::imageops::FilterType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What makes the first pass larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Upscaler {
    /// Latents, linear between two.
    #[default]
    Latent,
    /// Latents, each repeated.
    LatentNearest,
    /// Latents, cubic over four.
    LatentBicubic,
    /// Latents, linear, without weight for what lies outside.
    LatentAntialiased,
    /// Pixels, with Lanczos' filter: decoded, enlarged, encoded.
    Lanczos,
    /// Pixels, cubic.
    Bicubic,
    /// Pixels, each repeated.
    Nearest,
    /// Pixels, with the network that `model` names.
    Model,
}

/// How an upscaler works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Enlarging {
    /// On latents.
    Latents(Filter),
    /// On pixels.
    Pixels(FilterType),
    /// On pixels, by a network.
    Network,
}

impl Upscaler {
    /// How it works.
    pub fn enlarging(self) -> Enlarging {
        match self {
            Self::Latent => Enlarging::Latents(Filter::Bilinear),
            Self::LatentNearest => Enlarging::Latents(Filter::Nearest),
            Self::LatentBicubic => Enlarging::Latents(Filter::Bicubic),
            Self::LatentAntialiased => Enlarging::Latents(Filter::Antialiased),
            Self::Lanczos => Enlarging::Pixels(FilterType::Lanczos3),
            Self::Bicubic => Enlarging::Pixels(FilterType::CatmullRom),
            Self::Nearest => Enlarging::Pixels(FilterType::Nearest),
            Self::Model => Enlarging::Network,
        }
    }
}

/// A second pass at a larger size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hires {
    /// How many times larger than the first pass; 0 follows from `width` or `height`, and without them there is no
    /// second pass.
    #[schemars(range(min = 0.0, max = 8.0))]
    pub scale: f64,
    /// Width of the result in pixels; 0 follows from the height, or from the scale.
    #[schemars(range(max = 4096))]
    pub width: u32,
    /// Height of the result in pixels; 0 follows from the width, or from the scale.
    #[schemars(range(max = 4096))]
    pub height: u32,
    /// Sampling steps of the second pass; 0 as many as the first.
    #[schemars(range(max = 1000))]
    pub steps: u32,
    /// How much is redrawn: 0 keeps the enlarged image, 1 keeps next to nothing of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub strength: f64,
    /// What makes the first pass larger.
    pub upscaler: Upscaler,
    /// With `upscaler: model`, the key of a model for the engine `esrgan`: `realesr-animevideov3`.
    pub model: String,
    /// The sampler of the second pass, if another, with its own default options.
    pub sampler: Option<String>,
    /// The schedule of the second pass, if another, with its own default options.
    pub schedule: Option<String>,
    /// How strongly the prompt guides in the second pass, if otherwise.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub cfg_scale: Option<f64>,
    /// The prompt of the second pass, if another.
    pub prompt: String,
    /// The negative prompt of the second pass, if another.
    pub negative_prompt: String,
}

impl Default for Hires {
    fn default() -> Self {
        Self {
            scale: 0.0,
            width: 0,
            height: 0,
            steps: 0,
            strength: 0.7,
            upscaler: Upscaler::default(),
            model: String::new(),
            sampler: None,
            schedule: None,
            cfg_scale: None,
            prompt: String::new(),
            negative_prompt: String::new(),
        }
    }
}

impl Hires {
    /// Whether there is a second pass.
    pub fn is_on(&self) -> bool {
        self.scale > 0.0 || self.width > 0 || self.height > 0
    }

    /// The size of the result for a first pass of this size, before it is checked.
    fn exact(&self, (width, height): (u32, u32)) -> (f64, f64) {
        let (w, h) = (f64::from(width), f64::from(height));
        match (self.width, self.height) {
            (0, 0) => (w * self.scale, h * self.scale),
            (to, 0) => (f64::from(to), h * f64::from(to) / w),
            (0, to) => (w * f64::from(to) / h, f64::from(to)),
            (to_w, to_h) => (f64::from(to_w), f64::from(to_h)),
        }
    }

    /// The size of the result for a first pass of this size.
    pub fn size(&self, first: (u32, u32)) -> (u32, u32) {
        let (w, h) = self.exact(first);
        (w.round() as u32, h.round() as u32)
    }

    /// Steps of the schedule, and how many of its last ones are taken: a strength shortens no second pass, since the
    /// schedule is made longer instead.
    pub fn steps(&self, first: u32) -> (usize, usize) {
        let taken = if self.steps == 0 { first } else { self.steps };
        let strength = self.strength.min(0.999);
        let all = if strength > 0.0 { (f64::from(taken) / strength).floor() } else { 0.0 };
        ((all as usize).max(taken as usize), taken as usize)
    }

    fn check_model(&self) -> Option<Violation> {
        match (self.upscaler, self.model.is_empty()) {
            (Upscaler::Model, true) => {
                let violation =
                    Violation::new("/hires/model", "no model is named that enlarges the first pass");
                Some(violation.hint("name one, such as realesr-animevideov3"))
            }
            (Upscaler::Model, false) | (_, true) => None,
            (_, false) => {
                let violation =
                    Violation::new("/hires/model", "a model is named, but another upscaler chosen");
                Some(violation.hint("set `hires.upscaler=model`"))
            }
        }
    }

    /// What is wrong with it for a first pass of this size; sides are to be multiples of `unit`.
    pub fn check(&self, first: (u32, u32), unit: u32) -> Vec<Violation> {
        if !self.is_on() {
            let unused = *self != Self::default();
            let message = "a second pass is described, but not its size";
            let violation = || Violation::new("/hires/scale", message).hint("set `hires.scale`, such as 2");
            return if unused { vec![violation()] } else { Vec::new() };
        }
        if let Some(violation) = self.check_model() {
            return vec![violation];
        }
        let (w, h) = self.exact(first);
        let fits = |v: f64| v.fract() == 0.0 && (v as u32).is_multiple_of(unit);
        let field = match (self.width, self.height) {
            (0, 0) => "/hires/scale",
            (0, _) => "/hires/height",
            _ => "/hires/width",
        };
        let shape = f64::from(first.0) / f64::from(first.1);
        if self.width > 0 && self.height > 0 && (w / h / shape - 1.0).abs() > 0.01 {
            let message =
                format!("{}x{} has another shape than {}x{}", self.width, self.height, first.0, first.1);
            return vec![
                Violation::new(field, message).hint("give one of width and height: the other follows"),
            ];
        }
        if w < f64::from(first.0) || h < f64::from(first.1) {
            let message = format!("{w}x{h} is smaller than the first pass, {}x{}", first.0, first.1);
            return vec![Violation::new(field, message)];
        }
        if fits(w) && fits(h) && w <= 4096.0 && h <= 4096.0 {
            return Vec::new();
        }
        let message = format!(
            "{}x{} becomes {w}x{h}, whose sides have to be multiples of {unit} up to 4096",
            first.0, first.1
        );
        let violation = Violation::new(field, message);
        let near = nearest(first, w, unit);
        vec![if near.is_empty() { violation } else { violation.hint(format!("sizes that fit: {near}")) }]
    }
}

/// The sizes next below and next above `width` that have the first pass's shape and fit, with their scales.
fn nearest(first: (u32, u32), width: f64, unit: u32) -> String {
    let height = |w: u32| f64::from(w) * f64::from(first.1) / f64::from(first.0);
    let fits = |w: &u32| {
        height(*w).fract() == 0.0 && (height(*w) as u32).is_multiple_of(unit) && height(*w) <= 4096.0
    };
    let units = |range: std::ops::RangeInclusive<u32>| range.map(|n| n * unit);
    let below = units(first.0 / unit..=(width / f64::from(unit)).floor() as u32).rev().find(fits);
    let above = units((width / f64::from(unit)).ceil() as u32..=4096 / unit).find(fits);
    let say = |w: u32| format!("{w}x{} (scale {})", height(w), f64::from(w) / f64::from(first.0));
    below.into_iter().chain(above).map(say).collect::<Vec<_>>().join(", ")
}

/// The request that the second pass is, at its own size.
pub fn second(params: &Txt2Img, hires: &Hires) -> Txt2Img {
    let (width, height) = hires.size((params.width, params.height));
    let mut second = Txt2Img { width, height, hires: Hires::default(), ..params.clone() };
    second.steps = hires.steps(params.steps).1 as u32;
    if let Some(sampler) = &hires.sampler {
        second.sampler.clone_from(sampler);
        second.sampler_options.clear();
    }
    if let Some(schedule) = &hires.schedule {
        second.schedule.clone_from(schedule);
        second.schedule_options.clear();
    }
    second.cfg_scale = hires.cfg_scale.unwrap_or(params.cfg_scale);
    second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_follows_from_a_scale_or_from_one_side() {
        let size = |hires: Hires| hires.size((512, 768));
        assert_eq!(size(Hires { scale: 2.0, ..Hires::default() }), (1024, 1536));
        assert_eq!(size(Hires { scale: 1.5, ..Hires::default() }), (768, 1152));
        assert_eq!(size(Hires { width: 640, ..Hires::default() }), (640, 960));
        assert_eq!(size(Hires { height: 1152, ..Hires::default() }), (768, 1152));
    }

    #[test]
    fn a_size_that_does_not_fit_is_told_with_the_nearest_ones() {
        let check = |hires: Hires| hires.check((512, 512), 8);
        assert_eq!(check(Hires::default()), []);
        assert_eq!(check(Hires { scale: 2.0, ..Hires::default() }), []);
        assert_eq!(check(Hires { steps: 5, ..Hires::default() })[0].pointer, "/hires/scale");
        let found = check(Hires { scale: 1.3, ..Hires::default() });
        assert_eq!(found[0].pointer, "/hires/scale");
        let hint = found[0].hint.clone().unwrap();
        assert!(hint.contains("664x664 (scale 1.296875), 672x672 (scale 1.3125)"), "{hint}");
        let found = check(Hires { width: 1001, ..Hires::default() });
        assert!(found[0].hint.as_ref().unwrap().contains("1000x1000"), "{found:?}");
        assert_eq!(check(Hires { width: 1024, height: 768, ..Hires::default() })[0].pointer, "/hires/width");
        assert_eq!(check(Hires { width: 256, ..Hires::default() })[0].pointer, "/hires/width");
        assert_eq!(check(Hires { scale: 8.5, ..Hires::default() }).len(), 1);
        let network = Hires { scale: 2.0, upscaler: Upscaler::Model, ..Hires::default() };
        assert_eq!(check(network.clone())[0].pointer, "/hires/model");
        assert_eq!(check(Hires { model: "m".into(), ..network.clone() }), []);
        let other = Hires { model: "m".into(), upscaler: Upscaler::Lanczos, ..network };
        assert_eq!(check(other)[0].pointer, "/hires/model");
    }

    /// A1111: `steps = int(requested / min(strength, 0.999))`, of which the last `requested` are taken.
    #[test]
    fn a_second_pass_takes_as_many_steps_as_it_is_asked_for() {
        let steps = |steps, strength| Hires { steps, strength, ..Hires::default() }.steps(20);
        assert_eq!(steps(0, 0.7), (28, 20));
        assert_eq!(steps(10, 0.5), (20, 10));
        assert_eq!(steps(20, 1.0), (20, 20));
        assert_eq!(steps(20, 0.0), (20, 20));
    }
}
