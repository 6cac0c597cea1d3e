//! Parameters of the tasks that begin with an image.

use crate::hires::Hires;
use crate::params::Txt2Img;
use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation, task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many of the steps a strength takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepRule {
    /// A1111: the last `min(floor(strength * steps), steps - 1) + 1` steps of the schedule.
    #[default]
    A1111,
    /// diffusers: the last `floor(strength * steps)` steps of the schedule; none at all for a low strength.
    Diffusers,
    /// ComfyUI: `steps` steps, the last of a schedule of `floor(steps / strength)`.
    Comfy,
}

impl StepRule {
    /// Steps of the schedule, and how many of its last ones are taken.
    pub fn steps(self, steps: u32, strength: f64) -> (usize, usize) {
        let n = f64::from(steps);
        match self {
            Self::A1111 => {
                let reach = ((strength * n).floor() as usize).min(steps as usize - 1);
                (steps as usize, reach + 1)
            }
            Self::Diffusers => (steps as usize, ((strength * n).floor() as usize).min(steps as usize)),
            Self::Comfy if strength <= 0.0 => (steps as usize, 0),
            Self::Comfy => ((n / strength).floor().max(n) as usize, steps as usize),
        }
    }
}

/// How an image of another size is brought to that of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Scaled to cover the size, and cut at the longer sides.
    #[default]
    Crop,
    /// Scaled to each side for itself.
    Stretch,
}

/// Redraws an image under a text prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Img2Img {
    /// What is as for `txt2img`.
    #[serde(flatten)]
    pub base: Txt2Img,
    /// The image.
    #[schemars(extend("x-file" = "image"))]
    pub image: String,
    /// How much is redrawn: 0 keeps the image, 1 keeps next to nothing of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub strength: f64,
    /// How an image of another size is brought to `width` x `height`.
    pub fit: Fit,
    /// Whose rule says how many steps a strength takes.
    pub compat: StepRule,
}

impl Default for Img2Img {
    fn default() -> Self {
        Self {
            base: Txt2Img::default(),
            image: String::new(),
            strength: 0.75,
            fit: Fit::default(),
            compat: StepRule::default(),
        }
    }
}

/// What the masked part is filled with before it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// The image itself.
    #[default]
    Original,
    /// Noise in place of latents.
    Noise,
    /// Nothing: latents of 0.
    Blank,
}

/// Pixels added to the sides of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sides {
    /// To the left.
    #[schemars(range(max = 2048))]
    pub left: u32,
    /// To the right.
    #[schemars(range(max = 2048))]
    pub right: u32,
    /// Above.
    #[schemars(range(max = 2048))]
    pub top: u32,
    /// Below.
    #[schemars(range(max = 2048))]
    pub bottom: u32,
}

impl Sides {
    /// Whether nothing is added.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Redraws the masked part of an image under a text prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Inpaint {
    /// What is as for `txt2img`.
    #[serde(flatten)]
    pub base: Txt2Img,
    /// The image.
    #[schemars(extend("x-file" = "image"))]
    pub image: String,
    /// The mask, of the size of the image: white is drawn anew, black stays. May be left out with `outpaint`.
    #[schemars(extend("x-file" = "image"))]
    pub mask: String,
    /// Black is drawn anew instead of white.
    pub invert_mask: bool,
    /// How far the mask's edge is softened, in pixels of the image.
    #[schemars(range(min = 0.0, max = 256.0))]
    pub mask_blur: f32,
    /// How much is redrawn where the mask is: 0 keeps the image, 1 keeps nothing of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub strength: f64,
    /// What the masked part is filled with first.
    pub fill: Fill,
    /// Draw only the surroundings of the mask, at `width` x `height`, and paste them back into the image.
    pub only_masked: bool,
    /// Pixels of the image around the mask that `only_masked` draws with it.
    #[schemars(range(max = 2048))]
    pub padding: u32,
    /// Extends the image: what is added is drawn. Sides are cut to multiples of 8 in all.
    pub outpaint: Sides,
    /// How an image of another size is brought to `width` x `height`.
    pub fit: Fit,
    /// Whose rule says how many steps a strength takes.
    pub compat: StepRule,
}

impl Default for Inpaint {
    fn default() -> Self {
        Self {
            base: Txt2Img::default(),
            image: String::new(),
            mask: String::new(),
            invert_mask: false,
            mask_blur: 4.0,
            strength: 0.75,
            fill: Fill::default(),
            only_masked: false,
            padding: 32,
            outpaint: Sides::default(),
            fit: Fit::default(),
            compat: StepRule::default(),
        }
    }
}

fn one_pass(base: &Txt2Img) -> Option<Violation> {
    let message = "a second pass belongs to `txt2img`";
    let hint = "redraw the image at a larger `width` and `height` instead";
    (base.hires != Hires::default()).then(|| Violation::new("/hires", message).hint(hint))
}

fn missing(field: &str, hint: &str) -> Violation {
    Violation::new(format!("/{field}"), "no file is named").hint(hint)
}

impl TaskParams for Img2Img {
    const TASK: &'static TaskInfo = &task::IMG2IMG;

    fn plan(mut self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>> {
        if self.image.is_empty() {
            return Err(vec![missing("image", "set `image` to the path of the image to redraw")]);
        }
        if let Some(violation) = one_pass(&self.base) {
            return Err(vec![violation]);
        }
        self.base = self.base.plan(ctx)?;
        Ok(self)
    }
}

impl TaskParams for Inpaint {
    const TASK: &'static TaskInfo = &task::INPAINT;

    fn plan(mut self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let mut wrong = Vec::new();
        if self.image.is_empty() {
            wrong.push(missing("image", "set `image` to the path of the image to redraw"));
        }
        if self.mask.is_empty() && self.outpaint.is_empty() {
            wrong.push(missing(
                "mask",
                "set `mask` to an image that is white where to redraw, or use `outpaint`",
            ));
        }
        if self.only_masked && !self.outpaint.is_empty() {
            let message = "the surroundings of a mask cannot be drawn alone where the image is extended";
            wrong.push(
                Violation::new("/only_masked", message).hint("use one of `only_masked` and `outpaint`"),
            );
        }
        wrong.extend(one_pass(&self.base));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.base = self.base.plan(ctx)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_program_counts_the_steps_of_a_strength_in_its_own_way() {
        for (rule, strength, expected) in [
            (StepRule::A1111, 0.0, (20, 1)),
            (StepRule::A1111, 0.5, (20, 11)),
            (StepRule::A1111, 1.0, (20, 20)),
            (StepRule::Diffusers, 0.0, (20, 0)),
            (StepRule::Diffusers, 0.04, (20, 0)),
            (StepRule::Diffusers, 0.5, (20, 10)),
            (StepRule::Diffusers, 1.0, (20, 20)),
            (StepRule::Comfy, 0.0, (20, 0)),
            (StepRule::Comfy, 0.5, (40, 20)),
            (StepRule::Comfy, 1.0, (20, 20)),
        ] {
            assert_eq!(rule.steps(20, strength), expected, "{rule:?} {strength}");
        }
        assert_eq!(StepRule::A1111.steps(1, 0.9), (1, 1));
    }

    #[test]
    fn a_request_without_its_files_is_told_all_that_is_missing() {
        let wrong = Inpaint::default().plan(&PlanCtx { entropy: 0 }).unwrap_err();
        let at: Vec<&str> = wrong.iter().map(|v| v.pointer.as_str()).collect();
        assert_eq!(at, ["/image", "/mask"]);
        assert!(Img2Img::default().plan(&PlanCtx { entropy: 0 }).is_err());
        let outpaint = Sides { left: 8, ..Sides::default() };
        let extended = Inpaint { image: "a.png".into(), outpaint, ..Inpaint::default() };
        assert!(extended.clone().plan(&PlanCtx { entropy: 0 }).is_ok());
        assert!(Inpaint { only_masked: true, ..extended }.plan(&PlanCtx { entropy: 0 }).is_err());
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        let given = Img2Img { image: "a.png".into(), strength: 0.3, ..Img2Img::default() };
        let value = serde_json::to_value(&given).unwrap();
        assert_eq!((&value["steps"], &value["strength"]), (&json!(20), &json!(0.3)));
        assert_eq!(serde_json::from_value::<Img2Img>(value).unwrap(), given);
    }
}
