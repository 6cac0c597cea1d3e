//! Measuring: the parts of a model's work, comparisons with earlier ones, profiles. What is told is tested, not how fast
//! this machine is.

use crate::support::{Place, Said, root};
use serde_json::{Value, json};

/// A small image of the carried model.
const SMALL: [&str; 4] = ["-s", "width=64", "-s", "height=64"];

fn atelier(place: &Place, args: &[&str]) -> Said {
    let configs = root().join("configs");
    place.run(&[&["--configs", configs.to_str().unwrap()][..], args].concat())
}

fn suites(place: &Place, args: &[&str]) -> Said {
    atelier(place, &[&["benchmark", "--runs", "1", "--size", "64"][..], args].concat())
}

fn line<'a>(report: &'a Value, name: &str) -> &'a Value {
    let lines = report["lines"].as_array().unwrap();
    let named = |line: &&Value| line["name"].as_str().unwrap().starts_with(name);
    lines.iter().find(named).unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn gflop(report: &Value, name: &str) -> f64 {
    line(report, name)["gflop"].as_f64().unwrap()
}

#[test]
fn suites_tell_time_work_share_of_the_peak_and_memory() {
    let place = Place::new();
    let report = suites(&place, &["--suite", "unet,vae,text", "--json"]).ok().json();
    assert_eq!(report["model"], "mini");
    assert!(report["machine"]["peak"].as_f64().unwrap() > 0.0, "{report}");
    let lines = report["lines"].as_array().unwrap();
    let names: Vec<&str> = lines.iter().map(|l| l["name"].as_str().unwrap()).collect();
    let expected =
        ["UNet, batch 2, 64x64", "VAE decode, 64x64", "VAE encode, 64x64", "text encoder, 77 tokens"];
    assert_eq!(names, expected);
    for line in lines {
        assert!(line["seconds"]["best"].as_f64() <= line["seconds"]["median"].as_f64(), "{line}");
        for field in ["gflop", "gflops", "share", "peak_memory"] {
            assert!(line[field].as_f64().is_some_and(|v| v > 0.0), "{field}: {line}");
        }
        assert_eq!((&line["device"], &line["made_up"]), (&json!("cpu f32"), &json!(false)));
    }
    // Three layers of width 128: projections, feed-forward of width 512, attention of 77 tokens to 77.
    let layer = 2 * 77 * (4 * 128 * 128 + 2 * 128 * 512) + 4 * 77 * 77 * 128;
    assert!((gflop(&report, "text") - f64::from(3 * layer) / 1e9).abs() < 1e-9, "{report}");
    let table = suites(&place, &["--suite", "text"]).ok().out;
    assert!(table.contains("GFLOP/s") && table.contains("text encoder, 77 tokens"), "{table}");
}

#[test]
fn training_upscaling_and_whole_requests_are_suites_too() {
    let place = Place::new();
    let of = |steps: &str, suite: &str| {
        suites(&place, &["--suite", suite, "--steps", steps, "--json"]).ok().json()
    };
    let two = of("2", "upscale,train,unet,e2e");
    assert_eq!(line(&two, "RRDBNet x4, 16x16")["made_up"], true);
    assert_eq!(line(&two, "SRVGGNetCompact x4, 16x16")["made_up"], true);
    assert!(line(&two, "LoRA step, rank 8, 64x64")["seconds"]["median"].as_f64() > Some(0.0));
    // One step more is one evaluation under guidance more.
    let (unet, three) = (gflop(&two, "UNet"), of("3", "e2e"));
    let more = gflop(&three, "txt2img, 3 steps, 64x64") - gflop(&two, "txt2img, 2 steps, 64x64");
    assert!((more - unet).abs() < 1e-6 * unet, "{more} {unet}");
}

#[test]
fn without_suites_a_request_is_measured_step_by_step() {
    let place = Place::new();
    let args = [&["benchmark", "--steps", "2", "--json"][..], &SMALL].concat();
    let result = atelier(&place, &args).ok().json();
    assert_eq!(
        (&result["model"], &result["size"], &result["steps"]),
        (&json!("mini"), &json!("64x64"), &json!(2))
    );
    assert!(result["seconds"]["step_median"].as_f64() > Some(0.0), "{result}");
    let args = [&["benchmark", "--steps", "2"][..], &SMALL].concat();
    assert!(atelier(&place, &args).ok().out.contains("s per step (median of 2)"));
}

#[test]
fn measurements_are_compared_with_earlier_ones() {
    let place = Place::new();
    suites(&place, &["--suite", "text", "--out", "results/then.json"]).ok();
    let path = place.path("results/then.json");
    let mut then: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let both = ["--suite", "text,unet", "--compare", "results/then.json"];
    let now = suites(&place, &[&both[..], &["--json"]].concat()).ok().json();
    let (before, after) = (&then["lines"][0]["seconds"]["median"], &line(&now, "text")["seconds"]["median"]);
    let ratio = after.as_f64().unwrap() / before.as_f64().unwrap();
    assert!((now["compared"]["ratios"][0].as_f64().unwrap() - ratio).abs() < 1e-9, "{now}");
    assert_eq!(now["compared"]["ratios"][1], Value::Null);
    then["machine"]["processor"] = json!("An abacus");
    then["machine"]["peak"] = json!(1e-3);
    std::fs::write(&path, then.to_string()).unwrap();
    let said = suites(&place, &both).ok();
    assert!(
        said.out.contains("ratio") && said.out.lines().any(|l| l.starts_with("text") && l.ends_with('x')),
        "{}",
        said.out
    );
    for word in ["An abacus then", "peak differs", "`UNet, batch 2, 64x64` was not measured then"] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
    place.write("other.json", "{}");
    suites(&place, &["--suite", "text", "--compare", "other.json"])
        .fails(3, &["other.json", "schema_version"]);
    suites(&place, &["--suite", "text", "--compare", "none.json"]).fails(4, &["none.json"]);
}

#[test]
fn what_cannot_be_measured_is_told() {
    let place = Place::new();
    let all = ["gpu", "unet", "vae", "text", "upscale", "train", "e2e"];
    suites(&place, &["--suite", "unet,gpu"]).fails(2, &all);
    atelier(&place, &["benchmark", "--compare", "a.json"]).fails(2, &["--suite"]);
    suites(&place, &["--suite", "unet", "-s", "steps=3"]).fails(3, &["e2e"]);
    atelier(&place, &["benchmark", "--suite", "text", "--size", "100"]).fails(3, &["width", "64"]);
    suites(&place, &["--suite", "text", "--fake-weights", "mini"]).fails(5, &["mini", "sd15"]);
    suites(&place, &["--suite", "text", "-m", "realesrgan-x4plus"]).fails(3, &["realesrgan-x4plus", "sd"]);
}

/// Whether `inner` lies in `outer`, on one thread.
fn within(inner: &Value, outer: &Value) -> bool {
    let (from, to) = (span_of(inner), span_of(outer));
    inner["tid"] == outer["tid"] && to.0 <= from.0 && from.1 <= to.1
}

/// Begin and end in whole nanoseconds.
fn span_of(event: &Value) -> (i64, i64) {
    let nanos = |field: &str| (event[field].as_f64().unwrap() * 1000.0).round() as i64;
    (nanos("ts"), nanos("ts") + nanos("dur"))
}

fn spans(place: &Place, file: &str) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(&std::fs::read(place.path(file)).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap().iter();
    events.filter(|event| event["ph"] == "X").cloned().collect()
}

#[test]
fn a_profile_has_every_operation_inside_of_its_layer_network_and_step() {
    let place = Place::new();
    let args =
        ["generate", "--preset", "txt2img/basic", "-s", "steps=2", "--profile", "made/trace.json", "--json"];
    let said = atelier(&place, &[&args[..], &SMALL].concat()).ok();
    assert!(place.path(said.json()["images"][0].as_str().unwrap()).is_file());
    for word in ["own time", "conv2d", "made/trace.json"] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
    let spans = spans(&place, "made/trace.json");
    let times: Vec<_> = spans.iter().map(|s| (s["tid"].as_u64().unwrap(), span_of(s))).collect();
    for (i, (thread, (a0, a1))) in times.iter().enumerate() {
        for (j, (other, (b0, b1))) in times.iter().enumerate().skip(i + 1) {
            let apart = thread != other || a1 <= b0 || b1 <= a0;
            let nested = (a0 <= b0 && b1 <= a1) || (b0 <= a0 && a1 <= b1);
            assert!(apart || nested, "{} and {} cross", spans[i], spans[j]);
        }
    }
    let named = |name: &str| spans.iter().filter(|s| s["name"] == name).collect::<Vec<_>>();
    assert_eq!((named("step").len(), named("run").len(), named("vae.decode").len()), (2, 1, 1));
    let around = ["resnet", "down_block", "unet", "denoise", "step", "run"];
    let deep = |conv: &&Value| around.iter().all(|name| named(name).iter().any(|outer| within(conv, outer)));
    let convs = named("conv2d");
    let conv = *convs.iter().find(|conv| deep(conv)).unwrap_or_else(|| panic!("none of {convs:?}"));
    assert!(conv["args"]["x"].as_str().unwrap().starts_with("[1, "), "{conv}");
    assert!(named("attention").iter().all(|a| named("run").iter().any(|run| within(a, run))));
}

#[test]
fn suites_have_a_profile_too_and_a_file_that_cannot_be_is_told_first() {
    let place = Place::new();
    let said = suites(&place, &["--suite", "text", "--profile", "trace.json"]).ok();
    assert!(said.out.contains("text encoder") && said.err.contains("text_layer"), "{said:?}");
    let layers = spans(&place, "trace.json").iter().filter(|s| s["name"] == "text_layer").count();
    assert_eq!(layers, 2 * 3, "three layers, measured once after once that does not count");
    place.write("file", "");
    let args = ["generate", "--preset", "txt2img/basic", "--profile", "file/trace.json"];
    atelier(&place, &args).fails(6, &["file"]);
    assert!(!place.path("outputs").exists(), "nothing was drawn");
}
