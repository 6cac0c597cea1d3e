//! Parameters of the task.

use atelier_diffusion::upscale::{Alpha, Enlarge};
use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation, task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Enlarges an image, or the images of a folder, with a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Upscale {
    /// The image.
    #[schemars(extend("x-file" = "image"))]
    pub image: String,
    /// A folder whose images are all enlarged, instead of one image. Folders in it are left alone.
    #[schemars(extend("x-file" = "path"))]
    pub folder: String,
    /// A folder for the results, each under its image's name; without it, and without `folder`, they are numbered in the
    /// folder of the run. What stands there already, made of the same image with the same settings, is not made again.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Names in `out`: `{name}` is that of the image without its ending, `{scale}` how many times larger the result is,
    /// `{model}` the model.
    pub name: String,
    /// A file of names in `folder`, one a line, that are passed over; `#` begins a remark.
    #[schemars(extend("x-file" = "any"))]
    pub skip: String,
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its text would become the description of all fields")]
    pub how: Enlarge,
    /// What enlarges the alpha channel.
    pub alpha: Alpha,
    /// Memory that a run may take, in GiB, instead of what the machine has free; 0 asks the machine.
    #[schemars(range(min = 0.0, max = 65536.0))]
    pub memory_limit: f64,
}

impl Default for Upscale {
    fn default() -> Self {
        Self {
            image: String::new(),
            folder: String::new(),
            out: String::new(),
            name: "{name}".into(),
            skip: String::new(),
            how: Enlarge::default(),
            alpha: Alpha::default(),
            memory_limit: 0.0,
        }
    }
}

impl Upscale {
    /// The name of a result, without its ending.
    pub fn name_of(&self, stem: &str, model: &str, scale: f64) -> String {
        let scale = scale.to_string();
        self.name.replace("{scale}", &scale).replace("{model}", model).replace("{name}", stem)
    }

    fn check_name(&self) -> Option<Violation> {
        let plain = !self.name.contains(['/', '\\']) && !self.name.starts_with('.');
        let told = !self.name.is_empty() && (self.folder.is_empty() || self.name.contains("{name}"));
        let violation = Violation::new("/name", format!("{:?} names no file for each result", self.name));
        let hint =
            "a name without folders, with `{name}` in it for the images of a folder: `{name}-x{scale}`";
        (!plain || !told).then(|| violation.hint(hint))
    }
}

impl TaskParams for Upscale {
    const TASK: &'static TaskInfo = &task::UPSCALE;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let mut wrong = Vec::new();
        match (self.image.is_empty(), self.folder.is_empty()) {
            (true, true) => wrong.push(
                Violation::new("/image", "no file is named")
                    .hint("set `image` to the path of an image, or `folder` to a folder of them"),
            ),
            (false, false) => wrong.push(
                Violation::new("/folder", "both an image and a folder of images are named")
                    .hint("leave out one of `image` and `folder`"),
            ),
            _ => {}
        }
        if !self.folder.is_empty() && self.out.is_empty() {
            let violation = Violation::new("/out", "the results of a folder need a folder of their own");
            wrong.push(violation.hint("set `out`, such as `out=enlarged`"));
        }
        if self.folder.is_empty() && !self.skip.is_empty() {
            wrong.push(Violation::new("/skip", "there is no folder whose images could be passed over"));
        }
        wrong.extend(self.check_name());
        if wrong.is_empty() { Ok(self) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(params: Upscale) -> Vec<String> {
        let wrong = params.plan(&PlanCtx { entropy: 0 }).err().unwrap_or_default();
        wrong.into_iter().map(|v| v.pointer).collect()
    }

    #[test]
    fn a_request_has_an_image_or_a_folder_with_a_place_for_its_results() {
        let image = Upscale { image: "a.png".into(), ..Upscale::default() };
        let folder = Upscale { folder: "a".into(), out: "b".into(), ..Upscale::default() };
        assert_eq!(pointers(image.clone()), [""; 0]);
        assert_eq!(pointers(folder.clone()), [""; 0]);
        assert_eq!(pointers(Upscale::default()), ["/image"]);
        assert_eq!(pointers(Upscale { image: "a.png".into(), ..folder.clone() }), ["/folder"]);
        assert_eq!(pointers(Upscale { out: String::new(), ..folder.clone() }), ["/out"]);
        assert_eq!(pointers(Upscale { skip: "s".into(), ..image.clone() }), ["/skip"]);
        for name in ["", "large", "a/{name}", ".{name}"] {
            assert_eq!(pointers(Upscale { name: name.into(), ..folder.clone() }), ["/name"], "{name}");
        }
        assert_eq!(pointers(Upscale { name: "large".into(), ..image }), [""; 0]);
    }

    #[test]
    fn names_are_made_of_the_image_s() {
        let params = Upscale { name: "{name}-{model}-x{scale}".into(), ..Upscale::default() };
        assert_eq!(params.name_of("shoe", "m", 4.0), "shoe-m-x4");
        assert_eq!(params.name_of("{model}", "m", 1.5), "{model}-m-x1.5");
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        let how = Enlarge { outscale: Some(2.5), ..Enlarge::default() };
        let given = Upscale { image: "a.png".into(), how, ..Upscale::default() };
        let value = serde_json::to_value(&given).unwrap();
        assert_eq!(value["outscale"], 2.5);
        assert_eq!(serde_json::from_value::<Upscale>(value).unwrap(), given);
    }
}
