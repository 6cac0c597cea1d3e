//! The parameters as the settings of optimiser and learning rate.

use crate::optim::{
    AdamWConfig, Error, Group, LionConfig, LrSchedule, Optimizer, OptimizerConfig, ProdigyConfig, Slot,
};
use crate::params::{OptimizerKind, TrainLora};

/// The optimiser over these variables.
///
/// # Errors
/// Settings out of range.
pub fn optimizer(params: &TrainLora, slots: Vec<Slot>) -> Result<Optimizer, Error> {
    let text = match params.optimizer {
        // It has one estimate for all.
        OptimizerKind::Prodigy => 1.0,
        _ if params.learning_rate > 0.0 => params.text_lr() / params.learning_rate,
        _ => 0.0,
    };
    let group = |name: &str, lr_factor| Group { name: name.into(), lr_factor, weight_decay: None };
    Optimizer::new(config(params), vec![group("unet", 1.0), group("text_encoder", text)], slots)
}

fn config(params: &TrainLora) -> OptimizerConfig {
    let eps = params.eps;
    match params.optimizer {
        OptimizerKind::AdamW => {
            let usual = AdamWConfig::default();
            let betas = params.betas.unwrap_or(usual.betas);
            let weight_decay = params.weight_decay.unwrap_or(usual.weight_decay);
            OptimizerConfig::AdamW(AdamWConfig { betas, eps, weight_decay })
        }
        OptimizerKind::Lion => {
            let usual = LionConfig::default();
            let betas = params.betas.unwrap_or(usual.betas);
            OptimizerConfig::Lion(LionConfig {
                betas,
                weight_decay: params.weight_decay.unwrap_or(usual.weight_decay),
            })
        }
        OptimizerKind::Prodigy => {
            let usual = ProdigyConfig::default();
            let betas = params.betas.unwrap_or(usual.betas);
            let weight_decay = params.weight_decay.unwrap_or(usual.weight_decay);
            OptimizerConfig::Prodigy(ProdigyConfig { betas, eps, weight_decay, ..usual })
        }
    }
}

/// The schedule of the learning rate.
pub fn schedule(params: &TrainLora) -> LrSchedule {
    LrSchedule {
        shape: params.lr_schedule,
        warmup_steps: params.lr_warmup_steps,
        cycles: params.lr_cycles,
        ..LrSchedule::default()
    }
}

/// The learning rate of each group in a step, counted from 0, of so many.
pub fn rates(params: &TrainLora, optimizer: &Optimizer, steps: u64, step: u64) -> Vec<f64> {
    optimizer.rates(params.learning_rate * schedule(params).factor(step, steps))
}
