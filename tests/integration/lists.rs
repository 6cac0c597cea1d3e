//! What is found, and how it is shown.

use crate::support::Place;
use serde_json::Value;

fn keys(list: &Value, kind: &str) -> Vec<String> {
    let items = list.as_array().unwrap().iter();
    items.filter(|i| i["kind"] == kind).map(|i| i["key"].as_str().unwrap().to_string()).collect()
}

#[test]
fn exactly_the_plugins_of_this_build_are_found() {
    let list = Place::new().run(&["plugins", "list", "--json"]).ok().json();
    let tasks = "benchmark dataset-analyze dataset-check dataset-demo dataset-prepare img2img inpaint lora-convert lora-extract \
                 lora-inspect lora-merge model-convert model-inspect train-lora train-search txt2img upscale";
    assert_eq!(keys(&list, "task"), tasks.split(' ').collect::<Vec<_>>());
    assert_eq!(
        keys(&list, "engine"),
        ["adapters", "benchmark", "dataset", "esrgan", "lora-trainer", "model-tools", "stable-diffusion"]
    );
    let samplers = "ddim ddpm deis dpm2 dpm2_a dpmpp_2m dpmpp_2m_sde dpmpp_2s_a dpmpp_3m_sde dpmpp_sde euler euler_a \
                    heun ipndm lcm lms pndm restart tcd unipc";
    assert_eq!(keys(&list, "sampler"), samplers.split(' ').collect::<Vec<_>>());
    let schedules =
        "ays beta ddim_uniform exponential karras kl_optimal normal polyexponential raw sgm_uniform simple";
    assert_eq!(keys(&list, "schedule"), schedules.split(' ').collect::<Vec<_>>());
    assert_eq!(keys(&list, "model"), ["tiny"]);
}

#[test]
fn every_list_speaks_json_and_text() {
    let place = Place::new();
    for list in ["plugins", "engines", "tasks", "samplers", "schedules", "models", "presets"] {
        assert!(place.run(&[list, "list", "--json"]).ok().json().is_array(), "{list}");
        assert!(place.run(&[list, "list"]).ok().out.lines().count() > 1, "{list}");
    }
}

#[test]
fn the_schema_of_a_task_lists_the_choices_among_plugins() {
    let schema = Place::new().run(&["schema", "stable-diffusion", "txt2img"]).ok().json();
    let choices = schema["properties"]["sampler"]["enum"].as_array().unwrap();
    assert!(choices.contains(&"dpmpp_2m".into()), "{choices:?}");
    for (name, field) in schema["properties"].as_object().unwrap() {
        assert!(field["description"].is_string(), "{name} has no description");
        assert!(!field["default"].is_null(), "{name} has no default");
    }
}

#[test]
fn the_schema_of_a_sampler_shows_its_options() {
    let schema = Place::new().run(&["schema", "sampler", "ddim"]).ok().json();
    assert!(schema["properties"]["eta"].is_object(), "{schema}");
}

#[test]
fn doctor_tells_devices_models_and_write_access() {
    let report = Place::new().run(&["doctor", "--json"]).ok().json();
    assert_eq!(report["devices"][0]["device"], "cpu");
    assert_eq!(report["devices"][0]["available"], true);
    assert_eq!(report["models"][0]["state"], "found");
    assert_eq!(report["outputs"]["writable"], true);
    assert!(report["memory"]["total"].as_u64().unwrap() > 0);
}

#[test]
fn the_presets_of_the_repository_are_right_or_name_what_is_missing() {
    let place = Place::new();
    let configs = crate::support::root().join("configs");
    let said = place.run(&["--configs", configs.to_str().unwrap(), "presets", "validate", "--json"]).ok();
    let verdict = |name: &str| {
        let list = said.json();
        let found = list.as_array().unwrap().iter().find(|p| p["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("no preset {name}"))["verdict"].as_str().unwrap().to_string()
    };
    assert_eq!(verdict("txt2img/basic"), "valid");
    assert_eq!(verdict("img2img/restore"), "valid; to be given: image");
    assert_eq!(verdict("inpaint/simple"), "valid; to be given: image, mask");
    assert_eq!(verdict("train-lora/mini-casual-shoes"), "valid");
    assert_eq!(verdict("train-lora/sd15-prototype"), "valid; to be given: train_dir, val_dir");
    assert_eq!(verdict("txt2img/basic-upscaled"), "valid");
    assert_eq!(verdict("upscale/real-esrgan"), "valid; to be given: image");
    assert_eq!(verdict("upscale/photo-x2"), "valid; to be given: image");
    assert_eq!(verdict("upscale/anime-video"), "valid; to be given: image");
}

#[test]
fn a_preset_is_shown_with_who_set_each_field() {
    let said = Place::new().run(&["presets", "show", "tiny/quick"]).ok();
    for line in ["steps: 1", "model tiny", "preset tiny/quick:5", "preset tiny/basic:7"] {
        assert!(said.out.contains(line), "no {line:?} in\n{}", said.out);
    }
}

#[test]
fn a_shown_preset_is_a_preset_again() {
    let place = Place::new();
    let shown = place.run(&["presets", "show", "tiny/basic"]).ok().out;
    let copy = place.write("copy.yaml", shown);
    let image = |preset: &str| crate::support::pixels(&place.generate(&["-p", preset]));
    assert_eq!(image(copy.to_str().unwrap()), image("tiny/basic"));
}
