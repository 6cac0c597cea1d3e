//! img2img and inpaint, as a person uses them.

use crate::support::{Place, pixels};
use std::path::{Path, PathBuf};

fn png(place: &Place, name: &str, width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> PathBuf {
    let path = place.path(name);
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    let data: Vec<u8> = (0..width * height).flat_map(|i| pixel(i % width, i / width)).collect();
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    path
}

/// A picture with a pattern, and a mask of its lower right quarter.
fn scene(place: &Place) -> (String, String) {
    let image = png(place, "image.png", 64, 64, |x, y| [(x * 4) as u8, (y * 4) as u8, 128]);
    let mask = png(place, "mask.png", 64, 64, |x, y| if x >= 32 && y >= 32 { [255; 3] } else { [0; 3] });
    let set = |name: &str, file: &Path| format!("{name}={}", file.display());
    (set("image", &image), set("mask", &mask))
}

fn draw(place: &Place, task: &str, sets: &[&str]) -> (u32, u32, Vec<u8>) {
    let mut args = vec!["--task", task, "-m", "tiny", "-s", "seed=3", "-s", "steps=4"];
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    pixels(&place.generate(&args))
}

/// Mean difference of two pictures where `inside` says so.
fn difference(a: &[u8], b: &[u8], width: u32, inside: impl Fn(u32, u32) -> bool) -> f64 {
    let mut sum = (0f64, 0u32);
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let pixel = i as u32 / 3;
        if inside(pixel % width, pixel / width) {
            sum = (sum.0 + f64::from(a.abs_diff(*b)), sum.1 + 1);
        }
    }
    sum.0 / f64::from(sum.1.max(1))
}

#[test]
fn a_higher_strength_leaves_less_of_the_image() {
    let place = Place::new();
    let (image, _) = scene(&place);
    // The tiny model's autoencoder changes an image by itself: its own round trip is what strength 0 gives.
    let at = |s: &str| draw(&place, "img2img", &[&image, &format!("strength={s}"), "compat=diffusers"]).2;
    let (none, low, high) = (at("0"), at("0.3"), at("1"));
    let all = |_: u32, _: u32| true;
    let (low, high) = (difference(&none, &low, 64, all), difference(&none, &high, 64, all));
    assert!(low > 0.0 && high > low, "{low} {high}");
}

#[test]
fn an_image_to_image_run_is_made_again_from_its_picture() {
    let place = Place::new();
    let (image, _) = scene(&place);
    let args = ["--task", "img2img", "-m", "tiny", "-s", "steps=3", "-s", &image];
    let first = place.generate(&args);
    let again = place.generate(&["--like", first.to_str().unwrap()]);
    assert_eq!(pixels(&first), pixels(&again));
}

#[test]
fn inpainting_keeps_every_pixel_outside_the_mask() {
    let place = Place::new();
    let (image, mask) = scene(&place);
    let before = pixels(&place.path("image.png")).2;
    let masked = |x: u32, y: u32| x >= 32 && y >= 32;
    for fill in ["original", "noise", "blank"] {
        let set = format!("fill={fill}");
        let sets = [&*image, &mask, &set, "mask_blur=0", "strength=1"];
        let (w, h, after) = draw(&place, "inpaint", &sets);
        assert_eq!((w, h), (64, 64));
        assert_eq!(difference(&before, &after, 64, |x, y| !masked(x, y)), 0.0, "{fill}");
        assert!(difference(&before, &after, 64, masked) > 1.0, "{fill}");
    }
    let (_, _, inverted) = draw(&place, "inpaint", &[&image, &mask, "invert_mask=true", "mask_blur=0"]);
    assert_eq!(difference(&before, &inverted, 64, masked), 0.0);
}

#[test]
fn only_the_surroundings_of_a_mask_are_drawn_into_an_image_of_any_size() {
    let place = Place::new();
    let image = png(&place, "large.png", 301, 203, |x, y| [x as u8, y as u8, 9]);
    let mask = png(&place, "spot.png", 301, 203, |x, y| if x < 40 && y < 30 { [255; 3] } else { [0; 3] });
    let before = pixels(&image).2;
    let (image, mask) = (format!("image={}", image.display()), format!("mask={}", mask.display()));
    let sets = [&*image, &mask, "only_masked=true", "padding=8", "mask_blur=2"];
    let (w, h, after) = draw(&place, "inpaint", &sets);
    assert_eq!((w, h), (301, 203));
    assert_eq!(difference(&before, &after, 301, |x, y| x > 60 || y > 50), 0.0);
    assert!(difference(&before, &after, 301, |x, y| x < 30 && y < 20) > 1.0);
}

#[test]
fn an_extended_image_keeps_what_was_there() {
    let place = Place::new();
    let (image, _) = scene(&place);
    let before = pixels(&place.path("image.png")).2;
    let sets = [&*image, "outpaint.left=16", "outpaint.bottom=8", "mask_blur=0", "strength=1", "fill=noise"];
    let (w, h, after) = draw(&place, "inpaint", &sets);
    assert_eq!((w, h), (80, 72));
    let moved: Vec<u8> = (0..64u32)
        .flat_map(|y| (0..64u32).map(move |x| (x, y)))
        .flat_map(|(x, y)| {
            let at = ((y * 80 + x + 16) * 3) as usize;
            [after[at], after[at + 1], after[at + 2]]
        })
        .collect();
    assert_eq!(difference(&before, &moved, 64, |_, _| true), 0.0);
}

#[test]
fn wrong_images_and_masks_are_told_with_the_field() {
    let place = Place::new();
    let (image, mask) = scene(&place);
    let task = |task: &str, sets: &[&str]| {
        let mut args = vec!["generate", "--task", task, "-m", "tiny", "-s", "steps=2"];
        args.extend(sets.iter().flat_map(|s| ["-s", s]));
        place.run(&args)
    };
    task("img2img", &[]).fails(3, &["/image", "no file is named"]);
    task("inpaint", &[&image]).fails(3, &["/mask", "outpaint"]);
    task("img2img", &["image=nowhere.png"]).fails(3, &["/image", "nowhere.png"]);
    place.write("text.png", "not an image");
    task("img2img", &["image=text.png"]).fails(3, &["/image", "text.png"]);
    png(&place, "small.png", 9, 9, |_, _| [255; 3]);
    task("inpaint", &[&image, "mask=small.png"]).fails(3, &["9x9", "64x64"]);
    png(&place, "black.png", 64, 64, |_, _| [0; 3]);
    task("inpaint", &[&image, "mask=black.png"]).fails(3, &["black all over"]);
    task("inpaint", &[&image, &mask, "only_masked=true", "outpaint.left=8"]).fails(3, &["/only_masked"]);
    task("img2img", &[&image, "strength=2"]).fails(3, &["/strength", "more than 1"]);
    task("img2img", &[&image, "strenght=0.5"]).fails(3, &["/strenght", "did you mean `strength`"]);
    png(&place, "dot.png", 1, 1, |_, _| [10, 200, 30]);
    let (w, h, _) = draw(&place, "img2img", &["image=dot.png"]);
    assert_eq!((w, h), (64, 64));
}
