//! What must be the same for a checkpoint to go on.

use crate::base::Base;
use crate::checkpoint::Identity;
use crate::optim::Shape;
use crate::params::TrainLora;
use crate::sets::Sets;
use atelier_sdk::{Result, ResultExt};
use serde_json::{Value, json};

/// Parameters on which no weight depends: they may change from one start to the next. Places may move, as what is in
/// them is told by its content.
const HARMLESS: &[&str] = &[
    "train_dir",
    "val_dir",
    "out",
    "name",
    "cache_dir",
    "num_epochs",
    "max_steps",
    "gradient_checkpointing",
    "val_every",
    "early_stopping",
    "save_every",
    "keep_checkpoints",
    "sample_every",
    "sample_prompts",
    "sample_steps",
    "sample_cfg_scale",
    "sampler",
    "schedule",
    "export_format",
    "resume",
    "dry_run",
];

/// What this training is, told from others.
///
/// # Errors
/// None that a person could do something about.
pub fn of(base: &Base, params: &TrainLora, sets: &Sets, steps: u64) -> Result<Identity> {
    let all = serde_json::to_value(params).internal("parameters that are no JSON")?;
    let mut identity = Identity::new();
    for (name, value) in
        all.as_object().into_iter().flatten().filter(|(n, _)| !HARMLESS.contains(&n.as_str()))
    {
        identity.insert(name.clone(), as_text(value));
    }
    // A constant rate does not know where it ends.
    if params.lr_schedule != Shape::Constant {
        identity.insert("steps".into(), json!(steps));
    }
    for (name, value) in [
        ("model.unet", &base.unet_print),
        ("model.text_encoder", &base.text_print),
        ("model.vae", &base.vae_print),
        ("data.train", &sets.train.digest()),
    ] {
        identity.insert(name.into(), json!(value));
    }
    if let Some(val) = &sets.val {
        identity.insert("data.val".into(), json!(val.digest()));
    }
    Ok(identity)
}

/// Numbers as text: they are compared with what was read again, and JSON readers may give other bits.
fn as_text(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.to_string()),
        Value::Array(list) => list.iter().map(as_text).collect(),
        other => other.clone(),
    }
}
