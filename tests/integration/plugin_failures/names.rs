//! One key from several sources.

use super::{Failure, Studio};
use crate::plugin_fixtures::{file_name, library};

fn both() -> Studio {
    Studio::with(&[library("duplicate"), library("failing")])
}

#[test]
fn a_built_in_key_stays_built_in_and_the_other_goes_by_its_full_name() {
    let base = Studio::new().picture(&["sampler=euler", "steps=3"]);
    let studio = both();
    assert_eq!(base, studio.picture(&["sampler=euler", "steps=3"]));
    assert_ne!(base, studio.picture(&["sampler=duplicate/euler", "steps=3"]));
}

#[test]
fn a_key_of_two_libraries_is_ambiguous_and_both_full_names_are_said() {
    let studio = both();
    let said = studio.generate(&["sampler=ok_euler"], &["--json"]);
    assert_eq!(said.code, 3, "{said:?}");
    let failure = Failure::of(&said);
    let words = format!("{}\n{}", failure.causes, failure.hints);
    assert!(words.contains("duplicate/ok_euler") && words.contains("failing/ok_euler"), "{words}");
    let base = studio.picture(&["sampler=euler", "steps=3"]);
    assert_eq!(base, studio.picture(&["sampler=failing/ok_euler", "steps=3"]));
    assert_ne!(base, studio.picture(&["sampler=duplicate/ok_euler", "steps=3"]));
}

#[test]
fn the_settings_choose_which_library_a_key_stands_for() {
    let studio = both().settings("{override: {euler: duplicate/euler, ok_euler: failing/ok_euler}}");
    let base = Studio::new().picture(&["sampler=euler", "steps=3"]);
    assert_eq!(base, studio.picture(&["sampler=ok_euler", "steps=3"]));
    let other = studio.picture(&["sampler=euler", "steps=3"]);
    assert_ne!(base, other);
    assert_eq!(other, studio.picture(&["sampler=duplicate/euler", "steps=3"]));
}

#[test]
fn an_override_by_a_plugin_that_is_not_there_is_said() {
    let studio = Studio::failing().settings("{override: {euler: nobody/euler}}");
    let said = studio.generate(&["sampler=euler"], &["--json"]);
    assert!(said.code > 0, "{said:?}");
    Failure::of(&said).says(&["nobody/euler"]);
}

#[test]
fn a_library_under_two_names_is_used_once() {
    let studio = Studio::failing();
    let copy = file_name("failing_again");
    studio.put_bytes(&copy, &std::fs::read(library("failing")).unwrap());
    studio.trust(&copy).ok();
    let list = studio.run(&["plugins", "list", "--failed", "--json"]).ok().json();
    let same: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["message"].as_str().is_some_and(|m| m.contains("same library as")))
        .collect();
    assert_eq!(same.len(), 1, "{list}");
    // Not ambiguous: there is only one of it.
    studio.image(&["sampler=ok_euler"]);
}

#[test]
fn a_folder_that_the_settings_name_is_searched() {
    let studio = Studio::new();
    let file = studio.place.path("elsewhere").join(file_name("failing"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::copy(library("failing"), &file).unwrap();
    let studio = studio.settings("{paths: [elsewhere]}");
    studio.run(&["plugins", "trust", file.to_str().unwrap()]).ok();
    studio.image(&["sampler=ok_euler"]);
}
