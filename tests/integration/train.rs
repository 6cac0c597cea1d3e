//! Training, from a drawn set to an adapter that changes pictures, with everything that can stop it on the way.

use crate::support::{Place, Said, copy, names, pixels};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A place with a prepared set in `set`.
fn prepared() -> Place {
    let place = Place::new();
    let definition = crate::support::root().join("configs/datasets/demo.yaml").display().to_string();
    place.run(&["dataset", "demo", "--out", "raw", "--count", "30", "--clean"]).ok();
    let args = ["dataset", "prepare", &definition, "--in", "raw", "--out", "set", "--size", "32"];
    place.run(&args).ok();
    place
}

/// What all trainings of the tests have in common: a handful of steps on the tiny model.
const COMMON: &[&str] = &[
    "train",
    "--json",
    "-m",
    "tiny",
    "-s",
    "train_dir=set/train",
    "-s",
    "resolution=32",
    "-s",
    "max_steps=6",
    "-s",
    "batch_size=2",
    "-s",
    "lora_rank=4",
    "-s",
    "learning_rate=1e-2",
    "-s",
    "save_every=2",
    "-s",
    "val_timesteps=2",
    "-s",
    "val_images=3",
    "-s",
    "sample_steps=2",
];

fn train(place: &Place, out: &str, more: &[&str]) -> Said {
    place.run(&[COMMON, &["--out", out], more].concat())
}

fn json(path: PathBuf) -> Value {
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn adapter(place: &Place, out: &str, step: u64) -> Vec<u8> {
    std::fs::read(place.path(out).join(format!("checkpoints/step-{step:08}/adapter.safetensors"))).unwrap()
}

fn steps(place: &Place, out: &str) -> Vec<String> {
    names(&place.path(out).join("checkpoints"))
}

/// A training that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a training that is far too long to end by itself, and waits until it has saved a checkpoint.
fn long_training(place: &Place, out: &str, more: &[&str]) -> Running {
    let mut command = place.command();
    command.args([COMMON, &["--out", out, "-s", "max_steps=0", "-s", "num_epochs=100000"], more].concat());
    let child = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(120);
    while !names_or_none(&place.path(out).join("checkpoints")).iter().any(|n| n.starts_with("step-")) {
        assert!(Instant::now() < until, "the training saved nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn names_or_none(folder: &Path) -> Vec<String> {
    if folder.is_dir() { names(folder) } else { Vec::new() }
}

#[test]
fn a_training_leaves_checkpoints_exports_samples_and_curves() {
    let place = prepared();
    let more = ["-s", "val_dir=set/val", "-s", "sample_prompts=[shoes, red shoes]", "-s", "name=demo"];
    let facts = train(&place, "out", &more).ok().json();
    assert_eq!(facts["steps"], 6);
    assert_eq!(facts["data"]["rejected"], 0);
    assert!(facts["val"]["first"].as_f64().unwrap() > 0.0);
    let out = place.path("out");
    for name in ["run.json", "metrics.jsonl", "exports", "samples", "tensorboard", "checkpoints"] {
        assert!(names(&out).contains(&name.to_string()), "no {name} in {:?}", names(&out));
    }
    assert_eq!(json(out.join("run.json"))["status"], "done");
    assert!(steps(&place, "out").contains(&"step-00000006".to_string()));
    assert!(names(&out.join("exports")).contains(&"demo.safetensors".to_string()));
    let (width, height, _) = pixels(&out.join("samples/step-00000006/02.png"));
    assert_eq!((width, height), (32, 32));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let losses = lines.iter().filter(|l| l["name"] == "train.loss" || l.get("train.loss").is_some()).count();
    assert_eq!(losses, 6, "{metrics}");
}

#[test]
fn the_trained_adapter_changes_what_the_model_draws() {
    let place = prepared();
    let draw =
        |more: &[&str]| pixels(&place.generate(&[&["-p", "tiny/quick", "-s", "seed=3"], more].concat()));
    let before = draw(&["-s", "prompt=shoes"]);
    train(&place, "out", &["-s", "name=demo"]).ok();
    let list = format!("loras=[{{path: {}}}]", place.path("out/exports/demo.safetensors").display());
    let after = draw(&["-s", "prompt=shoes", "-s", &list]);
    assert_ne!(before, after);
    let inspected =
        place.run(&["lora", "inspect", "out/exports/demo.safetensors", "-m", "tiny", "--json"]).ok();
    assert_eq!(inspected.json()["unmatched"].as_array().map_or(0, Vec::len), 0, "{inspected:?}");
}

#[test]
fn a_training_that_was_killed_goes_on_to_the_same_bits() {
    let place = prepared();
    let more = ["-s", "val_dir=set/val", "-s", "lora_dropout=0.2", "-s", "flip=true", "-s", "ema_decay=0.9"];
    let limited = [&more[..], &["-s", "num_epochs=100000", "-s", "max_steps=40"]].concat();
    train(&place, "whole", &limited).ok();
    let child = long_training(&place, "cut", &more);
    drop(child);
    let said = place.run(&["train", "--json", "--resume", "cut", "-s", "max_steps=40"]).ok();
    assert_eq!(said.json()["steps"], 40);
    assert!(adapter(&place, "whole", 40) == adapter(&place, "cut", 40), "the adapters differ");
    let export =
        |out: &str| std::fs::read(place.path(out).join("checkpoints/step-00000040/optimizer.safetensors"));
    assert!(export("whole").unwrap() == export("cut").unwrap(), "the optimisers differ");
    let losses = |out: &str| {
        let text = std::fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter_map(|l| Some((l["step"].as_u64()?, l.get("train.loss")?.as_f64()?))).collect::<Vec<_>>()
    };
    assert_eq!(losses("whole"), losses("cut"));
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_and_the_training_goes_on_to_the_same_bits() {
    let place = prepared();
    train(&place, "whole", &["-s", "num_epochs=100000", "-s", "max_steps=40"]).ok();
    let mut child = long_training(&place, "cut", &[]);
    let id = child.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert_eq!(json(place.path("cut/run.json"))["status"], "stopped");
    place.run(&["train", "--json", "--resume", "cut", "-s", "max_steps=40"]).ok();
    assert!(adapter(&place, "whole", 40) == adapter(&place, "cut", 40), "the adapters differ");
}

#[test]
fn recomputed_activations_give_the_same_adapter_as_kept_ones() {
    let place = prepared();
    train(&place, "kept", &["-s", "gradient_checkpointing=false"]).ok();
    train(&place, "again", &["-s", "gradient_checkpointing=true"]).ok();
    assert!(adapter(&place, "kept", 6) == adapter(&place, "again", 6));
}

#[test]
fn frozen_weights_in_8_bits_train_nearly_the_same_adapter() {
    let place = prepared();
    train(&place, "wide", &[]).ok();
    train(&place, "narrow", &["-s", "mixed_precision=int8"]).ok();
    let factors = |out: &str| {
        let bytes = adapter(&place, out, 6);
        let tensors = candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        let sorted: std::collections::BTreeMap<_, _> = tensors.into_iter().collect();
        let all = sorted.values().map(|t| t.flatten_all().unwrap()).collect::<Vec<_>>();
        candle_core::Tensor::cat(&all, 0).unwrap()
    };
    let (wide, narrow) = (factors("wide"), factors("narrow"));
    let norm =
        |t: &candle_core::Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let away = norm(&(&wide - &narrow).unwrap()) / norm(&wide);
    assert!(away > 0.0 && away < 0.2, "{away}");
}

#[test]
fn a_torn_checkpoint_is_passed_over_with_words_and_all_torn_are_refused() {
    let place = prepared();
    train(&place, "out", &[]).ok();
    let whole = adapter(&place, "out", 6);
    let file = |step: u64, name: &str| place.path("out").join(format!("checkpoints/step-{step:08}/{name}"));
    let content = std::fs::read(file(6, "optimizer.safetensors")).unwrap();
    std::fs::write(file(6, "optimizer.safetensors"), &content[..content.len() / 2]).unwrap();
    let said = place.run(&["train", "--json", "--resume", "out"]).ok();
    assert!(said.err.contains("optimizer.safetensors is not what was written"), "{}", said.err);
    assert!(adapter(&place, "out", 6) == whole);
    for step in [4, 6] {
        std::fs::write(file(step, "manifest.json"), "{").unwrap();
    }
    place.run(&["train", "--resume", "out"]).fails(7, &["no checkpoint", "is whole", "manifest.json"]);
}

#[test]
fn a_checkpoint_of_another_training_is_refused_with_what_differs() {
    let place = prepared();
    train(&place, "out", &[]).ok();
    let more = ["-s", "lora_rank=8", "-s", "seed=7"];
    let said = place.run(&[&["train", "--resume", "out"], &more[..]].concat());
    said.fails(
        3,
        &["another training", "`lora_rank` was \"4\", and is \"8\"", "`seed` was \"42\", and is \"7\""],
    );
    let image = names(&place.path("set/train")).into_iter().find(|n| n.ends_with(".png")).unwrap();
    std::fs::remove_file(place.path("set/train").join(image)).unwrap();
    place.run(&["train", "--resume", "out"]).fails(3, &["data.train"]);
}

#[test]
fn a_second_training_does_not_write_over_the_first() {
    let place = prepared();
    train(&place, "out", &[]).ok();
    train(&place, "out", &[]).fails(3, &[]);
    let said = place.run(&[&COMMON[..1], &COMMON[2..], &["--out", "out"]].concat());
    said.fails(3, &["holds a training that reached step 6", "--resume"]);
}

#[test]
fn checkpoints_that_are_no_longer_kept_are_removed() {
    let place = prepared();
    train(&place, "out", &["-s", "save_every=1", "-s", "keep_checkpoints=2"]).ok();
    assert_eq!(steps(&place, "out"), ["step-00000005", "step-00000006"]);
}

#[test]
fn every_optimiser_every_target_and_the_text_encoder_can_be_trained() {
    let place = prepared();
    for (i, more) in [
        vec!["-s", "optimizer=lion", "-s", "lr_schedule=linear", "-s", "snr_gamma=5"],
        vec!["-s", "optimizer=prodigy", "-s", "learning_rate=1", "-s", "noise_offset=0.1"],
        vec!["-s", "train_text_encoder=true", "-s", "caption_dropout=0.5"],
        vec!["-s", "targets=['*']", "-s", "init=gaussian"],
        vec![
            "-s",
            "prediction_type=v_prediction",
            "-s",
            "snr_gamma=5",
            "-s",
            "gradient_accumulation=2",
            "-s",
            "timestep_sampling=stratified",
        ],
        vec![
            "-s",
            "mixed_precision=bf16",
            "-s",
            "lr_warmup_steps=2",
            "-s",
            "lr_schedule=cosine_with_restarts",
        ],
    ]
    .iter()
    .enumerate()
    {
        let out = format!("out{i}");
        let facts = train(&place, &out, more).ok().json();
        assert!(facts["train_loss"].as_f64().unwrap().is_finite(), "{more:?}");
        let inspect = ["lora", "inspect", &format!("{out}/exports/lora.safetensors"), "-m", "tiny", "--json"];
        place.run(&inspect).ok();
    }
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_is_written() {
    let place = prepared();
    let text = |more: &[&str]| place.run(&[&["train", "-m", "tiny", "-s", "resolution=32"], more].concat());
    text(&["--out", "out"]).fails(3, &["no folder of training images is named", "dataset prepare"]);
    text(&["-s", "train_dir=set/train"]).fails(3, &["no folder for the results"]);
    text(&["-s", "train_dir=nowhere", "--out", "out"]).fails(3, &["nowhere"]);
    let set = ["-s", "train_dir=set/train", "--out", "out"];
    text(&[&set[..], &["-s", "targets=[to_x]"]].concat()).fails(3, &["to_x", "matches no module", "to_q"]);
    text(&[&set[..], &["-s", "resolution=30"]].concat()).fails(3, &["resolution"]);
    text(&[&set[..], &["-s", "filter=[baseColour=Octarine]"]].concat()).fails(3, &["Octarine"]);
    text(&["--resume", "nowhere"]).fails(4, &["no training to go on with"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    text(&["-s", "train_dir=empty", "--out", "out"]).fails(4, &["empty", "no image with a caption"]);
    assert!(!place.path("out/checkpoints").exists());
}

#[test]
fn a_rate_that_diverges_ends_the_training_with_words() {
    let place = prepared();
    let said = train(
        &place,
        "out",
        &[
            "-s",
            "learning_rate=10",
            "-s",
            "max_grad_norm=0",
            "-s",
            "max_steps=300",
            "-s",
            "num_epochs=1000",
            "-s",
            "optimizer=lion",
        ],
    );
    if said.code != 0 {
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.out.contains("diverged") && said.out.contains("learning_rate"), "{said:?}");
        assert_eq!(json(place.path("out/run.json"))["status"], "failed");
    }
}

#[test]
fn bad_images_are_put_on_a_list_and_counted() {
    let place = prepared();
    std::fs::write(place.path("set/train/broken.png"), b"not a picture").unwrap();
    let plain = place.path("plain");
    copy(&place.path("set/train"), &plain);
    std::fs::remove_file(plain.join("metadata.jsonl")).unwrap();
    let facts =
        place.run(&[COMMON, &["--out", "out", "-s", "train_dir=plain", "-s", "caption=shoes"]].concat());
    let facts = facts.ok().json();
    assert_eq!(facts["data"]["rejected"], 1, "{facts}");
    let list = json(place.path("out/quarantine.json"));
    assert!(list.to_string().contains("broken.png"), "{list}");
}

#[test]
fn a_dry_run_estimates_and_keeps_nothing() {
    let place = prepared();
    let facts = train(&place, "out", &["--dry-run"]).ok().json();
    assert_eq!(facts["steps"], 6);
    assert!(facts["seconds_per_step"].as_f64().unwrap() > 0.0);
    assert!(!place.path("out").exists());
}

#[test]
fn a_training_configuration_maps_one_to_one() {
    let place = prepared();
    let config = "model:\n  base: tiny\n  lora_rank: 4\n  lora_alpha: 8\ntraining:\n  batch_size: 2\n  \
                  gradient_accumulation: 2\n  learning_rate: 1e-4\n  num_epochs: 1\n  mixed_precision: \"fp16\"\n\
                  data:\n  train_dir: set/train\n  val_dir: set/val\n  resolution: 32\n";
    place.write("train_config.yaml", config);
    let said = place.run(&["train", "--json", "--train-config", "train_config.yaml", "--out", "out"]).ok();
    assert!(said.json()["steps"].as_u64().unwrap() > 1);
    let asked = json(place.path("out/run.json"));
    assert_eq!(asked["model"], "tiny");
    for (name, value) in [("lora_rank", "4"), ("gradient_accumulation", "2"), ("mixed_precision", "\"fp16\"")]
    {
        assert_eq!(asked["params"][name].to_string(), value);
    }
    place.write("wrong.yaml", "training:\n  batch: 2\n");
    place.run(&["train", "--train-config", "wrong.yaml", "--out", "o"]).fails(3, &["batch", "batch_size"]);
    place.write("section.yaml", "trainig:\n  batch_size: 2\n");
    place.run(&["train", "--train-config", "section.yaml", "--out", "o"]).fails(3, &["trainig", "training"]);
}

#[test]
fn a_search_compares_its_trials_and_writes_the_best_as_a_preset() {
    let place = prepared();
    let mut args = vec!["train", "search", "--json"];
    args.extend(&COMMON[2..]);
    args.extend(["-s", "val_dir=set/val", "--ranks", "2,4", "--rates", "1e-2,1e-5", "--out", "search"]);
    let facts = place.run(&args).ok().json();
    assert_eq!(facts["trials"].as_array().unwrap().len(), 4);
    let best = facts["best"]["best"].as_f64().unwrap();
    assert!(facts["trials"].as_array().unwrap().iter().all(|t| t["best"].as_f64().unwrap() >= best));
    for name in ["comparison.md", "comparison.csv", "comparison.svg", "best.yaml"] {
        assert!(place.path("search").join(name).is_file(), "{name}");
    }
    let preset = place.path("search/best.yaml").display().to_string();
    place.run(&["train", "--json", "-p", &preset, "-s", "max_steps=2"]).ok();
    // What is done is not done again.
    let began = Instant::now();
    let again = place.run(&args).ok().json();
    assert_eq!(again["trials"], facts["trials"]);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn two_trainings_into_one_folder_do_not_meet() {
    let place = prepared();
    let _child = long_training(&place, "out", &[]);
    place.run(&["train", "--resume", "out"]).fails(6, &["another training is at work"]);
}
