//! Choice by lot that is the same everywhere: of a record it depends on the seed and the record's id alone, not on
//! the order of files, the number of threads, or other records.

use sha2::{Digest, Sha256};

/// 64 random bits of a record for a purpose.
pub fn bits(seed: u64, purpose: &str, id: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(id.as_bytes());
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |bits, b| bits << 8 | u64::from(*b))
}

/// A number in [0, 1) of a record for a purpose.
pub fn unit(seed: u64, purpose: &str, id: &str) -> f64 {
    (bits(seed, purpose, id) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_even_and_depend_on_everything_given() {
        let mean: f64 = (0..10_000).map(|i| unit(1, "p", &i.to_string())).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let all =
            [bits(1, "p", "a"), bits(2, "p", "a"), bits(1, "q", "a"), bits(1, "p", "b"), bits(1, "pa", "")];
        assert!((1..5).all(|i| all[i] != all[0]));
        assert_eq!(bits(1, "p", "a"), bits(1, "p", "a"));
    }
}
