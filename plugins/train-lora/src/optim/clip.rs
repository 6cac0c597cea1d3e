//! The length of all gradients together, and its limit.

use super::Error;

/// The Euclidean norm of all vectors as one, summed in f64 in their order.
pub fn global_norm(grads: &[Vec<f32>]) -> f64 {
    let square = |g: &f32| f64::from(*g) * f64::from(*g);
    grads.iter().map(|g| g.iter().map(square).sum::<f64>()).sum::<f64>().sqrt()
}

/// Scales all gradients so that their norm is at most about `max`, as `torch.nn.utils.clip_grad_norm_` does, and
/// returns the norm they had. An infinite `max` only measures.
///
/// # Errors
/// [`Error::NonFinite`], by number, for the first tensor with an element that is infinite or not a number;
/// [`Error::Setting`] for a `max` that is not above 0. The gradients are untouched then.
pub fn clip_global_norm(grads: &mut [Vec<f32>], max: f64) -> Result<f64, Error> {
    if max.is_nan() || max <= 0.0 {
        return Err(Error::Setting { name: "max_grad_norm", value: max, must: "above 0" });
    }
    // The squares of f32 cannot overflow an f64: what is not finite was so before.
    let norm = global_norm(grads);
    if !norm.is_finite() {
        let bad = grads.iter().position(|g| g.iter().any(|v| !v.is_finite())).unwrap_or_default();
        return Err(Error::NonFinite { name: format!("tensor {bad}") });
    }
    let share = max / (norm + 1e-6);
    if share < 1.0 {
        let share = share as f32;
        grads.iter_mut().flatten().for_each(|g| *g *= share);
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gradients_are_shortened_to_the_limit_and_short_ones_left_alone() {
        let mut grads = vec![vec![3.0], vec![], vec![0.0, 4.0]];
        assert_eq!(clip_global_norm(&mut grads, 10.0), Ok(5.0));
        assert_eq!(grads, [vec![3.0], vec![], vec![0.0, 4.0]]);
        assert_eq!(clip_global_norm(&mut grads, 1.0), Ok(5.0));
        assert!((global_norm(&grads) - 1.0).abs() < 1e-6);
        assert!((grads[0][0] - 0.6).abs() < 1e-6);
    }

    #[test]
    fn nothing_and_zeros_have_no_length() {
        assert_eq!(clip_global_norm(&mut [], 1.0), Ok(0.0));
        let mut zeros = vec![vec![0.0; 3]];
        assert_eq!(clip_global_norm(&mut zeros, 1e-9), Ok(0.0));
        assert_eq!(zeros, [[0.0; 3]]);
    }

    #[test]
    fn the_largest_numbers_have_a_finite_norm() {
        let mut grads = vec![vec![f32::MAX; 100]];
        let norm = clip_global_norm(&mut grads, 1.0).unwrap();
        assert!((norm / (f64::from(f32::MAX) * 10.0) - 1.0).abs() < 1e-12);
        assert!((global_norm(&grads) - 1.0).abs() < 0.1, "{}", global_norm(&grads));
    }

    #[test]
    fn what_is_not_finite_is_reported_and_left_as_it_is() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut grads = vec![vec![1.0], vec![2.0, bad]];
            let e = clip_global_norm(&mut grads, 0.1).unwrap_err();
            assert_eq!(e, Error::NonFinite { name: "tensor 1".into() });
            assert_eq!((grads[0][0], grads[1][0]), (1.0, 2.0));
        }
    }

    #[test]
    fn a_limit_must_be_above_zero() {
        for max in [0.0, -1.0, f64::NAN] {
            assert!(matches!(clip_global_norm(&mut [vec![1.0]], max), Err(Error::Setting { .. })), "{max}");
        }
        let mut grads = vec![vec![1.0]];
        assert_eq!(clip_global_norm(&mut grads, f64::INFINITY), Ok(1.0));
        assert_eq!(grads, [[1.0]]);
    }
}
