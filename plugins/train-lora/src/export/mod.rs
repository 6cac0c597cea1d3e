//! Trained adapters as files that other programs load.
