//! The shape of the repository itself: which crate may depend on which, and what no file may hold.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package of the tests lies in the workspace").to_path_buf()
}

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(root()).output().expect("the program starts");
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("the output is UTF-8")
}

fn cargo(command: &str) -> String {
    // The cargo that runs this test, so that nothing depends on what is first in PATH.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    output(&cargo, &command.split(' ').chain(["--offline", "--locked"]).collect::<Vec<_>>())
}

fn metadata() -> Value {
    let text = cargo("metadata --format-version 1 --no-deps");
    serde_json::from_str(&text).expect("cargo metadata prints JSON")
}

/// Every file git knows or would add, so that a new file is looked at before it is committed.
fn files() -> Vec<String> {
    // A checkout that belongs to another user, as in a container, is still ours to list.
    let args = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let list = output("git", &args);
    // A deleted file stays listed until the deletion is staged.
    list.split_terminator('\0').filter(|f| root().join(f).is_file()).map(String::from).collect()
}

fn read_text(file: &str) -> Option<String> {
    let bytes = std::fs::read(root().join(file)).expect("a listed file can be read");
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// A crate's place in the house: its folder relative to the workspace, with `/` between.
fn room(workspace: &Value, dir: &Path) -> String {
    let base = Path::new(workspace["workspace_root"].as_str().expect("metadata has workspace_root"));
    let rel = dir.strip_prefix(base).unwrap_or(dir);
    rel.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn packages(workspace: &Value) -> impl Iterator<Item = (&Value, String)> {
    workspace["packages"].as_array().expect("metadata has packages").iter().map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a package has a manifest"));
        (package, room(workspace, manifest.parent().expect("a manifest lies in a folder")))
    })
}

fn arrow_is_allowed(from: &str, to: &str, dependency: &Value) -> bool {
    let plugin = to.starts_with("plugins/");
    match from {
        "tests" => true,
        // The executable's tests are built in its package, which alone tells them where it lies.
        "host" if dependency["kind"] == "dev" => true,
        "host" if plugin => dependency["optional"] == true && dependency["kind"].is_null(),
        "host" => ["sdk/api", "sdk/abi", "sdk/pictures"].contains(&to),
        "sdk/api" => to == "sdk/abi",
        "sdk/models" => ["sdk/ops", "sdk/weights"].contains(&to),
        "sdk/diffusion" => ["sdk/api", "sdk/ops", "sdk/weights", "sdk/models"].contains(&to),
        _ => from.starts_with("plugins/") && to.starts_with("sdk/"),
    }
}

fn forbidden_arrows(workspace: &Value) -> Vec<String> {
    let mut forbidden = Vec::new();
    for (package, from) in packages(workspace) {
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(path) = dependency["path"].as_str() else { continue };
            let to = room(workspace, Path::new(path));
            if !arrow_is_allowed(&from, &to, dependency) {
                forbidden.push(format!("{from} -> {to}"));
            }
        }
    }
    forbidden
}

/// Plugin crates by package name.
fn plugins(workspace: &Value) -> Vec<String> {
    let ours = packages(workspace).filter(|(_, room)| room.starts_with("plugins/"));
    ours.map(|(package, _)| package["name"].as_str().expect("a package has a name").to_owned()).collect()
}

/// Features of the host that switch on more than one plugin, or one that they do not name with `dep:`.
fn muddled_features(workspace: &Value) -> Vec<String> {
    let plugins = plugins(workspace);
    let host = packages(workspace).find(|(_, room)| room == "host").expect("there is a host").0;
    let mut muddled = Vec::new();
    for (feature, entries) in host["features"].as_object().into_iter().flatten() {
        let entries: Vec<&str> = entries.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let named: Vec<&str> = entries.iter().filter_map(|entry| entry.strip_prefix("dep:")).collect();
        if named.iter().filter(|name| plugins.iter().any(|plugin| plugin == *name)).count() > 1 {
            muddled.push(format!("{feature} switches on several plugins: {entries:?}"));
        }
        for entry in &entries {
            // `plugin/feature` switches the plugin on as well; `plugin?/feature` does not.
            let Some((name, _)) = entry.split_once('/') else { continue };
            if plugins.iter().any(|plugin| plugin == name) && !named.contains(&name) {
                muddled.push(format!("{feature} switches on {name} by {entry:?}; write `{name}?/...`"));
            }
        }
    }
    muddled
}

/// Whether `text` holds `word` with no identifier character on either side.
fn holds_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
    })
}

/// The first absolute path below a home, root or work folder: no text that is for everyone holds one.
fn machine_path(line: &str) -> Option<&str> {
    // In pieces, or this file would hold them itself.
    let folders = [concat!("/", "work", "/"), concat!("/", "root", "/"), concat!("/", "home", "/")];
    // After these characters it is the middle of a URL or of a relative path.
    let continues = |c: char| c.is_alphanumeric() || "_-.~$*?)}]>/".contains(c);
    folders.into_iter().find_map(|folder| {
        let mut found = line.match_indices(folder).filter(|(at, _)| !line[..*at].ends_with(continues));
        found.next().map(|(at, _)| &line[at..])
    })
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows_of_the_house() {
    assert_eq!(forbidden_arrows(&metadata()), Vec::<String>::new());
}

#[test]
fn each_plugin_hangs_on_a_host_feature_of_its_own() {
    assert_eq!(muddled_features(&metadata()), Vec::<String>::new());
}

#[test]
fn a_forbidden_arrow_is_reported() {
    let package = |dir: &str, to: Value, features: Value| {
        json!({ "name": dir.replace('/', "-"), "manifest_path": format!("/w/{dir}/Cargo.toml"),
                "dependencies": to, "features": features })
    };
    let arrow =
        |to: &str, optional: bool| json!({ "path": format!("/w/{to}"), "optional": optional, "kind": null });
    let dev = json!({ "path": "/w/plugins/b", "optional": false, "kind": "dev" });
    let workspace = json!({ "workspace_root": "/w", "packages": [
        package("plugins/a", json!([arrow("plugins/b", false), arrow("sdk/ops", false)]), json!({})),
        package("plugins/b", json!([arrow("host", false)]), json!({})),
        package("sdk/api", json!([arrow("sdk/abi", false), arrow("sdk/ops", false)]), json!({})),
        package("host", json!([arrow("plugins/a", true), arrow("plugins/b", false), arrow("sdk/ops", false), dev]),
            json!({ "both": ["dep:plugins-a", "dep:plugins-b"], "metal": ["plugins-a/metal", "plugins-b?/metal"] })),
        package("tests", json!([arrow("host", false)]), json!({})),
    ]});
    let expected = [
        "plugins/a -> plugins/b",
        "plugins/b -> host",
        "sdk/api -> sdk/ops",
        "host -> plugins/b",
        "host -> sdk/ops",
    ];
    assert_eq!(forbidden_arrows(&workspace), expected);
    assert_eq!(muddled_features(&workspace).len(), 2);
}

#[test]
fn the_host_without_plugins_has_no_candle() {
    let tree = cargo("tree -p atelier --no-default-features -e normal --prefix none");
    assert!(tree.starts_with("atelier v"), "{tree}");
    assert!(!tree.contains("candle"), "{tree}");
}

#[test]
fn the_plugin_api_has_no_candle() {
    let tree = cargo("tree -p atelier-sdk -e normal --prefix none");
    assert!(tree.starts_with("atelier-sdk v"), "{tree}");
    assert!(!tree.contains("candle"), "{tree}");
}

#[test]
fn the_host_names_plugin_crates_in_builtin_rs_alone() {
    let crates: Vec<String> = plugins(&metadata()).iter().map(|name| name.replace('-', "_")).collect();
    let sources = files().into_iter().filter(|f| f.starts_with("host/") && f.ends_with(".rs"));
    let mut strays = Vec::new();
    for file in sources.filter(|f| f != "host/src/builtin.rs") {
        let text = read_text(&file).expect("Rust sources are text");
        strays.extend(
            crates.iter().filter(|name| holds_word(&text, name)).map(|name| format!("{file}: {name}")),
        );
    }
    assert_eq!(strays, Vec::<String>::new());
}

#[test]
fn a_machine_path_is_told_from_a_url_and_a_relative_path() {
    let home = concat!("/", "home", "/");
    assert_eq!(machine_path(&format!("cd {home}ada")), Some(format!("{home}ada").as_str()));
    assert!(machine_path(&format!("\"{home}ada\"")).is_some());
    assert!(machine_path(&format!("https://example.org{home}page")).is_none());
    assert!(machine_path(&format!("$DIR{home}")).is_none());
}

#[test]
fn no_text_file_holds_the_path_of_a_machine() {
    let mut found = Vec::new();
    for file in files() {
        let Some(text) = read_text(&file) else { continue };
        let hits = text.lines().enumerate().filter_map(|(i, line)| Some((i + 1, machine_path(line)?)));
        found.extend(hits.map(|(number, path)| format!("{file}:{number}: {path:.60}")));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_rust_file_is_longer_than_800_lines() {
    let mut long = Vec::new();
    for file in files().into_iter().filter(|f| f.ends_with(".rs")) {
        let lines = read_text(&file).expect("Rust sources are text").lines().count();
        if lines > 800 {
            long.push(format!("{file}: {lines} lines"));
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_preset_states_its_schema_version_as_an_integer() {
    let version = |text: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix("schema_version:"))?;
        value.split('#').next()?.trim().parse::<u32>().ok()
    };
    let presets = files()
        .into_iter()
        .filter(|f| f.starts_with("configs/presets/") && (f.ends_with(".yaml") || f.ends_with(".yml")));
    let unversioned: Vec<String> =
        presets.filter(|f| read_text(f).and_then(|text| version(&text)).is_none()).collect();
    assert_eq!(unversioned, Vec::<String>::new());
}
