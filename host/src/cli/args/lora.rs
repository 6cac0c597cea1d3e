//! `atelier lora`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Lora {
    #[command(subcommand)]
    pub action: LoraAction,
}

#[derive(Debug, Subcommand)]
pub enum LoraAction {
    /// Say what an adapter holds and what it fits
    Inspect {
        /// The adapter: a file, or a folder of PEFT
        #[arg(value_name = "FILE")]
        lora: PathBuf,
        /// A model to look for its modules in: a name, a folder or a file [default: Stable Diffusion 1.5]
        #[arg(short, long, value_name = "KEY|PATH")]
        model: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a model with adapters added to its weights
    Merge {
        /// The model: a name, a folder or a file
        #[arg(short, long, value_name = "KEY|PATH")]
        model: String,
        /// An adapter and how much of it: FILE, FILE:0.8, or FILE:0.5:1 for text encoder and UNet
        #[arg(short, long, value_name = "FILE[:W[:W]]", required = true)]
        lora: Vec<Weighted>,
        /// Where the model goes: a folder for a folder, a safetensors file for a file
        #[arg(short, long, value_name = "PATH")]
        out: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        overwrite: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an adapter of the difference of two models
    Extract {
        /// The model without the change: a name, a folder or a file
        #[arg(long, value_name = "KEY|PATH")]
        base: String,
        /// The model with it
        #[arg(long, value_name = "KEY|PATH")]
        tuned: String,
        /// The rank of its factors
        #[arg(long, default_value_t = 16)]
        rank: usize,
        /// Where the adapter goes
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// In 32-bit floats instead of 16
        #[arg(long)]
        f32: bool,
        /// Replace a file that is there
        #[arg(long)]
        overwrite: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write an adapter in another layout
    Convert {
        /// The adapter: a file, or a folder of PEFT
        #[arg(value_name = "FILE")]
        lora: PathBuf,
        /// The layout
        #[arg(long, value_enum)]
        to: LoraLayout,
        /// A model that has its modules, where it is not for Stable Diffusion 1.x or 2.x
        #[arg(short, long, value_name = "KEY|PATH")]
        model: Option<String>,
        /// Where it goes: a file, for PEFT a folder
        #[arg(short, long, value_name = "PATH")]
        out: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        overwrite: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl LoraAction {
    pub fn json(&self) -> bool {
        match self {
            Self::Inspect { json, .. }
            | Self::Merge { json, .. }
            | Self::Extract { json, .. }
            | Self::Convert { json, .. } => *json,
        }
    }
}

/// Layouts that adapters are written in.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum LoraLayout {
    Kohya,
    Diffusers,
    Peft,
}

/// A file with numbers behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    pub path: PathBuf,
    /// In text encoder and UNet.
    pub weights: (f64, f64),
}

impl std::str::FromStr for Weighted {
    type Err = String;

    /// `file`, `file:0.8` or `file:0.5:1`; a colon before anything but a number belongs to the file's name.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
        let (mut path, mut numbers) = (text, Vec::new());
        while let Some((rest, last)) = path.rsplit_once(':').filter(|_| numbers.len() < 2) {
            let Some(value) = number(last) else { break };
            numbers.push(value);
            path = rest;
        }
        if path.is_empty() {
            return Err("no file is named".into());
        }
        let weights = match numbers[..] {
            [unet, te] => (te, unet),
            [both] => (both, both),
            _ => (1.0, 1.0),
        };
        Ok(Self { path: path.into(), weights })
    }
}
