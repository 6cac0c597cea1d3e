//! The schedules against their definitions and against the grids of diffusers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod golden_files;

use atelier_samplers as _;
use atelier_sdk::{ErrorKind, NoiseLevels, Registry, Result, ScheduleReg, inventory};
use golden_files::{GRIDS, Golden, rounded_levels, table};
use serde_json::{Value, json};

fn sigmas(key: &str, options: Value, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
    let all = Registry::new("schedule", inventory::iter::<ScheduleReg>.into_iter().copied()).unwrap();
    (all.get(key).unwrap().make)(&options)?.sigmas(steps, levels)
}

fn sd() -> NoiseLevels {
    NoiseLevels::from_betas(&NoiseLevels::scaled_linear_betas(0.00085, 0.012, 1000)).unwrap()
}

const KEYS: [&str; 4] = ["normal", "karras", "exponential", "sgm_uniform"];

fn worst(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let relative = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) / f64::from(*b).max(1e-9);
    ours.iter().zip(theirs).map(relative).fold(0.0, f64::max)
}

#[test]
fn every_schedule_descends_from_the_highest_level_to_zero() {
    for key in KEYS {
        for steps in [1, 2, 3, 10, 50, 999, 5000] {
            let s = sigmas(key, json!({}), steps, &sd()).unwrap();
            assert_eq!(s.len(), steps + 1);
            assert!((s[0] - 14.614647).abs() < 1e-4, "{key}: {}", s[0]);
            assert_eq!(s[steps], 0.0);
            assert!(s.windows(2).all(|w| w[0] > w[1]), "{key} {steps}");
        }
    }
}

#[test]
fn the_last_level_before_zero_is_the_lowest_except_for_sgm_uniform() {
    for key in KEYS {
        let s = sigmas(key, json!({}), 20, &sd()).unwrap();
        let is_lowest = (f64::from(s[19]) - sd().min()).abs() < 1e-6;
        assert_eq!(is_lowest, key != "sgm_uniform", "{key}: {}", s[19]);
    }
}

#[test]
fn no_steps_are_refused_with_words() {
    for key in KEYS {
        let e = sigmas(key, json!({}), 0, &sd()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidRequest);
        assert!(e.message().contains("at least one step"), "{e}");
    }
}

#[test]
fn ends_can_be_set_where_the_model_allows_it() {
    for key in KEYS {
        let s = sigmas(key, json!({"sigma_min": 0.1, "sigma_max": 10.0}), 10, &sd()).unwrap();
        assert!((s[0] - 10.0).abs() < 1e-5, "{key}: {}", s[0]);
        assert!(key == "sgm_uniform" || (s[9] - 0.1).abs() < 1e-6, "{key}: {}", s[9]);
        let e = sigmas(key, json!({"sigma_min": 20.0}), 10, &sd()).unwrap_err();
        assert!(e.message().contains("sigma_min"), "{e}");
    }
}

#[test]
fn karras_with_rho_one_is_a_line() {
    let s = sigmas("karras", json!({"rho": 1.0, "sigma_min": 1.0, "sigma_max": 5.0}), 5, &sd()).unwrap();
    assert!(worst(&s[..5], &[5.0, 4.0, 3.0, 2.0, 1.0]) < 1e-6);
}

#[test]
fn sgm_uniform_is_normal_with_one_step_more_without_the_last() {
    for steps in [1, 7, 20] {
        let (sgm, normal) = (
            sigmas("sgm_uniform", json!({}), steps, &sd()).unwrap(),
            sigmas("normal", json!({}), steps + 1, &sd()).unwrap(),
        );
        assert!(worst(&sgm[..steps], &normal[..steps]) < 1e-6);
    }
}

/// For each of our schedules and each golden file that uses it: the worst relative difference over the grids
/// of `steps`.
fn grids(name: &str, key: &str, steps: &[usize]) -> f64 {
    let golden = Golden::read(name);
    let levels = rounded_levels();
    let difference = |n: &usize| {
        let theirs = golden.f32s(&format!("grid{n}.sigmas"));
        worst(&sigmas(key, json!({}), *n, &levels).unwrap()[..*n], &theirs[..*n])
    };
    let worst = steps.iter().map(difference).fold(0.0, f64::max);
    println!("{name} {key}: {worst:.1e}");
    worst
}

/// With one step diffusers' "linspace" is the single timestep 0 (numpy's `linspace(0, T - 1, 1)`), which is no
/// noise at all; k-diffusion starts at `T - 1`. So those grids are compared from two steps up.
const FROM_TWO: &[usize] = &[2, 4, 5, 10, 20, 25, 30, 50];

#[test]
fn normal_is_the_linspace_spacing_of_diffusers() {
    // On whole timesteps there is nothing to interpolate. Between them diffusers interpolates sigma and
    // k-diffusion log sigma; the levels are close together, except next to t = 0, where no grid has a point.
    for name in ["euler", "euler_linspace", "euler_vpred", "euler_a", "euler_a_vpred", "lms"] {
        assert!(grids(name, "normal", &[2, 4, 10]) < 1e-6);
        assert!(grids(name, "normal", FROM_TWO) < 1e-4);
    }
}

#[test]
fn karras_is_that_of_diffusers() {
    for name in ["euler_karras", "lms_karras"] {
        assert!(grids(name, "karras", FROM_TWO) < 1e-6);
    }
    // These take their ends from the whole table, so even one step is equal.
    for name in ["dpmpp_2m_karras", "dpmpp_2m_sde_karras", "dpmpp_2s_karras", "unipc_karras"] {
        assert!(grids(name, "karras", &GRIDS) < 1e-6);
    }
}

#[test]
fn solvers_of_two_evaluations_repeat_each_level_but_the_first() {
    for (name, key, tolerance) in [
        ("heun", "normal", 1e-4),
        ("heun_karras", "karras", 1e-6),
        ("kdpm2", "normal", 1e-4),
        ("kdpm2_a", "normal", 1e-4),
        ("dpmpp_sde", "normal", 1e-4),
        ("dpmpp_sde_karras", "karras", 1e-6),
    ] {
        let golden = Golden::read(name);
        for n in FROM_TWO {
            let theirs = golden.f32s(&format!("grid{n}.sigmas"));
            let ours = sigmas(key, json!({}), *n, &rounded_levels()).unwrap();
            let once: Vec<f32> = theirs.iter().step_by(2).take(*n).copied().collect();
            assert!(worst(&ours[..*n], &once) < tolerance, "{name} {n}");
        }
    }
}

#[test]
fn exponential_is_that_of_diffusers() {
    assert!(grids("euler_exponential", "exponential", FROM_TWO) < 1e-6);
}

#[test]
fn sgm_uniform_is_the_linspace_spacing_of_the_solvers_but_for_rounding() {
    // diffusers' multistep solvers take the same line, then round its timesteps to whole numbers.
    for name in ["dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_2s", "deis", "unipc"] {
        let golden = Golden::read(name);
        let levels = rounded_levels();
        for n in GRIDS {
            let theirs = golden.f32s(&format!("grid{n}.timesteps"));
            let ours = sigmas("sgm_uniform", json!({}), n, &levels).unwrap();
            for (sigma, t) in ours.iter().zip(&theirs) {
                let ours = levels.timestep(f64::from(*sigma));
                assert!((ours - f64::from(*t)).abs() < 0.501, "{name} {n}: {ours} {t}");
            }
        }
    }
    assert!(grids("dpmpp_2m", "sgm_uniform", &[1]) < 1e-6);
}

#[test]
fn trailing_is_close_to_sgm_uniform_but_another_grid() {
    // "trailing" steps back from T by T / n and subtracts one; sgm_uniform steps back from T - 1 by (T - 1) / n.
    let golden = Golden::read("euler_trailing");
    let levels = rounded_levels();
    for n in GRIDS {
        let theirs = golden.f32s(&format!("grid{n}.timesteps"));
        let ours = sigmas("sgm_uniform", json!({}), n, &levels).unwrap();
        for (sigma, t) in ours.iter().zip(&theirs) {
            let apart = levels.timestep(f64::from(*sigma)) - f64::from(*t);
            assert!((-0.501..1.501).contains(&apart), "{n}: {apart}");
        }
    }
}

/// The worst distance, in timesteps, of a schedule from the timesteps of a reference.
fn timesteps_apart(name: &str, key: &str, steps: &[usize]) -> f64 {
    let (golden, levels) = (Golden::read(name), rounded_levels());
    let apart = |n: usize| {
        let mut theirs = golden.f32s(&format!("grid{n}.timesteps"));
        // PLMS evaluates twice at its second timestep.
        theirs.dedup();
        let ours = sigmas(key, json!({}), n, &levels).unwrap();
        assert_eq!(ours.len(), theirs.len() + 1);
        let pairs: Vec<_> = ours.into_iter().zip(theirs).collect();
        pairs.iter().map(|(s, t)| (levels.timestep(f64::from(*s)) - f64::from(*t)).abs()).fold(0.0, f64::max)
    };
    let worst = steps.iter().map(|n| apart(*n)).fold(0.0, f64::max);
    println!("{name} {key}: {worst:.1e} timesteps");
    worst
}

#[test]
fn beta_is_that_of_diffusers() {
    assert!(grids("euler_beta", "beta", FROM_TWO) < 1e-6);
}

#[test]
fn polyexponential_with_rho_one_is_the_exponential_of_diffusers() {
    assert!(grids("euler_exponential", "polyexponential", FROM_TWO) < 1e-6);
}

#[test]
fn exponential_is_the_one_of_the_lambdas_of_lu() {
    // Equal steps in log-SNR. The levels of the table are rounded, not those between.
    assert!(grids("dpmpp_2m_lu", "exponential", &GRIDS) < 1e-6);
}

#[test]
fn raw_without_levels_is_exponential() {
    assert!(grids("euler_exponential", "raw", FROM_TWO) < 1e-6);
}

#[test]
fn ddim_uniform_is_the_leading_spacing_of_diffusers() {
    assert!(timesteps_apart("ddim", "ddim_uniform", &GRIDS) < 1e-3);
    assert!(timesteps_apart("ddpm", "ddim_uniform", &GRIDS) < 1e-3);
    assert!(timesteps_apart("pndm", "ddim_uniform", &GRIDS) < 1e-3);
}

#[test]
fn simple_is_the_trailing_spacing_of_diffusers_where_the_steps_are_whole() {
    assert!(timesteps_apart("euler_trailing", "simple", &[1, 2, 4, 5, 10, 20, 25, 50]) < 1e-3);
    // Else diffusers rounds to the nearest timestep, and simple up.
    assert!(timesteps_apart("euler_trailing", "simple", &[30]) < 1.001);
}

#[test]
fn comfys_simple_takes_every_so_many_th_level_from_the_top() {
    let table = sd();
    for steps in [1, 7, 30, 999] {
        let ours = sigmas("simple", json!({}), steps, &table).unwrap();
        for (i, sigma) in ours[..steps].iter().enumerate() {
            let t = 999 - i * 1000 / steps;
            assert!((f64::from(*sigma) / table.level(t).unwrap() - 1.0).abs() < 1e-6, "{steps} {i}");
        }
    }
}

#[test]
fn comfys_beta_takes_trained_levels_and_leaves_out_the_lowest() {
    let ours = sigmas("beta", json!({"compat": "comfy"}), 20, &sd()).unwrap();
    for sigma in &ours[..20] {
        let t = sd().timestep(f64::from(*sigma));
        assert!((t - t.round()).abs() < 1e-3, "{t}");
    }
    assert!((ours[0] - 14.614647).abs() < 1e-4 && ours[19] > 0.0292);
    // The distribution is symmetric: as far from the top as from the bottom.
    let t = |i: usize| sd().timestep(f64::from(ours[i])).round();
    assert_eq!(t(10), 500.0);
    assert_eq!(t(5) + t(15), 999.0);
}

#[test]
fn the_two_normals_differ_only_in_ends_that_lie_between_trained_levels() {
    for key in ["normal", "sgm_uniform"] {
        let of = |ends: &Value, compat: &str| {
            let mut options = ends.clone();
            options["compat"] = compat.into();
            sigmas(key, options, 10, &sd()).unwrap()
        };
        assert!(worst(&of(&json!({}), "a1111")[..10], &of(&json!({}), "comfy")[..10]) < 1e-6);
        let ends = json!({"sigma_max": 10.0});
        let comfy = of(&ends, "comfy");
        let t = sd().timestep(f64::from(comfy[0]));
        assert!((t - t.round()).abs() < 1e-3, "{t}");
        assert!(comfy[0] != of(&ends, "a1111")[0] && (comfy[0] - 10.0).abs() < 0.1);
    }
}

#[test]
fn kl_optimal_steps_equally_in_the_arc_tangent() {
    let (min, max) = (sd().min().atan(), sd().max().atan());
    for (compat, last) in [("a1111", 0.1), ("comfy", 0.0)] {
        let ours = sigmas("kl_optimal", json!({"compat": compat}), 10, &sd()).unwrap();
        let step = |i: usize| f64::from(ours[i]).atan() - f64::from(ours[i + 1]).atan();
        for i in 0..9 {
            assert!((step(i) - (max - min) / if compat == "a1111" { 10.0 } else { 9.0 }).abs() < 1e-6, "{i}");
        }
        let left = (f64::from(ours[9]).atan() - min) / (max - min);
        assert!((left - last).abs() < 1e-6, "{compat}: {left}");
    }
}

#[test]
fn aligned_steps_are_the_published_ones() {
    let sd1 = [14.6146, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
    // A1111 puts 0 after the table, ComfyUI in place of its last level.
    let ours = sigmas("ays", json!({}), 11, &sd()).unwrap();
    assert!(worst(&ours[..11], &sd1) < 1e-5);
    let comfy = sigmas("ays", json!({"compat": "comfy"}), 10, &sd()).unwrap();
    assert!(worst(&comfy[..10], &sd1[..10]) < 4e-3);
    // Half-way between two levels of the table lies their geometric mean.
    let twice = sigmas("ays", json!({}), 21, &sd()).unwrap();
    assert!((twice[3] - (6.475f32 * 3.861).sqrt()).abs() < 1e-5);
    let sdxl = sigmas("ays", json!({"model": "sdxl"}), 11, &sd()).unwrap();
    assert!((sdxl[1] - 6.315).abs() < 1e-6);
}

#[test]
fn aligned_steps_are_refused_for_a_model_they_are_not_for() {
    let small = NoiseLevels::new((1..=100).map(|t| f64::from(t) / 100.0).collect()).unwrap();
    let e = sigmas("ays", json!({}), 10, &small).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn raw_levels_are_exactly_the_given_ones() {
    for given in [json!([9.5, 2.25, 0.5]), json!([9.5, 2.25, 0.5, 0.0])] {
        assert_eq!(sigmas("raw", json!({"sigmas": given}), 3, &sd()).unwrap(), [9.5, 2.25, 0.5, 0.0]);
    }
    let more = sigmas("raw", json!({"sigmas": [8.0, 2.0]}), 3, &sd()).unwrap();
    assert!(worst(&more[..3], &[8.0, 4.0, 2.0]) < 1e-6);
    assert!(sigmas("raw", json!({"sigmas": [8.0]}), 3, &sd()).is_err());
}

#[test]
fn every_schedule_gives_as_many_levels_as_asked_for_of_any_table() {
    let small = NoiseLevels::new((1..=50).map(|t| f64::from(t) / 2.0).collect()).unwrap();
    for key in ["simple", "ddim_uniform", "beta", "kl_optimal", "polyexponential", "raw"] {
        for (options, levels) in [(json!({}), &small), (json!({}), &sd())] {
            for steps in [1, 2, 3, 29, 49, 50, 51, 333, 999, 1000] {
                let s = sigmas(key, options.clone(), steps, levels).unwrap();
                assert_eq!(s.len(), steps + 1);
                assert!(s.windows(2).all(|w| w[0] > w[1]), "{key} {steps}: {s:?}");
            }
        }
    }
    let comfy = sigmas("beta", json!({"compat": "comfy"}), 300, &small).unwrap();
    assert!(comfy.windows(2).all(|w| w[0] > w[1]), "{comfy:?}");
}

#[test]
fn the_levels_of_stable_diffusion_are_those_of_the_reference() {
    let betas = NoiseLevels::scaled_linear_betas(0.00085, 0.012, 1000);
    let betas: Vec<f32> = betas.into_iter().map(|b| b as f32).collect();
    assert!(worst(&betas, &table("betas")) < 1e-6);
    let abar: Vec<f32> = sd().as_slice().iter().map(|s| (1.0 / (1.0 + s * s)) as f32).collect();
    assert!(worst(&abar, &table("alphas_cumprod")) < 1e-5);
    // The reference divides by 1 - abar in f32, which is worst where that is least.
    let snr: Vec<f32> = sd().as_slice().iter().map(|s| (1.0 / (s * s)) as f32).collect();
    assert!(worst(&snr, &table("snr")) < 1e-4);
}
