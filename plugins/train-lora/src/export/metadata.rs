//! [`Facts`] as the remarks of a file, named and spelt as kohya's programs do (`ss_`), and after Stability's
//! specification of such remarks (`modelspec.`).

use super::facts::{Base, BaseModel, Facts, Folder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;

/// The remarks of an adapter whose modules mostly have this rank and alpha.
pub(super) fn of(facts: &Facts, rank: usize, alpha: f64) -> BTreeMap<String, String> {
    let parts = [model(facts, rank, alpha), rates(facts), course(facts), data(facts), spec(facts)];
    let all = parts.into_iter().flatten();
    all.map(|(key, value)| (key.to_string(), value)).collect()
}

type Remarks = Vec<(&'static str, String)>;

fn model(facts: &Facts, rank: usize, alpha: f64) -> Remarks {
    let base = &facts.base;
    let mut remarks = vec![
        ("ss_output_name", last(&facts.name)),
        ("ss_network_module", "networks.lora".into()),
        ("ss_network_dim", rank.to_string()),
        ("ss_network_alpha", alpha.to_string()),
        ("ss_network_dropout", or_none(facts.network_dropout)),
        ("ss_sd_model_name", last(&base.name)),
        ("ss_base_model_version", version(base).into()),
        ("ss_v2", flag(base.base == Base::V2)),
        ("ss_training_comment", facts.comment.clone()),
    ];
    remarks.extend(base.legacy_hash.iter().map(|hash| ("ss_sd_model_hash", hash.clone())));
    remarks.extend(base.sha256.iter().map(|hash| ("ss_new_sd_model_hash", hash.clone())));
    remarks
}

fn version(base: &BaseModel) -> &'static str {
    match (base.base, base.velocity) {
        (Base::V1, false) => "sd_v1",
        (Base::V1, true) => "sd_v1_v",
        (Base::V2, false) => "sd_v2",
        (Base::V2, true) => "sd_v2_v",
    }
}

fn rates(facts: &Facts) -> Remarks {
    vec![
        ("ss_optimizer", facts.optimizer.clone()),
        ("ss_learning_rate", facts.learning_rate.to_string()),
        ("ss_unet_lr", or_none(facts.unet_lr)),
        ("ss_text_encoder_lr", or_none(facts.text_encoder_lr)),
        ("ss_lr_scheduler", facts.lr_scheduler.clone()),
        ("ss_lr_warmup_steps", facts.lr_warmup_steps.to_string()),
        ("ss_max_grad_norm", or_none(facts.max_grad_norm)),
        ("ss_noise_offset", or_none(facts.noise_offset)),
        ("ss_min_snr_gamma", or_none(facts.min_snr_gamma)),
    ]
}

fn course(facts: &Facts) -> Remarks {
    let together = facts.batch_size.saturating_mul(facts.gradient_accumulation);
    vec![
        ("ss_epoch", facts.epoch.to_string()),
        ("ss_num_epochs", facts.epochs.to_string()),
        ("ss_steps", facts.steps.to_string()),
        ("ss_max_train_steps", facts.max_steps.to_string()),
        ("ss_num_batches_per_epoch", facts.batches_per_epoch.to_string()),
        ("ss_batch_size_per_device", facts.batch_size.to_string()),
        ("ss_total_batch_size", together.to_string()),
        ("ss_gradient_accumulation_steps", facts.gradient_accumulation.to_string()),
        ("ss_gradient_checkpointing", flag(facts.gradient_checkpointing)),
        ("ss_mixed_precision", facts.mixed_precision.clone()),
        ("ss_seed", facts.seed.to_string()),
        ("ss_training_started_at", facts.started_at.to_string()),
        ("ss_training_finished_at", facts.finished_at.to_string()),
    ]
}

fn data(facts: &Facts) -> Remarks {
    let folders = by_name(&facts.folders);
    let all = |of: &dyn Fn(&Folder) -> Value| {
        Value::Object(folders.iter().map(|(name, f)| (name.clone(), of(f))).collect()).to_string()
    };
    let images: u64 = facts.folders.iter().map(|f| f.images.saturating_mul(f.repeats)).sum();
    let (width, height) = facts.resolution;
    vec![
        ("ss_num_train_images", images.to_string()),
        ("ss_num_reg_images", facts.regularization_images.to_string()),
        ("ss_dataset_dirs", all(&|f| json!({"n_repeats": f.repeats, "img_count": f.images}))),
        ("ss_tag_frequency", all(&|f| json!(f.tags))),
        ("ss_resolution", format!("({width}, {height})")),
        ("ss_flip_aug", flag(facts.flip)),
        ("ss_caption_dropout_rate", facts.caption_dropout.to_string()),
        ("ss_clip_skip", or_none(facts.clip_skip)),
        ("ss_max_token_length", or_none(facts.max_token_length)),
    ]
}

/// Folders of one name, which lay in different places, are one.
fn by_name(folders: &[Folder]) -> BTreeMap<String, Folder> {
    let mut named = BTreeMap::<String, Folder>::new();
    for folder in folders {
        let one = named.entry(last(&folder.name)).or_default();
        one.images += folder.images;
        one.repeats = one.repeats.max(folder.repeats);
        for (tag, count) in &folder.tags {
            *one.tags.entry(tag.clone()).or_default() += count;
        }
    }
    named
}

fn spec(facts: &Facts) -> Remarks {
    let (base, (width, height)) = (&facts.base, facts.resolution);
    let architecture = match (base.base, base.velocity) {
        (Base::V1, _) => "stable-diffusion-v1/lora",
        (Base::V2, false) => "stable-diffusion-v2-512/lora",
        (Base::V2, true) => "stable-diffusion-v2-768-v/lora",
    };
    let mut remarks = vec![
        ("modelspec.sai_model_spec", "1.0.0".into()),
        ("modelspec.architecture", architecture.into()),
        // The names of modules are its.
        ("modelspec.implementation", "diffusers".into()),
        ("modelspec.title", last(&facts.name)),
        ("modelspec.date", date(facts.finished_at)),
        ("modelspec.resolution", format!("{width}x{height}")),
        ("modelspec.prediction_type", if base.velocity { "v" } else { "epsilon" }.into()),
    ];
    remarks.extend(facts.clip_skip.map(|skip| ("modelspec.encoder_layer", skip.to_string())));
    if !facts.trigger.is_empty() {
        remarks.push(("modelspec.trigger_phrase", facts.trigger.clone()));
    }
    remarks
}

/// Python's word for a truth value, which readers of these remarks expect.
fn flag(value: bool) -> String {
    if value { "True" } else { "False" }.into()
}

/// Python's word for what is not there.
fn or_none(value: Option<impl Display>) -> String {
    value.map_or("None".into(), |value| value.to_string())
}

/// The last part of a path, of whatever system.
fn last(path: &str) -> String {
    path.rsplit(['/', '\\']).find(|part| !part.is_empty()).unwrap_or_default().into()
}

/// The moment by the calendar, in UTC; days to dates after Hinnant, "chrono-compatible low-level date algorithms".
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years start in March here, so that the leap day is a year's last; eras of 400 years are all alike.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_their_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn of_paths_the_last_part_stays() {
        for path in ["shoes", "/place/me/shoes", "/place/me/shoes/", "C:\\Places\\me\\shoes", "a\\b/shoes"] {
            assert_eq!(last(path), "shoes", "{path}");
        }
        assert_eq!(last("/"), "");
    }
}
