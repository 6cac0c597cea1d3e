//! Plugin libraries for the tests, built from `tests/fixtures/plugins` when a test first wants one.

pub mod variants;

use crate::support::root;
use std::collections::BTreeSet;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What to do about their lock files.
const LOCKS: &str =
    "if that is about a lock file, tests/fixtures/plugins/Cargo.toml says how to make it anew";

/// The sources.
pub fn sources() -> PathBuf {
    root().join("tests/fixtures/plugins")
}

/// Where everything is built: kept from run to run, beside what the repository builds.
pub fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("it lies in the target folder").join("plugin-fixtures")
}

/// The file name of a library on this system.
pub fn file_name(library: &str) -> String {
    format!("{DLL_PREFIX}{library}{DLL_SUFFIX}")
}

fn built(library: &str) -> PathBuf {
    target().join("debug").join(file_name(library))
}

/// A library of the fixtures' workspace.
pub fn library(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let manifest = sources().join("Cargo.toml");
        build(&manifest, &["--locked", "--workspace", "--exclude", "abort-profile"], "unwind");
    });
    built(name)
}

/// The library that aborts where others panic.
pub fn abort_profile() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build(&sources().join("Cargo.toml"), &["--locked", "-p", "abort-profile"], "abort"));
    built("abort_profile")
}

/// The golden plugin of a boundary, as `1.0`: a library `golden_1_0`.
pub fn golden(boundary: &str) -> PathBuf {
    build(&sources().join(format!("golden-{boundary}/Cargo.toml")), &["--locked"], "unwind");
    built(&format!("golden_{}", boundary.replace('.', "_")))
}

/// All boundaries that a library of today may be built against, the oldest first.
pub fn boundaries() -> Vec<String> {
    let (major, minor) = boundary_version();
    (0..=minor).map(|minor| format!("{major}.{minor}")).collect()
}

/// Builds a package or a workspace. Two test processes that want this at once take turns.
fn build(manifest: &Path, args: &[&str], panic: &str) {
    let _turn = turn();
    // The cargo that runs this test, so that nothing depends on what is first in PATH.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--offline", "--manifest-path"]).arg(manifest).args(args);
    command.arg("--target-dir").arg(target()).env("CARGO_PROFILE_DEV_PANIC", panic);
    // Another target would put the libraries elsewhere, and this host could not load them.
    command.env_remove("CARGO_BUILD_TARGET");
    let output = command.output().expect("cargo starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the plugin libraries for the tests cannot be built; {LOCKS}.\n{command:?}\n{words}"
    );
}

/// Held while anything is written below [`target`].
pub fn turn() -> File {
    std::fs::create_dir_all(target()).expect("the target folder is writable");
    let file = File::options().create(true).write(true).truncate(false).open(target().join("turn.lock"));
    let file = file.expect("the target folder is writable");
    file.lock().expect("the file system can lock");
    file
}

/// The version of the sdk's boundary: major, minor.
fn boundary_version() -> (u32, u32) {
    let manifest = std::fs::read_to_string(root().join("sdk/abi/Cargo.toml")).expect("there is a boundary");
    let line = manifest.lines().find_map(|l| l.strip_prefix("version = \""));
    let mut parts = line.expect("it has a version of its own").split('.').map(|n| n.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn every_minor_of_the_boundary_is_kept_with_a_golden_plugin() {
    for version in boundaries() {
        let copy = std::fs::read_to_string(sources().join(format!("abi-{version}/Cargo.toml")));
        let copy = copy.unwrap_or_else(|e| panic!("keep a copy of sdk/abi as abi-{version}: {e}"));
        assert!(copy.contains(&format!("\nversion = \"{version}.0\"\n")), "{copy}");
        let golden = sources().join(format!("golden-{version}/src/lib.rs"));
        assert!(golden.is_file(), "write a plugin against abi-{version}: {}", golden.display());
    }
}

#[test]
fn the_boundary_is_the_one_kept_under_its_version() {
    let (major, minor) = boundary_version();
    let kept = sources().join(format!("abi-{major}.{minor}/src/lib.rs"));
    let same = std::fs::read(root().join("sdk/abi/src/lib.rs")).unwrap() == std::fs::read(&kept).unwrap();
    assert!(same, "sdk/abi changed without a new minor; released as {major}.{minor}: {}", kept.display());
}

/// (name, version, checksum) of everything from a registry that a lock file holds.
fn locked(file: &Path) -> BTreeSet<[String; 3]> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let field = |package: &str, name: &str| {
        let start = format!("{name} = \"");
        let found = package.lines().find_map(|l| l.strip_prefix(&start)?.strip_suffix('"'));
        found.unwrap_or_default().to_string()
    };
    let packages = text.split("[[package]]").filter(|p| p.contains("\nsource = "));
    packages.map(|p| ["name", "version", "checksum"].map(|f| field(p, f))).collect()
}

#[test]
fn the_fixtures_are_built_of_what_the_repository_has_fetched() {
    let all = locked(&root().join("Cargo.lock"));
    for folder in ["", "golden-1.0", "mini-host"] {
        let file = sources().join(folder).join("Cargo.lock");
        let stray: Vec<_> = locked(&file).difference(&all).cloned().collect();
        assert_eq!(stray, Vec::<[String; 3]>::new(), "{}: {LOCKS}", file.display());
    }
}
