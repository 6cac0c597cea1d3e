//! Metrics as JSON lines: one object for each line, each with its step.

use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A log of metrics that is appended to.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
}

impl MetricsLog {
    /// A new, empty log in place of what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Opened for appending like a resumed one, so that no two ways of writing need to be trusted.
        File::create(path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)? })
    }

    /// The log of a run that goes on after the step `last`: later lines, and a torn one at the end, are cut off. Without
    /// a file it is a new one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn resume(path: &Path, last: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut bytes = vec![];
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let keep = kept(&bytes, last);
        if keep < bytes.len() {
            file.set_len(keep as u64)?;
            file.sync_data()?;
        }
        Ok(Self { file })
    }

    /// Appends a line: `step`, then the fields. Numbers that are not finite become `null`, which JSON has no other
    /// word for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, step: u64, fields: &Map<String, Value>) -> io::Result<()> {
        let mut line = Map::from_iter([("step".to_owned(), step.into())]);
        line.extend(fields.iter().filter(|(name, _)| *name != "step").map(|(n, v)| (n.clone(), v.clone())));
        self.file.write_all(format!("{}\n", Value::Object(line)).as_bytes())
    }

    /// Waits until everything is on the disk; to be called before a checkpoint is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The lines of a log, without a torn one at the end and what else is no object.
///
/// # Errors
/// The file cannot be read.
pub fn read_metrics(path: &Path) -> io::Result<Vec<Map<String, Value>>> {
    Ok(lines(&std::fs::read(path)?).filter_map(object).collect())
}

/// How many bytes of a log are of steps up to `last`. Lines that nobody can read stay, except the last.
fn kept(bytes: &[u8], last: u64) -> usize {
    let whole: usize = lines(bytes).map(<[u8]>::len).sum();
    let mut end = 0;
    for line in lines(bytes) {
        let step = object(line).and_then(|o| o.get("step").and_then(Value::as_u64));
        let torn = step.is_none() && end + line.len() == whole;
        if torn || step.is_some_and(|s| s > last) {
            break;
        }
        end += line.len();
    }
    end
}

/// Whole lines with their ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn object(line: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("atelier-metrics-{name}-{}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn fields(loss: f64) -> Map<String, Value> {
        json!({"loss": loss, "step": 99}).as_object().unwrap().clone()
    }

    #[test]
    fn a_resumed_log_is_that_of_a_run_that_was_not_stopped() {
        let (whole, pieces) = (path("whole"), path("pieces"));
        let mut a = MetricsLog::create(&whole).unwrap();
        (0..10).for_each(|i| a.append(i, &fields(i as f64 / 3.0)).unwrap());
        let mut b = MetricsLog::create(&pieces).unwrap();
        (0..7).for_each(|i| b.append(i, &fields(i as f64 / 3.0)).unwrap());
        std::fs::OpenOptions::new()
            .append(true)
            .open(&pieces)
            .unwrap()
            .write_all(b"{\"step\": 7, \"lo")
            .unwrap();
        drop(b);
        let mut b = MetricsLog::resume(&pieces, 4).unwrap();
        (5..10).for_each(|i| b.append(i, &fields(i as f64 / 3.0)).unwrap());
        b.sync().unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&pieces).unwrap());
        let read = read_metrics(&pieces).unwrap();
        assert_eq!((read.len(), &read[3]["step"], &read[3]["loss"]), (10, &json!(3), &json!(1.0)));
        std::fs::remove_file(whole).unwrap();
        std::fs::remove_file(pieces).unwrap();
    }

    #[test]
    fn torn_and_late_lines_are_cut_off_and_others_stay() {
        let cut = |text: &[u8], last| String::from_utf8_lossy(&text[..kept(text, last)]).into_owned();
        assert_eq!(cut(b"", 5), "");
        assert_eq!(cut(b"{\"step\":1}\n{\"step\":2}\n", 9), "{\"step\":1}\n{\"step\":2}\n");
        assert_eq!(cut(b"{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n", 1), "{\"step\":1}\n");
        // Whole, but without the end of its line: another could have followed on the same.
        assert_eq!(cut(b"{\"step\":1}\n{\"step\":2}", 9), "{\"step\":1}\n");
        assert_eq!(cut(b"{\"step\":1}\n{\"st\0\xff\n", 9), "{\"step\":1}\n");
        assert_eq!(
            cut(b"{\"note\":1}\n{\"step\":1}\nwhat\n{\"step\":2}\n", 1),
            "{\"note\":1}\n{\"step\":1}\nwhat\n"
        );
        assert_eq!(cut(b"{\"step\":\"1\"}\n", 1), "");
    }

    #[test]
    fn a_log_that_is_not_there_is_started_and_an_old_one_replaced() {
        let path = path("new");
        MetricsLog::resume(&path, 3).unwrap().append(4, &fields(f64::NAN)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":4,\"loss\":null}\n");
        MetricsLog::create(&path).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), Vec::<Map<String, Value>>::new());
        std::fs::remove_file(path).unwrap();
    }
}
