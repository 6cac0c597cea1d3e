//! The golden plugin against boundaries that never were: made of changed copies when a test wants one.

use super::{boundary_version, build, built, sources, target, turn};
use crate::support::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A place in a text, and what to put there.
type Change = (&'static str, &'static str);

/// A boundary that differs from the sdk's, and what the golden plugin changes to use it.
pub struct Variant {
    pub name: &'static str,
    version: fn((u32, u32)) -> String,
    boundary: &'static [Change],
    plugin: &'static [Change],
}

/// The same version, and another layout: a changed copy of the sdk.
pub const LAYOUT: Variant = Variant {
    name: "layout",
    version: |(major, minor)| format!("{major}.{minor}.0"),
    boundary: &[("pub sigmas: RSlice<'a, f32>", "pub sigmas: RSlice<'a, f64>")],
    plugin: &[],
};

/// Another major version.
pub const MAJOR: Variant =
    Variant { name: "major", version: |(major, _)| format!("{}.0.0", major + 1), boundary: &[], plugin: &[] };

/// The next minor: a method more on either side, and a field more in the module.
pub const NEWER: Variant = Variant {
    name: "newer",
    version: |(major, minor)| format!("{major}.{}.0", minor + 1),
    boundary: &[
        (
            "fn cancelled(&self) -> bool;\n}\npub type SampleCtxMut",
            "fn cancelled(&self) -> bool;\n    fn later(&self) -> u64 { 99 }\n}\npub type SampleCtxMut",
        ),
        (
            "-> RResult<(), AbiError>;\n}\npub type BoxSampler",
            "-> RResult<(), AbiError>;\n    fn later(&self) -> u64 { 7 }\n}\npub type BoxSampler",
        ),
        (
            "RResult<BoxEngine, AbiError>,\n}",
            "RResult<BoxEngine, AbiError>,\n    pub later: extern \"C\" fn() -> u64,\n}",
        ),
    ],
    plugin: &[
        (
            "let mut denoised",
            "if ctx.later() != 99 { return error(INTERNAL, \"another default\"); }\n        let mut denoised",
        ),
        ("schedule, engine }", "schedule, engine, later }"),
        ("/// The one symbol", "extern \"C\" fn later() -> u64 { 42 }\n\n/// The one symbol"),
    ],
};

/// The right boundary, and a description that is no JSON.
pub const GARBAGE: Variant = Variant {
    name: "garbage",
    version: |(major, minor)| format!("{major}.{minor}.0"),
    boundary: &[],
    plugin: &[("ROk(DESCRIPTION.into())", "ROk(DESCRIPTION[..200].into())")],
};

/// The golden plugin against such a boundary: a library `golden_<name>`.
pub fn golden(variant: &Variant) -> PathBuf {
    let library = format!("golden_{}", variant.name);
    let folder = target().join("variants").join(variant.name);
    let manifest = {
        let _turn = turn();
        write_boundary(variant, &folder);
        copy_package("golden-1.0", &folder, |file, text| match file {
            "Cargo.toml" => put(&text, &("name = \"golden-1-0\"", &format!("name = \"{library}\""))),
            "src/lib.rs" => variant.plugin.iter().fold(text, |text, change| put(&text, change)),
            _ => text,
        })
    };
    build(&manifest, &[], "unwind");
    built(&library)
}

/// A host of the boundary [`NEWER`], with atelier's own loader if that is there.
pub fn newer_host() -> Command {
    let folder = target().join("variants/newer-host");
    let loader = root().join("host/src/plugins/load.rs");
    let manifest = {
        let _turn = turn();
        write_boundary(&NEWER, &folder);
        copy_package("mini-host", &folder, |file, text| match file {
            "src/main.rs" => {
                put(&text, &("\"../../../../../host/src/plugins/load.rs\"", &format!("{loader:?}")))
            }
            _ => text,
        })
    };
    build(&manifest, if loader.is_file() { &["--features", "atelier-loader"] } else { &[] }, "unwind");
    Command::new(target().join("debug").join(format!("mini-host{}", std::env::consts::EXE_SUFFIX)))
}

/// The sdk's boundary, changed, where the packages look for theirs.
fn write_boundary(variant: &Variant, folder: &Path) {
    let code = read(&root().join("sdk/abi/src/lib.rs"));
    let code = variant.boundary.iter().fold(code, |code, change| put(&code, change));
    let version = format!("version = \"{}\"", (variant.version)(boundary_version()));
    let manifest = put(&read(&sources().join("abi-1.0/Cargo.toml")), &("version = \"1.0.0\"", &version));
    write(&folder.join("abi-1.0/src/lib.rs"), &code);
    write(&folder.join("abi-1.0/Cargo.toml"), &manifest);
}

/// Copies the text files of a package, changed by `change`, and gives the path of the copy's manifest.
fn copy_package(package: &str, folder: &Path, change: impl Fn(&str, String) -> String) -> PathBuf {
    let (from, to) = (sources().join(package), folder.join(package));
    let code = crate::support::names(&from.join("src")).into_iter().map(|name| format!("src/{name}"));
    for file in code.chain(["Cargo.toml".into(), "Cargo.lock".into()]) {
        write(&to.join(&file), &change(&file, read(&from.join(&file))));
    }
    to.join("Cargo.toml")
}

fn put(text: &str, (from, to): &(&str, &str)) -> String {
    assert_eq!(text.matches(from).count(), 1, "no longer exactly one place to change: {from}");
    text.replace(from, to)
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// An unchanged file keeps its time, so that nothing is built again.
fn write(file: &Path, text: &str) {
    if std::fs::read_to_string(file).is_ok_and(|old| old == text) {
        return;
    }
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[test]
fn a_newer_host_runs_the_golden_plugin_of_an_older_boundary() {
    let output = newer_host().arg(super::golden("1.0")).output().unwrap();
    let said: crate::support::Said = output.into();
    assert_eq!(said.ok().out, "OK\n");
}
