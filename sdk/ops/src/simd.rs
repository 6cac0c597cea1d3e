//! Loops compiled for several instruction sets, chosen at run time, and the vectorisable maths they use.
//!
//! The functions are plain Rust over fixed-width lane arrays; the compiler vectorises them for each target.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Lanes of the partial sums: one AVX-512 register, two AVX2 registers, four NEON registers.
pub(crate) const LANES: usize = 16;

/// Compiles a function for AVX-512, AVX2+FMA and the baseline, and calls the best the processor has. The body knows by the
/// constant `FUSED` whether [`multiply_add`] is one instruction.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$of:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const FUSED: bool $(, $of: $bound)?> ($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $(, $of)?>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn narrow $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? { body::<true $(, $of)?>($($arg),*) }
                if $crate::simd::has_avx512() {
                    // SAFETY: the features were detected.
                    return unsafe { wide$(::<$of>)?($($arg),*) };
                }
                if $crate::simd::has_avx2() {
                    // SAFETY: the features were detected.
                    return unsafe { narrow$(::<$of>)?($($arg),*) };
                }
            }
            body::<{ $crate::simd::FUSED } $(, $of)?>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Whether every processor that this was compiled for multiplies and adds in one instruction.
pub(crate) const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// a b + c, rounded once if `FUSED`. Without such an instruction that would be a call, which takes many times as long.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// AVX-512 as far as our kernels use it, AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && has_avx2()
}

/// e^x within 2e-7 relative for x in -87..88; clamped outside (so never infinite, never denormal).
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    exp2::<FUSED>(x.clamp(-87.0, 88.0) * std::f32::consts::LOG2_E)
}

/// 2^t within 2e-7 relative for t in -126..127, and 1 for 0; outside, anything.
#[inline(always)]
pub(crate) fn exp2<const FUSED: bool>(t: f32) -> f32 {
    const BELOW: [f32; 5] =
        [1.330_061_2e-3, 9.669_693e-3, 5.550_558_5e-2, 2.402_228_3e-1, std::f32::consts::LN_2];
    exp2_by::<FUSED, 5>(t, BELOW)
}

/// [`exp2`] within 3e-6, far below what rounding to bf16 may change.
#[inline(always)]
pub(crate) fn exp2_for_bf16<const FUSED: bool>(t: f32) -> f32 {
    exp2_by::<FUSED, 4>(t, [9.582_859e-3, 5.590_644e-2, 2.402_41e-1, 6.931_242e-1])
}

/// 2^t by a polynomial: the coefficients of its powers from the highest to the first. That of 0 is 1.
///
/// Splits t into an integer, put into the exponent bits, and a fraction in -0.5..0.5, for which the polynomials here
/// have nearly the smallest relative error of their degree (fitted by least squares, weighted anew until errors level).
#[inline(always)]
fn exp2_by<const FUSED: bool, const N: usize>(t: f32, coefficients: [f32; N]) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds a float to an integer
    let rounded = t + ROUND;
    let n = rounded - ROUND;
    let f = t - n;
    let mut p = coefficients[0];
    for c in &coefficients[1..] {
        p = multiply_add::<FUSED>(p, f, *c);
    }
    p = multiply_add::<FUSED>(p, f, 1.0);
    // The low bits of the sum hold the integer: no conversion, which Rust would make saturating, is needed.
    f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits())) * p
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// The error function, absolute error below 5e-7: odd, a quotient of polynomials with nearly the smallest absolute
/// error of their degrees (fitted as [`exp2`]) up to where it is 1 to f32, and 1 from there on.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    const ONE_FROM: f32 = 3.7;
    const OVER: [f32; 5] = [2.702_512e-4, 7.303_807e-3, 6.307_507e-2, 2.849_193_8e-1, 1.128_378];
    const UNDER: [f32; 6] = [1.633_451_4e-5, 1.852_531_9e-3, 2.202_851_7e-2, 1.512_201e-1, 5.858_239e-1, 1.0];
    let square = x * x;
    let [over, under] = [&OVER[..], &UNDER].map(|coefficients| {
        let (first, rest) = (coefficients[0], &coefficients[1..]);
        rest.iter().fold(first, |p, c| multiply_add::<FUSED>(p, square, *c))
    });
    let near = x * over / under;
    if x.abs() >= ONE_FROM { 1f32.copysign(x) } else { near }
}

/// As many f16 as f32. The `half` crate's own conversion is a call for every eight numbers.
pub(crate) fn widen_f16(data: &[f16], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the features were detected.
        return unsafe { widen_f16_by_eights(data, out) };
    }
    data.convert_to_f32_slice(out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn widen_f16_by_eights(data: &[f16], out: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    assert_eq!(data.len(), out.len());
    let (eights, rest) = data.as_chunks::<8>();
    let (wide, rest_out) = out.as_chunks_mut::<8>();
    for (eight, out) in eights.iter().zip(wide) {
        // SAFETY: both have eight numbers.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(eight.as_ptr().cast())))
        };
    }
    rest.iter().zip(rest_out).for_each(|(x, out)| *out = x.to_f32());
}

multiversion! {
    /// As many bf16 as f32. NaN become quiet.
    pub(crate) fn widen_bf16(data: &[bf16], out: &mut [f32]) {
        for (x, out) in data.iter().zip(out) {
            let bits = u32::from(x.to_bits());
            let quiet = if bits & 0x7fff > 0x7f80 { bits | 0x40 } else { bits };
            *out = f32::from_bits(quiet << 16);
        }
    }
}

/// Sum of a lane array.
#[inline(always)]
pub(crate) fn total(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

multiversion! {
    /// Sum of the elements.
    pub(crate) fn sum(row: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES { lanes[i] += chunk[i]; }
        }
        total(lanes) + rest.iter().sum::<f32>()
    }
}

multiversion! {
    /// Sum of the squares of the elements' distances from `mean`.
    pub(crate) fn sum_of_squares(row: &[f32], mean: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let d = chunk[i] - mean;
                lanes[i] += d * d;
            }
        }
        total(lanes) + rest.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>()
    }
}

multiversion! {
    /// Sum of the products of the elements of two slices of the same length.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        let (x, x_rest) = a.as_chunks::<LANES>();
        let (y, y_rest) = b.as_chunks::<LANES>();
        for (x, y) in x.iter().zip(y) {
            for i in 0..LANES { lanes[i] += x[i] * y[i]; }
        }
        total(lanes) + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
    }
}

multiversion! {
    /// Multiplies every element by a number.
    pub(crate) fn scale(row: &mut [f32], by: f32) {
        for v in row.iter_mut() { *v *= by; }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_widened_as_the_half_crate_widens_them() {
        let (f16s, bf16s): (Vec<f16>, Vec<bf16>) =
            (0..=u16::MAX).map(|bits| (f16::from_bits(bits), bf16::from_bits(bits))).unzip();
        let same = |got: &[f32], want: &mut dyn Iterator<Item = f32>| {
            want.zip(got).all(|(want, got)| want.to_bits() == got.to_bits())
        };
        // From every place, and of no whole eights.
        for (first, count) in [(0, 1 << 16), (3, 1 << 15), (5, 7), (0x7bfd, 9), (0, 0)] {
            let (f16s, bf16s) = (&f16s[first..first + count], &bf16s[first..first + count]);
            let mut out = vec![0f32; count];
            widen_f16(f16s, &mut out);
            assert!(same(&out, &mut f16s.iter().map(|x| x.to_f32())));
            widen_bf16(bf16s, &mut out);
            assert!(same(&out, &mut bf16s.iter().map(|x| x.to_f32())));
        }
    }

    #[test]
    fn exp_is_right_to_f32_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                let error = (f64::from(got) - want).abs() / want;
                // The argument x / ln 2 is itself rounded: up to 127 ulp(0.5) of absolute error in the exponent.
                assert!(error < 6e-6, "exp({x}): relative error {error:e}");
                if x.abs() < 10.0 {
                    assert!(error < 6e-7, "exp({x}): relative error {error:e}");
                }
            }
        }
    }

    #[test]
    fn erf_is_within_its_documented_error() {
        for i in -600..=600 {
            let x = i as f32 / 100.0;
            let want = candle_core::cpu::erf::erf_f64(f64::from(x));
            for got in [erf::<true>(x), erf::<false>(x)] {
                let error = (f64::from(got) - want).abs();
                assert!(error < 5e-7, "erf({x}): error {error:e}");
            }
        }
        for x in [3.7, 5.0, 1e20, f32::MAX, f32::INFINITY] {
            for got in [erf::<true>, erf::<false>].map(|erf| [erf(x), erf(-x)]) {
                assert_eq!(got, [1.0, -1.0], "erf(+-{x})");
            }
        }
        assert!(erf::<true>(f32::NAN).is_nan() && erf::<false>(f32::NAN).is_nan());
    }

    #[test]
    fn powers_of_two_are_within_their_documented_errors_and_1_for_0() {
        for i in -12600..12700 {
            let t = i as f32 / 100.0;
            let want = f64::from(t).exp2();
            let error = |got: f32| (f64::from(got) - want).abs() / want;
            for [exact, rough] in
                [[exp2::<true>(t), exp2_for_bf16::<true>(t)], [exp2::<false>(t), exp2_for_bf16::<false>(t)]]
            {
                assert!(error(exact) < 2e-7 && error(rough) < 3e-6, "2^{t}: {exact}, {rough}");
                assert!(t != 0.0 || [exact, rough] == [1.0; 2], "2^0: {exact}, {rough}");
            }
        }
    }
}
