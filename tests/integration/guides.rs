//! The guides say what is so: code is quoted from sources, checks are named as they are, links lead somewhere.

use super::support::root;
use atelier_sdk::testkit::{SAMPLER_CHECKS, SCHEDULE_CHECKS};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The code blocks of a language, without their fences.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let after = text.split(&*fence).skip(1);
    after.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

fn assert_quoted(guide: &str, sources: &[&str]) {
    let text = read(guide);
    let sources: Vec<String> = sources.iter().map(|file| read(file)).collect();
    let blocks = blocks(&text, "rust");
    assert!(!blocks.is_empty(), "{guide} quotes nothing");
    for block in blocks {
        assert!(sources.iter().any(|s| s.contains(block)), "{guide}: in no source:\n{block}");
    }
}

#[test]
fn the_code_of_the_guides_is_that_of_the_examples() {
    let sampler = ["plugins/example-sampler/src/lib.rs", "sdk/api/src/step.rs"];
    assert_quoted("docs/guides/write-a-sampler.md", &sampler);
    assert_quoted("docs/guides/write-an-engine.md", &["plugins/example-engine/src/lib.rs"]);
}

#[test]
fn a_sampler_needs_less_than_60_lines() {
    let lines = read("plugins/example-sampler/src/lib.rs").lines().count();
    assert!(lines < 60, "{lines}");
}

#[test]
fn the_guide_tells_what_every_check_is_about() {
    let guide = read("docs/guides/write-a-sampler.md");
    let names = SAMPLER_CHECKS.iter().map(|c| c.0).chain(SCHEDULE_CHECKS.iter().map(|c| c.0));
    let silent: Vec<&str> = names.filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert_eq!(silent, [""; 0]);
}

/// Names and versions in a lock file.
fn locked(file: &str) -> BTreeSet<(String, String)> {
    let text = read(file);
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = "));
        line.unwrap_or_default().trim_matches('"').to_string()
    };
    text.split("[[package]]").skip(1).map(|p| (field(p, "name"), field(p, "version"))).collect()
}

/// What is tested here is what a third party gets, and building it downloads nothing more.
#[test]
fn the_examples_lock_the_versions_that_atelier_has() {
    let ours = locked("Cargo.lock");
    for example in ["example-sampler", "example-engine"] {
        let theirs = locked(&format!("plugins/{example}/Cargo.lock"));
        let others: Vec<_> = theirs.difference(&ours).map(|(name, _)| name.as_str()).collect();
        assert_eq!(others, [example]);
    }
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => pages(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect()
}

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    for page in pages(&root().join("docs")) {
        let text = std::fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let local = targets.filter(|t| !t.is_empty() && !t.contains("://"));
        let missing = local.filter(|t| !page.parent().unwrap().join(t).exists());
        broken.extend(missing.map(|t| format!("{}: {t}", page.display())));
    }
    assert_eq!(broken, [""; 0]);
}
