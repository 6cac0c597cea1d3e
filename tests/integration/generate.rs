//! The main job: a preset becomes a picture, and a picture tells how it was made.

use crate::support::{Place, names, pixels};
use serde_json::Value;
use std::path::Path;

fn sidecar(image: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(image.with_extension("json")).unwrap()).unwrap()
}

#[test]
fn a_preset_becomes_a_picture_with_its_metadata_and_ledger() {
    let place = Place::new();
    let image = place.generate(&["--preset", "tiny/basic"]);
    let (width, height, data) = pixels(&image);
    assert_eq!((width, height), (64, 64));
    let first = &data[..3];
    assert!(data.chunks(3).any(|p| p != first), "the picture is one flat colour");
    let folder = image.parent().unwrap();
    assert_eq!(names(folder), ["00001.json", "00001.png", "events.jsonl", "run.json"]);
    let ledger: Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    assert_eq!((&ledger["status"], &ledger["images"][0]), (&"done".into(), &"00001.png".into()));
    let events = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    assert_eq!(events.lines().filter(|l| l.contains("\"step\"")).count(), 3);
}

#[test]
fn the_same_seed_gives_the_same_picture_and_another_seed_another() {
    let place = Place::new();
    let a = pixels(&place.generate(&["-p", "tiny/quick"]));
    let b = pixels(&place.generate(&["-p", "tiny/quick"]));
    let c = pixels(&place.generate(&["-p", "tiny/quick", "--set", "seed=6"]));
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn prompt_guidance_sampler_and_schedule_each_change_the_picture() {
    let place = Place::new();
    let base = pixels(&place.generate(&["-p", "tiny/basic"]));
    for change in [
        "prompt=a boat",
        "negative_prompt=blurry",
        "cfg_scale=3",
        "sampler=heun",
        "schedule=karras",
        "steps=4",
        "rng=gpu",
    ] {
        assert_ne!(base, pixels(&place.generate(&["-p", "tiny/basic", "--set", change])), "{change}");
    }
}

#[test]
fn every_sampler_runs_with_every_schedule() {
    let place = Place::new();
    let list = |kind: &str| -> Vec<String> {
        let list = place.run(&[kind, "list", "--json"]).ok().json();
        list.as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap().to_string()).collect()
    };
    let schedules = list("schedules");
    for (i, sampler) in list("samplers").iter().enumerate() {
        // Each schedule meets several samplers; all pairs would only repeat that.
        let schedule = &schedules[i % schedules.len()];
        let set = format!("sampler={sampler}");
        place.generate(&["-p", "tiny/basic", "--set", &set, "--set", &format!("schedule={schedule}")]);
    }
}

#[test]
fn an_image_is_made_again_from_its_metadata() {
    let place = Place::new();
    let image =
        place.generate(&["-p", "tiny/basic", "-s", "seed=77", "-s", "sampler=euler_a", "-s", "count=2"]);
    let second = image.with_file_name("00002.png");
    assert_eq!(sidecar(&second)["params"]["seed"], 78);
    for source in [second.clone(), second.with_extension("json")] {
        let again = place.generate(&["--like", source.to_str().unwrap()]);
        assert_eq!(pixels(&again), pixels(&second), "{}", source.display());
    }
    let other = place.generate(&["--like", second.to_str().unwrap(), "--set", "steps=2"]);
    assert_ne!(pixels(&other), pixels(&second));
}

#[test]
fn the_a1111_text_of_an_image_is_enough_to_make_it_again() {
    let place = Place::new();
    let image =
        place.generate(&["-p", "tiny/basic", "-s", "prompt=red shoes, 90% off", "-s", "sampler=dpmpp_2m"]);
    let text = std::fs::read(&image).unwrap();
    // Our own chunk renamed: what a reader of A1111's text alone sees.
    let at = text.windows(12).position(|w| w == b"tEXtatelier\0").expect("our chunk");
    let mut bytes = text.clone();
    bytes[at + 4] = b'X';
    fix_crc(&mut bytes, at);
    let stripped = place.write("stripped.png", bytes);
    let again = place.generate(&["--like", stripped.to_str().unwrap(), "--model", "tiny"]);
    assert_eq!(pixels(&again), pixels(&image));
}

/// Recomputes the checksum of the PNG chunk whose type is at `at`.
fn fix_crc(png: &mut [u8], at: usize) {
    let length = u32::from_be_bytes(png[at - 4..at].try_into().unwrap()) as usize;
    let end = at + 4 + length;
    let mut crc = u32::MAX;
    for byte in &png[at..end] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    png[end..end + 4].copy_from_slice(&(!crc).to_be_bytes());
}

#[test]
fn a_parameter_file_lies_over_the_preset_and_the_command_line_over_both() {
    let place = Place::new();
    let file = place.write("mine.yaml", "steps: 2\nseed: 9\nsampler: heun\n");
    let said = place
        .run(&[
            "generate",
            "-p",
            "tiny/basic",
            "--param-file",
            file.to_str().unwrap(),
            "-s",
            "seed=10",
            "--dry-run",
        ])
        .ok();
    let line = |field: &str| said.out.lines().find(|l| l.trim().starts_with(field)).unwrap().to_string();
    assert!(line("steps").contains("mine.yaml:1"), "{}", line("steps"));
    assert!(line("seed").contains("10") && line("seed").contains("command line"), "{}", line("seed"));
    assert!(line("prompt").contains("preset tiny/basic:7"), "{}", line("prompt"));
    assert!(line("width").contains("model tiny"), "{}", line("width"));
    assert!(line("cfg_scale").contains("default"), "{}", line("cfg_scale"));
    assert!(!place.path("outputs").exists(), "a dry run leaves nothing");
}

#[test]
fn a_seed_of_minus_one_is_drawn_and_recorded() {
    let place = Place::new();
    let a = sidecar(&place.generate(&["-p", "tiny/quick", "-s", "seed=-1"]))["params"]["seed"].clone();
    let b = sidecar(&place.generate(&["-p", "tiny/quick", "-s", "seed=-1"]))["params"]["seed"].clone();
    assert!(a.as_i64().unwrap() >= 0);
    assert_ne!(a, b);
}

#[test]
fn labels_of_other_programs_name_samplers_too_and_the_record_has_our_key() {
    let place = Place::new();
    let image = place.generate(&["-p", "tiny/quick", "-s", "sampler=Euler a"]);
    assert_eq!(sidecar(&image)["params"]["sampler"], "euler_a");
}

#[test]
fn an_empty_prompt_and_one_longer_than_a_chunk_both_draw() {
    let place = Place::new();
    place.generate(&["-p", "tiny/quick", "-s", "prompt="]);
    let long = format!("prompt={}", "red shoes ".repeat(100));
    let end = format!("{long} in snow");
    let images = [&long, &end].map(|prompt| place.generate(&["-p", "tiny/quick", "-s", prompt]));
    assert_ne!(pixels(&images[0]), pixels(&images[1]), "the end of the prompt is not seen");
}

#[test]
fn a_model_is_found_by_the_path_of_its_folder() {
    let place = Place::new();
    let folder = crate::support::root().join("tests/fixtures/golden/tiny-sd");
    let by_path = ["-p", "tiny/quick", "-m", folder.to_str().unwrap(), "-s", "width=64", "-s", "height=64"];
    let image = place.generate(&by_path);
    assert_eq!(pixels(&image), pixels(&place.generate(&["-p", "tiny/quick"])));
    let again = place.generate(&["--like", image.to_str().unwrap()]);
    assert_eq!(pixels(&again), pixels(&image));
}

#[test]
fn weights_kept_in_fewer_bits_draw_nearly_the_same_picture_and_the_record_says_so() {
    let place = Place::new();
    let (_, _, full) = pixels(&place.generate(&["-p", "tiny/basic"]));
    for dtype in ["f16", "bf16", "int8"] {
        let image = place.generate(&["-p", "tiny/basic", "--precision", dtype]);
        let record = std::fs::read_to_string(image.with_file_name("run.json")).unwrap();
        assert!(record.contains(&format!("cpu {dtype}")), "{record}");
        let (_, _, half) = pixels(&image);
        assert_ne!(full, half, "{dtype} changed nothing");
        let differ: u64 = full.iter().zip(&half).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = differ as f64 / full.len() as f64;
        assert!(mean < 8.0, "{dtype}: {mean} of 255 on average");
    }
}

#[test]
fn features_of_other_steps_draw_a_picture_near_the_whole_network_s_for_less() {
    let place = Place::new();
    let base = ["-p", "tiny/basic", "-s", "steps=6"];
    let draw = |more: &[&str]| {
        let image = place.generate(&[&base[..], more].concat());
        let run: Value =
            serde_json::from_slice(&std::fs::read(image.with_file_name("run.json")).unwrap()).unwrap();
        (pixels(&image).2, run["facts"]["operations"].as_u64().unwrap())
    };
    let (whole, all) = draw(&[]);
    assert_eq!(draw(&["-s", "deep_cache=1"]).0, whole);
    let (reused, fewer) = draw(&["-s", "deep_cache=2"]);
    let away = |a: &[u8], b: &[u8]| {
        let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / a.len() as f64
    };
    let differ = away(&whole, &reused);
    assert!(differ > 0.0 && differ < 16.0, "{differ} of 255 on average");
    assert!(fewer < all, "{fewer} operations of {all}");
    let (batched, _) = draw(&["-s", "deep_cache=2", "-s", "cfg_batch=batch"]);
    assert!(away(&reused, &batched) < 0.5, "both prompts reuse their own features");
    // Longer than the run: one whole evaluation for each prompt.
    let (_, least) = draw(&["-s", "deep_cache=100"]);
    assert!(least < fewer);
    place.run(&["generate", "-p", "tiny/basic", "-s", "deep_cache=0"]).fails(3, &["deep_cache"]);
}

#[test]
fn variations_stay_near_an_image_and_are_made_again_each_from_its_own_picture() {
    let place = Place::new();
    let base = ["-p", "tiny/quick", "-s", "seed=4", "-s", "steps=3"];
    let draw = |more: &[&str]| place.generate(&[&base[..], more].concat());
    let plain = pixels(&draw(&[]));
    assert_eq!(plain, pixels(&draw(&["-s", "subseed=9", "-s", "subseed_strength=0"])));
    let little = draw(&["-s", "subseed=9", "-s", "subseed_strength=0.1"]);
    let far = pixels(&draw(&["-s", "subseed=9", "-s", "subseed_strength=1"]));
    let away = |other: &(u32, u32, Vec<u8>)| -> u64 {
        plain.2.iter().zip(&other.2).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    };
    let near = away(&pixels(&little));
    assert!(near > 0 && near < away(&far), "{near} {}", away(&far));
    // The second of two has the next subseed and the same seed.
    let all = ["generate", "--json"];
    let more = ["-s", "subseed=9", "-s", "subseed_strength=0.1", "-s", "count=2"];
    let said = place.run(&[&all[..], &base, &more].concat()).ok().json();
    let second = place.path(said["images"][1].as_str().unwrap());
    assert_eq!(pixels(&place.generate(&["--like", second.to_str().unwrap()])), pixels(&second));
    assert_ne!(pixels(&second), pixels(&little));
}

#[test]
fn a_matrix_draws_every_combination_with_the_same_seeds() {
    let place = Place::new();
    let args = ["generate", "--json", "-p", "tiny/quick", "-s", "seed=4", "-s", "count=2"];
    let matrix = ["-s", "prompt={red|blue} shoe", "-s", "negative_prompt={x|}", "-s", "prompt_matrix=true"];
    let said = place.run(&[&args[..], &matrix].concat()).ok().json();
    let images: Vec<_> =
        said["images"].as_array().unwrap().iter().map(|i| place.path(i.as_str().unwrap())).collect();
    let told: Vec<_> = images.iter().map(|i| sidecar(i)["params"].clone()).collect();
    let text = |i: usize, field: &str| told[i][field].as_str().unwrap().to_string();
    let seeds: Vec<_> = told.iter().map(|p| p["seed"].as_i64().unwrap()).collect();
    assert_eq!(seeds, [4, 5, 4, 5, 4, 5, 4, 5]);
    assert_eq!((text(0, "prompt"), text(0, "negative_prompt")), ("red shoe".into(), "x".into()));
    assert_eq!((text(7, "prompt"), text(7, "negative_prompt")), ("blue shoe".into(), "".into()));
    assert_eq!(pixels(&place.generate(&["--like", images[5].to_str().unwrap()])), pixels(&images[5]));
    let many = ["-s", "prompt={a|b|c}{a|b|c}{a|b|c}{a|b|c}{a|b|c}{a|b|c}{a|b|c}{a|b|c}{a|b|c}"];
    place
        .run(&[&args[..1], &args[2..], &matrix[4..], &many].concat())
        .fails(3, &["/prompt_matrix", "more than 5000"]);
}
