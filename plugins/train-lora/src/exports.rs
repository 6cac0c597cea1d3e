//! What a finished training exports.

use crate::base::{Base, tensor};
use crate::checkpoint::Checkpoints;
use crate::data::Set;
use crate::export::{self, BaseModel, Export, Facts, Format};
use crate::ledger;
use crate::params::{ExportFormat, TrainLora};
use crate::sets::Sets;
use crate::trainer::Trainer;
use atelier_sdk::files::cannot_write;
use atelier_sdk::{Error, Result};
use atelier_weights::Precision;
use candle_core::DType;
use std::path::{Path, PathBuf};

/// Writes the adapter as it is now, and as it was at the best validation if that was before. Gives the files.
///
/// # Errors
/// The folder is not writable; numbers that the format does not have.
pub fn write(
    trainer: &Trainer<'_>,
    base: &Base,
    params: &TrainLora,
    sets: &Sets,
    checkpoints: &Checkpoints,
    started: u64,
) -> Result<Vec<PathBuf>> {
    let folder = Path::new(&params.out).join("exports");
    std::fs::create_dir_all(&folder).map_err(|e| cannot_write(&folder, e))?;
    let steps = trainer.steps_done();
    let last = export(
        trainer.exported(),
        trainer,
        base,
        params,
        &facts(trainer, base, params, sets, steps, started),
    )?;
    let mut files = last.kohya(&folder.join(format!("{}.safetensors", params.name)))?;
    files.extend(last.diffusers(&folder.join("diffusers"))?);
    files.extend(last.peft(&folder.join("peft"))?);
    if let Some(best) = trainer.best().filter(|b| b.step > 0 && b.step != steps) {
        let rows = trainer.exported_of(checkpoints.load(best.step)?)?;
        let facts = facts(trainer, base, params, sets, best.step, started);
        let best = export(&rows, trainer, base, params, &facts)?;
        files.extend(best.kohya(&folder.join(format!("{}-best.safetensors", params.name)))?);
    }
    Ok(files)
}

fn export(
    values: &[Vec<f32>],
    trainer: &Trainer<'_>,
    base: &Base,
    params: &TrainLora,
    facts: &Facts,
) -> Result<Export> {
    let factors = &trainer.trained().trainee.factors;
    let mut trained = Vec::with_capacity(factors.len());
    for (factor, values) in factors.iter().zip(values.chunks_exact(2)) {
        let [down, up] = values else { return Err(Error::internal("a module without two factors")) };
        trained.push(export::Trained {
            part: factor.part,
            module: factor.module.clone(),
            down: tensor(down, factor.down.dims(), &base.device)?,
            up: tensor(up, factor.up.dims(), &base.device)?,
            alpha: params.lora_alpha,
        });
    }
    let format = match params.export_format {
        ExportFormat::F16 => Format::F16,
        ExportFormat::Bf16 => Format::Bf16,
        ExportFormat::F32 => Format::F32,
    };
    Export::new(&trained, facts, format)
}

fn facts(trainer: &Trainer<'_>, base: &Base, p: &TrainLora, sets: &Sets, steps: u64, started: u64) -> Facts {
    let some = |value: f64| (value > 0.0).then_some(value);
    let agenda = trainer.agenda();
    let side = p.resolution as usize;
    Facts {
        name: p.name.clone(),
        base: BaseModel {
            name: base.name.clone(),
            base: if base.is_v2() { export::Base::V2 } else { export::Base::V1 },
            velocity: base.predicts_velocity(),
            ..BaseModel::default()
        },
        folders: vec![folder(&sets.train, &p.train_dir)],
        resolution: (side, side),
        flip: p.flip,
        caption_dropout: p.caption_dropout,
        optimizer: format!("{:?}", p.optimizer),
        learning_rate: p.learning_rate,
        unet_lr: (!p.targets.is_empty()).then_some(p.learning_rate),
        text_encoder_lr: p.train_text_encoder.then(|| p.text_lr()),
        lr_scheduler: serde_json::to_value(p.lr_schedule)
            .ok()
            .and_then(|v| Some(v.as_str()?.into()))
            .unwrap_or_default(),
        lr_warmup_steps: p.lr_warmup_steps,
        max_grad_norm: some(p.max_grad_norm),
        network_dropout: some(p.lora_dropout),
        epoch: agenda.epochs(steps).ceil() as u64,
        epochs: u64::from(p.num_epochs),
        steps,
        max_steps: agenda.steps,
        batches_per_epoch: agenda.samples.div_ceil(u64::from(p.batch_size)),
        batch_size: u64::from(p.batch_size),
        gradient_accumulation: u64::from(p.gradient_accumulation),
        gradient_checkpointing: p.gradient_checkpointing,
        mixed_precision: match trainer.trained().precision() {
            Precision::Float(DType::F16) => "fp16".into(),
            Precision::Float(DType::BF16) => "bf16".into(),
            _ => "no".into(),
        },
        clip_skip: Some(u64::from(p.clip_skip) + 1),
        seed: p.seed,
        noise_offset: some(p.noise_offset),
        min_snr_gamma: some(p.snr_gamma),
        started_at: started,
        finished_at: ledger::now(),
        ..Facts::default()
    }
}

fn folder(set: &Set, path: &str) -> export::Folder {
    let captions = set.items.iter().map(|i| i.item.caption.as_str());
    let name = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned());
    let repeats = set.items.iter().map(|i| u64::from(i.item.repeats)).min().unwrap_or(1);
    export::Folder { repeats, ..export::Folder::of(name.unwrap_or_default(), captions) }
}
