//! Measurements beside earlier ones.

use super::report::{Line, Report, SCHEMA_VERSION};
use crate::config::check_version;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use std::path::Path;

/// Peaks that differ by more than this are of another machine, or of a busy one.
const SAME_PEAK: f64 = 0.1;

/// Reads what `--out` or `--json` left.
///
/// # Errors
/// Missing, or another document.
pub fn read(path: &Path) -> Result<Report> {
    let here = |e: Error| e.context(format!("in {}", path.display()));
    let text = fsx::read_text("benchmark", path)?;
    let parse = || -> Result<Report> {
        let value: serde_json::Value =
            serde_json::from_str(&text).kind(ErrorKind::Corrupt, || "this is not JSON".into())?;
        check_version("benchmark", &value, SCHEMA_VERSION)?;
        serde_json::from_value(value).kind(ErrorKind::InvalidRequest, || {
            "this is not what `atelier benchmark --suite ... --json` prints".into()
        })
    };
    parse().map_err(here)
}

/// A report against an earlier one.
#[derive(Debug, PartialEq)]
pub struct Comparison {
    /// For each line, its median time as a multiple of the earlier one; none where there was no such line.
    pub ratios: Vec<Option<f64>>,
    /// What makes them mean less.
    pub warnings: Vec<String>,
}

/// Compares line by line, by their names.
pub fn compare(now: &Report, then: &Report) -> Comparison {
    let earlier = |line: &Line| then.lines.iter().find(|other| other.name == line.name);
    let mut warnings = machines(now, then);
    let mut ratios = Vec::new();
    for line in &now.lines {
        let before = earlier(line);
        match before {
            None => warnings.push(format!("`{}` was not measured then", line.name)),
            Some(before) if before.device != line.device => {
                warnings.push(format!(
                    "`{}` was measured on {}, now on {}",
                    line.name, before.device, line.device
                ));
            }
            Some(_) => {}
        }
        ratios.push(before.map(|b| line.seconds.median / b.seconds.median.max(f64::MIN_POSITIVE)));
    }
    Comparison { ratios, warnings }
}

fn machines(now: &Report, then: &Report) -> Vec<String> {
    let (a, b) = (&now.machine, &then.machine);
    let mut warnings = Vec::new();
    let name = |processor: &Option<String>| processor.clone().unwrap_or("an unknown processor".into());
    if a.processor != b.processor {
        warnings.push(format!(
            "another processor: {} now, {} then; times are of two machines",
            name(&a.processor),
            name(&b.processor)
        ));
    }
    if (a.cores, a.threads) != (b.cores, b.threads) {
        warnings.push(format!(
            "{} threads on {} cores now, {} on {} then",
            a.threads, a.cores, b.threads, b.cores
        ));
    }
    let change = a.peak / b.peak.max(f64::MIN_POSITIVE) - 1.0;
    if !change.is_finite() || change.abs() > SAME_PEAK {
        warnings.push(format!(
            "the processor's peak differs: {:.0} GFLOP/s now, {:.0} then; other work on the machine, or another clock",
            a.peak, b.peak
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::report::{Machine, Seconds};
    use super::*;
    use serde_json::json;

    fn report(peak: f64, lines: &[(&str, f64)]) -> Report {
        let line = |(name, seconds): &(&str, f64)| {
            let seconds = Seconds::of(vec![*seconds]).unwrap();
            Line::new(("unet", (*name).into()), &json!({"device": "cpu f32"}), seconds, None, None)
        };
        let machine =
            Machine { processor: Some("P".into()), cores: 2, threads: 2, peak_one: peak / 2.0, peak };
        Report {
            schema_version: SCHEMA_VERSION,
            version: "0".into(),
            machine,
            model: None,
            fake_weights: false,
            lines: lines.iter().map(line).collect(),
        }
    }

    #[test]
    fn lines_of_one_name_are_compared() {
        let found = compare(&report(100.0, &[("a", 3.0), ("b", 1.0)]), &report(101.0, &[("a", 2.0)]));
        assert_eq!(found.ratios, [Some(1.5), None]);
        assert_eq!(found.warnings, ["`b` was not measured then"]);
    }

    #[test]
    fn another_machine_or_a_busy_one_is_told() {
        let mut then = report(150.0, &[]);
        let warnings = compare(&report(100.0, &[]), &then).warnings;
        assert!(warnings[0].contains("100 GFLOP/s now, 150 then"), "{warnings:?}");
        then.machine.processor = None;
        then.machine.threads = 8;
        let warnings = compare(&report(150.0, &[]), &then).warnings.join("\n");
        assert!(warnings.contains("another processor") && warnings.contains("8 on 2"), "{warnings}");
    }

    #[test]
    fn another_document_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for (text, expected) in [
            ("{", "not JSON"),
            ("{}", "`schema_version` is missing"),
            (r#"{"schema_version": 2}"#, "reads up to 1"),
            (r#"{"schema_version": 1, "lines": []}"#, "this is not what"),
        ] {
            std::fs::write(&path, text).unwrap();
            let e = read(&path).unwrap_err();
            assert!(e.chain().join(" ").contains(expected), "{text}: {:?}", e.chain());
        }
        let whole = report(1.0, &[("a", 1.0)]);
        std::fs::write(&path, serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), whole);
    }
}
