//! A run as seen on a terminal.

use crate::dispatch::Observer;
use atelier_sdk::{Event, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::Path;
use std::time::Duration;

/// Draws a bar with speed and time left on stderr, when that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    warnings: Vec<String>,
}

impl Progress {
    /// A bar, or nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, warnings: Vec::new() }
    }

    /// Takes the bar away; warnings stay to be read.
    pub fn finish(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.warnings
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn steps_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {pos}/{len} [{bar:30}] {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("per_sec", |s: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
            let _ = match s.per_sec() {
                v if v >= 1.0 => write!(w, "{v:.2} it/s"),
                v if v > 0.0 => write!(w, "{:.2} s/it", 1.0 / v),
                _ => write!(w, "-"),
            };
        })
        .progress_chars("=> ")
}

impl Observer for Progress {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage } => {
                self.bar.set_style(spinner());
                self.bar.set_message(match stage {
                    Stage::Load => "loading the model",
                    Stage::Encode => "reading the prompt",
                    Stage::Denoise => "denoising",
                    Stage::Decode => "decoding",
                    _ => "working",
                });
            }
            Event::Step { step, steps, .. } => {
                if *step == 1 {
                    self.bar.reset();
                    self.bar.set_style(steps_style());
                    self.bar.set_length(*steps as u64);
                }
                self.bar.set_position(*step as u64);
            }
            Event::Warning { message } => self.warnings.push(message.clone()),
            _ => {}
        }
    }

    fn saved(&mut self, path: &Path) {
        self.bar.suspend(|| eprintln!("saved {}", path.display()));
    }
}
