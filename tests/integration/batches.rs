//! Images that are drawn together.

use crate::support::{Place, pixels};
use std::path::PathBuf;

fn run(place: &Place, sets: &[&str]) -> Vec<PathBuf> {
    let size = ["-s", "width=64", "-s", "height=64", "-s", "seed=3", "-s", "steps=4"];
    let mut args = vec!["generate", "--json", "-m", "tiny"];
    args.extend(size);
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    if !sets.iter().any(|s| s.starts_with("image=")) {
        args.extend(["--task", "txt2img"]);
    } else {
        args.extend(["--task", "img2img"]);
    }
    let said = place.run(&args).ok().json();
    said["images"].as_array().unwrap().iter().map(|i| place.path(i.as_str().unwrap())).collect()
}

/// The largest difference of any two pictures that belong together.
fn differ(a: &[PathBuf], b: &[PathBuf]) -> u8 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).map(|(a, b)| (pixels(a).2, pixels(b).2));
    pairs.flat_map(|(a, b)| a.into_iter().zip(b)).map(|(a, b)| a.abs_diff(b)).max().unwrap()
}

#[test]
fn images_drawn_together_are_those_drawn_one_by_one() {
    let place = Place::new();
    let image = place.generate(&["-p", "tiny/quick"]);
    let image = format!("image={}", image.display());
    for sets in [
        // Noise in every step, prompts of different lengths, and one that changes on the way.
        &["sampler=euler_a", "prompt={red|[blue:green:0.5]} shoe", "count=4"][..],
        &["sampler=dpmpp_sde", "prompt=a shoe", "count=3", "cfg_batch=batch"],
        &["sampler=heun", "cfg_scale=1", "count=3"],
        &["prompt=a shoe", "count=3", "hires.scale=1.5"],
        &["count=3", &image, "strength=0.6"],
        // One that evaluates twice in a step, and prompts whose features are forgotten on the way.
        &["sampler=heun", "prompt={red|[blue:green:0.5]} shoe", "count=4", "deep_cache=2"],
    ] {
        let alone = run(&place, sets);
        let together = run(&place, &[sets, &["batch_size=3"]].concat());
        let worst = differ(&alone, &together);
        println!("{sets:?}: {worst} of 255");
        assert!(worst <= 1, "{sets:?}: {worst}");
        assert!(differ(&alone[..1], &alone[1..2]) > 1, "the images are different ones");
    }
}

#[test]
fn an_image_of_a_batch_is_made_again_from_its_own_record() {
    let place = Place::new();
    let images = run(&place, &["sampler=euler_a", "count=3", "batch_size=3"]);
    let again = place.generate(&["--like", images[1].to_str().unwrap()]);
    assert!(differ(&images[1..2], &[again]) <= 1);
}
