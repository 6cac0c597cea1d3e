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

use samplers::{
    Ddim, Ddpm, Deis, Dpm2, Dpm2Ancestral, DpmPp2m, DpmPp2mSde, DpmPp2sAncestral, DpmPp3mSde, DpmPpSde,
    Euler, EulerAncestral, Heun, Ipndm, Lcm, Lms, Pndm, Restart, Tcd, UniPc,
};
use schedules::{
    AlignYourSteps, Beta, DdimUniform, Exponential, Karras, KlOptimal, Normal, Polyexponential, Raw,
    SgmUniform, Simple,
};

atelier_sdk::export_plugin! {
    sampler Euler;
    sampler EulerAncestral;
    sampler Heun;
    sampler Dpm2;
    sampler Dpm2Ancestral;
    sampler Lms;
    sampler Ddim;
    sampler Ddpm;
    sampler Pndm;
    sampler DpmPp2sAncestral;
    sampler DpmPp2m;
    sampler DpmPp2mSde;
    sampler DpmPpSde;
    sampler DpmPp3mSde;
    sampler UniPc;
    sampler Deis;
    sampler Lcm;
    sampler Tcd;
    sampler Ipndm;
    sampler Restart;
    schedule Normal;
    schedule Simple;
    schedule Karras;
    schedule Exponential;
    schedule Polyexponential;
    schedule SgmUniform;
    schedule DdimUniform;
    schedule Beta;
    schedule AlignYourSteps;
    schedule KlOptimal;
    schedule Raw;
}
