//! Built-in samplers and schedules, one algorithm per file.
//!
//! Every sampler works in the variance-exploding space `x = x0 + sigma * n` and sees a denoiser `D(x, sigma)`.
//! Papers that write the variance-preserving form `z = alpha * x0 + s * n` are translated by `x = z / alpha`,
//! `sigma = s / alpha`: then `lambda = ln(alpha / s) = -ln sigma`, and `alpha` cancels from every update.
//!
//! A run may end at a level above 0 (partial denoising, or a model whose last level is not 0); every sampler
//! here allows it.

pub mod samplers;
pub mod schedules;

use samplers::{Ddim, DpmPp2m, Euler, EulerAncestral, Heun, UniPc};
use schedules::{Exponential, Karras, Normal, SgmUniform};

atelier_sdk::export_plugin! {
    sampler Euler;
    sampler EulerAncestral;
    sampler Ddim;
    sampler Heun;
    sampler DpmPp2m;
    sampler UniPc;
    schedule Normal;
    schedule Karras;
    schedule Exponential;
    schedule SgmUniform;
}
