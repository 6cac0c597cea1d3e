//! A run as seen on a terminal.

use crate::dispatch::Observer;
use atelier_sdk::{Event, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Draws a bar with speed and time left on stderr, when that is a terminal, and says each saved image on stdout.
pub struct Progress {
    bar: ProgressBar,
    quiet: bool,
    /// Steps of the image in work that were seen, and their time.
    seen: usize,
    seconds: f64,
    last: (usize, usize),
    warnings: Vec<String>,
}

impl Progress {
    /// A bar, or nothing at all if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        bar.set_style(style("{spinner} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, quiet, seen: 0, seconds: 0.0, last: (0, 0), warnings: Vec::new() }
    }

    /// Takes the bar away; warnings stay to be read.
    pub fn finish(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.warnings
    }

    fn step(&mut self, step: usize, steps: usize, seconds: f64) {
        // A training that goes on begins in the middle.
        if step <= self.last.0 || steps != self.last.1 {
            (self.seen, self.seconds) = (0, 0.0);
        }
        if self.seen == 0 || self.bar.length() != Some(steps as u64) {
            self.bar.set_style(style("{msg} {pos}/{len} [{bar:30}] {prefix}"));
            self.bar.set_length(steps as u64);
        }
        self.last = (step, steps);
        self.seen += 1;
        self.seconds += seconds;
        let each = self.seconds / self.seen as f64;
        let left = each * steps.saturating_sub(step) as f64;
        let speed = if each < 1.0 { format!("{:.2} it/s", 1.0 / each) } else { format!("{each:.2} s/it") };
        self.bar.set_prefix(format!("{speed}, {left:.0} s left"));
        self.bar.set_position(step as u64);
    }

    /// Losses are what people watch a training by: the last stands in the bar, validations stay to be read.
    fn metric(&mut self, name: &str, value: f64) {
        match name {
            "train.loss" => self.bar.set_message(format!("loss {value:.4}")),
            "val.loss" if !self.quiet => {
                let (step, _) = self.last;
                self.bar.suspend(|| {
                    // A reader that went away does not stop a training.
                    let _ = writeln!(std::io::stderr(), "step {step}: validation loss {value:.5}");
                });
            }
            _ => {}
        }
    }

    fn progress(&mut self, done: u64, total: u64, unit: &str) {
        let counted = if unit == "bytes" { "{bytes}/{total_bytes}" } else { "{pos}/{len} {msg}" };
        self.bar.set_style(style(&format!("{counted} [{{bar:30}}] {{eta}} left")));
        self.bar.set_message(unit.to_string());
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; one that does not parse falls back to the library's own.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Observer for Progress {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage } => {
                self.bar.set_style(style("{spinner} {msg}"));
                self.bar.set_message(match stage {
                    Stage::Load => "loading the model",
                    Stage::Encode => "reading the prompt",
                    Stage::Denoise => "denoising",
                    Stage::Decode => "decoding",
                    Stage::Upscale => "upscaling",
                    Stage::Prepare => "preparing",
                    Stage::Train => "training",
                    Stage::Validate => "validating",
                    _ => "working",
                });
            }
            Event::Step { step, steps, seconds } => self.step(*step, *steps, *seconds),
            Event::Progress { done, total, unit } => self.progress(*done, *total, unit),
            Event::Metric { name, value } => self.metric(name, *value),
            Event::Warning { message } => self.warnings.push(message.clone()),
            _ => {}
        }
    }

    fn saved(&mut self, path: &Path) {
        if !self.quiet {
            // A reader that went away does not undo what was saved.
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{}", path.display());
            });
        }
    }
}
