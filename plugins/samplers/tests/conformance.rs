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
fn schedules_keep_the_contract() {
    for key in schedules().keys() {
        for options in [json!({}), json!({"sigma_min": 0.1, "sigma_max": 10.0})] {
            assert_kept(&schedule_report(key, &options));
        }
    }
    assert_kept(&schedule_report("karras", &json!({"rho": 1.0})));
}

#[test]
fn exactly_these_samplers_and_schedules_are_registered() {
    let keys = ["ddim", "dpmpp_2m", "euler", "euler_a", "heun", "unipc"];
    assert_eq!(samplers().keys().collect::<Vec<_>>(), keys);
    assert_eq!(schedules().keys().collect::<Vec<_>>(), ["exponential", "karras", "normal", "sgm_uniform"]);
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
    ] {
        assert_eq!(s.get(name).unwrap().info.key, key);
    }
    assert_eq!(schedules().get("sgm uniform").unwrap().info.key, "sgm_uniform");
    for (title, aliases, key) in s.iter().map(|s| (s.info.title, s.info.aliases, s.info.key)) {
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
    ] {
        let (_, _, make) = items().into_iter().find(|i| i.0 == key).unwrap();
        let message = make(&options).unwrap();
        assert!(message.contains(word), "{key} {options}: {message}");
    }
}
