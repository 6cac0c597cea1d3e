//! Samplers.

pub mod ancestral;
pub mod churn;
pub mod ddim;
pub mod ddpm;
pub mod deis;
pub mod dpm2;
pub mod dpm2_a;
pub mod dpmpp_2m;
pub mod dpmpp_2m_sde;
pub mod dpmpp_2s_a;
pub mod dpmpp_3m_sde;
pub mod dpmpp_sde;
pub mod euler;
pub mod euler_a;
pub mod heun;
pub mod ipndm;
pub mod lcm;
pub mod lms;
pub mod pndm;
pub mod restart;
mod tangents;
pub mod tcd;
pub mod unipc;

pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use deis::Deis;
pub use dpm2::Dpm2;
pub use dpm2_a::Dpm2Ancestral;
pub use dpmpp_2m::DpmPp2m;
pub use dpmpp_2m_sde::DpmPp2mSde;
pub use dpmpp_2s_a::DpmPp2sAncestral;
pub use dpmpp_3m_sde::DpmPp3mSde;
pub use dpmpp_sde::DpmPpSde;
pub use euler::Euler;
pub use euler_a::EulerAncestral;
pub use heun::Heun;
pub use ipndm::Ipndm;
pub use lcm::Lcm;
pub use lms::Lms;
pub use pndm::Pndm;
pub use restart::Restart;
pub use tcd::Tcd;
pub use unipc::UniPc;

use atelier_sdk::{Result, Run, SampleCtx};

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

/// Adds `amount` of fresh noise to `x` for the step between two levels, scaled by `s_noise`; draws none where
/// there is nothing to add. `n` receives it.
pub(crate) fn add_noise(
    ctx: &mut dyn SampleCtx,
    [from, to]: [f32; 2],
    amount: f64,
    s_noise: f64,
    x: &mut [f32],
    n: &mut Vec<f32>,
) -> Result<()> {
    if amount > 0.0 {
        n.resize(x.len(), 0.0);
        ctx.noise(from, to, n)?;
        combine(x, 1.0, [(s_noise * amount, n)]);
    }
    Ok(())
}

/// The level at the fraction `r` of the way between two levels, in log sigma.
pub(crate) fn middle(sigma: f64, target: f64, r: f64) -> f32 {
    (sigma.ln() * (1.0 - r) + target.ln() * r).exp() as f32
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
}
