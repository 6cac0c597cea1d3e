//! `atelier models`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Models {
    #[command(subcommand)]
    pub action: ModelAction,
}

#[derive(Debug, Subcommand)]
pub enum ModelAction {
    /// All of them, and whether their files are there
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Download the files of models; the only command that touches the network
    Pull(ModelPull),
    /// Say what a file or folder is, what is in it, and what is odd about it
    Inspect(ModelInspect),
    /// Describe a file or folder, so that its key names it from now on
    Import(ModelImport),
    /// Compare the files of models with the digests that are known of them
    Verify(ModelVerify),
    /// Write a model in another layout or number format
    Convert(ModelConvert),
}

impl ModelAction {
    pub fn json(&self) -> bool {
        match self {
            Self::List { json } => *json,
            Self::Pull(a) => a.json,
            Self::Inspect(a) => a.json,
            Self::Import(a) => a.json,
            Self::Verify(a) => a.json,
            Self::Convert(a) => a.json,
        }
    }
}

#[derive(Debug, Args)]
pub struct ModelPull {
    /// Their keys
    #[arg(required = true, value_name = "KEY")]
    pub models: Vec<String>,
    /// Accept the licences' terms, where a model has some to accept
    #[arg(long, visible_alias = "accept-license")]
    pub accept_licence: bool,
    /// Show what would be pulled, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelInspect {
    /// A file, a folder, or the key of a model
    #[arg(value_name = "FILE|FOLDER|KEY")]
    pub which: String,
    /// Read every number as well: finds NaN, infinite and empty weights
    #[arg(long)]
    pub values: bool,
    /// Do not read the whole file for its digest
    #[arg(long)]
    pub no_hash: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelImport {
    /// A file or folder
    pub path: PathBuf,
    /// Key of the model [default: from the file's name]
    #[arg(long, value_name = "KEY")]
    pub name: Option<String>,
    /// Copy it to the folder of pulled models [default: leave it where it is]
    #[arg(long, conflicts_with = "link")]
    pub copy: bool,
    /// Link to it from the folder of pulled models
    #[arg(long)]
    pub link: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelVerify {
    /// The key of a model, or the word `all`
    #[arg(value_name = "KEY|all")]
    pub which: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What a model becomes.
#[derive(Debug, Clone, Copy, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A folder of a file for each network, as diffusers has it
    Diffusers,
    /// One file, as the first programs for latent diffusion had it
    Ldm,
    /// A safetensors file of what the input has
    Safetensors,
    /// A GGUF file: a model's folder with the names of `ldm`, anything else with its own
    Gguf,
}

/// A number format of weights.
#[derive(Debug, Clone, Copy, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    Keep,
    F32,
    F16,
    Bf16,
    /// Layers in 8-bit integers, the rest in f16; only in GGUF
    Int8,
}

#[derive(Debug, Args)]
pub struct ModelConvert {
    /// A file or folder
    #[arg(value_name = "IN")]
    pub input: String,
    /// What it becomes
    #[arg(long, value_enum)]
    pub to: Layout,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = Numbers::Keep)]
    pub dtype: Numbers,
    /// The file or folder to write
    #[arg(short, long, value_name = "PATH")]
    pub out: String,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
