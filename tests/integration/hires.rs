//! Two passes, as a person asks for them.

use crate::support::{Place, pixels};

const BASE: [&str; 10] =
    ["--task", "txt2img", "-m", "tiny", "-s", "seed=3", "-s", "steps=3", "-s", "width=64"];

fn draw(place: &Place, sets: &[&str]) -> std::path::PathBuf {
    let mut args = [&BASE[..], &["-s", "height=64"]].concat();
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    place.generate(&args)
}

#[test]
fn each_upscaler_gives_the_larger_size_and_an_image_of_its_own() {
    let place = Place::new();
    let mut seen = Vec::new();
    for upscaler in ["latent", "latent-nearest", "latent-bicubic", "lanczos", "bicubic", "nearest"] {
        let set = format!("hires.upscaler={upscaler}");
        let (w, h, data) = pixels(&draw(&place, &[&set, "hires.scale=1.5", "hires.strength=0.5"]));
        assert_eq!((w, h), (96, 96), "{upscaler}");
        assert!(!seen.contains(&data), "{upscaler} gives what another gives");
        seen.push(data);
    }
}

#[test]
fn a_second_pass_is_made_again_from_its_picture_also_by_a1111_s_text() {
    let place = Place::new();
    let first = draw(&place, &["hires.height=128", "hires.steps=2", "hires.upscaler=latent-nearest"]);
    let again = place.generate(&["--like", first.to_str().unwrap()]);
    assert_eq!(pixels(&first), pixels(&again));
    let sidecar = std::fs::read_to_string(first.with_extension("json")).unwrap();
    assert!(sidecar.contains("latent-nearest"), "{sidecar}");
    let bytes = std::fs::read(&first).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for setting in [
        "Size: 64x64",
        "Hires resize: 0x128",
        "Hires steps: 2",
        "Hires upscaler: Latent (nearest)",
        "Denoising strength: 0.7",
    ] {
        assert!(text.contains(setting), "no {setting:?}");
    }
}

/// The second pass is img2img from the enlarged first one: with a pixel upscaler, both can be done by hand.
#[test]
fn the_second_pass_by_hand_gives_nearly_the_same_image() {
    let place = Place::new();
    let (w, h, two) =
        pixels(&draw(&place, &["hires.scale=2", "hires.upscaler=nearest", "hires.strength=0.5"]));
    let first = draw(&place, &[]);
    let (fw, _, data) = pixels(&first);
    let large: Vec<u8> = (0..w * h)
        .flat_map(|i| {
            let at = (((i / w / 2) * fw + (i % w) / 2) * 3) as usize;
            [data[at], data[at + 1], data[at + 2]]
        })
        .collect();
    let path = place.path("large.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), w, h);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&large).unwrap();
    let image = format!("image={}", path.display());
    let by_hand = place.generate(&[
        "--task",
        "img2img",
        "-m",
        "tiny",
        "-s",
        "seed=3",
        "-s",
        "steps=3",
        "-s",
        "width=128",
        "-s",
        "height=128",
        "-s",
        &image,
        "-s",
        "strength=0.5",
        "-s",
        "compat=comfy",
    ]);
    let (_, _, by_hand) = pixels(&by_hand);
    let worst = two.iter().zip(&by_hand).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{worst} of 255");
}

#[test]
fn sizes_and_names_that_do_not_fit_are_told_before_anything_is_drawn() {
    let place = Place::new();
    let refused = |sets: &[&str], words: &[&str]| {
        let mut args = [&["generate"], &BASE[..], &["-s", "height=64"]].concat();
        args.extend(sets.iter().flat_map(|s| ["-s", s]));
        let said = place.run(&args).fails(3, words);
        assert!(!said.err.contains("00001.png"));
    };
    refused(&["hires.scale=1.3"], &["/hires/scale", "80x80 (scale 1.25)", "88x88 (scale 1.375)"]);
    refused(&["hires.width=32"], &["/hires/width", "smaller than the first pass"]);
    refused(&["hires.width=128", "hires.height=64"], &["another shape"]);
    refused(&["hires.upscaler=magic"], &["/hires/upscaler"]);
    refused(&["hires.steps=5"], &["/hires/scale", "not its size"]);
    refused(&["hires.strength=2"], &["/hires/strength"]);
    refused(&["hires.prompt={0::a|0::b}"], &["/hires/prompt"]);
    refused(&["hires.prompt=<lora:a:1>"], &["/hires/prompt"]);
    let sets = ["-s", "hires.scale=2", "-s", "hires.sampler=eulr"];
    let said = place.run(&[&["generate"], &BASE[..], &sets].concat());
    assert!(said.code != 0 && said.err.contains("eulr"), "{said:?}");
}
