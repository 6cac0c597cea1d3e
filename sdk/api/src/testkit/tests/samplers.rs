//! Each thing that a sampler may do wrong fails the checks that are about it, and no others.

use super::rogue::{Rogue, Wrong};
use super::*;
use Wrong::*;

fn report_of(wrong: Wrong, noisy: bool) -> Report {
    let order = u32::from(!noisy);
    with_sampler((1, order), || Box::new(Rogue::new(wrong, noisy)), |s| check_sampler(s, &json!({})))
}

fn failed_by(wrong: Wrong) -> Vec<&'static str> {
    failed(&report_of(wrong, false))
}

fn failed_with_noise_by(wrong: Wrong) -> Vec<&'static str> {
    failed(&report_of(wrong, true))
}

/// The checks that try runs of several lengths.
const OF_ANY_LENGTH: [&str; 3] = [
    "stays_finite_in_runs_of_any_length",
    "reports_each_step_once_and_in_order",
    "asks_only_what_a_host_can_answer",
];

fn because<'a>(report: &'a Report, name: &str) -> &'a str {
    match outcome(report, name) {
        Outcome::Failed(what) => what,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_sampler_with_nothing_wrong_passes() {
    for noisy in [false, true] {
        let report = report_of(Nothing, noisy);
        assert_eq!(failed(&report), [""; 0]);
        let skipped = 2;
        let passed = report.checks.iter().filter(|c| c.outcome == Outcome::Passed).count();
        assert_eq!(passed, SAMPLER_CHECKS.len() - skipped);
    }
}

#[test]
fn an_order_that_is_not_the_declared_one_is_found() {
    let order = |order| {
        with_sampler((1, order), || Box::new(Rogue::new(Nothing, false)), |s| check_sampler(s, &json!({})))
    };
    let report = order(2);
    assert_eq!(failed(&report), ["converges_with_its_order"]);
    assert!(because(&report, "converges_with_its_order").contains("declares order 2, but has 0.99"));
}

#[test]
fn declarations_that_are_not_true_are_found() {
    let make = |options: &Value| -> Result<Box<dyn Sampler>> {
        refuse_unknown(options)?;
        Ok(Box::new(Rogue::new(Nothing, false)))
    };
    let schema = no_options();
    let honest = SamplerSubject {
        key: "it",
        evaluations: 1,
        order: 1,
        stochastic: false,
        schema: &schema,
        make: &make,
    };
    let failed = |subject| failed(&check_sampler(&subject, &json!({})));
    assert_eq!(failed(SamplerSubject { evaluations: 2, ..honest }), ["makes_the_declared_evaluations"]);
    assert_eq!(failed(SamplerSubject { order: 0, ..honest }), ["declares_an_order_exactly_if_deterministic"]);
    assert_eq!(
        failed(SamplerSubject { stochastic: true, ..honest }),
        ["draws_noise_exactly_if_it_says_so", "declares_an_order_exactly_if_deterministic"]
    );
}

#[test]
fn evaluations_may_be_more_at_the_start_but_not_with_the_length_of_the_run() {
    assert_eq!(failed_by(EvaluatesOnceMoreToStart), [""; 0]);
    let report = report_of(EvaluatesTwiceInLongRuns, false);
    let what = because(&report, "makes_the_declared_evaluations");
    assert!(what.contains("5 steps more take 5 to 20"), "{what}");
}

#[test]
fn runs_that_should_be_refused_or_left_alone_are_found() {
    assert_eq!(failed_by(TakesAnyLevels), ["refuses_levels_that_do_not_descend"]);
    assert_eq!(failed_by(EvaluatesWithoutSteps), ["leaves_the_latents_alone_without_steps"]);
}

#[test]
fn values_that_no_latent_has_are_found() {
    assert_eq!(failed_by(IsNanInOneStep), ["stays_finite_in_runs_of_any_length"]);
    assert_eq!(failed_by(GrowsInTwoSteps), ["stays_finite_in_runs_of_any_length"]);
}

#[test]
fn a_panic_fails_its_check_with_its_message() {
    let report = report_of(PanicsInSevenSteps, false);
    assert_eq!(failed(&report), OF_ANY_LENGTH);
    assert_eq!(because(&report, OF_ANY_LENGTH[0]), "7 steps to level 0: panics: seven");
}

#[test]
fn evaluations_without_end_are_ended() {
    let report = report_of(HasNoEndInSevenSteps, false);
    assert_eq!(failed(&report), OF_ANY_LENGTH);
    assert!(because(&report, OF_ANY_LENGTH[0]).contains("makes too many evaluations: more than 800"));
}

#[test]
fn reports_that_are_missing_or_wrong_are_found() {
    assert_eq!(failed_by(ForgetsToReportTheLastStep), ["reports_each_step_once_and_in_order"]);
    assert_eq!(failed_by(ReportsTheStateBefore), ["reports_each_step_once_and_in_order"]);
}

#[test]
fn questions_that_no_host_can_answer_are_found() {
    assert_eq!(failed_by(RunsOutOfBuffer), ["takes_latents_of_any_shape"]);
    assert_eq!(failed_by(GivesLongerBuffers), ["asks_only_what_a_host_can_answer"]);
    assert_eq!(failed_by(EvaluatesAtLevelZero), ["asks_only_what_a_host_can_answer"]);
}

#[test]
fn noise_that_is_undeclared_or_too_strong_is_found() {
    assert_eq!(failed_by(DrawsNoiseForNothing), ["draws_noise_exactly_if_it_says_so"]);
    assert_eq!(failed_with_noise_by(AddsTooMuchNoise), ["keeps_the_variance_of_the_process"]);
}

#[test]
fn a_wrong_end_of_a_right_way_is_found() {
    assert_eq!(failed_by(LeavesABitOfNoise), ["gives_the_denoised_image_at_level_zero"]);
    assert_eq!(failed_by(EndsWrongInLongRuns), ["arrives_at_the_exact_image"]);
}

#[test]
fn images_that_depend_on_more_than_their_noise_are_found() {
    assert_eq!(failed_by(RemembersTheLastRun), ["keeps_nothing_from_earlier_runs"]);
    assert_eq!(failed_by(MixesTheBatch), ["keeps_the_images_of_a_batch_apart"]);
    let random = failed_by(IsRandom);
    assert!(random.contains(&"gives_the_same_bits_for_the_same_noise"), "{random:?}");
}

#[test]
fn errors_that_are_ignored_or_changed_are_found() {
    assert_eq!(failed_by(TakesCancellationForTheEnd), ["stops_soon_after_cancellation"]);
    assert_eq!(failed_by(IgnoresErrorsOfDenoise), ["passes_on_an_error_of_denoise"]);
    assert_eq!(failed_by(IgnoresErrorsOfStepDone), ["passes_on_an_error_of_step_done"]);
    assert_eq!(failed_with_noise_by(IgnoresErrorsOfNoise), ["passes_on_an_error_of_noise"]);
    let all = ["denoise", "noise", "step_done"].map(|call| format!("passes_on_an_error_of_{call}"));
    assert_eq!(failed_with_noise_by(RewordsErrors), all);
}
