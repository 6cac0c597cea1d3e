//! `atelier train`.

use super::Asked;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Train {
    #[command(flatten)]
    pub asked: Asked,
    /// Go on with the training in this folder, from its last checkpoint
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub resume: Option<PathBuf>,
    /// Parameters from a train_config.yaml with the sections `model`, `training` and `data`
    #[arg(long, value_name = "FILE")]
    pub train_config: Option<PathBuf>,
    /// Folder for everything that training leaves
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Look at the data, try one step, say how long it will take and how much memory, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<TrainAction>,
}

impl Train {
    /// Whether the result is wanted as JSON.
    pub fn json(&self) -> bool {
        match &self.action {
            Some(TrainAction::Search(a)) => a.json,
            None => self.json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum TrainAction {
    /// Train with each combination of ranks, rates and epochs; compare; write the best as a preset
    Search(Search),
}

#[derive(Debug, Args)]
pub struct Search {
    #[command(flatten)]
    pub asked: Asked,
    /// Ranks to try
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    pub ranks: Vec<u32>,
    /// Learning rates to try
    #[arg(long, value_delimiter = ',', value_name = "RATE,...")]
    pub rates: Vec<f64>,
    /// Numbers of epochs to try
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    pub epochs: Vec<u32>,
    /// Train on so many images, drawn with each subgroup in its share
    #[arg(long, value_name = "N")]
    pub prototype: Option<u32>,
    /// Folder for the trials and the comparison; a search that was stopped goes on there
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
