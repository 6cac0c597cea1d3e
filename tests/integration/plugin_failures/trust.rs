//! Nothing of a library runs before it is trusted.

use super::Studio;
use crate::plugin_fixtures::{file_name, library};
use crate::support::Said;
use std::path::{Path, PathBuf};

/// A place with a library that leaves a trace whenever it is loaded, and the file for the trace.
fn traced() -> (Studio, PathBuf) {
    let studio = Studio::new();
    studio.put(&library("ctor_writes"));
    let trace = studio.place.path("trace");
    (studio, trace)
}

fn run(studio: &Studio, trace: &Path, args: &[&str]) -> Said {
    let mut command = studio.command();
    command.args(args).env("ATELIER_TEST_TRACE", trace);
    super::run(command)
}

#[test]
fn no_command_loads_a_library_that_is_not_trusted() {
    let (studio, trace) = traced();
    let file = studio.folder().join(file_name("ctor_writes"));
    let file = file.to_str().unwrap();
    for args in [
        &["plugins", "list"][..],
        &["plugins", "list", "--failed", "--json"],
        &["plugins", "check", file],
        &["samplers", "list"],
        &["schedules", "list"],
        &["engines", "list"],
        &["models", "list"],
        &["tasks", "list"],
        &["presets", "validate"],
        &["doctor"],
        &["schema", "sampler", "traced"],
        &["generate", "-p", "tiny/quick"],
        &["generate", "-p", "tiny/quick", "-s", "sampler=traced"],
        &["generate", "-p", "tiny/quick", "-s", "sampler=ctor-writes/traced"],
    ] {
        run(&studio, &trace, args);
        assert!(!trace.exists(), "{args:?} loaded it");
    }
    // The proof that this proves anything.
    run(&studio, &trace, &["plugins", "trust", file]).ok();
    run(&studio, &trace, &["generate", "-p", "tiny/quick", "-s", "sampler=traced"]).ok();
    assert!(trace.exists());
}

#[test]
fn a_library_that_is_not_trusted_is_listed_with_the_way_to_trust_it() {
    let studio = Studio::new();
    studio.put(&library("ctor_crash"));
    let problem = studio.problem("ctor_crash");
    problem.is("untrusted", &[]);
    assert_eq!(problem.plugin, "ctor-crash");
    assert!(problem.hints.contains("atelier plugins trust"), "{problem:?}");
    let said = studio.run(&["plugins", "list", "--failed"]).ok();
    for words in ["ctor-crash", "untrusted", "atelier plugins trust"] {
        assert!(said.out.contains(words), "no {words:?} in\n{}", said.out);
    }
    studio.still_works();
}

#[test]
fn a_sampler_of_a_library_that_is_not_trusted_is_not_there() {
    let studio = Studio::new();
    studio.put(&library("failing"));
    let failure = studio.failure(3, "invalid_request", &["sampler=ok_euler"]);
    failure.says(&["/sampler"]);
}

#[test]
fn a_library_that_changed_is_no_longer_trusted() {
    let (studio, trace) = traced();
    let name = file_name("ctor_writes");
    studio.trust(&name).ok();
    run(&studio, &trace, &["generate", "-p", "tiny/quick", "-s", "sampler=traced"]).ok();
    let _ = std::fs::remove_file(&trace);
    let mut bytes = std::fs::read(library("ctor_writes")).unwrap();
    bytes.push(0);
    studio.put_bytes(&name, &bytes);
    studio.problem("ctor_writes").is("untrusted", &["changed"]);
    let said = run(&studio, &trace, &["generate", "-p", "tiny/quick", "-s", "sampler=traced"]);
    assert!(said.code > 0, "{said:?}");
    assert!(!trace.exists(), "the changed library was loaded");
    studio.trust(&name).ok();
    run(&studio, &trace, &["generate", "-p", "tiny/quick", "-s", "sampler=traced"]).ok();
    assert!(trace.exists());
}

#[test]
#[cfg(unix)]
fn a_library_that_everyone_may_write_is_refused_trusted_or_not() {
    use std::os::unix::fs::PermissionsExt;
    let (studio, trace) = traced();
    let name = file_name("ctor_writes");
    studio.trust(&name).ok();
    let everyone = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(studio.folder().join(&name), everyone).unwrap();
    studio.problem("ctor_writes").is("refused", &["writ"]);
    let _ = std::fs::remove_file(&trace);
    run(&studio, &trace, &["samplers", "list"]).ok();
    assert!(!trace.exists(), "it was loaded");
}

#[test]
fn a_library_in_the_working_folder_is_not_looked_at() {
    let (studio, trace) = traced();
    let name = file_name("failing");
    std::fs::copy(library("failing"), studio.place.path(&name)).unwrap();
    let said = run(&studio, &trace, &["plugins", "list", "--failed", "--json"]).ok();
    assert!(!said.out.contains(&name), "{}", said.out);
}
