//! The mean square error of a batch, each sample with its weight.

use super::{Error, same_len};

/// Loss of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Mse {
    /// Mean over the samples of weight times error.
    pub loss: f64,
    /// Mean square error of each sample, without its weight.
    pub samples: Vec<f64>,
}

/// The mean over samples of `weight * mean((prediction - target)^2)`, with a weight for each sample. Sums run in f64.
///
/// # Errors
/// No samples, or slices that are not as many equal samples as there are weights.
pub fn weighted_mse(prediction: &[f32], target: &[f32], weights: &[f64]) -> Result<Mse, Error> {
    let size = sample_size(prediction, target, weights)?;
    let square = |(p, t): (&f32, &f32)| (f64::from(*p) - f64::from(*t)).powi(2);
    let samples: Vec<f64> = (prediction.chunks_exact(size).zip(target.chunks_exact(size)))
        .map(|(p, t)| p.iter().zip(t).map(square).sum::<f64>() / size as f64)
        .collect();
    let loss = samples.iter().zip(weights).map(|(s, w)| s * w).sum::<f64>() / weights.len() as f64;
    Ok(Mse { loss, samples })
}

/// The gradient of [`weighted_mse`] with respect to the prediction, times `scale` (the loss scale, divided by the
/// number of micro-steps of one step), into `out`.
///
/// # Errors
/// As for [`weighted_mse`].
pub fn weighted_mse_grad(
    prediction: &[f32],
    target: &[f32],
    weights: &[f64],
    scale: f64,
    out: &mut [f32],
) -> Result<(), Error> {
    let size = sample_size(prediction, target, weights)?;
    same_len("gradient", prediction.len(), out.len())?;
    let samples =
        prediction.chunks_exact(size).zip(target.chunks_exact(size)).zip(out.chunks_exact_mut(size));
    for (((p, t), out), weight) in samples.zip(weights) {
        let factor = (2.0 * weight * scale / prediction.len() as f64) as f32;
        for ((out, p), t) in out.iter_mut().zip(p).zip(t) {
            *out = factor * (p - t);
        }
    }
    Ok(())
}

fn sample_size(prediction: &[f32], target: &[f32], weights: &[f64]) -> Result<usize, Error> {
    same_len("target", prediction.len(), target.len())?;
    if prediction.is_empty() || weights.is_empty() {
        return Err(Error::Empty);
    }
    if !prediction.len().is_multiple_of(weights.len()) {
        return Err(Error::Shape { what: "prediction", expected: weights.len(), got: prediction.len() });
    }
    Ok(prediction.len() / weights.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn loss_and_gradient_are_those_of_torch() {
        let data: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/weighted_mse.json")).unwrap();
        let numbers = |key: &str| -> Vec<f64> {
            data[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let floats = |key: &str| numbers(key).into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let (pred, target, weights) = (floats("pred"), floats("target"), numbers("weights"));
        let mse = weighted_mse(&pred, &target, &weights).unwrap();
        assert!((mse.loss / data["loss"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{mse:?}");
        let mut grad = vec![0.0; pred.len()];
        weighted_mse_grad(&pred, &target, &weights, 1.0, &mut grad).unwrap();
        for (a, b) in grad.iter().zip(floats("grad")) {
            assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} {b}");
        }
        weighted_mse_grad(&pred, &target, &weights, 0.5, &mut grad).unwrap();
        assert!((grad[0] * 2.0 - floats("grad")[0]).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let (pred, target, weights) = ([0.3f32, -1.0, 2.0, 0.1], [1.0f32, 0.0, 0.5, 0.2], [0.5, 2.0]);
        let mut grad = [0.0; 4];
        weighted_mse_grad(&pred, &target, &weights, 1.0, &mut grad).unwrap();
        for i in 0..4 {
            let at = |h: f32| {
                let mut p = pred;
                p[i] += h;
                weighted_mse(&p, &target, &weights).unwrap().loss
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(grad[i])).abs() < 1e-5, "{i}: {slope} {}", grad[i]);
        }
    }

    #[test]
    fn samples_that_are_not_finite_show_in_the_loss() {
        let mse = weighted_mse(&[1.0, f32::NAN], &[0.0, 0.0], &[1.0, 1.0]).unwrap();
        assert!(mse.loss.is_nan() && mse.samples[0] == 1.0 && mse.samples[1].is_nan());
        assert!(weighted_mse(&[f32::MAX; 2], &[f32::MIN; 2], &[1.0]).unwrap().loss.is_finite());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert_eq!(weighted_mse(&[], &[], &[1.0]), Err(Error::Empty));
        assert_eq!(weighted_mse(&[1.0], &[1.0], &[]), Err(Error::Empty));
        assert!(matches!(weighted_mse(&[1.0], &[], &[1.0]), Err(Error::Shape { .. })));
        assert!(matches!(weighted_mse(&[1.0; 3], &[1.0; 3], &[1.0; 2]), Err(Error::Shape { .. })));
        assert!(weighted_mse_grad(&[1.0], &[1.0], &[1.0], 1.0, &mut []).is_err());
    }
}
