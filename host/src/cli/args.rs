//! What can be typed.

use atelier_sdk::{Device, Dtype};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

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
    /// List, show or check presets
    Presets(Presets),
    /// What is plugged in
    Plugins(List),
    /// What performs tasks
    Engines(List),
    /// What can be asked for
    Tasks(List),
    /// What integrates the reverse process
    Samplers(List),
    /// What chooses the noise levels
    Schedules(List),
    /// What can be loaded
    Models(List),
    /// Print the JSON schema of a task of an engine, or of the options of a sampler or schedule
    Schema(Schema),
    /// Check this build and this machine
    Doctor(Doctor),
    /// Measure speed and memory
    Benchmark(Benchmark),
}

impl Command {
    /// Whether the result is wanted as JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Generate(a) => a.json,
            Self::Presets(a) => a.action.json(),
            Self::Plugins(a)
            | Self::Engines(a)
            | Self::Tasks(a)
            | Self::Samplers(a)
            | Self::Schedules(a)
            | Self::Models(a) => a.action.json(),
            Self::Schema(_) => false,
            Self::Doctor(a) => a.json,
            Self::Benchmark(a) => a.json,
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
    /// Number format: auto, f32, f16, bf16
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
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
    /// Steps to measure
    #[arg(long, default_value_t = 4)]
    pub steps: usize,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
