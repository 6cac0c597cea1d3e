//! Event files, as TensorBoard reads them and `wandb sync` takes them.

use super::event::{What, record};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The event file of one start of a run. Each record is written with one call: a run that is killed leaves at most its
/// last record torn, which readers skip.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// A new file in `folder`, which is made if it is not there. `first_step` is the first that this start of the run
    /// will log: 0, or the one after the checkpoint's. Readers forget what earlier files of the folder have from it on.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn create(folder: &Path, host: &str, first_step: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Readers take the files in the order of their names: one that is resumed within a second, or after the clock
        // was set back, must still come last.
        let time = newest(folder)?.map_or(0, |t| t + 1).max(now() as u64);
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let host = if host.is_empty() { "localhost" } else { &host };
        let path = folder.join(format!("events.out.tfevents.{time:010}.{host}.{}", std::process::id()));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let mut events = Self { file, path };
        events.write(0, &What::Version)?;
        events.write(first_step, &What::Start)?;
        Ok(events)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Logs a point of each of some curves.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        self.write(step, &What::Scalars(values))
    }

    /// Logs a picture, the content of a PNG file.
    ///
    /// # Errors
    /// The file cannot be written; the picture is no PNG.
    pub fn image(&mut self, step: u64, tag: &str, png: &[u8]) -> io::Result<()> {
        let (size, channels) = header(png)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("`{tag}` is no PNG")))?;
        self.write(step, &What::Png { tag, png, size, channels })
    }

    /// Waits until everything is on the disk; to be called before a checkpoint is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&mut self, step: u64, what: &What) -> io::Result<()> {
        self.file.write_all(&record(now(), step, what))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// The latest time in the names of the event files of a folder.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let time = name.to_str().and_then(|n| n.strip_prefix("events.out.tfevents."));
        newest = newest.max(time.and_then(|n| n.split('.').next()?.parse().ok()));
    }
    Ok(newest)
}

/// Width and height of a PNG, and its channels.
fn header(png: &[u8]) -> Option<([u32; 2], u32)> {
    let rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let number = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    // Grey, colours, a palette of colours, grey with alpha, colours with alpha.
    let channels = match rest.get(9)? {
        0 => 1,
        2 | 3 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    Some(([number(0)?, number(4)?], channels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("atelier-events-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    /// Steps of the records of a file, and whether it ends with a whole one.
    fn steps(path: &Path) -> Vec<u8> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut steps) = (&bytes[..], vec![]);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            // Key and time, key of the step, the step.
            steps.push(rest[12 + 10]);
            rest = &rest[length + 16..];
        }
        steps
    }

    #[test]
    fn a_file_starts_with_its_version_and_the_start_of_the_run() {
        let folder = folder("start");
        let mut events = EventFile::create(&folder, "my host.local", 5).unwrap();
        events.scalars(5, &[("loss", 1.0)]).unwrap();
        events.scalars(6, &[]).unwrap();
        events.sync().unwrap();
        assert_eq!(steps(events.path()), [0, 5, 5, 6]);
        assert!(events.path().to_str().unwrap().contains(".myhostlocal."));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_of_a_resumed_run_comes_after_all_others_even_if_the_clock_went_back() {
        let folder = folder("order");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("events.out.tfevents.4000000000.zzz.1"), "").unwrap();
        std::fs::write(folder.join("events.out.tfevents.what"), "").unwrap();
        let one = EventFile::create(&folder, "a", 0).unwrap();
        let two = EventFile::create(&folder, "", 0).unwrap();
        let name = |e: &EventFile| e.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name(&one).starts_with("events.out.tfevents.4000000001.a."), "{}", name(&one));
        assert!(name(&two).starts_with("events.out.tfevents.4000000002.localhost."), "{}", name(&two));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_png_is_refused_and_not_written() {
        let folder = folder("png");
        let mut events = EventFile::create(&folder, "a", 0).unwrap();
        for bad in [&b""[..], b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0", b"\xff\xd8\xff"]
        {
            assert_eq!(events.image(1, "x", bad).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        events.image(1, "x", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x03\x08\x06").unwrap();
        assert_eq!(steps(events.path()), [0, 0, 1]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
