//! One file over HTTP into a part file: resumed where it broke off, of the right length and digest in the end.

use super::http::{Answer, Ask, Client, Failure, shown};
use super::pull::Watch;
use crate::digests::hex;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use url::Url;

const CHUNK: usize = 256 << 10;
/// Failures in a row, without a byte between them, after which it is given up.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a file must be.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its length.
    pub size: Option<u64>,
    /// Its SHA-256, in lower case.
    pub sha256: Option<String>,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Its SHA-256.
    pub sha256: String,
    /// Its length.
    pub size: u64,
}

/// Does something that may fail in passing, until it works or has failed too often.
///
/// # Errors
/// The last failure.
pub fn patiently<T>(watch: &mut dyn Watch, mut what: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut failures = 0;
    loop {
        match what() {
            Ok(done) => return Ok(done),
            Err(Failure::Lasting(e)) => return Err(e),
            Err(Failure::Passing(e, after)) => {
                failures += 1;
                pause(failures, e, after, watch)?;
            }
        }
    }
}

/// Waits before another attempt. Errors: there were enough.
fn pause(failures: u32, e: Error, after: Option<Duration>, watch: &mut dyn Watch) -> Result<()> {
    if failures >= ATTEMPTS {
        return Err(e.hint(format!("it was tried {failures} times")));
    }
    let wait = after.unwrap_or(FIRST_PAUSE * 2u32.pow(failures - 1)).min(LONGEST_PAUSE);
    watch.note(&format!("{}; trying again in {:.1} s", e.chain().join(": "), wait.as_secs_f64()));
    std::thread::sleep(wait);
    Ok(())
}

/// Gets `url` into the file `part`, which may hold the beginning already. After an error what came is kept for the
/// next time, unless it is wrong.
///
/// # Errors
/// It cannot be had; another length or digest than expected; the disk is full.
pub fn fetch(
    client: &Client,
    url: &Url,
    expected: &Expected,
    part: &Path,
    watch: &mut dyn Watch,
) -> Result<Came> {
    let mut transfer = Transfer::open(part, expected)?;
    let resumed = transfer.size > 0;
    match transfer.finish(client, url, watch) {
        // The beginning may be from another time: once more from the start tells whether it was that.
        Err(e) if resumed && e.kind() == ErrorKind::Corrupt => {
            watch.note("what was there already does not fit; starting over");
            let mut transfer = Transfer::open(part, expected)?;
            transfer.restart()?;
            transfer.finish(client, url, watch)
        }
        done => done,
    }
}

struct Transfer<'a> {
    part: &'a Path,
    expected: &'a Expected,
    file: File,
    hash: Sha256,
    size: u64,
}

impl<'a> Transfer<'a> {
    fn open(part: &'a Path, expected: &'a Expected) -> Result<Self> {
        super::lock::folder_of(part)?;
        let file = File::options().create(true).truncate(false).read(true).write(true).open(part);
        let file = file.map_err(|e| fsx::cannot_write(part, e))?;
        let mut transfer = Self { part, expected, file, hash: Sha256::new(), size: 0 };
        let size = transfer.file.metadata().map_err(|e| fsx::cannot_write(part, e))?.len();
        if expected.size.is_some_and(|most| size > most) {
            transfer.restart()?;
        } else {
            transfer.rehash()?;
        }
        Ok(transfer)
    }

    /// Takes in what is there.
    fn rehash(&mut self) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk).map_err(|e| fsx::cannot_write(self.part, e))? {
                0 => return Ok(()),
                n => {
                    self.hash.update(&chunk[..n]);
                    self.size += n as u64;
                }
            }
        }
    }

    fn restart(&mut self) -> Result<()> {
        let again = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        again.map_err(|e| fsx::cannot_write(self.part, e))?;
        self.hash = Sha256::new();
        self.size = 0;
        Ok(())
    }

    fn finish(&mut self, client: &Client, url: &Url, watch: &mut dyn Watch) -> Result<Came> {
        watch.at(self.size);
        let mut failures = 0;
        while self.expected.size.is_none_or(|size| self.size < size) {
            let before = self.size;
            match self.attempt(client, url, watch) {
                Ok(()) => break,
                Err(Failure::Lasting(e)) => return Err(e),
                Err(Failure::Passing(e, after)) => {
                    // Whatever came is progress: a line that breaks often is no reason to give up.
                    failures = if self.size > before { 1 } else { failures + 1 };
                    pause(failures, e, after, watch)?;
                }
            }
        }
        self.check(url)
    }

    /// One request.
    fn attempt(&mut self, client: &Client, url: &Url, watch: &mut dyn Watch) -> Result<(), Failure> {
        let answer = client.ask(url, Ask::From(self.size))?;
        match answer.status {
            206 => self.check_range(&answer)?,
            // There is nothing after what is here: either it is whole, or it is of something else.
            416 if self.size > 0 => {
                let total =
                    answer.header("content-range").and_then(|r| r.strip_prefix("bytes */")?.parse().ok());
                if total == Some(self.size) {
                    return Ok(());
                }
                self.restart()?;
                return Err(Failure::Passing(odd(url, "the server has less than is here already"), None));
            }
            200 => self.restart()?,
            other => return Err(odd(url, &format!("an answer with status {other}")).into()),
        }
        if let Some(coding) = answer.header("content-encoding").filter(|c| *c != "identity") {
            return Err(
                odd(url, &format!("an answer in the coding {coding:?}, which was not asked for")).into()
            );
        }
        let total = answer.number("content-length").map(|n| self.size + n);
        if let (Some(expected), Some(found)) = (self.expected.size, total)
            && expected != found
        {
            return Err(wrong_length(url, expected, found).into());
        }
        let total = total.or(self.expected.size);
        room(self.part, total.unwrap_or_default().saturating_sub(self.size))?;
        self.copy(answer.into_reader(), url, total, watch)
    }

    fn check_range(&mut self, answer: &Answer) -> Result<(), Failure> {
        let range = answer.header("content-range").unwrap_or_default();
        let start = range.strip_prefix("bytes ").and_then(|r| r.split('-').next()?.parse::<u64>().ok());
        if start == Some(self.size) {
            return Ok(());
        }
        let text = format!("was asked for bytes from {} on, and sends {range:?}", self.size);
        self.restart()?;
        Err(Failure::Passing(odd(&answer.url, &text), None))
    }

    fn copy(
        &mut self,
        mut from: impl Read,
        url: &Url,
        total: Option<u64>,
        watch: &mut dyn Watch,
    ) -> Result<(), Failure> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = from.read(&mut chunk).map_err(|e| {
                let text = format!("the connection to {} broke after {} bytes", shown(url), self.size);
                Failure::Passing(Error::new(ErrorKind::Environment, text).because(e), None)
            })?;
            if read == 0 {
                break;
            }
            self.size += read as u64;
            if total.is_some_and(|total| self.size > total) {
                return Err(wrong_length(url, total.unwrap_or_default(), self.size).into());
            }
            self.file.write_all(&chunk[..read]).map_err(|e| {
                fsx::cannot_write(self.part, e).hint("what came is kept: pull again when there is room")
            })?;
            self.hash.update(&chunk[..read]);
            watch.at(self.size);
        }
        match total {
            Some(total) if self.size < total => {
                let text = format!("{} ended after {} of {total} bytes", shown(url), self.size);
                Err(Failure::Passing(Error::new(ErrorKind::Environment, text), None))
            }
            _ => Ok(()),
        }
    }

    /// Length and digest; what is wrong is not kept.
    fn check(&mut self, url: &Url) -> Result<Came> {
        self.file.sync_all().map_err(|e| fsx::cannot_write(self.part, e))?;
        let came = Came { sha256: hex(&self.hash.clone().finalize()), size: self.size };
        let problem = check(&came, self.expected, &shown(url));
        if problem.is_err() {
            self.restart()?;
            let _ = std::fs::remove_file(self.part);
        }
        problem.map(|()| came)
    }
}

/// Whether what came is what was expected.
///
/// # Errors
/// It is not.
pub fn check(came: &Came, expected: &Expected, from: &str) -> Result<()> {
    let say = |what: &str, wanted: String, found: String| {
        Error::new(ErrorKind::Corrupt, format!("{from} has another {what}: expected {wanted}, found {found}"))
            .hint("the file is not the one that was described; nothing was put in place")
    };
    if let Some(size) = expected.size.filter(|size| *size != came.size) {
        return Err(say("length", format!("{size} bytes"), format!("{}", came.size)));
    }
    match &expected.sha256 {
        Some(sha256) if *sha256 != came.sha256 => Err(say("sha256", sha256.clone(), came.sha256.clone())),
        _ => Ok(()),
    }
}

fn wrong_length(url: &Url, expected: u64, found: u64) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{} has another length: expected {expected} bytes, found {found}", shown(url)),
    )
    .hint("the file is not the one that was described; nothing was put in place")
}

fn odd(url: &Url, what: &str) -> Error {
    Error::new(ErrorKind::Environment, format!("{}: {what}", shown(url)))
}

/// Refuses to begin what cannot be finished.
fn room(part: &Path, needed: u64) -> Result<()> {
    let folder = part.parent().unwrap_or(Path::new("."));
    match crate::machine::free_space(folder) {
        Some(free) if free < needed => Err(Error::new(
            ErrorKind::Environment,
            format!("{needed} bytes are missing, and {} has room for {free}", folder.display()),
        )
        .hint(
            "free some disk space, or name another folder: HF_HOME for the hub, ATELIER_MODELS for the rest",
        )),
        _ => Ok(()),
    }
}
