//! What those who write plugins do: begin one, test it, build it, use it. And the same code linked in or as a library.

use crate::plugin_fixtures::{file_name, target, turn};
use crate::support::{Place, pixels, root};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs cargo, building below `target`.
fn cargo(folder: &Path, target: &Path, args: &[&str]) -> String {
    let _turn = turn();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).arg("--offline").current_dir(folder).env("CARGO_TARGET_DIR", target);
    command.env_remove("CARGO_BUILD_TARGET");
    let output = command.output().expect("cargo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Makes a plugin of its own in the place, tests and builds it, and puts the library where its plugin.yaml says.
fn new_plugin(place: &Place, name: &str, more: &[&str]) -> PathBuf {
    let mut args = vec!["plugins", "new", name];
    args.extend(more);
    place.run(&args).ok();
    let folder = place.path(name);
    let said = cargo(&folder, &target(), &["test"]);
    assert!(said.contains("test result: ok. ") && !said.contains("ok. 0 passed"), "{said}");
    cargo(&folder, &target(), &["build"]);
    let library = file_name(&name.replace('-', "_"));
    std::fs::create_dir_all(folder.join("target/release")).unwrap();
    std::fs::copy(target().join("debug").join(&library), folder.join("target/release").join(&library))
        .unwrap();
    folder
}

#[test]
fn a_new_sampler_passes_its_tests_and_draws_from_a_preset() {
    let place = Place::new();
    new_plugin(&place, "my-sampler", &[]);
    place.run(&["plugins", "install", "my-sampler", "--trust"]).ok();
    let said = place.run(&["plugins", "check", "my-sampler"]).ok();
    assert!(said.out.contains("converges_with_its_order") && !said.out.contains("failed"), "{}", said.out);
    let listed = place.run(&["samplers", "list", "--json"]).ok().json();
    let listed =
        listed.as_array().unwrap().iter().find(|s| s["key"] == "my-sampler").expect("it is listed").clone();
    assert_eq!(listed["plugin"], "my-sampler");
    let schema = place.run(&["schema", "stable-diffusion", "txt2img"]).ok().json();
    let choices = schema["properties"]["sampler"]["enum"].as_array().unwrap().clone();
    assert!(choices.contains(&"my-sampler".into()), "{choices:?}");

    let preset = "schema_version: 1\nextends: tiny/quick\nparams:\n  sampler: my-sampler\n  sampler_options: {euler_below: 50}\n  steps: 3\n";
    place.write("mine.yaml", preset);
    let image = place.generate(&["-p", "mine.yaml"]);
    let sidecar: serde_json::Value =
        serde_json::from_slice(&std::fs::read(image.with_extension("json")).unwrap()).unwrap();
    assert_eq!(sidecar["params"]["sampler"], "my-sampler");
    assert_eq!(sidecar["plugins"]["my-sampler"]["version"], "0.1.0");
    let other = place.generate(&["-p", "mine.yaml", "-s", "sampler_options.euler_below=0"]);
    assert_ne!(pixels(&image), pixels(&other), "its option does nothing");
    place
        .run(&["generate", "-p", "mine.yaml", "-s", "sampler_options.euler_below=-1"])
        .fails(3, &["less than 0"]);
}

#[test]
fn a_new_engine_passes_its_tests_and_works_on_an_image() {
    let place = Place::new();
    let folder = new_plugin(&place, "my-filter", &["--kind", "engine"]);
    let picture = place.generate(&["-p", "tiny/quick"]);
    let trusted = ["--plugin", folder.to_str().unwrap(), "--trust-plugins-in", folder.to_str().unwrap()];
    let tasks = place.run(&[&["engines", "list", "--json"], &trusted[..]].concat()).ok().json();
    let engine =
        tasks.as_array().unwrap().iter().find(|e| e["plugin"] == "my-filter").expect("it is listed").clone();
    let (key, task) = (engine["key"].as_str().unwrap(), engine["tasks"][0].as_str().unwrap());
    let set = format!("image={}", picture.display());
    let args = ["--engine", key, "--task", task, "-s", &set];
    let image = place.generate(&[&args[..], &trusted[..]].concat());
    let (before, after) = (pixels(&picture), pixels(&image));
    assert_eq!((before.0, before.1), (after.0, after.1));
    assert_ne!(before.2, after.2);
    let sidecar: serde_json::Value =
        serde_json::from_slice(&std::fs::read(image.with_extension("json")).unwrap()).unwrap();
    assert_eq!(sidecar["inputs"]["image"]["sha256"].as_str().map(str::len), Some(64), "{sidecar}");
    assert!(sidecar["model"].is_null());

    let missing =
        [&["generate", "--engine", key, "--task", task, "-s", "image=nowhere.png"], &trusted[..]].concat();
    place.run(&missing).fails(3, &["/image", "nowhere.png"]);
}

#[test]
fn a_plugin_is_not_made_over_something_else() {
    let place = Place::new();
    place.write("taken/file", "");
    place.run(&["plugins", "new", "taken"]).fails(3, &["taken"]);
    assert_eq!(crate::support::names(&place.path("taken")), ["file"]);
    place.run(&["plugins", "new", "Not A Name"]).fails(3, &["Not A Name"]);
    place.run(&["plugins", "new", "x", "--sdk", "nowhere"]).fails(4, &["nowhere"]);
}

#[test]
fn the_built_in_samplers_and_schedules_draw_the_same_bits_as_a_library() {
    let arguments = ["build", "--locked", "-p", "atelier-samplers", "--features", "dylib", "--examples"];
    // Where the workspace is built: most of it is there already.
    let target = target().parent().unwrap().to_path_buf();
    cargo(&root(), &target, &arguments);
    let library = target.join("debug/examples").join(file_name("atelier_samplers_dylib"));
    let place = Place::new();
    let folder = library.parent().unwrap().to_str().unwrap();
    let trusted = ["--plugin", library.to_str().unwrap(), "--trust-plugins-in", folder];
    let draw = |set: &str| {
        let args = ["-p", "tiny/quick", "-s", "steps=3", "-s", set];
        pixels(&place.generate(&[&args[..], &trusted[..]].concat()))
    };
    let all = place.run(&["plugins", "list", "--json"]).ok().json();
    let mut compared = 0;
    for kind in ["sampler", "schedule"] {
        for item in all.as_array().unwrap().iter().filter(|i| i["kind"] == kind) {
            let key = item["key"].as_str().unwrap();
            let (linked, library) = (format!("{kind}={key}"), format!("{kind}=atelier-samplers-dylib/{key}"));
            assert_eq!(draw(&linked), draw(&library), "{kind} {key}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
}
