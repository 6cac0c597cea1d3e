//! Choice by lot that is the same everywhere: what falls to an image depends on the seed and its name alone.

use sha2::{Digest, Sha256};

/// 64 random bits of a name for a purpose.
pub fn bits(seed: u64, purpose: &str, name: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((purpose.len() as u64).to_le_bytes());
    hash.update(purpose);
    hash.update(name);
    hash.finalize().iter().take(8).fold(0, |bits, b| bits << 8 | u64::from(*b))
}

/// A digest as people write it.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A digest over parts, each told apart from the next.
#[derive(Default)]
pub struct Parts(Sha256);

impl Parts {
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        self.0.update((part.as_ref().len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_even_and_depend_on_everything_given() {
        let half = (0..10_000).filter(|i| bits(1, "p", &i.to_string()) >> 63 == 1).count();
        assert!((4800..5200).contains(&half), "{half}");
        let all =
            [bits(1, "p", "a"), bits(2, "p", "a"), bits(1, "q", "a"), bits(1, "p", "b"), bits(1, "pa", "")];
        assert!((1..5).all(|i| all[i] != all[0]));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let digest = |parts: &[&str]| parts.iter().fold(Parts::default(), |d, p| d.with(p)).finish();
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(hex(&digest(&[]))[..8], *"e3b0c442");
    }
}
