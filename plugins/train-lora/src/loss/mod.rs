//! What is learned at each timestep: targets, weights, noise.
