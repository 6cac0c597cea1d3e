//! Curves for people and their tools: TensorBoard event files, JSON lines.
