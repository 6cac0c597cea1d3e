//! Training data: images with captions, what is wrong with them, and what the networks make of them, kept on disk.
