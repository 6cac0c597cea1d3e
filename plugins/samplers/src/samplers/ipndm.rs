//! iPNDM: linear multistep with the weights of equal steps.

use super::levels;
use super::tangents::{Tangents, adams_bashforth};
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Ipndm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IpndmOptions {
    /// How many tangents a step combines; the first steps have fewer, for want of a past.
    #[schemars(range(min = 1, max = 4))]
    pub max_order: usize,
}

impl Default for IpndmOptions {
    fn default() -> Self {
        Self { max_order: 4 }
    }
}

/// The improved pseudo numerical method: [`Pndm`](super::Pndm) without its second evaluation at the start,
/// which methods of rising order replace. A step to level 0 has order 1, so that it ends in the image.
///
/// Source: Zhang and Chen 2022 (arXiv:2204.13902), appendix on iPNDM, after Liu et al. 2022
/// (arXiv:2202.09778); ComfyUI `ipndm`.
#[derive(Debug, Clone, Copy)]
pub struct Ipndm(IpndmOptions);

impl Sampler for Ipndm {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let mut past = Tangents::new(self.0.max_order, x.len());
        for (i, pair) in sigmas.windows(2).enumerate() {
            past.evaluate(ctx, x, pair[0])?;
            if pair[1] > 0.0 {
                past.advance(x, adams_bashforth(past.len(), f64::from(pair[1]) - f64::from(pair[0])));
            } else {
                x.copy_from_slice(past.denoised());
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Ipndm {
    const INFO: SamplerInfo = SamplerInfo {
        key: "ipndm",
        title: "iPNDM",
        summary: "Reuses the last four tangents as if the steps were equal; one evaluation per step.",
        aliases: &[],
        evaluations: 1,
        order: 2,
        stochastic: false,
        source: "Zhang and Chen 2022 (arXiv:2204.13902); Liu et al. 2022 (arXiv:2202.09778); ComfyUI ipndm",
    };
    type Options = IpndmOptions;

    fn new(options: IpndmOptions) -> Result<Self> {
        if !(1..=4).contains(&options.max_order) {
            let order = options.max_order;
            return Err(Error::invalid(format!("`max_order` is {order}, but iPNDM has orders 1 to 4")));
        }
        Ok(Self(options))
    }
}
