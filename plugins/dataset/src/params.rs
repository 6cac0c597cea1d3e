//! The parameters of the tasks: one struct, hence one schema, each.

use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is in a data set?
pub const ANALYZE: TaskInfo = TaskInfo {
    key: "dataset-analyze",
    title: "Analyse a data set",
    summary: "Reports what a raw data set holds, what its photos are like, and what is wrong with it.",
};
/// A training set, please.
pub const PREPARE: TaskInfo = TaskInfo {
    key: "dataset-prepare",
    title: "Prepare a training set",
    summary: "Makes stratified splits of square images with captions from a raw data set.",
};
/// Can it be trusted?
pub const CHECK: TaskInfo = TaskInfo {
    key: "dataset-check",
    title: "Check a training set",
    summary: "Checks that a prepared set is whole, disjoint and balanced, and puts bad images aside.",
};
/// Something to try it on.
pub const DEMO: TaskInfo = TaskInfo {
    key: "dataset-demo",
    title: "Draw a demo data set",
    summary: "Draws products with full metadata, some of them broken on purpose.",
};

fn forty_two() -> u64 {
    42
}

fn yes() -> bool {
    true
}

fn hundred_twenty() -> u32 {
    120
}

fn english() -> Vec<String> {
    vec!["en".into()]
}

/// Reports what a raw data set holds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analyze {
    /// What the data set is: a name in configs/datasets, or a path to a YAML file.
    #[serde(default)]
    #[schemars(extend("x-file" = "any", "x-config" = "datasets"))]
    pub definition: String,
    /// Its folder.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub input: String,
    /// The records, if they are not where the definition says: a folder of .json files, or a .csv file.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub records: Option<String>,
    /// Folders of images, best first, if they are not where the definition says.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub images: Vec<String>,
    /// The folder for the report.
    #[serde(default)]
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Which records count, instead of the definition's filter: `articleType == "Shirts" and year >= 2012`.
    #[serde(default)]
    pub filter: Option<String>,
    /// Seed of the photos that are shown.
    #[serde(default = "forty_two")]
    pub seed: u64,
}

/// Makes a training set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// What the data set is: a name in configs/datasets, or a path to a YAML file.
    #[serde(default)]
    #[schemars(extend("x-file" = "any", "x-config" = "datasets"))]
    pub definition: String,
    /// Its folder.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub input: String,
    /// The records, if they are not where the definition says: a folder of .json files, or a .csv file.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub records: Option<String>,
    /// Folders of images, best first, if they are not where the definition says.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub images: Vec<String>,
    /// The folder for the training set.
    #[serde(default)]
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Which records count, instead of the definition's filter.
    #[serde(default)]
    pub filter: Option<String>,
    /// Side of the squares in pixels, instead of the definition's.
    #[serde(default)]
    #[schemars(range(min = 16, max = 4096))]
    pub size: Option<u32>,
    /// What of a photo fills the square, instead of the definition's.
    #[serde(default)]
    pub frame: Option<crate::definition::Frame>,
    /// What surrounds a photo that is not square, instead of the definition's.
    #[serde(default)]
    pub pad: Option<crate::definition::Pad>,
    /// Leave out photos whose long side is shorter than this many pixels, instead of the definition's rule.
    #[serde(default)]
    pub min_side: Option<u32>,
    /// Seed of splits and captions.
    #[serde(default = "forty_two")]
    pub seed: u64,
    /// Locales of captions; the first is that of the main files, the others get files of their own.
    #[serde(default = "english")]
    #[schemars(length(min = 1))]
    pub locales: Vec<String>,
    /// Also write each caption to a .txt file beside its image.
    #[serde(default)]
    pub txt: bool,
    /// Also copy this many images of the first split, each stratum in its share, to `prototype/`; 0 for none.
    #[serde(default)]
    pub prototype: u32,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Checks a training set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The folder of the training set.
    #[serde(default)]
    #[schemars(extend("x-file" = "path"))]
    pub input: String,
    /// Move bad images to `quarantine/`.
    #[serde(default = "yes")]
    pub quarantine: bool,
}

/// Draws a demo data set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    /// The folder for the data set; new or empty.
    #[serde(default)]
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// Number of products.
    #[serde(default = "hundred_twenty")]
    #[schemars(range(min = 1, max = 20000))]
    pub count: u32,
    /// Seed of everything drawn.
    #[serde(default = "forty_two")]
    pub seed: u64,
    /// Add broken records and files, one of each sort.
    #[serde(default = "yes")]
    pub broken: bool,
}

/// The places that a task cannot do without: a preset may leave them open, a run may not.
macro_rules! tasks {
    ($($params:ty => $task:expr, needs $($field:ident)*;)*) => {
        $(impl TaskParams for $params {
            const TASK: &'static TaskInfo = &$task;
            // The schema says the rest: no combination is impossible, and no seed is left open.
            fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
                let given = [$((stringify!($field), &self.$field)),*];
                let open: Vec<Violation> = given.iter().filter(|f| f.1.is_empty()).map(|f| open(f.0)).collect();
                if open.is_empty() { Ok(self) } else { Err(open) }
            }
        })*
    };
}

fn open(field: &str) -> Violation {
    let (what, hint) = match field {
        "definition" => {
            ("no data set is named", "name one of configs/datasets, such as `casual-shoes`, or a .yaml file")
        }
        "input" => ("no folder to read is named", "set `input` (`--in`) to the folder of the data set"),
        _ => ("no folder to write is named", "set `out` (`--out`) to the folder for the results"),
    };
    Violation::new(format!("/{field}"), what).hint(hint)
}

tasks! {
    Analyze => ANALYZE, needs definition input out;
    Prepare => PREPARE, needs definition input out;
    Check => CHECK, needs input;
    Demo => DEMO, needs out;
}
