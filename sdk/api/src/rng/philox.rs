//! Philox 4x32-10 with CUDA's way of making normal numbers of it.
//!
//! Generator: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Conversion: `curand_normal`
//! as `torch.randn` uses it on a GPU, the first number of each Box-Muller pair.

/// Philox generator, the one behind `torch.manual_seed` on NVIDIA GPUs.
#[derive(Debug, Clone)]
pub struct Philox {
    key: [u32; 2],
    offset: u32,
}

impl Philox {
    /// A generator with a 64-bit seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], offset: 0 }
    }

    /// Fills `out` with the numbers of one `torch.randn` call of that size.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for (i, v) in out.iter_mut().enumerate() {
            let bits = block([self.offset, 0, i as u32, 0], self.key);
            *v = box_muller(bits[0], bits[1]);
        }
        self.offset = self.offset.wrapping_add(1);
    }
}

fn block(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

fn box_muller(x: u32, y: u32) -> f32 {
    const TWO_POW_32_INV: f32 = 2.328_306_4e-10;
    const TWO_POW_32_INV_2PI: f32 = 2.328_306_4e-10 * 6.283_185_5;
    let u = x as f32 * TWO_POW_32_INV + TWO_POW_32_INV / 2.0;
    let v = y as f32 * TWO_POW_32_INV_2PI + TWO_POW_32_INV_2PI / 2.0;
    (-2.0 * u.ln()).sqrt() * v.sin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_function_matches_the_papers_known_answers() {
        // Random123's kat_vectors for philox4x32-10.
        assert_eq!(block([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(block([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normal_numbers_are_those_of_torch_on_a_gpu() {
        let expected = [
            -0.924_662_6,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_6,
            -0.622_851_2,
            -0.328_387_09,
            -1.074_542_3,
            -0.363_144_07,
            -1.671_050_7,
            2.265_505,
        ];
        let mut out = [0f32; 12];
        Philox::new(0).fill_normal(&mut out);
        for (a, b) in out.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{out:?}");
        }
    }
}
