//! What is shown of images in work, and what decodes them.

use crate::support::{Place, golden, pixels, root};
use serde_json::Value;
use std::path::{Path, PathBuf};

const TINY: [&str; 8] = ["--task", "txt2img", "-m", "tiny", "-s", "seed=3", "-s", "count=2"];

fn draw(place: &Place, sets: &[&str]) -> PathBuf {
    let mut args = [&TINY[..], &["-s", "width=64", "-s", "height=64", "-s", "steps=4"]].concat();
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    place.generate(&args)
}

fn taesd() -> String {
    format!("taesd={}", golden().join("tiny-taesd/diffusion_pytorch_model.safetensors").display())
}

fn previews(image: &Path) -> Vec<Value> {
    let events = std::fs::read_to_string(image.with_file_name("events.jsonl")).unwrap();
    let lines = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|event| event["event"] == "preview").collect()
}

#[test]
fn previews_come_every_so_many_steps_and_change_no_image() {
    let place = Place::new();
    let plain = draw(&place, &[]);
    assert!(previews(&plain).is_empty() && !plain.with_file_name("preview.png").exists());
    for (sets, size) in [(vec!["preview=rgb"], (8, 8)), (vec!["preview=taesd", &taesd()], (64, 64))] {
        let shown = draw(&place, &[&sets[..], &["preview_every=2"]].concat());
        for image in ["00001.png", "00002.png"] {
            assert_eq!(pixels(&plain.with_file_name(image)), pixels(&shown.with_file_name(image)));
        }
        // Of four steps the second; the fourth is the image itself.
        let lines = previews(&shown);
        let of: Vec<_> = lines
            .iter()
            .map(|l| [&l["image"], &l["step"], &l["steps"]].map(|v| v.as_u64().unwrap()))
            .collect();
        assert_eq!(of, [[1, 2, 4], [2, 2, 4]]);
        assert_eq!(lines[0]["file"], "preview.png");
        let (w, h, data) = pixels(&shown.with_file_name("preview.png"));
        assert_eq!((w, h), size);
        assert!(data.iter().any(|v| *v != data[0]), "a preview of one colour");
    }
}

/// The colours of the carried model are fitted to its own autoencoder: a preview near the end is close to the image.
#[test]
fn a_late_preview_has_the_colours_of_the_image() {
    let place = Place::with_own_configs();
    let model = root().join("configs/models/mini");
    let image = place.generate(&[
        "--task",
        "txt2img",
        "-m",
        model.to_str().unwrap(),
        "-s",
        "seed=5",
        "-s",
        "steps=8",
        "-s",
        "width=192",
        "-s",
        "height=192",
        "-s",
        "preview=rgb",
        "-s",
        "prompt=navy blue casual shoes",
        "-s",
        "cfg_scale=5",
    ]);
    let (_, _, full) = pixels(&image);
    let (w, h, small) = pixels(&image.with_file_name("preview.png"));
    assert_eq!((w, h), (24, 24));
    let mut sum = 0f64;
    for (i, v) in small.iter().enumerate() {
        let (x, y, c) = (i / 3 % 24, i / 3 / 24, i % 3);
        let inside = (0..64).map(|p| f64::from(full[((y * 8 + p / 8) * 192 + x * 8 + p % 8) * 3 + c]));
        sum += (inside.sum::<f64>() / 64.0 - f64::from(*v)).abs();
    }
    let mean = sum / small.len() as f64;
    println!("mean difference of the last preview to the image: {mean:.1} of 255");
    assert!(mean < 12.0, "{mean}");
}

#[test]
fn the_tiny_autoencoder_decodes_where_it_is_named() {
    let place = Place::new();
    let (vae, tiny) = (draw(&place, &[]), draw(&place, &["decoder=taesd", &taesd()]));
    let ((w, h, a), (tw, th, b)) = (pixels(&vae), pixels(&tiny));
    assert_eq!((w, h), (tw, th));
    assert_ne!(a, b);
    let args = [&["generate"], &TINY[..], &["-s", "decoder=taesd"]].concat();
    place.run(&args).fails(4, &["TAESD", "parts: {taesd: ...}"]);
    let vae = golden().join("tiny-sd/vae");
    let wrong = format!("taesd={}", vae.display());
    let args = [&["generate"], &TINY[..], &["-s", "preview=taesd", "-s", &wrong]].concat();
    let said = place.run(&args);
    assert!(said.code != 0 && said.err.contains("tiny autoencoder"), "{said:?}");
}

#[test]
fn tiles_give_the_image_of_the_whole_up_to_rounding() {
    let place = Place::new();
    let draw =
        |set: &[&str]| pixels(&draw(&place, &[&["width=192", "height=128", "steps=1"], set].concat())).2;
    let whole = draw(&["vae_tiling=off"]);
    let worst = |other: Vec<u8>| whole.iter().zip(&other).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst(draw(&["vae_tiling=on", "vae_tile=64"])) <= 1);
    assert!(worst(draw(&["vae_tiling=blended", "vae_tile=64"])) > 1);
}

#[test]
fn guidance_in_one_batch_or_one_after_the_other_gives_the_same_image() {
    let place = Place::new();
    let (batch, one) = (draw(&place, &["cfg_batch=batch"]), draw(&place, &["cfg_batch=sequential"]));
    let (batch, one) = (pixels(&batch).2, pixels(&one).2);
    let worst = batch.iter().zip(&one).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{worst} of 255");
}
