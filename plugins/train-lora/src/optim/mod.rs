//! Optimisers, learning rates and what goes with them, on plain vectors of f32.
