//! Training: a prediction whose gradients are taken segment by segment.

use super::{NETWORK, UNet2DConditionModel};
use crate::error::{Error, Result};
use atelier_ops::{Gradients, Keep, Tape, Value};
use candle_core::Tensor;

/// A prediction of a UNet, and the way back through it.
pub struct Recording<'a> {
    tape: Tape<'a>,
    result: Value,
    output: Tensor,
}

impl UNet2DConditionModel {
    /// The prediction of [`Self::forward`], to the last bit, recorded for its gradients.
    ///
    /// They are those of every variable inside (factors of adapters, weights), and of `sample` and `context` where
    /// these are variables or come from such. Parts before the first variable are neither recorded nor gone back
    /// through. Nothing that the network reads, its variables and its dropout's seed, may change before
    /// [`Recording::backward`]. Errors: see [`Self::forward`].
    pub fn record(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        context: &Tensor,
        keep: Keep,
    ) -> Result<Recording<'_>> {
        self.check(sample, timesteps, context)?;
        let mut tape = Tape::new(keep);
        let result = self.run(&mut tape, sample, timesteps, context, &mut |_, _| {});
        let result = result.map_err(Error::compute(NETWORK))?;
        let output = result.tensor().detach();
        Ok(Recording { tape, result, output })
    }
}

impl Recording<'_> {
    /// The prediction, without a graph.
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// How many segments there are to go back through, and how many of them need not be computed again.
    pub fn segments(&self) -> (usize, usize) {
        self.tape.segments()
    }

    /// The gradients, given that of the prediction.
    ///
    /// That of a `context` from a text encoder's graph is continued there: `(context * gradient).sum_all().backward()`.
    /// Errors: a gradient of another shape or type than the prediction.
    pub fn backward(self, output_gradient: &Tensor) -> Result<Gradients> {
        let Self { tape, result, output } = self;
        drop(output);
        tape.backward(&result, output_gradient).map_err(Error::compute(NETWORK))
    }
}
