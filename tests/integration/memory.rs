//! How runs share the memory.

use crate::support::{Place, pixels};
use std::path::PathBuf;

fn run(place: &Place, sets: &[&str]) -> Vec<PathBuf> {
    let mut args =
        vec!["generate", "--json", "--task", "txt2img", "-m", "tiny", "-s", "seed=3", "-s", "steps=2"];
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    let said = place.run(&args).ok().json();
    said["images"].as_array().unwrap().iter().map(|i| place.path(i.as_str().unwrap())).collect()
}

#[test]
fn networks_that_take_turns_draw_the_same_images() {
    let place = Place::new();
    let sets = ["width=64", "height=64", "count=10"];
    let resident = run(&place, &[&sets[..], &["memory=resident"]].concat());
    let staged = run(&place, &[&sets[..], &["memory=staged"]].concat());
    assert_eq!(staged.len(), 10);
    for (a, b) in resident.iter().zip(&staged) {
        assert_eq!(pixels(a), pixels(b));
    }
    // The files, the text encoder once since all images have one prompt, and two networks for 8 images and for 2.
    let events = std::fs::read_to_string(staged[0].with_file_name("events.jsonl")).unwrap();
    assert_eq!(events.matches(r#""stage":"load""#).count(), 1 + 1 + 2 + 2, "{events}");
}

#[test]
fn a_run_says_what_it_took() {
    let place = Place::new();
    let images = run(&place, &["width=64", "height=64"]);
    let ledger = std::fs::read_to_string(images[0].with_file_name("run.json")).unwrap();
    let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap();
    let peak = ledger["facts"]["peak_memory"].as_u64().unwrap();
    assert!((1 << 20..1 << 34).contains(&peak), "{peak}");
}

#[test]
fn a_limit_makes_networks_take_turns_with_words_or_refuses_the_run() {
    let place = Place::new();
    let limited = |limit: &str, policy: &str| {
        let (limit, policy) = (format!("memory_limit={limit}"), format!("memory={policy}"));
        let args = ["generate", "--task", "txt2img", "-m", "tiny", "-s", "seed=3", "-s", "steps=1"];
        place
            .run(&[&args[..], &["-s", &limit, "-s", &policy, "-s", "width=256", "-s", "height=256"]].concat())
    };
    let mib = |text: &str| -> f64 {
        let (_, rest) = text.split_once("about ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let refused = limited("0.01", "auto").fails(6, &["memory_limit` allows 10.2 MiB", "smaller image"]);
    let staged = mib(&refused.err);
    let refused = limited("0.01", "resident").fails(6, &["memory: staged"]);
    let resident = mib(&refused.err);
    assert!(staged < resident, "{staged} {resident}");
    let between = ((staged + resident) / 2048.0).to_string();
    let said = limited(&between, "auto").ok();
    assert!(said.err.contains("loaded one after the other"), "{said:?}");
}
