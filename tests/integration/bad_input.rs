//! Whatever is wrong with a request is said: what, where, what to do. Exit codes are documented.

use crate::support::Place;

fn generate(place: &Place, sets: &[&str]) -> crate::support::Said {
    let mut args = vec!["generate", "--preset", "tiny/quick"];
    for set in sets {
        args.extend(["--set", set]);
    }
    place.run(&args)
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let place = Place::new();
    let ask = |args: &[&str]| place.run(&[&["generate"], args].concat());
    ask(&["--preset", "tiny/basix"]).fails(4, &["no preset named `tiny/basix`", "did you mean `tiny/basic`"]);
    ask(&["--preset", "tiny/quick", "--engine", "stable-difusion"])
        .fails(4, &["no engine named", "did you mean `stable-diffusion`"]);
    ask(&["--preset", "tiny/quick", "--task", "txt2imgg"])
        .fails(4, &["no task named", "did you mean `txt2img`"]);
    ask(&["--preset", "tiny/quick", "--model", "tinny"]).fails(4, &["no model named", "did you mean `tiny`"]);
    generate(&place, &["sampler=eulr"]).fails(3, &["/sampler", "did you mean `euler`", "command line"]);
    generate(&place, &["step=4"]).fails(3, &["/step: there is no such field", "did you mean `steps`"]);
}

#[test]
fn every_wrong_field_is_told_at_once() {
    generate(
        &Place::new(),
        &["width=100", "steps=0", "cfg_scale=high", "seed=1.5", "sampler=x", "count=-1", "colour=red"],
    )
    .fails(
        3,
        &[
            "7 fields are wrong",
            "/width: 100 is not a multiple of 8",
            "the nearest are 96 and 104",
            "/steps: 0 is less than 1",
            "/cfg_scale: \"high\" is not a number",
            "/seed: 1.5 is not a whole number",
            "/sampler",
            "/count: -1 is less than 1",
            "/colour",
        ],
    );
}

#[test]
fn options_of_a_sampler_are_held_to_its_own_schema() {
    let place = Place::new();
    generate(&place, &["sampler=ddim", "sampler_options.eta=many"])
        .fails(3, &["/sampler_options/eta", "not a number", "ddim"]);
    generate(&place, &["sampler=ddim", "sampler_options.etta=1"])
        .fails(3, &["/sampler_options/etta", "did you mean `eta`"]);
    generate(&place, &["sampler=ddim", "sampler_options.eta=1"]).ok();
}

#[test]
fn sizes_beyond_all_bounds_are_refused_before_anything_is_allocated() {
    let place = Place::new();
    generate(&place, &["width=100000"]).fails(3, &["/width: 100000 is more than 4096"]);
    generate(&place, &["width=4096", "height=4096"]).fails(3, &["16777216 pixels"]);
    generate(&place, &["width=99999999999999999999"]).fails(3, &["width=99999999999999999999"]);
    generate(&place, &["steps=1e400"]).fails(3, &["steps"]);
}

#[test]
fn assignments_that_are_none_are_explained() {
    let place = Place::new();
    generate(&place, &["steps"]).fails(3, &["has no `=`", "--set steps=20"]);
    generate(&place, &["=4"]).fails(3, &["names no field"]);
    generate(&place, &["steps=[1"]).fails(3, &["--set steps=[1"]);
}

#[test]
fn values_that_json_cannot_hold_are_told_with_their_place() {
    let place = Place::with_own_configs();
    place.write("configs/presets/a.yaml", "schema_version: 1\ntask: txt2img\nparams:\n  cfg_scale: .nan\n");
    place.run(&["generate", "-p", "a"]).fails(3, &["presets/a.yaml", "/params/cfg_scale", "finite number"]);
}

#[test]
fn documents_of_a_newer_version_are_refused_by_their_version() {
    let place = Place::with_own_configs();
    place.write("configs/presets/a.yaml", "schema_version: 2\nnovelty: {}\n");
    place.run(&["generate", "-p", "a"]).fails(5, &["`schema_version` is 2", "reads up to 1"]);
    place.write("configs/presets/a.yaml", "schema_version: \"1\"\n");
    place.run(&["generate", "-p", "a"]).fails(3, &["whole number"]);
    let meta = place.write("b.json", r#"{"schema_version": 9}"#);
    place.run(&["generate", "--like", meta.to_str().unwrap()]).fails(5, &["`schema_version` is 9"]);
}

#[test]
fn a_wrong_model_description_is_told_with_its_file() {
    let place = Place::with_own_configs();
    place.write(
        "configs/models/m.yaml",
        "schema_version: 1\nkey: M!\ntitle: t\narchitecture: sd\nlicense: MIT\n",
    );
    place.run(&["models", "list"]).fails(3, &["models/m.yaml", "`M!`"]);
    place.write("configs/models/m.yaml", "schema_version: 1\nkey: m\n");
    place.run(&["models", "list"]).fails(3, &["models/m.yaml", "title"]);
}

#[test]
fn tasks_of_another_engine_and_switched_off_tasks_say_so() {
    let place = Place::new();
    place
        .run(&["generate", "--task", "upscale", "--engine", "stable-diffusion"])
        .fails(5, &["does not perform task `upscale`", "it performs: img2img, inpaint, txt2img"]);
    let settings = place.write("off.yaml", "schema_version: 1\nfeatures:\n  txt2img: false\n");
    let settings = settings.to_str().unwrap();
    place
        .run(&["--config", settings, "generate", "-p", "tiny/quick"])
        .fails(5, &["`txt2img` is switched off", "off.yaml"]);
    place.write("off.yaml", "schema_version: 1\nfeatures:\n  txt3img: false\n");
    place.run(&["--config", settings, "doctor"]).fails(3, &["no feature `txt3img`"]);
}

#[test]
fn devices_that_are_not_in_this_build_say_how_to_get_them() {
    let place = Place::new();
    for device in ["metal", "cuda:0"] {
        let said = place.run(&["generate", "-p", "tiny/quick", "--device", device]);
        // A build with the feature has no such device here instead.
        assert!([5, 6].contains(&said.code), "{said:?}");
        assert!(said.err.contains("rebuild with") || said.err.contains("no device"), "{said:?}");
    }
    place.run(&["generate", "-p", "tiny/quick", "--device", "gpu"]).fails(2, &["not a device"]);
}

#[test]
fn images_without_a_record_and_files_that_are_no_images_are_refused() {
    let place = Place::new();
    let text = place.write("a.png", "not a png");
    place.run(&["generate", "--like", text.to_str().unwrap()]).fails(7, &["a.png", "not a readable PNG"]);
    place.run(&["generate", "--like", "missing.png"]).fails(4, &["missing.png"]);
    let half = place.write("b.json", r#"{"schema_version": 1, "task": "#);
    place.run(&["generate", "--like", half.to_str().unwrap()]).fails(7, &["b.json"]);
}

#[test]
fn nothing_asked_for_is_answered_with_a_first_step() {
    Place::new().run(&["generate"]).fails(3, &["nothing is asked for", "txt2img/basic"]);
}

#[test]
fn errors_are_json_too_when_json_was_asked_for() {
    let said = Place::new().run(&["generate", "--json", "-p", "nothing/here"]);
    assert_eq!(said.code, 4);
    assert_eq!(said.json()["error"]["kind"], "not_found");
}

#[test]
fn an_output_folder_that_cannot_be_made_is_told_before_the_model_is_loaded() {
    let place = Place::new();
    place.write("file", "");
    place.run(&["generate", "-p", "tiny/quick", "--out", "file/sub"]).fails(6, &["file"]);
}
