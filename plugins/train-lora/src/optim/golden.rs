//! Optimisers against the numbers of others, and against themselves after a restart.

use super::*;
use serde_json::Value;

fn vector(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn vectors(v: &Value) -> Vec<Vec<f32>> {
    v.as_array().unwrap().iter().map(vector).collect()
}

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn apart(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    apart_above(1e-6, got, expected)
}

/// Largest difference relative to the larger of the value and a floor.
fn apart_above(floor: f64, got: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let one = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) / f64::from(b.abs()).max(floor);
    got.iter().flatten().zip(expected.iter().flatten()).map(one).fold(0.0, f64::max)
}

fn optimizer(config: OptimizerConfig, params: &[Vec<f32>], groups: &[usize], decays: &[f64]) -> Optimizer {
    let group = |w: &f64| Group { name: "g".into(), lr_factor: 1.0, weight_decay: Some(*w) };
    let slot = |(i, (p, group)): (usize, (&Vec<f32>, &usize))| Slot {
        name: format!("t{i}"),
        len: p.len(),
        group: *group,
    };
    let slots = params.iter().zip(groups).enumerate().map(slot).collect();
    Optimizer::new(config, decays.iter().map(group).collect(), slots).unwrap()
}

struct Case {
    name: String,
    optimizer: Optimizer,
    params: Vec<Vec<f32>>,
    rates: Vec<Vec<f64>>,
    grads: Vec<Vec<Vec<f32>>>,
    data: Value,
}

fn cases() -> Vec<Case> {
    let all = fixture(include_str!("../../tests/fixtures/optimizers.json"));
    let numbers = |v: &Value| v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let case = |c: &Value| {
        let params = vectors(&c["init"]);
        let groups: Vec<usize> = serde_json::from_value(c["groups"].clone()).unwrap();
        let config = serde_json::from_value(c["config"].clone()).unwrap();
        Case {
            name: c["name"].as_str().unwrap().into(),
            optimizer: optimizer(config, &params, &groups, &numbers(&c["decays"])),
            params,
            rates: c["rates"].as_array().unwrap().iter().map(numbers).collect(),
            grads: c["grads"].as_array().unwrap().iter().map(vectors).collect(),
            data: c.clone(),
        }
    };
    all["cases"].as_array().unwrap().iter().map(case).collect()
}

/// Gradients, rates and results of torch's AdamW, lion-pytorch and prodigyopt; the file names their versions.
#[test]
fn steps_are_those_of_the_reference_implementations() {
    for mut c in cases() {
        for (i, (grads, rates)) in c.grads.iter().zip(&c.rates).enumerate() {
            c.optimizer.step(&mut c.params, grads, rates).unwrap();
            if let Some(after) = c.data["after"].get(i.to_string()) {
                // Prodigy feeds the rounding of its sums back into all weights: in f32 the reference itself is 4e-6
                // from where it gets in f64.
                let floor = if c.optimizer.estimate().is_some() { 0.1 } else { 1e-6 };
                let off = apart_above(floor, &c.params, &vectors(after));
                assert!(off < if floor > 1e-6 { 1e-5 } else { 1e-6 }, "{} step {i}: {off:e}", c.name);
            }
            if let Some(d) = c.data["d"].get(i).and_then(Value::as_f64) {
                let off = (c.optimizer.estimate().unwrap() / d - 1.0).abs();
                assert!(off < 1e-6, "{} step {i}: d is off by {off:e}", c.name);
            }
        }
    }
}

/// Initial weights, clipped gradients and weights after one step of a LoRA of the golden training run.
#[test]
fn a_step_of_a_real_lora_is_that_of_torch() {
    let data = fixture(include_str!("../../tests/fixtures/lora_step.json"));
    let tensors: Vec<&Value> = data["tensors"].as_object().unwrap().values().collect();
    let all = |key: &str| tensors.iter().map(|t| vector(&t[key])).collect::<Vec<_>>();
    let mut params = all("init");
    let mut optimizer = optimizer(OptimizerConfig::default(), &params, &vec![0; params.len()], &[1e-2]);
    optimizer.step(&mut params, &all("grad"), &[1e-3]).unwrap();
    let off = apart(&params, &all("step1"));
    assert!(off < 1e-6, "{off:e}");
}

#[test]
fn clipping_is_that_of_torch() {
    for c in fixture(include_str!("../../tests/fixtures/clip.json")).as_array().unwrap() {
        let mut grads = vectors(&c["before"]);
        let norm = clip_global_norm(&mut grads, c["max"].as_f64().unwrap()).unwrap();
        assert!((norm / c["norm"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert!(apart(&grads, &vectors(&c["after"])) < 1e-6);
    }
}

#[test]
fn the_average_is_that_of_diffusers() {
    let data = fixture(include_str!("../../tests/fixtures/ema.json"));
    let config = EmaConfig { decay: data["decay"].as_f64().unwrap(), warmup: true };
    let mut ema = Ema::new(config, &[vector(&data["init"])]).unwrap();
    for step in data["steps"].as_array().unwrap() {
        assert!((ema.decay() - step["decay"].as_f64().unwrap()).abs() < 1e-12);
        ema.update(&[vector(&step["params"])]).unwrap();
        assert!(apart(ema.average().unwrap(), &[vector(&step["average"])]) < 1e-6);
    }
}

/// At every step of every case: save, forget, restore, go on.
#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    for c in cases() {
        let (mut whole, mut params) = (c.optimizer.clone(), c.params.clone());
        let (mut pieces, mut again) = (c.optimizer.clone(), c.params.clone());
        for (grads, rates) in c.grads.iter().zip(&c.rates) {
            whole.step(&mut params, grads, rates).unwrap();
            let saved = pieces.state();
            let json = serde_json::to_string(&saved).unwrap();
            let mut read: State = serde_json::from_str(&json).unwrap();
            read.vectors = saved.vectors;
            pieces = c.optimizer.clone();
            pieces.restore(read).unwrap();
            pieces.step(&mut again, grads, rates).unwrap();
            assert_eq!(params, again, "{}", c.name);
        }
        assert_eq!(whole.state(), pieces.state(), "{}", c.name);
    }
}

fn all_kinds() -> [OptimizerConfig; 3] {
    [
        OptimizerConfig::default(),
        OptimizerConfig::Lion(LionConfig::default()),
        OptimizerConfig::Prodigy(ProdigyConfig::default()),
    ]
}

#[test]
fn gradients_that_are_not_finite_change_nothing() {
    for config in all_kinds() {
        let mut params = vec![vec![1.0, 2.0], vec![3.0]];
        let mut o = optimizer(config, &params, &[0, 0], &[0.1]);
        o.step(&mut params, &[vec![1.0, 1.0], vec![1.0]], &[1e-3]).unwrap();
        let before = (params.clone(), o.state());
        for bad in [f32::NAN, f32::INFINITY] {
            let e = o.step(&mut params, &[vec![1.0, 1.0], vec![bad]], &[1e-3]).unwrap_err();
            assert_eq!(e.to_string(), "the gradient of `t1` is not finite");
        }
        assert_eq!((params, o.state()), before);
    }
}

#[test]
fn numbers_that_do_not_fit_the_tensors_are_refused() {
    for config in all_kinds() {
        let mut params = vec![vec![1.0, 2.0], vec![]];
        let mut o = optimizer(config, &params, &[0, 1], &[0.1, 0.1]);
        let grads = params.clone();
        assert!(matches!(o.step(&mut params[..1], &grads, &[1.0, 1.0]), Err(Error::Count { .. })));
        assert!(matches!(o.step(&mut params, &grads[..1], &[1.0, 1.0]), Err(Error::Count { .. })));
        assert!(matches!(o.step(&mut params, &grads, &[1.0]), Err(Error::Count { .. })));
        assert!(matches!(o.step(&mut params, &grads, &[1.0, -1.0]), Err(Error::Setting { .. })));
        assert!(matches!(o.step(&mut params, &grads, &[f64::NAN, 1.0]), Err(Error::Setting { .. })));
        assert!(matches!(o.step(&mut params, &[vec![1.0], vec![]], &[1.0, 1.0]), Err(Error::Length { .. })));
        assert_eq!(o.steps(), 0);
        o.step(&mut params, &grads, &[1.0, 1.0]).unwrap();
        assert_eq!(o.steps(), 1);
    }
}

#[test]
fn no_tensors_and_empty_tensors_are_stepped_like_others() {
    for config in all_kinds() {
        optimizer(config, &[], &[], &[]).step(&mut [], &[], &[]).unwrap();
        let mut params = vec![vec![]];
        optimizer(config, &params, &[0], &[0.1]).step(&mut params, &[vec![]], &[1.0]).unwrap();
    }
}

#[test]
fn huge_and_tiny_gradients_leave_finite_weights() {
    for config in all_kinds() {
        for size in [1e30f32, f32::MAX, f32::MIN_POSITIVE, 1e-45] {
            let mut params = vec![vec![1.0f32, -1.0, 0.0]];
            let mut o = optimizer(config, &params, &[0], &[0.1]);
            for _ in 0..5 {
                o.step(&mut params, &[vec![size, -size, size]], &[1e-2]).unwrap();
            }
            assert!(
                params[0].iter().all(|p| p.is_finite() && p.abs() < 2.0),
                "{config:?} {size}: {params:?}"
            );
        }
    }
}

#[test]
fn after_a_million_steps_the_bias_corrections_are_gone() {
    let mut params = vec![vec![1.0f32]];
    let mut o = optimizer(OptimizerConfig::default(), &params, &[0], &[0.0]);
    let mut state = o.state();
    state.scalars.insert("step".into(), 1e6);
    o.restore(state).unwrap();
    o.step(&mut params, &[vec![1.0]], &[1e-3]).unwrap();
    assert_eq!(o.steps(), 1_000_001);
    assert!((f64::from(params[0][0]) - (1.0 - 1e-3 * 0.1 / 0.001f64.sqrt())).abs() < 1e-6);
}

#[test]
fn lion_leaves_alone_what_has_no_gradient() {
    let mut params = vec![vec![0.5f32, 0.5]];
    let mut o = optimizer(OptimizerConfig::Lion(LionConfig::default()), &params, &[0], &[0.0]);
    o.step(&mut params, &[vec![0.0, -0.0]], &[0.1]).unwrap();
    assert_eq!(params, [[0.5, 0.5]]);
}

#[test]
fn prodigy_refuses_groups_of_different_rates_but_leaves_one_alone() {
    let mut params = vec![vec![1.0f32], vec![1.0f32]];
    let mut o = optimizer(OptimizerConfig::Prodigy(ProdigyConfig::default()), &params, &[0, 1], &[0.0, 0.5]);
    let grads = params.clone();
    assert_eq!(o.step(&mut params, &grads, &[1.0, 0.5]), Err(Error::UnequalRates));
    o.step(&mut params, &grads, &[1.0, 0.0]).unwrap();
    assert!(params[0][0] < 1.0 && params[1][0] == 1.0);
    o.step(&mut params, &grads, &[0.0, 0.0]).unwrap();
    assert_eq!(o.steps(), 1);
}

#[test]
fn states_of_something_else_are_refused_in_words_and_change_nothing() {
    for config in all_kinds() {
        let params = vec![vec![1.0f32, 2.0], vec![3.0]];
        let mut o = optimizer(config, &params, &[0, 0], &[0.0]);
        o.step(&mut params.clone(), &params, &[1.0]).unwrap();
        let good = o.state();
        let mut refuse = |change: &dyn Fn(&mut State)| {
            let mut state = good.clone();
            change(&mut state);
            let e = o.restore(state).unwrap_err().to_string();
            assert_eq!(o.state(), good);
            e
        };
        let of = refuse(&|s| s.of = "sgd".into());
        assert_eq!(of, format!("the saved state is that of sgd, not of {}", config.name()));
        let missing = refuse(&|s| drop(s.vectors.remove("exp_avg.t1")));
        assert_eq!(missing, "the saved state has no `exp_avg.t1`");
        let short = refuse(&|s| drop(s.vectors.insert("exp_avg.t0".into(), vec![1.0])));
        assert_eq!(short, "`exp_avg.t0` has 1 numbers instead of 2");
        let extra = refuse(&|s| drop(s.vectors.insert("exp_avg.t2".into(), vec![])));
        assert_eq!(extra, "the saved state has `exp_avg.t2`, which nothing here goes by");
        let step = refuse(&|s| {
            s.scalars.insert("step".into(), 1.5);
        });
        assert_eq!(step, "`step` of the saved state cannot be 1.5");
    }
}

#[test]
fn tensors_without_a_group_and_of_one_name_are_refused() {
    let slot = |name: &str, group| Slot { name: name.into(), len: 1, group };
    let new = |slots| {
        let group = Group { name: "unet".into(), lr_factor: 0.5, weight_decay: None };
        Optimizer::new(OptimizerConfig::default(), vec![group], slots)
    };
    assert_eq!(new(vec![slot("a", 1)]).unwrap_err(), Error::NoGroup { name: "a".into(), group: 1 });
    assert_eq!(new(vec![slot("a", 0), slot("a", 0)]).unwrap_err(), Error::Twice { name: "a".into() });
    assert_eq!(new(vec![slot("a", 0)]).unwrap().rates(1e-4), [5e-5]);
}
