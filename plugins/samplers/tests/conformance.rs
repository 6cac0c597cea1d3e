//! Every built-in sampler and schedule keeps the contract of the sdk; and what is particular to some of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use atelier_samplers as _;
use atelier_sdk::testkit::{Outcome, Report, SamplerSubject, ScheduleSubject, check_sampler, check_schedule};
use atelier_sdk::{Registry, Result, Run, SampleCtx, SamplerReg, ScheduleReg, inventory};
use serde_json::{Value, json};

fn samplers() -> Registry<SamplerReg> {
    Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied()).unwrap()
}

fn schedules() -> Registry<ScheduleReg> {
    Registry::new("schedule", inventory::iter::<ScheduleReg>.into_iter().copied()).unwrap()
}

/// The report on a sampler with `options`, which give it `order` where that is not the declared one.
fn sampler_report(key: &str, options: &Value, order: Option<u32>) -> Report {
    let all = samplers();
    let reg = all.get(key).unwrap();
    let info = reg.info;
    let subject = SamplerSubject {
        key,
        evaluations: info.evaluations,
        order: order.unwrap_or(info.order),
        stochastic: info.stochastic,
        schema: &(reg.schema)(),
        make: &reg.make,
    };
    let report = check_sampler(&subject, options);
    println!("{key} {options}\n{report}");
    report
}

fn schedule_report(key: &str, options: &Value) -> Report {
    let all = schedules();
    let reg = all.get(key).unwrap();
    let report = check_schedule(&ScheduleSubject { key, schema: &(reg.schema)(), make: &reg.make }, options);
    println!("{key} {options}\n{report}");
    report
}

fn assert_kept(report: &Report) {
    assert_eq!(report.failed().count(), 0, "{}\n{report}", report.key);
}

fn has_passed(report: &Report, name: &str) -> bool {
    report.checks.iter().find(|c| c.name == name).unwrap().outcome == Outcome::Passed
}

#[test]
fn samplers_keep_the_contract_with_their_defaults() {
    for info in samplers().iter().map(|s| s.info) {
        let report = sampler_report(info.key, &json!({}), None);
        assert_kept(&report);
        // Neither may be skipped where it is the one that says whether the images are right.
        assert_eq!(has_passed(&report, "converges_with_its_order"), !info.stochastic, "{}", info.key);
        assert_eq!(has_passed(&report, "keeps_the_variance_of_the_process"), info.stochastic, "{}", info.key);
    }
}

#[test]
fn samplers_keep_the_contract_with_options_that_change_the_algorithm() {
    for (key, options) in [
        ("euler_a", json!({"eta": 0.0})),
        ("unipc", json!({"order": 1, "variant": "bh1"})),
        ("unipc", json!({"order": 1, "variant": "bh2"})),
        ("unipc", json!({"order": 2, "variant": "bh1"})),
        ("unipc", json!({"order": 2, "variant": "bh2"})),
        ("unipc", json!({"order": 3, "variant": "bh2"})),
        ("lms", json!({"order": 3})),
        ("ipndm", json!({"max_order": 2})),
        ("deis", json!({"order": 3})),
        ("deis", json!({"lower_order_final": false})),
        ("restart", json!({"restart_times": 0})),
    ] {
        assert_kept(&sampler_report(key, &options, None));
    }
}

#[test]
fn samplers_keep_the_contract_with_options_that_bring_in_noise() {
    for (key, options) in [
        ("euler", json!({"s_churn": 20.0, "s_noise": 1.003})),
        ("euler", json!({"s_churn": 40.0})),
        ("heun", json!({"s_churn": 20.0, "s_noise": 1.003})),
        ("heun", json!({"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 10.0})),
        ("euler_a", json!({"eta": 0.5})),
        ("ddim", json!({"eta": 1.0})),
        ("dpm2", json!({"s_churn": 20.0, "s_noise": 1.003})),
        ("dpm2_a", json!({"eta": 0.5})),
        ("dpmpp_2s_a", json!({"eta": 0.5, "r": 0.3})),
        ("dpmpp_sde", json!({"eta": 0.5, "r": 0.7})),
        ("dpmpp_2m_sde", json!({"eta": 0.5})),
        ("dpmpp_2m_sde", json!({"solver_type": "heun"})),
        ("dpmpp_3m_sde", json!({"eta": 0.5, "lower_order_final": true})),
        ("tcd", json!({"eta": 1.0})),
        ("restart", json!({"s_tmin": 0.6, "s_tmax": 5.0, "restart_times": 3})),
    ] {
        let report = sampler_report(key, &options, None);
        assert_kept(&report);
        assert!(has_passed(&report, "keeps_the_variance_of_the_process"), "{key} {options}");
    }
}

#[test]
fn unipc_has_its_full_order_without_the_lower_one_of_its_last_steps() {
    // The corrector adds one to the order 3 of the predictor.
    let report = sampler_report("unipc", &json!({"lower_order_final": false}), Some(4));
    assert_kept(&report);
    assert!(has_passed(&report, "converges_with_its_order"));
}

#[test]
fn options_that_lower_the_order_leave_the_one_they_say() {
    for (key, options, order) in [
        ("lms", json!({"order": 1}), 1),
        ("lms", json!({"order": 2}), 2),
        ("ipndm", json!({"max_order": 1}), 1),
        ("deis", json!({"order": 1}), 1),
    ] {
        let report = sampler_report(key, &options, Some(order));
        assert_kept(&report);
        assert!(has_passed(&report, "converges_with_its_order"), "{key} {options}");
    }
}

#[test]
fn stochastic_solvers_have_their_order_without_noise() {
    for (key, options, order) in [
        ("dpm2_a", json!({"eta": 0.0}), 2),
        ("dpmpp_2s_a", json!({"eta": 0.0}), 2),
        ("dpmpp_sde", json!({"eta": 0.0}), 2),
        ("dpmpp_sde", json!({"eta": 0.0, "r": 0.3}), 2),
        ("dpmpp_2m_sde", json!({"eta": 0.0}), 2),
        ("dpmpp_2m_sde", json!({"eta": 0.0, "solver_type": "heun"}), 2),
        ("tcd", json!({"eta": 0.0}), 1),
    ] {
        let report = sampler_report(key, &options, Some(order));
        assert!(has_passed(&report, "converges_with_its_order"), "{key} {options}");
        // By default they are stochastic, and have none.
        let others = report.failed().filter(|c| c.name != "declares_an_order_exactly_if_deterministic");
        assert_eq!(others.count(), 0, "{report}");
    }
}

#[test]
fn ipndm_of_order_three_keeps_the_contract_but_for_the_order() {
    // Its errors of the start and of unequal steps cancel in the kit's run of 16 steps: there it is as good as
    // with 64, and no order can be told.
    let report = sampler_report("ipndm", &json!({"max_order": 3}), None);
    let failed: Vec<_> = report.failed().map(|c| c.name).collect();
    assert_eq!(failed, ["converges_with_its_order"], "{report}");
}

#[test]
fn three_evaluations_err_less_than_two_without_noise() {
    // The order of 3M does not show on the kit's problem: what is left of its error is that of its first steps.
    let report = sampler_report("dpmpp_3m_sde", &json!({"eta": 0.0}), None);
    assert_kept(&report);
    let error = |key| {
        let steps = 32;
        let top = 14f64;
        let sigmas: Vec<f32> =
            (0..=steps).map(|i| top.powf(1.0 - f64::from(i) / f64::from(steps)) as f32).collect();
        let run = Run { sigmas: &sigmas, shape: [1, 1, 1, 1], extra: &Value::Null };
        let mut x = [(1.0 + top * top).sqrt() as f32];
        let mut sampler = (samplers().get(key).unwrap().make)(&json!({"eta": 0.0})).unwrap();
        sampler.sample(&run, &mut Normal, &mut x).unwrap();
        (f64::from(x[0]) - 2f64.sqrt()).abs()
    };
    let (two, three) = (error("dpmpp_2m_sde"), error("dpmpp_3m_sde"));
    assert!(three < 0.1 * two, "{three:e} {two:e}");
}

/// A host whose data are standard normal.
struct Normal;

impl SampleCtx for Normal {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x / (1.0 + sigma * sigma));
        Ok(())
    }
    fn noise(&mut self, _from: f32, _to: f32, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
    fn step_done(&mut self, _i: usize, _x: &[f32]) -> Result<()> {
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn schedules_keep_the_contract() {
    for key in schedules().keys() {
        assert_kept(&schedule_report(key, &json!({})));
    }
    for key in ["beta", "exponential", "karras", "kl_optimal", "normal", "polyexponential", "sgm_uniform"] {
        assert_kept(&schedule_report(key, &json!({"sigma_min": 0.1, "sigma_max": 10.0})));
    }
    for (key, options) in [
        ("karras", json!({"rho": 1.0})),
        ("polyexponential", json!({"rho": 2.5})),
        ("normal", json!({"compat": "comfy", "sigma_min": 0.1, "sigma_max": 10.0})),
        ("sgm_uniform", json!({"compat": "comfy", "sigma_min": 0.1, "sigma_max": 10.0})),
        ("beta", json!({"compat": "comfy"})),
        ("beta", json!({"alpha": 2.0, "beta": 0.4})),
        ("kl_optimal", json!({"compat": "comfy"})),
        ("ays", json!({"compat": "comfy"})),
        ("ays", json!({"model": "sdxl"})),
        ("raw", json!({"sigmas": [10.0, 4.0, 1.0, 0.1, 0.0]})),
    ] {
        assert_kept(&schedule_report(key, &options));
    }
}

#[test]
fn exactly_these_samplers_and_schedules_are_registered() {
    let keys = "ddim ddpm deis dpm2 dpm2_a dpmpp_2m dpmpp_2m_sde dpmpp_2s_a dpmpp_3m_sde dpmpp_sde euler euler_a heun \
                ipndm lcm lms pndm restart tcd unipc";
    assert_eq!(samplers().keys().collect::<Vec<_>>(), keys.split(' ').collect::<Vec<_>>());
    let keys =
        "ays beta ddim_uniform exponential karras kl_optimal normal polyexponential raw sgm_uniform simple";
    assert_eq!(schedules().keys().collect::<Vec<_>>(), keys.split(' ').collect::<Vec<_>>());
}

#[test]
fn names_from_other_programs_find_them() {
    let s = samplers();
    for (name, key) in [
        ("k_euler", "euler"),
        ("euler a", "euler_a"),
        ("euler_ancestral", "euler_a"),
        ("dpm++ 2m", "dpmpp_2m"),
        ("uni_pc", "unipc"),
        ("plms", "pndm"),
        ("dpm2 a", "dpm2_a"),
        ("dpm_2_ancestral", "dpm2_a"),
        ("dpm++ 2s a", "dpmpp_2s_a"),
        ("dpmpp_2s_ancestral", "dpmpp_2s_a"),
        ("dpm++ 2m sde", "dpmpp_2m_sde"),
        ("dpm++ 3m sde", "dpmpp_3m_sde"),
        ("dpm++ sde", "dpmpp_sde"),
    ] {
        assert_eq!(s.get(name).unwrap().info.key, key);
    }
    for (name, key) in [
        ("sgm uniform", "sgm_uniform"),
        ("align your steps", "ays"),
        ("kl optimal", "kl_optimal"),
        ("ddim", "ddim_uniform"),
        ("uniform", "normal"),
    ] {
        assert_eq!(schedules().get(name).unwrap().info.key, key);
    }
    let schedules = schedules();
    let schedules = schedules.iter().map(|s| (s.info.title, s.info.aliases, s.info.key));
    for (title, aliases, key) in s.iter().map(|s| (s.info.title, s.info.aliases, s.info.key)).chain(schedules)
    {
        let label = title.to_lowercase();
        assert!(key == label || aliases.contains(&&*label), "`{label}` does not find `{key}`");
    }
}

/// A host whose model and noise are zero, which keeps the levels of the evaluations.
#[derive(Default)]
struct Zeros {
    evaluated: Vec<f32>,
    noises: usize,
}

impl SampleCtx for Zeros {
    fn denoise(&mut self, _x: &[f32], sigma: f32, _out: &mut [f32]) -> Result<()> {
        self.evaluated.push(sigma);
        Ok(())
    }
    fn noise(&mut self, _from: f32, _to: f32, _out: &mut [f32]) -> Result<()> {
        self.noises += 1;
        Ok(())
    }
    fn step_done(&mut self, _i: usize, _x: &[f32]) -> Result<()> {
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn churn_raises_only_levels_within_its_limits_and_never_by_more_than_they_hold() {
    let sigmas = [14.0, 9.0, 5.0, 3.0, 2.0, 1.5, 1.0, 0.6, 0.3, 0.2, 0.1];
    let run = Run { sigmas: &sigmas, shape: [1, 1, 1, 1], extra: &Value::Null };
    for (s_churn, gamma) in [(2.0, 0.2), (100.0, 2f64.sqrt() - 1.0)] {
        let options = json!({"s_churn": s_churn, "s_tmin": 1.0, "s_tmax": 5.0});
        let mut ctx = Zeros::default();
        let mut euler = (samplers().get("euler").unwrap().make)(&options).unwrap();
        euler.sample(&run, &mut ctx, &mut [1.0]).unwrap();
        for (asked, sigma) in ctx.evaluated.iter().zip(&sigmas) {
            let raised = if (1.0..=5.0).contains(sigma) { 1.0 + gamma } else { 1.0 };
            assert!((f64::from(*asked) / f64::from(*sigma) - raised).abs() < 1e-6, "{sigma} {asked}");
        }
        assert_eq!((ctx.evaluated.len(), ctx.noises), (10, 5));
    }
}

#[test]
fn restart_goes_back_up_from_the_level_nearest_to_its_end_as_often_as_asked() {
    let sigmas = [14.0, 6.0, 2.1, 0.7, 0.12, 0.03, 0.0];
    let run = Run { sigmas: &sigmas, shape: [1, 1, 1, 1], extra: &Value::Null };
    for times in 0..3 {
        let mut ctx = Zeros::default();
        let options = json!({"restart_times": times, "restart_steps": 2});
        let mut restart = (samplers().get("restart").unwrap().make)(&options).unwrap();
        restart.sample(&run, &mut ctx, &mut [1.0]).unwrap();
        assert_eq!(ctx.noises, times);
        // Heun's two evaluations of each step. After the step to 0.12 the restarts, over one level between.
        assert_eq!(ctx.evaluated[..8], [14.0, 6.0, 6.0, 2.1, 2.1, 0.7, 0.7, 0.12]);
        let root = |s: f64| s.powf(1.0 / 7.0);
        let mid = (0.5 * (root(2.1) + root(0.12))).powi(7) as f32;
        for again in ctx.evaluated[8..8 + 4 * times].chunks(4) {
            assert!((again[1] - mid).abs() < 1e-6, "{again:?}");
            assert_eq!([again[0], again[2], again[3]], [2.1, again[1], 0.12]);
        }
        assert_eq!(ctx.evaluated[8 + 4 * times..], [0.12, 0.03, 0.03]);
    }
}

/// Says why options are refused, if they are.
type Refusal = Box<dyn Fn(&Value) -> Option<String>>;

/// Key, schema and constructor of everything in this crate.
fn items() -> Vec<(&'static str, Value, Refusal)> {
    let samplers = inventory::iter::<SamplerReg>.into_iter().map(|r| {
        let refusal: Refusal = Box::new(|v| (r.make)(v).err().map(|e| e.message().to_owned()));
        (r.info.key, (r.schema)(), refusal)
    });
    let schedules = inventory::iter::<ScheduleReg>.into_iter().map(|r| {
        let refusal: Refusal = Box::new(|v| (r.make)(v).err().map(|e| e.message().to_owned()));
        (r.info.key, (r.schema)(), refusal)
    });
    samplers.chain(schedules).collect()
}

#[test]
fn a_refusal_of_options_says_whose_they_are() {
    for (key, _, refusal) in items() {
        assert!(refusal(&json!({"no_such_option": 1})).unwrap().contains(key), "{key}");
    }
}

#[test]
fn options_out_of_range_are_refused_by_their_schema() {
    for (key, options) in [
        ("euler", json!({"s_churn": -1.0})),
        ("heun", json!({"s_noise": 9.0})),
        ("euler_a", json!({"eta": 1.5})),
        ("ddim", json!({"eta": -0.1})),
        ("unipc", json!({"order": 4})),
        ("unipc", json!({"variant": "bh3"})),
        ("karras", json!({"rho": 0.0})),
        ("dpm2", json!({"s_churn": -1.0})),
        ("dpm2_a", json!({"eta": 1.5})),
        ("lms", json!({"order": 5})),
        ("ipndm", json!({"max_order": 0})),
        ("deis", json!({"order": 4})),
        ("ddpm", json!({"s_noise": -1.0})),
        ("dpmpp_2s_a", json!({"r": 1.0})),
        ("dpmpp_sde", json!({"r": 0.0})),
        ("dpmpp_2m_sde", json!({"solver_type": "euler"})),
        ("dpmpp_3m_sde", json!({"eta": -0.1})),
        ("lcm", json!({"s_noise": 3.0})),
        ("tcd", json!({"eta": 1.1})),
        ("restart", json!({"restart_times": 11})),
        ("beta", json!({"alpha": 0.0})),
        ("normal", json!({"compat": "forge"})),
        ("ays", json!({"model": "sd3"})),
        ("raw", json!({"sigmas": [-1.0]})),
        ("exponential", json!({"sigma_min": 0.0})),
    ] {
        let (_, schema, _) = items().into_iter().find(|i| i.0 == key).unwrap();
        assert!(!jsonschema::is_valid(&schema, &options), "{key} {options}");
    }
}

#[test]
fn options_that_cannot_work_together_are_refused_with_words() {
    for (key, options, word) in [
        ("euler", json!({"s_tmin": 2.0, "s_tmax": 1.0}), "s_tmax"),
        ("heun", json!({"s_tmin": 2.0, "s_tmax": 1.0}), "s_tmin"),
        ("unipc", json!({"order": 0}), "order"),
        ("karras", json!({"sigma_min": 2.0, "sigma_max": 1.0}), "sigma_max"),
        ("karras", json!({"rho": -1.0}), "rho"),
        ("normal", json!({"sigma_max": -1.0}), "sigma_max"),
        ("lms", json!({"order": 0}), "order"),
        ("ipndm", json!({"max_order": 0}), "max_order"),
        ("deis", json!({"order": 9}), "order"),
        ("dpmpp_2s_a", json!({"r": 0.0}), "`r`"),
        ("restart", json!({"s_tmin": 2.0, "s_tmax": 1.0}), "s_tmax"),
        ("restart", json!({"restart_steps": 0}), "restart_steps"),
        ("beta", json!({"alpha": -1.0}), "alpha"),
        ("beta", json!({"compat": "comfy", "sigma_min": 0.1}), "sigma_min"),
        ("polyexponential", json!({"rho": 0.0}), "rho"),
        ("raw", json!({"sigmas": [1.0, 2.0]}), "descend"),
    ] {
        let (_, _, make) = items().into_iter().find(|i| i.0 == key).unwrap();
        let message = make(&options).unwrap();
        assert!(message.contains(word), "{key} {options}: {message}");
    }
}
