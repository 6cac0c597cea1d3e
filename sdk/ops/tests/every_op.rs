//! Every operation this crate exports has its gradient checked against finite differences: the table below is held to
//! the list of exports.

use atelier_ops::gradcheck::{check, pseudo_normal};
use atelier_ops::*;
use candle_core::{Result, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// What is exported and is no operation on tensors, or none with a gradient.
const OTHERS: [&str; 6] = ["group_moments", "peak", "scope", "threads", "tracing", "with_products"];

type Op = fn(&[Tensor]) -> Result<Tensor>;

/// A tensor of each shape.
fn inputs(shapes: &[&[usize]]) -> Vec<Tensor> {
    shapes.iter().enumerate().map(|(i, shape)| pseudo_normal(i as u64 + 1, *shape, 0.7)).collect()
}

/// Numbers that no finite difference moves across zero, where a rectifier has no derivative.
fn off_zero(shapes: &[&[usize]]) -> Vec<Tensor> {
    let away = |x: Tensor| (x.sign()? * 0.05)? + x;
    inputs(shapes).into_iter().map(|x| away(x).expect("numbers of one shape")).collect()
}

fn checks() -> BTreeMap<&'static str, (Vec<Tensor>, Op)> {
    let image = || inputs(&[&[2, 4, 3, 5]]);
    let affine = || inputs(&[&[2, 4, 3, 5], &[4], &[4]]);
    let rows = || inputs(&[&[3, 6], &[5, 6], &[5]]);
    let kernel = || inputs(&[&[2, 4, 3, 5], &[3, 4, 3, 3], &[3]]);
    let all: [(&'static str, Vec<Tensor>, Op); 21] = [
        ("add_scaled", inputs(&[&[2, 3, 4], &[2, 3, 4]]), |t| add_scaled(&t[0], &t[1], 0.2)),
        ("attention", inputs(&[&[1, 3, 6], &[1, 4, 6], &[1, 4, 6]]), |t| {
            attention(&t[0], &t[1], &t[2], 2, false)
        }),
        ("conv2d", kernel(), |t| conv2d(&t[0], &t[1], Some(&t[2]), Conv2dSpec::padded(1))),
        ("conv2d_for", kernel(), |t| {
            conv2d_for(Need::Value, &t[0], &t[1], Some(&t[2]), Conv2dSpec::padded(1))
        }),
        ("dropout", image(), |t| dropout(&t[0], 0.3, 1)),
        ("geglu", inputs(&[&[3, 8]]), |t| geglu(&t[0])),
        ("gelu", image(), |t| gelu(&t[0])),
        ("group_norm", affine(), |t| group_norm(&t[0], &t[1], &t[2], 2, 1e-5)),
        ("group_norm_silu", affine(), |t| group_norm_silu(&t[0], &t[1], &t[2], 2, 1e-5)),
        ("layer_norm", inputs(&[&[3, 6], &[6], &[6]]), |t| layer_norm(&t[0], &t[1], &t[2], 1e-5)),
        ("leaky_relu", off_zero(&[&[2, 4, 3, 5]]), |t| leaky_relu(&t[0], 0.2)),
        ("linear", rows(), |t| linear(&t[0], &t[1], Some(&t[2]))),
        ("linear_adapted", inputs(&[&[3, 6], &[2, 6], &[5, 2]]), |t| {
            let (weight, factors) =
                (pseudo_normal(9, (5, 6), 0.5), LowRank { down: &t[1], up: &t[2], scale: 0.5 });
            linear_adapted(Need::Value, &t[0], &weight, None, factors)
        }),
        ("linear_for", rows(), |t| linear_for(Need::Value, &t[0], &t[1], Some(&t[2]))),
        ("linear_geglu_for", inputs(&[&[3, 6], &[8, 6], &[8]]), |t| {
            linear_geglu_for(Need::Value, &t[0], &t[1], &t[2])
        }),
        ("prelu", off_zero(&[&[2, 4, 3, 5], &[4]]), |t| prelu(&t[0], &t[1])),
        ("quick_gelu", image(), |t| quick_gelu(&t[0])),
        ("silu", image(), |t| silu(&t[0])),
        ("softmax", inputs(&[&[3, 6]]), |t| softmax(&t[0])),
        ("transposed", inputs(&[&[2, 3, 4]]), |t| transposed(&t[0])),
        ("upsample_nearest", image(), |t| upsample_nearest(&t[0], 6, 9)),
    ];
    all.into_iter().map(|(name, inputs, op)| (name, (inputs, op))).collect()
}

/// The functions among the names that the crate exports.
fn exported() -> BTreeSet<&'static str> {
    let source = include_str!("../src/lib.rs");
    let lines = source.lines().filter_map(|line| line.strip_prefix("pub use "));
    let names = lines.flat_map(|line| {
        let line = line.trim_end_matches(';');
        let (_, names) = line.rsplit_once("::").unwrap_or(("", line));
        let list = line.split_once('{').map_or(names, |(_, list)| list.trim_end_matches('}'));
        list.split(',').map(str::trim)
    });
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn every_operation_has_a_check_against_finite_differences() {
    let checks = checks();
    let mut expected: BTreeSet<&str> = checks.keys().copied().collect();
    expected.extend(OTHERS);
    assert_eq!(exported(), expected, "operations exported beside those checked here");
    for (name, (inputs, op)) in checks {
        println!("{name}");
        check(&inputs, op);
    }
}

#[test]
fn an_operation_whose_value_is_not_needed_has_the_same_gradient() {
    let (t, spec) = (inputs(&[&[2, 4, 3, 5], &[3, 4, 3, 3], &[3]]), Conv2dSpec::padded(1));
    let gradients = |f: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor| {
        let x = candle_core::Var::from_tensor(x).unwrap();
        let y = f(&x).unwrap();
        let seed = pseudo_normal(9, y.shape(), 1.0);
        let gradients = (y * seed).unwrap().sum_all().unwrap().backward().unwrap();
        gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let conv = |need| gradients(&|x| conv2d_for(need, x, &t[1], Some(&t[2]), spec), &t[0]);
    assert_eq!(conv(Need::Value), conv(Need::Gradient));
    let rows = inputs(&[&[3, 6], &[5, 6], &[5]]);
    let linear = |need| gradients(&|x| linear_for(need, x, &rows[1], Some(&rows[2])), &rows[0]);
    assert_eq!(linear(Need::Value), linear(Need::Gradient));
}
