//! How exactly products with weights are computed.

use candle_core::Tensor;
use std::cell::Cell;

/// How inputs are multiplied with weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// In f32; a weight stored in 16 bits is widened.
    #[default]
    Exact,
    /// A weight stored in bf16 is multiplied as it is: inputs are rounded to bf16 (to nearest, ties to even; subnormal
    /// numbers count as zero), their products added up in f32. An input's error is up to 2^-9 of it. Only where the
    /// processor can (AVX-512 BF16, or `bfdot` of aarch64), where nothing of it is part of a graph of gradients, and where
    /// no exact way is faster: else exact.
    Bf16,
    /// As [`Self::Bf16`] on any processor, as AVX-512 BF16 rounds, in plain arithmetic: to see what other processors give.
    /// Slow.
    EmulatedBf16,
}

thread_local! {
    static PRODUCTS: Cell<Products> = const { Cell::new(Products::Exact) };
}

/// Runs `f`, in which the operations that this thread calls compute their products in the given way.
///
/// Of the operations, convolutions, fully connected layers and attention know more than one way. Inside of
/// [`Products::EmulatedBf16`], [`Products::Bf16`] is emulated too.
pub fn with_products<R>(products: Products, f: impl FnOnce() -> R) -> R {
    struct Restore(Products);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRODUCTS.set(self.0);
        }
    }
    let within = match (PRODUCTS.get(), products) {
        (Products::EmulatedBf16, Products::Bf16) => Products::EmulatedBf16,
        _ => products,
    };
    // On the way out of a panic too: the thread may be one of a pool.
    let _restore = Restore(PRODUCTS.replace(within));
    f()
}

/// The way that the caller of an operation asked for, as far as the operands allow it. To be read where the operation is
/// called: the threads that compute it know nothing of it.
pub(crate) fn of_call(operands: &[&Tensor]) -> Products {
    if operands.iter().any(|x| x.track_op()) { Products::Exact } else { PRODUCTS.get() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn the_way_of_products_ends_with_its_scope_even_by_a_panic_and_what_is_emulated_stays_so_inside() {
        assert_eq!(of_call(&[]), Products::Exact);
        with_products(Products::Bf16, || {
            with_products(Products::Exact, || assert_eq!(of_call(&[]), Products::Exact));
            assert_eq!(of_call(&[]), Products::Bf16);
        });
        with_products(Products::EmulatedBf16, || {
            with_products(Products::Bf16, || assert_eq!(of_call(&[]), Products::EmulatedBf16));
            with_products(Products::Exact, || assert_eq!(of_call(&[]), Products::Exact));
        });
        let panicked = std::panic::catch_unwind(|| with_products(Products::Bf16, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(of_call(&[]), Products::Exact);
    }

    #[test]
    fn what_is_part_of_a_graph_is_computed_exactly() {
        let plain = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let variable = Var::from_tensor(&plain).unwrap();
        with_products(Products::Bf16, || {
            assert_eq!(of_call(&[&plain]), Products::Bf16);
            assert_eq!(of_call(&[&plain, &variable]), Products::Exact);
        });
    }
}
