//! What can be typed.

mod lora;
mod models;
mod train;

pub use lora::{Lora, LoraAction, LoraLayout, Weighted};
pub use models::*;
pub use train::{Search, Train, TrainAction};

use crate::plugins::template::Kind;
use atelier_sdk::{Device, Dtype};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// An image studio in one binary: engines, tasks, samplers and models are plugins.
#[derive(Debug, Parser)]
#[command(name = "atelier", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Folder with presets/ and models/ [default: configs/ here or above, then beside the program]
    #[arg(long, global = true, env = "ATELIER_CONFIGS", value_name = "DIR")]
    pub configs: Option<PathBuf>,
    /// Settings file [default: atelier.yaml here or beside configs/]
    #[arg(long, global = true, env = "ATELIER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Use a plugin from this file or folder; may be given more than once
    #[arg(long, global = true, value_name = "FILE")]
    pub plugin: Vec<PathBuf>,
    /// For developers: trust every plugin below this folder, for this command only
    /// (also: ATELIER_TRUST_PLUGINS_IN)
    #[arg(long, global = true, value_name = "DIR")]
    pub trust_plugins_in: Vec<PathBuf>,
    /// Show the log on the terminal (-v: what is run, -vv: details)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make images from a preset
    Generate(Generate),
    /// Analyse raw product data, prepare training sets, check them, draw a demo set
    Dataset(Dataset),
    /// Train a LoRA; go on with a training; search for the best settings
    Train(Box<Train>),
    /// List, show or check presets
    Presets(Presets),
    /// What is plugged in; install, trust and remove plugins
    Plugins(Plugins),
    /// What performs tasks
    Engines(List),
    /// What can be asked for
    Tasks(List),
    /// What integrates the reverse process
    Samplers(List),
    /// What chooses the noise levels
    Schedules(List),
    /// What can be loaded; get, look into, describe, check and convert models
    Models(Models),
    /// Look into LoRAs; merge, extract and convert them
    Lora(Lora),
    /// Print the JSON schema of a task of an engine, or of the options of a sampler or schedule
    Schema(Schema),
    /// Check this build and this machine
    Doctor(Doctor),
    /// Measure speed and memory
    Benchmark(Benchmark),
    /// The process of a plugin: started by atelier, not by people
    #[command(name = crate::plugins::process::COMMAND, hide = true)]
    Worker {
        /// The stored copy of its library
        copy: PathBuf,
        /// Its digest
        sha256: String,
    },
}

impl Command {
    /// Whether the result is wanted as JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Generate(a) => a.json,
            Self::Dataset(a) => a.action.json(),
            Self::Train(a) => a.json(),
            Self::Presets(a) => a.action.json(),
            Self::Plugins(a) => a.action.json(),
            Self::Models(a) => a.action.json(),
            Self::Lora(a) => a.action.json(),
            Self::Engines(a) | Self::Tasks(a) | Self::Samplers(a) | Self::Schedules(a) => a.action.json(),
            Self::Schema(_) | Self::Worker { .. } => false,
            Self::Doctor(a) => a.json,
            Self::Benchmark(a) => a.json,
        }
    }

    /// Where a profile of the command is wanted.
    pub fn profile(&self) -> Option<&Path> {
        match self {
            Self::Generate(a) => a.profile.as_deref(),
            Self::Benchmark(a) => a.profile.as_deref(),
            _ => None,
        }
    }
}

/// What to ask for; shared by all that run something.
#[derive(Debug, Args)]
pub struct Asked {
    /// Preset: a name such as txt2img/basic, or a path to a .yaml file
    #[arg(short, long, value_name = "NAME|FILE")]
    pub preset: Option<String>,
    /// Task, instead of the preset's
    #[arg(long, value_name = "KEY")]
    pub task: Option<String>,
    /// Engine, instead of the preset's
    #[arg(long, value_name = "KEY")]
    pub engine: Option<String>,
    /// Model, instead of the preset's
    #[arg(short, long, value_name = "KEY")]
    pub model: Option<String>,
    /// Parameters from a YAML or JSON file, over the preset's
    #[arg(long, value_name = "FILE")]
    pub param_file: Vec<PathBuf>,
    /// Set a parameter, over everything else; `a.b=c` reaches inside
    #[arg(short, long, value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Device: auto, cpu, metal, metal:N, cuda, cuda:N
    #[arg(short, long, default_value = "auto", value_name = "DEVICE")]
    pub device: Device,
    /// Number format of weights, and of products where the device has such: auto, f32, f16, bf16, int8
    #[arg(long = "precision", visible_alias = "dtype", default_value = "auto", value_name = "FORMAT")]
    pub dtype: Dtype,
}

#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub asked: Asked,
    /// Make it again: take everything from an image (or its .json); other options change it
    #[arg(long, value_name = "IMAGE")]
    pub like: Option<PathBuf>,
    /// Folder for results; each run makes its own folder in it
    #[arg(short, long, default_value = "outputs", value_name = "DIR")]
    pub out: PathBuf,
    /// Show what would run, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Write what takes the time, operation by operation, for chrome://tracing or ui.perfetto.dev; print a table
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Dataset {
    #[command(subcommand)]
    pub action: DatasetAction,
}

#[derive(Debug, Subcommand)]
pub enum DatasetAction {
    /// Report what a raw data set holds, what its photos are like, and what is wrong with it
    Analyze(DatasetSource),
    /// Make stratified splits of square images with captions
    Prepare(DatasetPrepare),
    /// Check a prepared set, and put bad images aside
    Check(DatasetCheck),
    /// Draw products with full metadata, some of them broken on purpose
    Demo(DatasetDemo),
}

impl DatasetAction {
    fn json(&self) -> bool {
        match self {
            Self::Analyze(a) => a.json,
            Self::Prepare(a) => a.source.json,
            Self::Check(a) => a.json,
            Self::Demo(a) => a.json,
        }
    }
}

/// A raw data set, and where results go.
#[derive(Debug, Args)]
pub struct DatasetSource {
    /// What the data set is: a name in configs/datasets, such as casual-shoes, or a path to a .yaml file
    #[arg(value_name = "NAME|FILE")]
    pub definition: String,
    /// Its folder
    #[arg(short, long = "in", value_name = "DIR")]
    pub input: PathBuf,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// The records, if elsewhere: a folder of .json files, or a .csv file
    #[arg(long, value_name = "DIR|FILE")]
    pub records: Option<PathBuf>,
    /// A folder of images, if elsewhere; may be given more than once, best first
    #[arg(long, value_name = "DIR")]
    pub images: Vec<PathBuf>,
    /// Which records count, instead of the definition's filter
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Seed of everything that is drawn by lot
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DatasetPrepare {
    #[command(flatten)]
    pub source: DatasetSource,
    /// Side of the squares in pixels
    #[arg(long)]
    pub size: Option<u32>,
    /// What of a photo fills the square: photo, product
    #[arg(long)]
    pub frame: Option<String>,
    /// What surrounds a photo that is not square: own, white
    #[arg(long)]
    pub pad: Option<String>,
    /// Leave out photos whose long side is shorter
    #[arg(long, value_name = "PIXELS")]
    pub min_side: Option<u32>,
    /// Locale of captions; may be given more than once, the main one first
    #[arg(long = "locale", value_name = "LOCALE")]
    pub locales: Vec<String>,
    /// Also write each caption to a .txt file beside its image
    #[arg(long)]
    pub txt: bool,
    /// Also make a stratified sample of this many images
    #[arg(long, value_name = "COUNT")]
    pub prototype: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DatasetCheck {
    /// Folder of the prepared set
    pub input: PathBuf,
    /// Leave bad images where they are
    #[arg(long)]
    pub no_quarantine: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DatasetDemo {
    /// Folder for the data set
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of products
    #[arg(long)]
    pub count: Option<u32>,
    /// Seed of everything drawn
    #[arg(long)]
    pub seed: Option<u64>,
    /// Nothing broken
    #[arg(long)]
    pub clean: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Presets {
    #[command(subcommand)]
    pub action: PresetAction,
}

#[derive(Debug, Subcommand)]
pub enum PresetAction {
    /// All presets
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One preset, with everything it extends and every default filled in
    Show {
        /// Name or path
        preset: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check presets (all of them when none is named)
    Validate {
        /// Names or paths
        presets: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl PresetAction {
    fn json(&self) -> bool {
        match self {
            Self::List { json } | Self::Show { json, .. } | Self::Validate { json, .. } => *json,
        }
    }
}

#[derive(Debug, Args)]
pub struct Plugins {
    #[command(subcommand)]
    pub action: PluginAction,
}

#[derive(Debug, Subcommand)]
pub enum PluginAction {
    /// All of them
    List(PluginList),
    /// Copy a plugin to the user's own folder, where it is found from now on
    Install(PluginInstall),
    /// Let a plugin run: it gets all rights that you have. A file that changes is untrusted again
    Trust {
        /// Its name, or its file or folder
        #[arg(value_name = "NAME|FILE")]
        which: String,
    },
    /// Do not let a plugin run any more
    Untrust {
        /// Its name, or the first 8 or more digits of its sha256
        #[arg(value_name = "NAME|SHA256")]
        which: String,
    },
    /// Remove an installed plugin
    Remove {
        /// Its name
        name: String,
    },
    /// Check whether a plugin can be loaded and keeps the rules
    Check(PluginCheck),
    /// Make a new plugin to start from
    New(PluginNew),
}

impl PluginAction {
    fn json(&self) -> bool {
        match self {
            Self::List(a) => a.json,
            Self::Check(a) => a.json,
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub struct PluginList {
    /// Only what cannot be used, and why
    #[arg(long)]
    pub failed: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PluginInstall {
    /// A library, or a folder with a plugin.yaml
    pub path: PathBuf,
    /// Name for a library without a plugin.yaml [default: from the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Replace an installed plugin of this name
    #[arg(long)]
    pub force: bool,
    /// Trust it as well
    #[arg(long)]
    pub trust: bool,
}

#[derive(Debug, Args)]
pub struct PluginCheck {
    /// Measure what the boundary costs as well: runs the library in this process, too
    #[arg(long)]
    pub time: bool,
    /// Its name, or its file or folder
    #[arg(value_name = "NAME|FILE")]
    pub which: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PluginNew {
    /// Its name
    pub name: String,
    /// What it provides
    #[arg(long, value_enum, default_value_t = Kind::Sampler)]
    pub kind: Kind,
    /// Folder to make it in [default: here]
    #[arg(long = "in", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// The plugin sdk's folder, to build against
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(subcommand)]
    pub action: ListAction,
}

#[derive(Debug, Subcommand)]
pub enum ListAction {
    /// All of them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl ListAction {
    pub fn json(&self) -> bool {
        let Self::List { json } = self;
        *json
    }
}

#[derive(Debug, Args)]
pub struct Schema {
    /// An engine; or the word `sampler` or `schedule`
    pub engine: String,
    /// A task of the engine; or the key of the sampler or schedule
    pub task: String,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Folder for results that must be writable
    #[arg(short, long, default_value = "outputs", value_name = "DIR")]
    pub out: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Benchmark {
    #[command(flatten)]
    pub asked: Asked,
    /// Use random weights of this model's shapes (for example sd15): speed does not depend on the values
    #[arg(long, value_name = "MODEL")]
    pub fake_weights: Option<String>,
    /// Steps of a request as a whole
    #[arg(long, default_value_t = 4)]
    pub steps: usize,
    /// Measure these parts, each by itself, against the processor's peak
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SUITES")]
    pub suite: Vec<Suite>,
    /// Side of the image in pixels, for all suites [default: the model's own size]
    #[arg(long, requires = "suite", value_name = "PIXELS")]
    pub size: Option<u32>,
    /// How often each line of the suites is measured
    #[arg(long, requires = "suite", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Print ratios to what `--out` or `--json` left earlier
    #[arg(long, requires = "suite", value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Also write what `--json` prints to a file
    #[arg(short, long, requires = "suite", value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write what takes the time, operation by operation, for chrome://tracing or ui.perfetto.dev; print a table
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// A part of what a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// One evaluation of the UNet, batch 2
    Unet,
    /// Decoding and encoding an image
    Vae,
    /// Encoding a prompt
    Text,
    /// The networks of Real-ESRGAN on a tile of a quarter of the size
    Upscale,
    /// A step of LoRA training, without the optimiser
    Train,
    /// A request as a whole, loading included
    #[value(name = "e2e")]
    E2e,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_behind_a_file_are_its_weights() {
        let read = |text: &str| text.parse::<Weighted>().unwrap();
        let of = |path: &str, weights| Weighted { path: path.into(), weights };
        assert_eq!(read("a.safetensors"), of("a.safetensors", (1.0, 1.0)));
        assert_eq!(read("a:0.5"), of("a", (0.5, 0.5)));
        assert_eq!(read("a:0.5:1"), of("a", (0.5, 1.0)));
        assert_eq!(read(r"C:\a.safetensors:-1"), of(r"C:\a.safetensors", (-1.0, -1.0)));
        assert!(":1".parse::<Weighted>().is_err());
        let line = "atelier lora merge --model m --lora a:1 --lora b --out c --overwrite --json --plugin x";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
    }

    /// An argument of a command that has the name of a global one passes the check above and panics when used.
    #[test]
    fn every_command_about_plugins_is_read() {
        for line in [
            "list --failed --json",
            "install a --name b --force --trust",
            "trust a",
            "untrust a",
            "remove a",
            "check a --json",
            "new a --kind engine --in b --sdk c",
        ] {
            let line = format!("atelier plugins {line} --plugin x");
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.plugin, [PathBuf::from("x")], "{line}");
        }
    }

    #[test]
    fn plugins_and_trusted_folders_are_named_before_or_after_the_command_and_more_than_once() {
        for line in [
            "atelier --plugin a --plugin b --trust-plugins-in c doctor",
            "atelier doctor --plugin a --plugin b --trust-plugins-in c",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.plugin, [PathBuf::from("a"), PathBuf::from("b")], "{line}");
            assert_eq!(cli.trust_plugins_in, [PathBuf::from("c")], "{line}");
        }
    }
}
