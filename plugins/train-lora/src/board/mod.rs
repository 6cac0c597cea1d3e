//! Curves for people and their tools: TensorBoard event files, JSON lines.
//!
//! Both are logs: they are appended to while the run goes on, and a torn end is expected of them. A run that is resumed
//! from a checkpoint takes back what was logged after it.

mod crc32c;
mod event;
mod metrics;
mod tensorboard;

pub use metrics::{MetricsLog, read_metrics};
pub use tensorboard::EventFile;
