//! Plugins as files: installing, trusting, removing. Nothing is loaded here.

use crate::support::{Place, names};
use std::path::{Path, PathBuf};

/// What a library of this system begins with; it is never loaded.
fn library(rest: &str) -> Vec<u8> {
    let magic: &[u8] = match std::env::consts::OS {
        "macos" => &[0xcf, 0xfa, 0xed, 0xfe],
        "windows" => b"MZ",
        _ => b"\x7fELF",
    };
    [magic, rest.as_bytes()].concat()
}

fn dll(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// A folder with a description.
fn described(place: &Place, folder: &str, name: &str, rest: &str) -> PathBuf {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let text = format!(
        "schema_version: 1\nname: {name}\nversion: 1.2.0\nsdk: ^1.0\nlicense: MIT\n\
         library: {{{os}-{arch}: {name}.bin}}\nprovides: [{{kind: sampler, key: {name}}}]\n"
    );
    place.write(&format!("{folder}/plugin.yaml"), text);
    place.write(&format!("{folder}/{name}.bin"), library(rest));
    place.path(folder)
}

fn installed(place: &Place) -> PathBuf {
    let mac = "Library/Application Support/atelier/plugins";
    place.path(if cfg!(target_os = "macos") { mac } else { "data/atelier/plugins" })
}

#[cfg(unix)]
fn let_everyone_write(path: &Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
}

#[test]
fn a_plugin_is_installed_trusted_untrusted_and_removed() {
    let place = Place::new();
    described(&place, "heun-1.2", "heun", "one");
    let said = place.run(&["plugins", "install", "heun-1.2"]).ok();
    assert!(said.out.contains("atelier plugins trust heun"), "{said:?}");
    let said = place.run(&["plugins", "trust", "heun"]).ok();
    for words in ["heun 1.2.0", "heun.bin", "sha256", "sampler heun", "MIT", "all rights you have"] {
        assert!(said.out.contains(words), "no {words:?} in {said:?}");
    }
    assert!(place.run(&["plugins", "trust", "heun"]).ok().out.contains("trusted already"));
    assert!(place.run(&["plugins", "untrust", "heun"]).ok().out.contains("no longer trusted: heun"));
    place.run(&["plugins", "untrust", "heun"]).fails(4, &["no plugin `heun` is trusted"]);
    place.run(&["plugins", "remove", "heun"]).ok();
    place.run(&["plugins", "remove", "heun"]).fails(4, &["no plugin `heun` is installed"]);
    assert_eq!(names(&installed(&place)), [""; 0]);
}

#[test]
fn a_removed_plugin_is_not_trusted_any_more() {
    let place = Place::new();
    described(&place, "p", "heun", "one");
    place.run(&["plugins", "install", "p", "--trust"]).ok();
    assert!(place.run(&["plugins", "remove", "heun"]).ok().out.contains("no longer trusted: heun"));
    let again = place.run(&["plugins", "install", "p"]).ok();
    assert!(again.out.contains("does not run before you trust it"), "{again:?}");
}

#[test]
fn a_library_alone_is_installed_under_a_name_of_its_own() {
    let place = Place::new();
    let file = dll("My_sampler");
    place.write(&file, library("one"));
    place.run(&["plugins", "install", &file]).ok();
    place.run(&["plugins", "install", &file, "--name", "other", "--trust"]).ok();
    assert_eq!(names(&installed(&place)), ["my-sampler", "other"]);
    place.run(&["plugins", "install", &file]).fails(3, &["already", "--force"]);
    place.run(&["plugins", "install", &file, "--force"]).ok();
    place.run(&["plugins", "install", &file, "--name", "../x"]).fails(3, &["cannot be the key"]);
}

#[test]
fn a_library_that_changed_after_it_was_trusted_is_told() {
    let place = Place::new();
    let file = dll("x");
    place.write(&file, library("one"));
    let first = place.run(&["plugins", "trust", &file]).ok();
    assert!(!first.out.contains("changed"), "{first:?}");
    place.write(&file, library("two"));
    let second = place.run(&["plugins", "trust", &file]).ok();
    assert!(second.out.contains("changed"), "{second:?}");
    assert!(!second.out.contains("trusted already"), "{second:?}");
}

#[test]
fn what_is_trusted_is_the_content_wherever_it_lies() {
    let place = Place::new();
    place.write(&dll("a"), library("same"));
    place.write(&dll("b"), library("same"));
    place.run(&["plugins", "trust", &dll("a")]).ok();
    assert!(place.run(&["plugins", "trust", &dll("b")]).ok().out.contains("trusted already"));
}

#[test]
fn a_plugin_is_found_by_name_where_the_variable_or_the_settings_say() {
    let place = Place::new();
    described(&place, "more/x", "from-settings", "s");
    described(&place, "env", "from-variable", "v");
    place.write("atelier.yaml", "schema_version: 1\nplugins: {paths: [more]}\n");
    // Not from the working directory by itself.
    place
        .run(&["plugins", "trust", "from-settings"])
        .fails(4, &["warning: `plugins:` in atelier.yaml", "none"]);
    let named = ["--config", "atelier.yaml", "plugins", "trust"];
    place.run(&[&named[..], &["from-settings"]].concat()).ok();
    place.run(&[&named[..], &["from-variable"]].concat()).fails(4, &["plugins found: from-settings"]);
    let mut command = place.command();
    let said: crate::support::Said = command
        .env("ATELIER_PLUGIN_PATH", place.path("env"))
        .args(["plugins", "trust", "from-variable"])
        .output()
        .unwrap()
        .into();
    said.ok();
    place.run(&["--plugin", "env", "plugins", "trust", "from-variable"]).ok();
}

#[test]
fn the_working_directory_is_not_searched() {
    let place = Place::new();
    place.write(&dll("planted"), library(""));
    described(&place, "plugins/planted-too", "planted-too", "");
    for name in ["planted", "planted-too"] {
        place.run(&["plugins", "trust", name]).fails(4, &["there is no plugin"]);
    }
}

#[cfg(unix)]
#[test]
fn what_everyone_can_write_is_neither_installed_nor_trusted() {
    let place = Place::new();
    let folder = described(&place, "p", "heun", "one");
    let file = dll("x");
    let_everyone_write(&place.write(&file, library("")));
    place.run(&["plugins", "trust", &file]).fails(6, &["world-writable", "chmod o-w"]);
    let_everyone_write(&folder);
    place.run(&["plugins", "install", "p"]).fails(6, &["world-writable", "the folder"]);
    let list = place.run(&["plugins", "list", "--failed", "--json", "--plugin", &file]).ok().json();
    assert!(list[0]["message"].as_str().unwrap().contains("world-writable"), "{list}");
}

#[cfg(unix)]
#[test]
fn a_list_of_trust_that_everyone_can_write_is_not_believed() {
    let place = Place::new();
    place.write(&dll("x"), library(""));
    place.run(&["plugins", "trust", &dll("x")]).ok();
    let config = if cfg!(target_os = "macos") {
        "Library/Application Support/atelier/configs"
    } else {
        "config/atelier"
    };
    let_everyone_write(&place.path(config).join("trusted-plugins.yaml"));
    place.run(&["plugins", "trust", &dll("x")]).fails(6, &["trusted-plugins.yaml", "world-writable"]);
}

#[test]
fn what_is_not_a_library_is_refused_with_its_first_bytes() {
    let place = Place::new();
    let file = dll("text");
    place.write(&file, "I am a text");
    for command in ["trust", "install"] {
        place
            .run(&["plugins", command, &file])
            .fails(7, &["not a shared library", "49 20 61 6d", "I am a t"]);
    }
    assert_eq!(names(&installed(&place)), [""; 0]);
}

#[test]
fn a_digest_that_the_description_does_not_have_is_refused_with_both() {
    let place = Place::new();
    let folder = described(&place, "p", "heun", "one");
    let file = folder.join("plugin.yaml");
    let zeros = "0".repeat(64);
    let text = std::fs::read_to_string(&file).unwrap() + &format!("sha256: '{zeros}'\n");
    std::fs::write(&file, text).unwrap();
    for command in ["trust", "install"] {
        place.run(&["plugins", command, "./p"]).fails(7, &[&zeros, "found"]);
    }
}

#[test]
fn plugins_can_be_repaired_while_a_model_description_is_broken() {
    let place = Place::with_own_configs();
    place.write("configs/models/broken.yaml", "schema_version: 1\nnonsense: true\n");
    described(&place, "p", "heun", "one");
    place.run(&["plugins", "list"]).fails(3, &["broken.yaml"]);
    place.run(&["plugins", "install", "p", "--trust"]).ok();
    place.run(&["plugins", "untrust", "heun"]).ok();
    place.run(&["plugins", "remove", "heun"]).ok();
}

#[test]
fn settings_about_plugins_are_checked() {
    let place = Place::new();
    place.write("atelier.yaml", "schema_version: 1\nplugins: {stall_seconds: 0}\n");
    place.run(&["plugins", "list"]).fails(3, &["stall_seconds", "1 to 86400"]);
    place.write("atelier.yaml", "schema_version: 1\nplugins: {path: [x]}\n");
    place.run(&["plugins", "list"]).fails(3, &["unknown field `path`"]);
}
