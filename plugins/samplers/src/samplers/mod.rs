//! Samplers.

pub mod churn;
pub mod ddim;
pub mod dpmpp_2m;
pub mod euler;
pub mod euler_a;
pub mod heun;
pub mod unipc;

pub use ddim::Ddim;
pub use dpmpp_2m::DpmPp2m;
pub use euler::Euler;
pub use euler_a::EulerAncestral;
pub use heun::Heun;
pub use unipc::UniPc;

use atelier_sdk::{Result, Run};

/// The levels of a run that was checked.
pub(crate) fn levels<'a>(run: &Run<'a>, x: &[f32]) -> Result<&'a [f32]> {
    run.check(x).map(|()| run.sigmas)
}

/// `x <- a x + sum_k c_k y_k`, summed in `f64` so that each step rounds once.
pub(crate) fn combine<const N: usize>(x: &mut [f32], a: f64, terms: [(f64, &[f32]); N]) {
    for (j, x) in x.iter_mut().enumerate() {
        let sum = terms.iter().fold(a * f64::from(*x), |sum, (c, y)| sum + c * f64::from(y[j]));
        *x = sum as f32;
    }
}

/// Splits the way from `sigma` to `sigma_next` in two: the level to go down to without noise, and how much
/// fresh noise then brings it up to `sigma_next`. `eta` 0 adds none, 1 as much as the reverse diffusion does.
pub(crate) fn ancestral(sigma: f64, sigma_next: f64, eta: f64) -> (f64, f64) {
    let posterior = sigma_next / sigma * (sigma * sigma - sigma_next * sigma_next).sqrt();
    let up = (eta * posterior).min(sigma_next);
    ((sigma_next * sigma_next - up * up).sqrt(), up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sigmas: &[f32]) -> Run<'_> {
        Run { sigmas, shape: [1, 1, 1, 2], extra: &serde_json::Value::Null }
    }

    #[test]
    fn levels_that_cannot_be_integrated_are_refused() {
        for bad in [&[1.0, 1.0][..], &[0.0, 1.0], &[f32::INFINITY, 1.0], &[1.0, -1.0], &[f32::NAN, 0.0]] {
            assert!(levels(&run(bad), &[0.0; 2]).is_err(), "{bad:?}");
        }
        assert!(levels(&run(&[2.0, 1.0, 0.0]), &[0.0; 2]).is_ok());
        assert!(levels(&run(&[2.0, 1.0]), &[0.0; 3]).is_err());
    }

    #[test]
    fn an_ancestral_split_keeps_the_variance_of_the_level() {
        for eta in [0.0, 0.3, 1.0] {
            let (down, up) = ancestral(2.0, 1.5, eta);
            assert!((down * down + up * up - 2.25).abs() < 1e-12);
        }
        assert_eq!(ancestral(2.0, 1.5, 0.0), (1.5, 0.0));
        assert_eq!(ancestral(2.0, 0.0, 1.0), (0.0, 0.0));
        assert_eq!(ancestral(2.0, 1.5, 9.0), (0.0, 1.5));
    }
}
