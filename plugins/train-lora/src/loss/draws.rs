//! Random numbers without a state to save.

use atelier_sdk::rng::{NormalRng, RngKind};

/// What random numbers are for. Each purpose has numbers of its own, so that a new one disturbs no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// The first weights of the adapter.
    Init,
    /// The order of the samples of an epoch.
    Order,
    /// The timestep of a sample.
    Timestep,
    /// The noise of a sample.
    Noise,
    /// The shift of the noise of a sample.
    NoiseOffset,
    /// Whether a sample goes without its caption.
    CaptionDropout,
    /// Whether a sample is mirrored, and the like.
    Augment,
    /// Which latent the encoder's distribution gives.
    Latent,
    /// What dropout leaves out, in the layer of this number.
    Dropout(u32),
    /// Timesteps of the validation, which are the same each time.
    ValidationTimestep,
    /// Noise of the validation, which is the same each time.
    ValidationNoise,
    /// Anything else, by number.
    Other(u32),
}

impl Lane {
    /// Never changed: runs that are resumed by a later version must draw what they would have drawn.
    fn number(self) -> u64 {
        match self {
            Self::Init => 1,
            Self::Order => 2,
            Self::Timestep => 3,
            Self::Noise => 4,
            Self::NoiseOffset => 5,
            Self::CaptionDropout => 6,
            Self::Augment => 7,
            Self::Latent => 8,
            Self::ValidationTimestep => 9,
            Self::ValidationNoise => 10,
            Self::Dropout(n) => 1 << 32 | u64::from(n),
            Self::Other(n) => 2 << 32 | u64::from(n),
        }
    }
}

/// The random numbers of one number and purpose in a run of one seed.
#[derive(Debug, Clone)]
pub struct Draws {
    counter: u64,
    normals: NormalRng,
}

impl Draws {
    /// The numbers for `index`: a sample counted from the start of the run, a micro-step, an epoch. Numbers drawn by
    /// sample do not depend on how samples are put together to batches.
    pub fn new(seed: u64, index: u64, lane: Lane) -> Self {
        // Mixed after each part: seeds, numbers and purposes that lie close together have keys far apart.
        let key = mix(mix(mix(seed).wrapping_add(index)).wrapping_add(lane.number()));
        Self { counter: mix(key), normals: NormalRng::new(RngKind::Gpu, key) }
    }

    /// The next 64 random bits (SplitMix64; Steele, Lea and Flood 2014).
    pub fn bits(&mut self) -> u64 {
        let bits = mix(self.counter);
        self.counter = self.counter.wrapping_add(GAMMA);
        bits
    }

    /// The next number, evenly from [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The next whole number below `n`, all equally likely; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            // Lemire 2019: the high half of a product, and another draw where the low half tells of a bias.
            let product = u128::from(self.bits()) * u128::from(n);
            if n == 0 || product as u64 >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with a probability: always at 1, never at 0.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Fills `out` with the next standard normal numbers.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        self.normals.fill_normal(out);
    }

    /// Fills `out` with the next numbers, evenly from [0, 1).
    pub fn fill_uniform(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|v| *v = (self.bits() >> 40) as f32 * (1.0 / (1 << 24) as f32));
    }

    /// Puts items into a random order, each order equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).rev().for_each(|i| items.swap(i, self.below(i as u64 + 1) as usize));
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GAMMA);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn bits_are_those_of_splitmix64() {
        // The first outputs of the published generator for state 1234567.
        let outputs = [1234567, 1234567u64.wrapping_add(GAMMA)].map(mix);
        assert_eq!(outputs, [6457827717110365317, 3203168211198807973]);
    }

    /// Resumed runs of other versions depend on these.
    #[test]
    fn numbers_never_change() {
        let mut d = Draws::new(42, 7, Lane::Timestep);
        let first = (d.bits(), d.below(1000));
        let mut normals = [0f32; 2];
        d.fill_normal(&mut normals);
        assert_eq!(first, (17515268733259707235, 814));
        let expected = [0.172_400_28f32, -0.112_909_53];
        assert!(normals.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{normals:?}");
    }

    #[test]
    fn seed_number_and_purpose_all_count() {
        let lanes =
            [Lane::Init, Lane::Noise, Lane::Dropout(0), Lane::Dropout(1), Lane::Other(0), Lane::Other(1)];
        let mut seen = BTreeSet::new();
        let mut normals = BTreeSet::new();
        for (seed, index) in (0..20).flat_map(|s| (0..20).map(move |i| (s, i))) {
            for lane in lanes {
                let mut d = Draws::new(seed, index, lane);
                let mut n = [0f32; 3];
                d.fill_normal(&mut n);
                assert!(seen.insert(d.bits()), "{seed} {index} {lane:?}");
                assert!(normals.insert(n.map(f32::to_bits)), "{seed} {index} {lane:?}");
            }
        }
    }

    #[test]
    fn numbers_are_spread_evenly_over_samples_and_within_one() {
        let n = 20_000;
        let first = (0..n).map(|i| Draws::new(1, i, Lane::Timestep).below(10));
        let mut d = Draws::new(1, 0, Lane::Timestep);
        let within = (0..n).map(|_| d.below(10));
        for counts in [first.collect::<Vec<_>>(), within.collect()]
            .map(|v| (0..10).map(|k| v.iter().filter(|x| **x == k).count()).collect::<Vec<_>>())
        {
            // Five standard deviations of a binomial.
            assert!(counts.iter().all(|c| c.abs_diff(2000) < 215), "{counts:?}");
        }
    }

    #[test]
    fn normals_have_their_moments() {
        let mut v = vec![0f32; 50_000];
        Draws::new(3, 4, Lane::Noise).fill_normal(&mut v);
        let moment = |k| v.iter().map(|x| f64::from(*x).powi(k)).sum::<f64>() / v.len() as f64;
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.25);
    }

    #[test]
    fn the_ends_of_a_range_are_respected() {
        let mut d = Draws::new(0, 0, Lane::Other(9));
        assert_eq!((d.below(0), d.below(1)), (0, 0));
        assert!((0..1000).all(|_| d.below(u64::MAX) < u64::MAX && d.below(3) < 3));
        assert!((0..1000).all(|_| d.chance(1.0) && !d.chance(0.0) && !d.chance(f64::NAN)));
        let mut v = [0f32; 1000];
        d.fill_uniform(&mut v);
        assert!(v.iter().all(|v| (0.0..1.0).contains(v)));
        d.fill_normal(&mut []);
        d.shuffle::<u8>(&mut []);
    }
}
