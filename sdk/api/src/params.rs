//! Parameters of a task: one struct, hence one JSON schema, per (engine, task).

use crate::task::TaskInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Schema extension that names a registry; the host turns it into an `enum` of that registry's keys.
///
/// `#[schemars(extend("x-registry" = "sampler"))]` on a `String` field makes the field a choice among samplers.
pub const X_REGISTRY: &str = "x-registry";

/// Schema extension that makes a text the path of a file, which the host reads for the engine.
///
/// `#[schemars(extend("x-file" = "image"))]` on a `String`, an `Option<String>` or a `Vec<String>` makes it a
/// path, or paths, to an image that the engine gets decoded; with `"any"` it gets the bytes. What is too large for
/// that is marked `"path"`: a file or folder that the engine opens itself; and a place that the engine writes to is
/// marked `"out"`. Null and `""` name no file. That a file is there, or that a place can be written, is checked
/// together with everything else of a request.
pub const X_FILE: &str = "x-file";

/// Schema extension that lets the path of a file be a name in the config folders.
///
/// `#[schemars(extend("x-file" = "any", "x-config" = "datasets"))]` on a `String` field makes `casual-shoes` mean
/// `datasets/casual-shoes.yaml` in the first config folder that has it; anything with a folder or an ending is a path.
/// With `"x-file" = "path"` a name means a folder there, unless there is one of that name in the working directory.
pub const X_CONFIG: &str = "x-config";

/// Something wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// JSON pointer to the field, `""` for the whole.
    pub pointer: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What the host provides for planning.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanCtx {
    /// Fresh randomness, for a seed that the request leaves open.
    pub entropy: u64,
}

/// The parameters of one task of one engine.
///
/// The struct's doc comments and `schemars` attributes are the manual: the host generates forms, completion
/// and reference pages from its schema. Every field has a default (`#[serde(default)]`) unless the task is
/// meaningless without it; unknown fields are refused (`#[serde(deny_unknown_fields)]`).
pub trait TaskParams: Serialize + DeserializeOwned + JsonSchema {
    /// The task these parameters belong to.
    const TASK: &'static TaskInfo;

    /// Applies every rule that needs no I/O: draws an open seed, rules out combinations that cannot work.
    ///
    /// Called after schema validation. The result is the plan: it is run as it is, and written to the
    /// image's metadata, so that the same plan gives the same image.
    ///
    /// # Errors
    /// All rules that the parameters break.
    fn plan(self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>>;
}

/// Checks and completes JSON parameters of type `P`; what an [`crate::EngineTask`] calls.
pub(crate) fn plan_json<P: TaskParams>(params: Value, ctx: &PlanCtx) -> Result<Value, Vec<Violation>> {
    let typed: P = serde_json::from_value(params).map_err(|e| vec![Violation::new("", e.to_string())])?;
    let plan = typed.plan(ctx)?;
    serde_json::to_value(plan).map_err(|e| vec![Violation::new("", e.to_string())])
}

/// The JSON schema of `P`, draft 2020-12.
pub(crate) fn schema_json<P: JsonSchema>() -> Value {
    schemars::schema_for!(P).to_value()
}
