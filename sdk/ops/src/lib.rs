//! Differentiable candle operations that candle lacks or has slow.
//!
//! Every function here has a backward pass for each of its tensor operands, proved against finite
//! differences in its tests. A gradient is computed only for the operands that are part of the graph
//! (a `Var`, or something computed from one), so frozen weights cost nothing in the backward pass.
//!
//! On the CPU the f32, f16 and bf16 types go through our own kernels, which compute in f32. Everything
//! else (other devices, f64) goes through a composition of candle's operations that gives the same
//! values and gradients.

mod activation;
mod adapted;
mod attention;
mod blocks;
mod composed;
mod conv;
mod dropout;
mod gated;
pub mod gradcheck;
mod host;
mod linear;
mod matmul;
mod norm;
mod peak;
mod products;
mod profile;
mod rectify;
mod scope;
mod simd;
mod stored;
mod tape;
mod transposed;
mod upsample;
mod weight;
mod wide;

pub use activation::{Activation, geglu, gelu, quick_gelu, silu};
pub use adapted::{LowRank, linear_adapted};
pub use attention::attention;
pub use composed::softmax;
pub use conv::{Conv2dSpec, Padding, conv2d, conv2d_for};
pub use dropout::dropout;
pub use gated::linear_geglu_for;
pub use linear::{linear, linear_for};
pub use norm::{group_moments, group_norm, group_norm_silu, layer_norm};
pub use peak::{peak, threads};
pub use products::{Products, with_products};
pub use profile::PROFILE;
pub use rectify::{add_scaled, leaky_relu, prelu};
pub use scope::scope;
pub use tape::{Gradients, Keep, Need, Tape, Value};
pub use transposed::transposed;
pub use upsample::upsample_nearest;
pub use weight::{Format, Frozen, Memory, Operand, Weight};

/// For [`span!`].
#[doc(hidden)]
pub use tracing;
