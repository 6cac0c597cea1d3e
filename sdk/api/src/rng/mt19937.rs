//! MT19937 with torch's way of making normal numbers of it.
//!
//! Generator: Matsumoto and Nishimura 1998. Conversion: the order and arithmetic of `torch.randn` for
//! float tensors on the CPU - blocks of 16 by Box-Muller for 16 or more numbers, pairs in double precision below.

const N: usize = 624;
const M: usize = 397;

/// Mersenne Twister generator, the one behind `torch.manual_seed` on the CPU.
#[derive(Debug, Clone)]
pub struct Mt19937 {
    state: [u32; N],
    next: usize,
    /// Second number of a pair that [`Self::fill_normal`] made but did not need.
    spare: Option<f64>,
}

impl Mt19937 {
    /// A generator seeded as torch does: with the low 32 bits.
    pub fn new(seed: u64) -> Self {
        let mut state = [0u32; N];
        state[0] = seed as u32;
        for i in 1..N {
            let prev = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(prev ^ (prev >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N, spare: None }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A float in [0, 1) from 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// A double in [0, 1) from 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Fills `out` with the numbers of one `torch.randn` call of that size.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        let n = out.len();
        if n < 16 {
            for v in out {
                *v = self.pair_normal() as f32;
            }
            return;
        }
        for v in out.iter_mut() {
            *v = self.uniform_f32();
        }
        for block in out.chunks_exact_mut(16) {
            box_muller_16(block);
        }
        if !n.is_multiple_of(16) {
            // torch draws the last 16 anew so that they form a whole block.
            let tail = &mut out[n - 16..];
            for v in tail.iter_mut() {
                *v = self.uniform_f32();
            }
            box_muller_16(tail);
        }
    }

    fn pair_normal(&mut self) -> f64 {
        if let Some(v) = self.spare.take() {
            return v;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.spare = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

/// Turns 16 uniform numbers into 16 normal ones: number `i` and `i + 8` make a pair.
fn box_muller_16(block: &mut [f32]) {
    for i in 0..8 {
        let u1 = 1.0 - block[i];
        let u2 = block[i + 8];
        let radius = (-2.0 * u1.ln()).sqrt();
        let theta = 2.0 * std::f32::consts::PI * u2;
        block[i] = radius * theta.cos();
        block[i + 8] = radius * theta.sin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_stream_is_the_reference_one() {
        // First output for seed 5489 and the 10,000th, from the C++ standard's definition of mt19937.
        let mut g = Mt19937::new(5489);
        assert_eq!(g.next_u32(), 3_499_211_612);
        let last = (1..10_000).map(|_| g.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    /// Compares with numbers that `torch.randn` gave.
    fn check(seed: u64, n: usize, expected: &[(usize, f32)]) {
        let mut out = vec![0f32; n];
        Mt19937::new(seed).fill_normal(&mut out);
        for (i, v) in expected {
            assert!((out[*i] - v).abs() < 2e-6, "seed {seed} n {n} [{i}]: {} instead of {v}", out[*i]);
        }
    }

    #[test]
    fn normal_numbers_are_those_of_torch_on_a_cpu() {
        check(0, 4, &[(0, 1.540_996_1), (1, -0.293_428_9), (2, -2.178_789_4), (3, 0.568_431_26)]);
        check(42, 5, &[(0, 0.336_690_4), (1, 0.128_809_4), (3, 0.230_333_03), (4, -1.122_856_4)]);
        check(7, 16, &[(0, -0.820_134_5), (1, 0.395_631_16), (8, 0.926_543), (15, 1.090_165_1)]);
    }

    #[test]
    fn a_size_that_is_no_multiple_of_16_draws_its_last_block_anew() {
        let expected = [(0, -0.820_134_5), (8, -0.848_908_6), (15, -1.359_768_7), (20, 1.095_580_5)];
        check(7, 21, &expected);
    }

    #[test]
    fn only_the_low_32_bits_of_a_seed_count_as_in_torch() {
        check(123_456_789_012, 64, &[(0, -0.353_359_88), (3, -3.360_670_6), (63, -1.418_383_1)]);
        let (mut a, mut b) = ([0f32; 16], [0f32; 16]);
        Mt19937::new(7).fill_normal(&mut a);
        Mt19937::new(7 + (1 << 32)).fill_normal(&mut b);
        assert_eq!(a, b);
    }

    #[test]
    fn the_second_number_of_a_pair_waits_for_the_next_small_call() {
        let mut g = Mt19937::new(5);
        let (mut a, mut b) = ([0f32; 3], [0f32; 3]);
        g.fill_normal(&mut a);
        g.fill_normal(&mut b);
        for (x, y) in a.iter().chain(&b).zip([-0.4868f32, -0.6038, -0.5581, 0.6675, -0.1974, 1.9428]) {
            assert!((x - y).abs() < 1e-4, "{a:?} {b:?}");
        }
    }
}
