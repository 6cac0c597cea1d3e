//! The dataset workshop, from a drawn set to a checked training set, with everything that can be wrong on the way.

use crate::support::{Place, Said, copy, names, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A place with a drawn set in `raw`.
fn drawn(count: &str, more: &[&str]) -> Place {
    let place = Place::new();
    place.run(&[&["dataset", "demo", "--out", "raw", "--count", count], more].concat()).ok();
    place
}

fn definition() -> String {
    root().join("configs/datasets/demo.yaml").display().to_string()
}

fn dataset(place: &Place, action: &str, out: &str, more: &[&str]) -> Said {
    let definition = definition();
    place.run(&[&["dataset", action, &definition, "--in", "raw", "--out", out, "--json"], more].concat())
}

fn prepared(place: &Place, out: &str, more: &[&str]) -> Value {
    dataset(place, "prepare", out, &[&["--size", "64"], more].concat()).ok().json()
}

fn json(path: PathBuf) -> Value {
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files of a set with their content, without what is known of photos.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for name in names(folder).into_iter().filter(|n| n != ".atelier") {
        let path = folder.join(&name);
        if path.is_dir() {
            out.extend(tree(&path).into_iter().map(|(inner, content)| (format!("{name}/{inner}"), content)));
        } else {
            out.insert(name, std::fs::read(path).unwrap());
        }
    }
    out
}

#[test]
fn an_analysis_counts_what_is_there_and_lists_every_sort_of_problem() {
    let place = drawn("60", &[]);
    let facts = dataset(&place, "analyze", "report", &[]).ok().json();
    let report = json(place.path("report/report.json"));
    // Counted from the documents, in another way.
    let mut colours: BTreeMap<String, usize> = BTreeMap::new();
    let mut readable = 0;
    for name in names(&place.path("raw/styles")) {
        let Ok(text) = std::fs::read_to_string(place.path("raw/styles").join(&name)) else { continue };
        let Ok(style) = serde_json::from_str::<Value>(&text) else { continue };
        let inside = style["data"]["id"].as_u64().map(|id| format!("{id}.json"));
        if inside.as_deref() == Some(&name) && style["data"]["articleType"]["typeName"] == "Casual Shoes" {
            readable += 1;
            *colours.entry(style["data"]["baseColour"].as_str().unwrap().into()).or_default() += 1;
        }
    }
    // The document in Latin-1 is read as well.
    assert_eq!(facts["records"]["selected"], readable + 1);
    colours.remove("NA");
    *colours.entry("Black".into()).or_default() += 1;
    let counted = report["attributes"][0]["values"].as_array().unwrap();
    let counted: BTreeMap<String, usize> =
        counted.iter().map(|v| (v[0].as_str().unwrap().into(), v[1].as_u64().unwrap() as usize)).collect();
    assert_eq!(counted, colours);
    let kinds: BTreeSet<&str> =
        report["issues"]["counts"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "bad_image",
        "bad_record",
        "duplicate_id",
        "encoding",
        "markup",
        "no_image",
        "no_record",
        "not_an_image",
        "too_large",
        "unsafe_name",
        "wrong_extension",
    ];
    assert!(expected.iter().all(|k| kinds.contains(k)), "{kinds:?}");
    assert!(
        report["photos"]["exact_pairs"].as_u64() >= Some(1)
            && report["photos"]["near_pairs"].as_u64() >= Some(1)
    );
}

#[test]
fn a_report_is_whole_and_its_page_needs_nothing_else() {
    let place = drawn("30", &[]);
    dataset(&place, "analyze", "report", &[]).ok();
    let report = json(place.path("report/report.json"));
    let figures: Vec<&str> =
        report["figures"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    for name in [
        "distributions",
        "by-base-colour",
        "base-colour-by-gender",
        "sample-5x5",
        "sample-10x10",
        "photos-by-colour",
    ] {
        assert!(figures.contains(&name), "{name}: {figures:?}");
    }
    for name in &figures {
        let (width, height, _) = crate::support::pixels(&place.path(&format!("report/figures/{name}.png")));
        assert!(width > 400 && height > 100, "{name}");
        let svg = std::fs::read_to_string(place.path(&format!("report/figures/{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{name}");
    }
    let page = std::fs::read_to_string(place.path("report/report.html")).unwrap();
    let sources: Vec<&str> = page.split("src=\"").skip(1).map(|s| &s[..22]).collect();
    assert_eq!(sources.len(), figures.len());
    assert!(sources.iter().all(|s| *s == "data:image/png;base64,"), "{sources:?}");
    assert!(!page.contains("<link") && !page.contains("<script") && !page.contains("href="));
    let text = std::fs::read_to_string(place.path("report/report.txt")).unwrap();
    assert!(text.contains("Demo shoes") && text.contains("Worth conditioning on"));
    assert!(
        std::fs::read_to_string(place.path("report/report.md"))
            .unwrap()
            .contains("(figures/distributions.png)")
    );
}

#[test]
fn the_table_alone_is_analysed_with_its_bad_rows_listed() {
    let place = drawn("40", &[]);
    let yaml = std::fs::read_to_string(definition()).unwrap();
    let yaml = yaml
        .replace("kind: myntra-json", "kind: myntra-csv")
        .replace("records: styles", "records: styles.csv");
    place.write("table.yaml", yaml);
    place.run(&["dataset", "analyze", "table.yaml", "--in", "raw", "--out", "report"]).ok();
    let report = json(place.path("report/report.json"));
    let counts = &report["issues"]["counts"];
    for (kind, n) in
        [("unsafe_name", 2), ("formula", 1), ("encoding", 1), ("bad_record", 1), ("duplicate_id", 1)]
    {
        assert_eq!(counts[kind], n, "{kind}: {counts}");
    }
    // What a spreadsheet would run is text in everything that we write.
    for line in std::fs::read_to_string(place.path("report/issues.csv")).unwrap().lines() {
        let cells = line.split(",").map(|c| c.trim_start_matches('"'));
        assert!(!cells.clone().any(|c| c.starts_with(['=', '@'])), "{line}");
    }
}

#[test]
fn a_training_set_has_exact_splits_captions_and_nothing_twice() {
    let place = drawn("150", &[]);
    let facts = prepared(&place, "set", &["--prototype", "20", "--txt", "--locale", "en", "--locale", "pt"]);
    let metadata = json(place.path("set/metadata.json"));
    let images = metadata["images"].as_array().unwrap();
    let of = |part: &str| images.iter().filter(|i| i["split"] == part).collect::<Vec<_>>();
    let (train, val, test) = (of("train").len(), of("val").len(), of("test").len());
    let total = train + val + test;
    assert_eq!(metadata["records"]["used"], total);
    let exact = total as f64 * 0.15;
    for n in [val, test] {
        assert!((n as f64 - exact).abs() < 1.0, "{train} {val} {test}");
    }
    assert_eq!(names(&place.path("set/train")).iter().filter(|n| n.ends_with(".png")).count(), train);
    assert_eq!(names(&place.path("set/prototype")).iter().filter(|n| n.ends_with(".png")).count(), 20);
    assert!(facts["largest_deviation"].as_f64().unwrap() < 2.5, "{facts}");
    for part in ["train", "val", "test"] {
        let captions = json(place.path(&format!("set/captions_{part}.json")));
        let lines = std::fs::read_to_string(place.path(&format!("set/{part}/metadata.jsonl"))).unwrap();
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((captions.as_array().unwrap().len(), lines.len()), (of(part).len(), of(part).len()));
        for line in lines {
            let name = line["file_name"].as_str().unwrap();
            let (width, height, _) = crate::support::pixels(&place.path(&format!("set/{part}/{name}")));
            assert_eq!((width, height), (64, 64));
            let txt = place.path(&format!("set/{part}/{}", name.replace(".png", ".txt")));
            assert_eq!(std::fs::read_to_string(txt).unwrap(), line["text"]);
            let caption = line["text"].as_str().unwrap();
            assert!(
                caption.to_lowercase().contains("casual shoes") && !caption.contains(['{', '[', '|']),
                "{caption}"
            );
            assert!(
                !caption.contains(",,") && !caption.contains("  ") && !caption.contains(" ,"),
                "{caption}"
            );
        }
    }
    let portuguese = json(place.path("set/captions_val.pt.json"));
    assert!(portuguese[0]["caption"].as_str().unwrap().to_lowercase().contains("tênis casual"));
    // Photos that show the same are in one split.
    for i in images.iter().filter(|i| !i["same_as"].is_null()) {
        let first = images.iter().find(|o| o["id"] == i["same_as"] && o["split"] != "prototype").unwrap();
        assert!(i["split"] == first["split"] || i["split"] == "prototype", "{i}");
    }
    assert!(images.iter().any(|i| !i["same_as"].is_null()));
    let verdict = place.run(&["dataset", "check", "set", "--json"]).ok().json();
    assert_eq!(verdict["faults"].as_array().map(Vec::len), Some(0));
    assert!(verdict["balance"][0]["test"]["p"].as_f64().unwrap() > 0.5, "{verdict}");
}

#[test]
fn every_rejected_photo_is_listed_with_its_reason() {
    let place = drawn("20", &[]);
    prepared(&place, "set", &[]);
    let rejected = std::fs::read_to_string(place.path("set/rejected.csv")).unwrap();
    for reason in [
        "0 bytes",
        "cut off",
        "it is no image",
        "10000x10000",
        "the same file as that of record",
        "no image has this name",
        "named .jpg and is a png",
        "is no plain name",
        "no record has this id",
    ] {
        assert!(rejected.contains(reason), "{reason}:\n{rejected}");
    }
    assert!(!place.path("outside").exists() && !place.dir.path().join("../outside.png").exists());
}

#[test]
fn the_same_seed_gives_the_same_bits_with_any_number_of_threads() {
    let place = drawn("60", &[]);
    let definition = definition();
    let run = |out: &str, threads: &str, seed: &str| {
        let args =
            ["dataset", "prepare", &definition, "--in", "raw", "--out", out, "--size", "48", "--seed", seed];
        let said: Said =
            place.command().args(args).env("RAYON_NUM_THREADS", threads).output().unwrap().into();
        said.ok();
        tree(&place.path(out))
    };
    let one = run("a", "1", "42");
    assert!(one == run("b", "4", "42"), "other bits with other threads");
    assert!(one.keys().ne(run("c", "2", "43").keys()), "another seed gives the same splits");
}

#[test]
fn a_second_run_makes_only_what_is_missing_or_changed() {
    let place = drawn("40", &["--clean"]);
    let first = prepared(&place, "set", &[]);
    let before = tree(&place.path("set"));
    let dry = prepared(&place, "set", &["--dry-run"]);
    assert_eq!((&dry["made"], &dry["kept"], &dry["texts"]), (&0.into(), &first["made"], &0.into()));
    let again = prepared(&place, "set", &[]);
    assert_eq!((&again["made"], &again["texts"], &again["removed"]), (&0.into(), &0.into(), &0.into()));
    assert!(before == tree(&place.path("set")));
    let file = before.keys().find(|k| k.starts_with("train/") && k.ends_with(".png")).unwrap();
    std::fs::remove_file(place.path(&format!("set/{file}"))).unwrap();
    let other = before.keys().rfind(|k| k.starts_with("train/") && k.ends_with(".png")).unwrap();
    let mut damaged = before[other].clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(place.path(&format!("set/{other}")), damaged).unwrap();
    assert_eq!(prepared(&place, "set", &[])["made"], 2);
    assert!(before == tree(&place.path("set")));
    // Another size makes all of them anew.
    let larger = dataset(&place, "prepare", "set", &["--size", "80"]).ok().json();
    assert_eq!((&larger["made"], &larger["kept"]), (&first["made"], &0.into()));
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = drawn("20", &[]);
    let plan = prepared(&place, "set", &["--dry-run"]);
    assert!(plan["made"].as_u64() > Some(5) && plan["dry_run"] == true);
    assert!(!place.path("set").exists());
}

#[test]
fn a_record_that_went_away_takes_its_image_along_and_strangers_stay() {
    let place = drawn("40", &["--clean"]);
    prepared(&place, "set", &[]);
    let gone = names(&place.path("set/train")).into_iter().find(|n| n.ends_with(".png")).unwrap();
    let id = gone.trim_end_matches(".png").to_string();
    std::fs::remove_file(place.path(&format!("raw/styles/{id}.json"))).unwrap();
    place.write("set/train/mine.png", "a person's own file");
    prepared(&place, "set", &[]);
    let left = tree(&place.path("set"));
    assert!(!left.keys().any(|k| k.ends_with(&gone)) && left.contains_key("train/mine.png"));
    place.run(&["dataset", "check", "set"]).fails(7, &["train/mine.png", "does not belong"]);
}

#[test]
#[cfg(unix)]
fn a_run_that_was_killed_is_continued_to_the_same_result() {
    let place = drawn("80", &["--clean"]);
    let definition = definition();
    let args = ["dataset", "prepare", &definition, "--in", "raw", "--size", "256", "--out"];
    place.run(&[&args[..], &["whole"]].concat()).ok();
    let mut caught = 0;
    for (i, wait) in [1u64, 10, 40].into_iter().enumerate() {
        let out = format!("killed{i}");
        let mut child =
            place.command().args(args).arg(&out).stdout(std::process::Stdio::null()).spawn().unwrap();
        while !place.path(&out).join("train").exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        caught += usize::from(!place.path(&out).join("manifest.json").exists());
        place.run(&[&args[..], &[&out]].concat()).ok();
        assert!(tree(&place.path("whole")) == tree(&place.path(&out)), "killed after {wait} ms");
        place.run(&["dataset", "check", &out]).ok();
    }
    assert!(caught > 0, "every run was over before it was killed");
}

/// The kernel refuses to write more than some bytes to a file, as a full disk would.
#[test]
#[cfg(unix)]
fn a_disk_that_takes_no_more_is_told_and_leaves_nothing_half_written() {
    let place = drawn("30", &["--clean"]);
    let exe = env!("CARGO_BIN_EXE_atelier");
    let line = format!(
        "trap '' XFSZ; ulimit -f 16; exec '{exe}' dataset prepare '{}' --in raw --out set --size 256",
        definition()
    );
    let said: Said =
        place.wrap(std::process::Command::new("sh")).args(["-c", &line]).output().unwrap().into();
    said.fails(6, &["cannot write"]);
    let left = tree(&place.path("set"));
    assert!(
        !left.contains_key("manifest.json") && !left.keys().any(|k| k.contains(".atelier-")),
        "{:?}",
        left.keys()
    );
    dataset(&place, "prepare", "set", &["--size", "256"]).ok();
    place.run(&["dataset", "check", "set"]).ok();
}

#[test]
fn bad_images_are_put_aside_and_listed_and_made_again() {
    let place = drawn("40", &["--clean"]);
    prepared(&place, "set", &[]);
    let whole = tree(&place.path("set"));
    let images: Vec<String> =
        names(&place.path("set/train")).into_iter().filter(|n| n.ends_with(".png")).collect();
    let file = |i: usize| place.path(&format!("set/train/{}", images[i]));
    std::fs::write(file(0), "").unwrap();
    let cut = std::fs::read(file(1)).unwrap();
    std::fs::write(file(1), &cut[..cut.len() / 2]).unwrap();
    std::fs::copy(file(3), file(2)).unwrap();
    let said = place
        .run(&["dataset", "check", "set"])
        .fails(7, &["0 bytes", "damaged", "digest differs", "3 images were put aside"]);
    assert!(said.err.contains("check.txt"));
    let listed = json(place.path("set/quarantine/quarantine.json"));
    assert_eq!(listed.as_object().unwrap().len(), 3);
    assert_eq!(names(&place.path("set/quarantine/train")), images[..3]);
    place.run(&["dataset", "check", "set"]).fails(7, &["it is missing"]);
    assert_eq!(prepared(&place, "set", &[])["made"], 3);
    place.run(&["dataset", "check", "set"]).ok();
    let again = tree(&place.path("set"));
    assert!(whole.iter().all(|(name, content)| again.get(name) == Some(content)));
}

#[test]
fn a_set_that_was_tampered_with_does_not_pass() {
    let place = drawn("40", &["--clean"]);
    prepared(&place, "set", &[]);
    let fails = |name: &str, change: &dyn Fn(&Path), words: &[&str]| {
        copy(&place.path("set"), &place.path(name));
        change(&place.path(name));
        place.run(&["dataset", "check", name, "--no-quarantine"]).fails(7, words);
    };
    let replace = |file: &str, from: &str, to: &str| {
        let (file, from, to) = (file.to_string(), from.to_string(), to.to_string());
        move |set: &Path| {
            let text = std::fs::read_to_string(set.join(&file)).unwrap();
            assert!(text.contains(&from));
            std::fs::write(set.join(&file), text.replacen(&from, &to, 1)).unwrap();
        }
    };
    fails(
        "a",
        &replace("captions_train.json", "\"caption\": \"", "\"caption\": \"x "),
        &["captions_train.json", "digest differs"],
    );
    let train = names(&place.path("set/train")).into_iter().find(|n| n.ends_with(".png")).unwrap();
    let other = names(&place.path("set/val")).into_iter().find(|n| n.ends_with(".png")).unwrap();
    let twice = |set: &Path| {
        std::fs::copy(set.join("train").join(&train), set.join("val").join(&other)).unwrap();
    };
    fails("b", &twice, &["digest differs"]);
    // A manifest that puts one photo into two splits.
    let manifest = json(place.path("set/manifest.json"));
    let straddle = |set: &Path| {
        let mut m = manifest.clone();
        let one = m["images"][format!("train/{train}")].clone();
        m["images"][format!("val/{other}")]["group"] = one["group"].clone();
        std::fs::write(set.join("manifest.json"), m.to_string()).unwrap();
    };
    fails("c", &straddle, &["the splits are not disjoint"]);
    #[cfg(unix)]
    fails(
        "d",
        &|set: &Path| std::os::unix::fs::symlink("/etc/passwd", set.join("train/x.png")).unwrap(),
        &["it is a link"],
    );
    place.run(&["dataset", "check", "raw"]).fails(4, &["manifest.json", "is this a prepared set?"]);
}

#[test]
fn wrong_requests_say_what_to_do() {
    let place = drawn("10", &["--clean"]);
    let filter = |f: &str| dataset(&place, "analyze", "report", &["--filter", f]);
    let said = |s: Said, code: i32, words: &[&str]| {
        assert_eq!(s.code, code, "{s:?}");
        words.iter().for_each(|w| assert!(s.out.contains(w), "no {w:?} in {}", s.out));
    };
    said(filter("articleType == 'Casual Shoe'"), 4, &["no record passes", "Casual Shoes"]);
    said(filter("artikelType == 'x'"), 4, &["no field `artikelType`", "`articleType`"]);
    said(filter("articleType = "), 3, &["character 15"]);
    place
        .run(&["dataset", "analyze", "demoo", "--in", "raw", "--out", "r"])
        .fails(3, &["no `demoo` in datasets/"]);
    place
        .run(&["dataset", "analyze", &definition(), "--in", "none", "--out", "r"])
        .fails(3, &["input", "none"]);
    said(dataset(&place, "prepare", "raw", &[]), 3, &["written into its source"]);
    said(dataset(&place, "prepare", "set", &["--locale", "xx"]), 4, &["locale `xx`", "en, pt"]);
    place.write("bad.yaml", "schema_version: 1\ntitel: x\n");
    place
        .run(&["dataset", "analyze", "bad.yaml", "--in", "raw", "--out", "r"])
        .fails(3, &["unknown field `titel`"]);
    place.write("mine/photo.jpg", "x");
    place.run(&["dataset", "demo", "--out", "mine"]).fails(6, &["is not empty", "photo.jpg"]);
    assert!(!place.path("r").exists());
}

#[test]
fn the_presets_of_the_repository_are_valid_and_their_definitions_are_read() {
    let place = drawn("12", &["--clean"]);
    let configs = root().join("configs").display().to_string();
    for name in ["casual-shoes", "tshirts", "shirts", "demo"] {
        for task in ["dataset-analyze", "dataset-prepare"] {
            place.run(&["--configs", &configs, "presets", "validate", &format!("{task}/{name}")]).ok();
        }
        let filter = ["--filter", "articleType is present", "--json"];
        let args =
            ["--configs", &configs, "dataset", "prepare", name, "--in", "raw", "--out", "x", "--dry-run"];
        place.run(&[&args[..], &filter].concat()).ok();
    }
}

#[test]
fn tasks_of_the_workshop_run_from_a_preset_as_any_other() {
    let place = drawn("12", &["--clean"]);
    let text = format!(
        "schema_version: 1\ntask: dataset-prepare\nengine: dataset\nparams:\n  definition: {}\n  size: 32\n",
        definition()
    );
    place.write("p.yaml", text);
    let args = ["generate", "--preset", "p.yaml", "--set", "input=raw", "--set", "out=set", "--json"];
    let facts = place.run(&args).ok().json();
    assert!(facts["facts"]["made"].as_u64() > Some(5), "{facts}");
    place.run(&["dataset", "check", "set"]).ok();
    place.run(&["generate", "--preset", "p.yaml"]).fails(3, &["no folder to read is named"]);
}
