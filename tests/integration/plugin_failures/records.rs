//! What an image remembers of the plugins that made it.

use super::Studio;
use crate::plugin_fixtures::library;
use crate::support::pixels;
use serde_json::Value;
use sha2::Digest;
use std::path::Path;

fn sha256(file: &Path) -> String {
    sha2::Sha256::digest(std::fs::read(file).unwrap()).iter().map(|b| format!("{b:02x}")).collect()
}

fn sidecar(image: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(image.with_extension("json")).unwrap()).unwrap()
}

#[test]
fn an_image_names_the_library_that_made_it_and_is_made_again_from_that() {
    let studio = Studio::failing();
    let set = ["sampler=ok_euler", "sampler_options.gain=0.9", "steps=3", "schedule=ok_schedule", "seed=41"];
    let image = studio.image(&set);
    assert_eq!(image.file_name().unwrap(), "00001.png");
    let plugins = sidecar(&image)["plugins"].to_string();
    for part in ["\"failing\"", "\"version\"", &sha256(&library("failing"))] {
        assert!(plugins.contains(part), "no {part} in {plugins}");
    }
    for source in [image.clone(), image.with_extension("json")] {
        let said = studio.run(&["generate", "--like", source.to_str().unwrap(), "--json"]).ok();
        let again = studio.place.path(said.json()["images"][0].as_str().unwrap());
        assert_eq!(pixels(&again), pixels(&image), "{}", source.display());
    }
}

#[test]
fn an_image_made_without_a_library_names_none() {
    let studio = Studio::failing();
    let plugins = sidecar(&studio.image(&["sampler=euler"]))["plugins"].to_string();
    assert!(!plugins.contains("failing") && !plugins.contains("sha256"), "{plugins}");
}

#[test]
fn an_image_whose_library_is_gone_tells_what_is_missing() {
    let image = {
        let studio = Studio::failing();
        let image = studio.image(&["sampler=ok_euler"]);
        std::fs::read(image.with_extension("json")).unwrap()
    };
    let studio = Studio::new();
    let file = studio.place.write("gone.json", image);
    let said = studio.run(&["generate", "--like", file.to_str().unwrap()]);
    said.fails(3, &["ok_euler", "failing"]);
}
