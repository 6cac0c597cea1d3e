//! Checks of gradients against finite differences, and of our kernels against candle in f64.
//!
//! For tests: the functions panic with the figures when a check fails.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};

/// Deterministic values close to N(0, deviation²), of the given shape, f32 on the CPU.
///
/// # Panics
/// If the shape cannot be allocated.
pub fn pseudo_normal(seed: u64, shape: impl Into<Shape>, deviation: f32) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut uniform = move || {
        // xorshift64* (Marsaglia 2003, Vigna 2014)
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u64 << 24) as f32
    };
    let data: Vec<f32> = (0..shape.elem_count())
        .map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * deviation)
        .collect();
    expect(Tensor::from_vec(data, shape, &Device::Cpu))
}

/// Checks the gradient of `f` with respect to every input against central differences.
///
/// The scalar is the sum of f's output weighted with fixed pseudo-random numbers, added up in f64.
/// Inputs are f32; at most 24 elements of each are varied.
///
/// # Panics
/// If a gradient is missing, or differs by more than 1 % of the largest element of that gradient.
pub fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| expect(Var::from_tensor(t))).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let output = expect(f(&tracked));
    let weights = pseudo_normal(77, output.shape(), 1.0);
    let grads = expect((&output * &weights).and_then(|t| t.sum_all()).and_then(|t| t.backward()));
    let weights = to_f64(&weights);
    let value = |inputs: &[Tensor]| -> f64 {
        to_f64(&expect(f(inputs))).iter().zip(&weights).map(|(y, w)| y * w).sum()
    };
    for (index, input) in inputs.iter().enumerate() {
        let Some(gradient) = grads.get(&tracked[index]) else {
            fail(format!("input {index} {:?} has no gradient", input.shape()))
        };
        assert_eq!(gradient.shape(), input.shape(), "gradient of input {index}");
        let gradient = to_f64(gradient);
        let largest = gradient.iter().fold(0f64, |a, b| a.max(b.abs()));
        assert!(largest > 0.0, "the gradient of input {index} is zero");
        let values = to_f64(input);
        let step = (values.len() / 24).max(1);
        for element in (0..values.len()).step_by(step) {
            let shifted = |by: f64| -> f64 {
                let mut data: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                data[element] += by as f32;
                let mut inputs = inputs.to_vec();
                inputs[index] = expect(Tensor::from_vec(data, input.shape(), input.device()));
                value(&inputs)
            };
            let h = 1e-2;
            let numeric = (shifted(h) - shifted(-h)) / (2.0 * h);
            let error = (numeric - gradient[element]).abs();
            assert!(
                error <= 1e-2 * largest,
                "input {index} element {element}: backward {} but finite difference {numeric}",
                gradient[element]
            );
        }
    }
}

/// Checks that `f` on f32 inputs gives what it gives on f64 inputs, and the same gradients.
///
/// # Panics
/// If a value or gradient differs by more than `tolerance` of the largest of its tensor.
pub fn agrees_with_f64(inputs: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let run = |dtype: DType| -> Vec<Vec<f64>> {
        let vars: Vec<Var> =
            inputs.iter().map(|t| expect(t.to_dtype(dtype).and_then(|t| Var::from_tensor(&t)))).collect();
        let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let output = expect(f(&tracked));
        let weights = expect(pseudo_normal(77, output.shape(), 1.0).to_dtype(dtype));
        let grads = expect((&output * &weights).and_then(|t| t.sum_all()).and_then(|t| t.backward()));
        let gradient = |t: &Tensor| grads.get(t).map(to_f64).unwrap_or_default();
        std::iter::once(to_f64(&output)).chain(tracked.iter().map(gradient)).collect()
    };
    for (index, (got, want)) in run(DType::F32).iter().zip(run(DType::F64)).enumerate() {
        let what = if index == 0 { "output".into() } else { format!("gradient of input {}", index - 1) };
        assert_eq!(got.len(), want.len(), "{what}: number of elements");
        let largest = want.iter().fold(0f64, |a, b| a.max(b.abs()));
        let error = got.iter().zip(&want).fold(0f64, |a, (x, y)| a.max((x - y).abs()));
        assert!(error <= tolerance * largest, "{what}: error {error:e} of {largest:e}");
    }
}

fn to_f64(t: &Tensor) -> Vec<f64> {
    expect(t.to_dtype(DType::F64).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()))
}

#[allow(clippy::panic)]
fn expect<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|e| fail(e.to_string()))
}

#[allow(clippy::panic)]
fn fail(message: String) -> ! {
    panic!("{message}")
}
