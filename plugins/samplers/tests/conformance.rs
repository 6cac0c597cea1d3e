//! Every built-in sampler keeps the contract of the sdk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod testkit;

use atelier_samplers as _;
use atelier_sdk::{ErrorKind, Registry, SamplerInfo, SamplerReg, ScheduleReg, inventory};
use serde_json::{Value, json};
use testkit::{IMAGE, Probe, convergence, levels, make, odd_error, run, start};

/// Every sampler with its defaults, and the ones whose options change the algorithm.
fn cases() -> Vec<(&'static SamplerInfo, Value)> {
    let defaults = inventory::iter::<SamplerReg>.into_iter().map(|r| (r.info, json!({})));
    let info = |key: &str| samplers().get(key).unwrap().info;
    let churned = json!({"s_churn": 20.0, "s_noise": 1.003});
    let unipc = [(1, "bh1"), (1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh2")];
    defaults
        .chain([
            (info("euler"), churned.clone()),
            (info("heun"), churned),
            (info("euler_a"), json!({"eta": 0.5})),
            (info("euler_a"), json!({"eta": 0.0})),
            (info("ddim"), json!({"eta": 1.0})),
            (info("unipc"), json!({"lower_order_final": false})),
        ])
        .chain(unipc.map(|(order, variant)| (info("unipc"), json!({"order": order, "variant": variant}))))
        .collect()
}

fn samplers() -> Registry<SamplerReg> {
    Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().copied()).unwrap()
}

fn schedules() -> Registry<ScheduleReg> {
    Registry::new("schedule", inventory::iter::<ScheduleReg>.into_iter().copied()).unwrap()
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

#[test]
fn deterministic_samplers_converge_with_the_declared_order() {
    for (info, options) in cases().iter().filter(|(info, _)| info.order > 0) {
        if options.get("s_churn").is_some() || options.get("eta").is_some() {
            continue; // stochastic by option
        }
        let measured = convergence(info.key, options);
        // Only the lower order of its last step keeps UniPC at order 2.
        let more = if options.get("lower_order_final").is_some() { 2.0 } else { 0.0 };
        let declared = f64::from(info.order);
        assert!(
            (declared - 0.25..declared + 0.25 + more).contains(&measured),
            "{} {options}: measured {measured:.2}",
            info.key
        );
    }
}

#[test]
fn added_noise_leaves_the_right_variance() {
    // Standard normal data at level s has variance 1 + s^2, whatever the path to it was.
    for (key, options) in [
        ("euler_a", json!({})),
        ("euler_a", json!({"eta": 0.5})),
        ("ddim", json!({"eta": 1.0})),
        ("euler", json!({"s_churn": 40.0})),
        ("heun", json!({"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 10.0})),
    ] {
        let sigmas = levels(400, 0.5);
        let mut x = start(&[5], (1f32 + 14.0 * 14.0).sqrt(), 20_000);
        let mut ctx = Probe::gaussian(&[6]);
        x = run(&mut *make(key, &options), &mut ctx, &sigmas, x).unwrap();
        let variance = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64;
        assert!(ctx.noises > 100);
        assert!((variance / 1.25 - 1.0).abs() < 0.04, "{key} {options}: {variance}");
    }
}

#[test]
fn churn_raises_only_levels_within_its_limits_and_never_by_more_than_they_hold() {
    let sigmas = levels(10, 0.1);
    for (s_churn, gamma) in [(2.0, 0.2), (100.0, 2f64.sqrt() - 1.0)] {
        let options = json!({"s_churn": s_churn, "s_tmin": 1.0, "s_tmax": 5.0});
        let mut ctx = Probe::gaussian(&[1]);
        run(&mut *make("euler", &options), &mut ctx, &sigmas, vec![1.0; IMAGE]).unwrap();
        for (asked, sigma) in ctx.evaluated.iter().zip(&sigmas) {
            let raised = if (1.0..=5.0).contains(sigma) { 1.0 + gamma } else { 1.0 };
            assert!((f64::from(*asked) / f64::from(*sigma) - raised).abs() < 1e-6, "{sigma} {asked}");
        }
        assert_eq!(ctx.noises, sigmas.iter().filter(|s| (1.0..=5.0).contains(*s)).count());
    }
}

#[test]
fn runs_of_any_length_stay_finite_and_report_each_step() {
    for (info, options) in cases() {
        for steps in [1, 2, 3, 4, 7] {
            for last in [0.0, 0.1] {
                let sigmas = levels(steps, last);
                let mut ctx = Probe::gaussian(&[3]);
                let x = start(&[3], sigmas[0], IMAGE);
                let x = run(&mut *make(info.key, &options), &mut ctx, &sigmas, x).unwrap();
                assert!(
                    x.iter().all(|v| v.abs() < 60.0),
                    "{} {options}, {steps} steps to {last}: {x:?}",
                    info.key
                );
                assert_eq!(ctx.done, (0..steps).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_step_to_level_zero_gives_the_denoised_image_itself() {
    for (info, options) in cases() {
        let mut ctx = Probe::new(&[1], |call, _, _, out| {
            out.fill(call as f32 + 0.25);
            Ok(())
        });
        let x = run(&mut *make(info.key, &options), &mut ctx, &levels(5, 0.0), vec![1.0; IMAGE]).unwrap();
        let last = ctx.evaluated.len() as f32 - 0.75;
        assert!(x.iter().all(|v| (v - last).abs() < 1e-5), "{} {options}: {x:?}", info.key);
    }
}

#[test]
fn no_steps_leave_the_latents_as_they_are() {
    for (info, options) in cases() {
        for sigmas in [&[][..], &[1.5]] {
            let mut ctx = Probe::gaussian(&[1]);
            let x = run(&mut *make(info.key, &options), &mut ctx, sigmas, vec![0.5; IMAGE]).unwrap();
            assert_eq!((x, ctx.evaluated.len()), (vec![0.5; IMAGE], 0));
        }
    }
}

#[test]
fn levels_that_do_not_descend_are_refused_before_any_evaluation() {
    for (info, options) in cases() {
        for bad in [&[1.0, 2.0][..], &[1.0, 1.0, 0.0], &[f32::INFINITY, 1.0]] {
            let mut ctx = Probe::gaussian(&[1]);
            let e = run(&mut *make(info.key, &options), &mut ctx, bad, vec![0.5; IMAGE]).unwrap_err();
            assert_eq!((e.kind(), ctx.evaluated.len()), (ErrorKind::InvalidRequest, 0));
        }
    }
}

#[test]
fn the_same_noise_gives_the_same_bits_even_from_a_used_sampler() {
    for (info, options) in cases() {
        let sigmas = levels(6, 0.0);
        let mut used = make(info.key, &options);
        let go = |sampler: &mut dyn atelier_sdk::Sampler| {
            run(sampler, &mut Probe::gaussian(&[9]), &sigmas, start(&[9], 14.0, IMAGE)).unwrap()
        };
        let first = go(&mut *used);
        assert_eq!(first, go(&mut *used), "{}", info.key);
        assert_eq!(first, go(&mut *make(info.key, &options)), "{}", info.key);
    }
}

#[test]
fn a_batch_of_two_is_two_singles() {
    for (info, options) in cases() {
        let sigmas = levels(6, 0.0);
        let go = |seeds: &[u64]| {
            let x = start(seeds, 14.0, IMAGE);
            run(&mut *make(info.key, &options), &mut Probe::gaussian(seeds), &sigmas, x).unwrap()
        };
        assert_eq!(go(&[4, 5]), [go(&[4]), go(&[5])].concat(), "{}", info.key);
    }
}

#[test]
fn only_samplers_that_say_so_draw_noise_by_default() {
    for info in samplers().iter().map(|s| s.info) {
        let mut ctx = Probe::gaussian(&[1]);
        run(&mut *make(info.key, &json!({})), &mut ctx, &levels(5, 0.0), vec![1.0; IMAGE]).unwrap();
        // The step to level 0 needs none.
        assert_eq!(ctx.noises, if info.stochastic { 4 } else { 0 }, "{}", info.key);
        assert_eq!(info.stochastic, info.order == 0, "{}", info.key);
    }
}

#[test]
fn declared_evaluations_are_true() {
    for (info, options) in cases() {
        for (last, saved) in [(0.1, 0), (0.0, info.evaluations as usize - 1)] {
            let mut ctx = Probe::gaussian(&[1]);
            run(&mut *make(info.key, &options), &mut ctx, &levels(5, last), vec![1.0; IMAGE]).unwrap();
            assert_eq!(ctx.evaluated.len(), 5 * info.evaluations as usize - saved, "{}", info.key);
        }
    }
}

#[test]
fn a_failed_evaluation_is_passed_on_unchanged_and_ends_the_run() {
    for (info, options) in cases() {
        for fails_at in 0..4 {
            for cancel in [false, true] {
                let error = move || if cancel { atelier_sdk::Error::cancelled() } else { odd_error() };
                let mut ctx = Probe::new(&[1], move |call, x, _, out| {
                    out.copy_from_slice(x);
                    if call == fails_at { Err(error()) } else { Ok(()) }
                });
                let e = run(&mut *make(info.key, &options), &mut ctx, &levels(6, 0.1), vec![1.0; IMAGE])
                    .unwrap_err();
                assert_eq!((e.kind(), e.chain()), (error().kind(), error().chain()), "{}", info.key);
                assert_eq!(e.hints(), error().hints());
                assert_eq!(ctx.evaluated.len(), fails_at + 1, "{}", info.key);
            }
        }
    }
}

#[test]
fn a_refused_step_or_noise_ends_the_run_at_once() {
    for (info, options) in cases() {
        let go = |ctx: &mut Probe| {
            let x = vec![1.0; IMAGE];
            let e = run(&mut *make(info.key, &options), ctx, &levels(6, 0.1), x).unwrap_err();
            assert_eq!(e.chain(), odd_error().chain());
        };
        let mut ctx = Probe::gaussian(&[1]);
        ctx.step_fails_at = Some(2);
        go(&mut ctx);
        assert_eq!(ctx.evaluated.len(), 3 * info.evaluations as usize, "{}", info.key);

        let mut dry = Probe::gaussian(&[1]);
        run(&mut *make(info.key, &options), &mut dry, &levels(6, 0.1), vec![1.0; IMAGE]).unwrap();
        if dry.noises > 0 {
            let mut ctx = Probe::gaussian(&[1]);
            ctx.noise_fails_at = Some(1);
            go(&mut ctx);
            assert_eq!(ctx.noises, 2);
        }
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
fn options_accept_their_own_defaults_and_refuse_unknown_fields() {
    for (key, schema, make) in items() {
        let valid = jsonschema::validator_for(&schema).unwrap();
        let fields = schema["properties"].as_object().cloned().unwrap_or_default();
        let defaults: Value = fields
            .iter()
            .map(|(name, field)| {
                assert!(field["description"].is_string(), "`{key}.{name}` says nothing of itself");
                (name.clone(), field.get("default").unwrap_or(&Value::Null).clone())
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        for accepted in [&json!({}), &defaults] {
            assert!(valid.is_valid(accepted), "{key}: {accepted}");
            assert_eq!(make(accepted), None, "{key}: {accepted}");
        }
        let unknown = json!({"no_such_option": 1});
        assert!(!valid.is_valid(&unknown), "{key}");
        assert!(make(&unknown).unwrap().contains(key), "{key}");
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
