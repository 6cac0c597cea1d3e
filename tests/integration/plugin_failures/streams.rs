//! Plugins that use the streams of their process, or the log.

use super::{LIMIT, Studio, wait};
use std::process::Stdio;

#[test]
fn what_a_plugin_prints_does_not_disturb_the_output_of_atelier() {
    let studio = Studio::failing();
    // `picture` reads standard output as one JSON document.
    assert_eq!(studio.picture(&["sampler=prints"]), studio.picture(&["sampler=euler"]));
    let said = studio.generate(&["sampler=prints"], &[]).ok();
    assert!(!said.out.contains("standard output") && !said.out.contains("not this one"), "{said:?}");
}

#[test]
fn a_plugin_that_reads_standard_input_finds_it_empty() {
    let studio = Studio::failing();
    let mut command = studio.command();
    command.args(["generate", "-p", "tiny/quick", "-s", "sampler=reads_stdin", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Held open: whoever reads from it waits.
    let _stdin = child.stdin.take().unwrap();
    assert_eq!(wait(&mut child, LIMIT), 0);
    assert!(studio.log().contains("standard input had 0 bytes"), "{}", studio.log());
}

#[test]
fn a_library_that_logs_while_it_is_described_is_understood() {
    let studio = Studio::failing();
    studio.image(&["sampler=chatty"]);
    assert!(studio.log().contains("describing itself"), "{}", studio.log());
}

#[test]
fn what_a_plugin_logs_is_in_the_log_of_atelier_with_its_level() {
    for isolation in ["process", "thread"] {
        let studio = Studio::failing().settings(&format!("{{isolation: {{failing: {isolation}}}}}"));
        studio.image(&["sampler=logs"]);
        let log = studio.log();
        for (level, words) in [
            ("ERROR", "words at level Error"),
            ("WARN", "words at level Warn"),
            ("INFO", "words at level Info"),
        ] {
            let line = log.lines().find(|l| l.contains(words));
            let line = line.unwrap_or_else(|| panic!("{isolation}: no {words:?} in\n{log}"));
            assert!(line.contains(level) && line.contains("failing"), "{isolation}: {line}");
        }
        assert!(!log.contains("words at level Trace"), "{log}");
    }
}
