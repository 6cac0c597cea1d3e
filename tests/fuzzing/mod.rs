//! Files changed at random, for readers that must answer with content or an error: never with a panic, never by taking
//! far more memory than the file could fill, never by taking long.
//!
//! A target has files to begin with, made in code, and a reader. `examples/fuzz_*.rs` of a crate runs its targets for a
//! time; what is found is kept in `corpus/<target>/` and runs with the tests from then on.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "shared by binaries that use parts of it")]

pub mod change;

use change::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's memory, with a note of the largest piece asked for.
pub struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// More at once than any reader needs for files this small.
const MOST: usize = 64 << 20;
/// Longer than any reader needs.
const LONGEST: Duration = Duration::from_secs(5);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// A reader and what it reads.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Sound files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads; says whether it took the file for a sound one.
    pub read: fn(&[u8]) -> bool,
    /// Pieces that such files have.
    pub words: &'static [&'static [u8]],
    /// Puts lengths and the like right, so that changes reach what is behind them.
    pub mend: fn(&mut [u8]),
}

/// For formats without anything to mend.
pub fn as_it_is(_: &mut [u8]) {}

/// Reads one input; says what was wrong with that.
pub fn attempt(target: &Target, input: &[u8]) -> Result<bool, String> {
    LARGEST.store(0, Ordering::Relaxed);
    let began = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let (took, largest) = (began.elapsed(), LARGEST.load(Ordering::Relaxed));
    let Ok(sound) = read else { return Err("it panicked".into()) };
    if largest > MOST {
        return Err(format!("it asked for {largest} bytes at once"));
    }
    if took > LONGEST {
        return Err(format!("it took {:.1} s", took.as_secs_f64()));
    }
    Ok(sound)
}

/// Where the findings of a target are.
pub fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|p| p.join("tests/fuzzing/corpus"))
        .find(|p| p.is_dir())
        .unwrap()
        .join(target.name)
}

/// Everything that a target must pass: its seeds, and what was found once.
pub fn replay(target: &Target) {
    for (i, seed) in (target.seeds)().iter().enumerate() {
        assert_eq!(attempt(target, seed), Ok(true), "{}: seed {i} must be sound", target.name);
    }
    let entries = std::fs::read_dir(corpus(target)).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()) {
        let input = std::fs::read(&path).unwrap();
        if let Err(wrong) = attempt(target, &input) {
            panic!("{}: {wrong}", path.display());
        }
    }
}

/// What was asked for on the command line.
struct Asked {
    seconds: u64,
    seed: u64,
    names: Vec<String>,
    inputs: Vec<PathBuf>,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked { seconds: 10, seed: 1, names: Vec::new(), inputs: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text:?} is not a number"));
        match arg.as_str() {
            "--seconds" => asked.seconds = number(value()?)?,
            "--seed" => asked.seed = number(value()?)?,
            "--input" => asked.inputs.push(value()?.into()),
            "--help" => return Err("fuzz [TARGET...] [--seconds N] [--seed N] [--input FILE]".into()),
            name => asked.names.push(name.into()),
        }
    }
    Ok(asked)
}

/// Runs the targets named on the command line, or all of them; the exit code says whether something was found.
pub fn main(targets: &[Target]) -> std::process::ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(words) => {
            eprintln!("{words}");
            return 2.into();
        }
    };
    if let Some(unknown) = asked.names.iter().find(|n| !targets.iter().any(|t| t.name == n.as_str())) {
        let names: Vec<&str> = targets.iter().map(|t| t.name).collect();
        eprintln!("there is no target {unknown}; there are: {}", names.join(", "));
        return 2.into();
    }
    let wanted = targets.iter().filter(|t| asked.names.is_empty() || asked.names.iter().any(|n| n == t.name));
    let mut found = 0;
    for target in wanted {
        found += match asked.inputs.as_slice() {
            [] => run(target, asked.seed, Duration::from_secs(asked.seconds)),
            inputs => again(target, inputs),
        };
    }
    u8::from(found > 0).into()
}

/// Given files instead of changed ones.
fn again(target: &Target, inputs: &[PathBuf]) -> usize {
    let mut found = 0;
    for path in inputs {
        let outcome = attempt(target, &std::fs::read(path).unwrap());
        println!("{}: {}: {outcome:?}", target.name, path.display());
        found += usize::from(outcome.is_err());
    }
    found
}

fn run(target: &Target, seed: u64, time: Duration) -> usize {
    let seeds = (target.seeds)();
    let (began, mut round, mut sound) = (Instant::now(), 0u64, 0u64);
    while began.elapsed() < time {
        // Each round has a seed of its own: what it did can be done again without what came before.
        let mut random = Random::new(seed, round);
        let input = change::changed(&seeds, target, &mut random);
        match attempt(target, &input) {
            Ok(is_sound) => sound += u64::from(is_sound),
            Err(wrong) => {
                let path = PathBuf::from(format!("fuzz-{}-{seed}-{round}", target.name));
                std::fs::write(&path, &input).unwrap();
                println!("{}: FOUND in round {round} of seed {seed}: {wrong}", target.name);
                println!("  again: fuzz {} --input {}", target.name, path.display());
                println!("  keep it in tests/fuzzing/corpus/{}/ when it is mended", target.name);
                return 1;
            }
        }
        round += 1;
    }
    println!(
        "{}: {round} files, {sound} of them taken for sound, in {:.1} s",
        target.name,
        began.elapsed().as_secs_f64()
    );
    0
}
