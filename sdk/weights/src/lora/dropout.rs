//! Dropout of what goes into adapters, for training.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The dropout that all adapters in training share. What they drop follows from the step's seed and the module: a
/// forward pass that is computed again drops the same.
#[derive(Debug)]
pub struct Dropout {
    rate: f64,
    seed: AtomicU64,
    active: AtomicBool,
}

impl Dropout {
    /// At this rate, 0..1; nothing is dropped before [`Self::begin`]. None for a rate of 0, which costs nothing.
    pub fn new(rate: f64) -> Option<Arc<Self>> {
        let dropout = Self { rate, seed: AtomicU64::new(0), active: AtomicBool::new(false) };
        (rate != 0.0).then(|| Arc::new(dropout))
    }

    /// From now on drops what this seed says. Not to be called between a forward pass and its backward pass.
    pub fn begin(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// Drops nothing from now on: for validation and samples.
    pub fn pause(&self) {
        self.active.store(false, Ordering::Relaxed);
    }
}

/// The dropout in front of one module's adapter.
#[derive(Clone, Debug)]
pub struct ModuleDropout {
    shared: Arc<Dropout>,
    module: u64,
}

impl ModuleDropout {
    /// That of the module with this name.
    pub fn new(shared: Arc<Dropout>, module: &str) -> Self {
        // FNV-1a (Fowler, Noll, Vo): the same on every machine and in every version.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        Self { shared, module: module.bytes().fold(0xCBF2_9CE4_8422_2325, step) }
    }

    /// The rate and the key of the mask, while something is dropped.
    pub fn current(&self) -> Option<(f64, u64)> {
        let Dropout { rate, seed, active } = self.shared.as_ref();
        let key = seed.load(Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.module;
        active.load(Ordering::Relaxed).then_some((*rate, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_seed_and_module_and_only_while_it_is_active() {
        let shared = Dropout::new(0.1).unwrap();
        let [a, b] = ["to_q", "to_k"].map(|m| ModuleDropout::new(shared.clone(), m));
        assert_eq!(a.current(), None);
        shared.begin(1);
        let first = a.current().unwrap();
        assert_eq!(first.0, 0.1);
        assert_eq!(a.current(), Some(first));
        assert_ne!(b.current(), Some(first));
        shared.begin(2);
        assert_ne!(a.current(), Some(first));
        shared.pause();
        assert_eq!(a.current(), None);
        assert!(Dropout::new(0.0).is_none());
    }
}
