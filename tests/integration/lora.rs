//! LoRAs: in prompts and in lists, found by name; the commands on their files.

use crate::support::{Place, Said, golden, pixels, root};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file of the references.
fn lora(name: &str) -> PathBuf {
    root().join("tests/fixtures/golden/lora").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A place whose user has LoRAs of his own.
fn place() -> Place {
    let place = Place::new();
    for (name, file) in [("plain", "kohya"), ("more/second", "kohya_second")] {
        let content = std::fs::read(lora(&format!("{file}.safetensors"))).unwrap();
        place.write(&format!("data/atelier/loras/{name}.safetensors"), content);
    }
    place
}

fn draw(place: &Place, sets: &[&str]) -> (u32, u32, Vec<u8>) {
    pixels(&place.generate(&asked(sets)))
}

fn asked<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["-p", "tiny/basic"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    args
}

fn refused(place: &Place, sets: &[&str]) -> Said {
    let mut args = vec!["generate"];
    args.extend(asked(sets));
    place.run(&args)
}

fn sidecar(image: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(image.with_extension("json")).unwrap()).unwrap()
}

/// The largest difference of two pictures' colours.
fn distance(a: &(u32, u32, Vec<u8>), b: &(u32, u32, Vec<u8>)) -> u8 {
    assert_eq!((a.0, a.1), (b.0, b.1));
    a.2.iter().zip(&b.2).map(|(x, y)| x.abs_diff(*y)).max().unwrap()
}

#[test]
fn a_tag_changes_the_picture_and_at_0_it_does_not() {
    let place = place();
    let base = draw(&place, &["prompt=shoes"]);
    let tagged = draw(&place, &["prompt=shoes<lora:plain:1>"]);
    assert!(base != tagged);
    assert!(base == draw(&place, &["prompt=shoes<lora:plain:0>"]));
    let path = format!("loras=[{{path: {}}}]", lora("kohya.safetensors").display());
    assert!(tagged == draw(&place, &["prompt=shoes", &path]), "a list does what a tag does");
    let parts = draw(&place, &["prompt=shoes<lora:plain:0:1>"]);
    assert!(parts != tagged && parts != base, "the text encoder's part is its own");
    assert!(tagged != draw(&place, &["prompt=shoes<lora:plain:1><lora:second:0.5>"]));
}

#[test]
fn live_and_merged_are_the_same_picture_but_for_rounding() {
    let place = place();
    let merged = draw(&place, &["prompt=shoes<lora:plain:1>"]);
    let live = draw(&place, &["prompt=shoes<lora:plain:1>", "lora_mode=live"]);
    assert!(distance(&merged, &live) <= 1, "{}", distance(&merged, &live));
}

#[test]
fn blocks_have_factors_of_their_own() {
    let place = place();
    let with = |blocks: &str| {
        let list = format!("loras=[{{name: plain, blocks: {blocks}}}]");
        draw(&place, &["prompt=shoes", &list])
    };
    let all = draw(&place, &["prompt=shoes<lora:plain:1>"]);
    assert!(all == with("{M00: 1}"));
    assert!(all != with("{M00: 0}"));
    let none = with("{BASE: 0, down_blocks: 0, up_blocks: 0, mid_block: 0}");
    assert!(none == draw(&place, &["prompt=shoes"]));
    refused(&place, &["loras=[{name: plain, blocks: [1, 1]}]"]).fails(3, &["BASE", "found 2"]);
}

#[test]
fn what_was_used_is_recorded_and_makes_the_same_picture_again() {
    let place = place();
    let image = place.generate(&asked(&["prompt=shoes<lora:plain:0.7>", "loras=[{name: more/second}]"]));
    let metadata = sidecar(&image);
    for name in ["plain", "more/second"] {
        let found = &metadata["loras"][name];
        assert_eq!(found["sha256"].as_str().unwrap().len(), 64, "{metadata}");
        assert!(found["file"].as_str().unwrap().ends_with(".safetensors"));
    }
    let bytes = std::fs::read(&image).unwrap();
    let hash = &metadata["loras"]["plain"]["sha256"].as_str().unwrap()[..12];
    let said = format!(
        "Lora hashes: \"more/second: {}",
        &metadata["loras"]["more/second"]["sha256"].as_str().unwrap()[..12]
    );
    for part in [said.as_str(), &format!("plain: {hash}")] {
        assert!(bytes.windows(part.len()).any(|w| w == part.as_bytes()), "{part}");
    }
    let again = place.generate(&["--like", text(&image)]);
    assert!(pixels(&image) == pixels(&again));
    // Another file under the same name is told.
    let other = std::fs::read(lora("kohya_alpha8.safetensors")).unwrap();
    place.write("data/atelier/loras/plain.safetensors", other);
    let said = place.run(&["generate", "--like", text(&image)]).ok();
    assert!(said.err.contains("LoRA plain") && said.err.contains("is not the one"), "{said:?}");
}

#[test]
fn adapters_drawn_from_a_template_differ_from_image_to_image() {
    let place = place();
    let prompt = "prompt=shoes{<lora:plain:1>|<lora:second:1>|}";
    for memory in ["memory=resident", "memory=staged"] {
        let mut args = vec!["generate", "--json"];
        args.extend(asked(&[prompt, "count=6", "steps=1", memory]));
        let said = place.run(&args).ok().json();
        let mut names = std::collections::BTreeSet::new();
        for image in said["images"].as_array().unwrap() {
            let image = place.path(image.as_str().unwrap());
            let metadata = sidecar(&image);
            let used = metadata["loras"].as_object().map(|l| l.keys().cloned().collect::<Vec<_>>());
            names.insert(used.unwrap_or_default());
            // Each image alone, made from its own metadata, is the same.
            assert!(pixels(&image) == pixels(&place.generate(&["--like", text(&image)])));
        }
        assert!(names.len() >= 2, "{names:?}");
        assert!(names.iter().all(|used| used.len() <= 1), "{names:?}");
    }
}

#[test]
fn what_cannot_be_applied_says_why() {
    let place = place();
    refused(&place, &["prompt=a<lora:plane:1>"])
        .fails(4, &["no lora `plane`", "plain", "data/atelier/loras"]);
    refused(&place, &["negative_prompt=<lora:plain:1>"]).fails(3, &["negative_prompt", "in the prompt"]);
    refused(&place, &["loras=[{weight: 1}]"]).fails(3, &["/loras/0/name"]);
    refused(&place, &["loras=[{path: none.safetensors}]"]).fails(3, &["none.safetensors"]);
    let model = golden().join("tiny-sd/unet/diffusion_pytorch_model.safetensors");
    let list = format!("loras=[{{path: {}}}]", model.display());
    refused(&place, &[&list]).fails(7, &["a UNet alone"]);
    let name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let sdxl = tensors(&[
        (&format!("{name}.lora_down.weight"), &[2, 2048]),
        (&format!("{name}.lora_up.weight"), &[64, 2]),
    ]);
    place.write("data/atelier/loras/xl.safetensors", sdxl);
    refused(&place, &["prompt=<lora:xl>"]).fails(5, &["for SDXL"]);
    let other = tensors(&[
        ("lora_unet_other.lora_down.weight", &[2, 8]),
        ("lora_unet_other.lora_up.weight", &[8, 2]),
    ]);
    place.write("data/atelier/loras/other.safetensors", other);
    refused(&place, &["prompt=<lora:other>"]).fails(3, &["none of the 1 modules", "unet.other"]);
}

/// A safetensors file of zeros.
fn tensors(shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let zeros: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .iter()
        .map(|(name, shape)| (name.to_string(), shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]))
        .collect();
    let views = zeros.iter().map(|(name, shape, data)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn a_partial_match_is_told_with_counts() {
    let place = place();
    let mut all = std::fs::read(lora("kohya_second.safetensors")).unwrap();
    let wide = candle_core::safetensors::load_buffer(&all, &candle_core::Device::Cpu).unwrap();
    let mut wide: std::collections::HashMap<String, candle_core::Tensor> = wide;
    let one = candle_core::Tensor::zeros((2, 2), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    wide.insert("lora_unet_of_others.lora_down.weight".into(), one.clone());
    wide.insert("lora_unet_of_others.lora_up.weight".into(), one);
    let path = place.path("wide.safetensors");
    candle_core::safetensors::save(&wide, &path).unwrap();
    all.clear();
    let list = format!("loras=[{{path: {}}}]", path.display());
    let mut args = vec!["generate"];
    let sets = asked(&[&list]);
    args.extend(sets);
    let said = place.run(&args).ok();
    assert!(said.err.contains("modules of the adapter are in the model; not: unet.of_others"), "{said:?}");
}

/// A picture of the model in the folder `merged`, at the size of the tiny model's description.
const MERGED: [&str; 8] =
    ["-p", "tiny/basic", "--model", "./merged", "--set", "width=64", "--set", "height=64"];

#[test]
fn a_merged_model_draws_what_the_adapter_draws() {
    let place = place();
    let model = golden().join("tiny-sd");
    let file = lora("kohya.safetensors");
    let with = |weights: &str, out: &str| {
        let lora = format!("{}{weights}", file.display());
        place.run(&["lora", "merge", "--model", text(&model), "--lora", &lora, "--out", out])
    };
    with(":0.8", "merged").ok();
    let merged = pixels(&place.generate(&MERGED));
    let drawn = draw(&place, &["prompt=a photo of red casual shoes<lora:plain:0.8>"]);
    assert!(distance(&merged, &drawn) == 0, "{}", distance(&merged, &drawn));
    with("", "merged").fails(3, &["there already"]);
    let said = place.run(&["lora", "inspect", text(&file), "--model", "./merged", "--json"]).ok().json();
    assert_eq!((&said["fit"]["matched"], &said["fit"]["total"]), (&60.into(), &60.into()));
}

#[test]
fn what_was_merged_is_extracted_again() {
    let place = place();
    let model = golden().join("tiny-sd");
    let file = lora("kohya_locon.safetensors");
    place.run(&["lora", "merge", "-m", text(&model), "-l", text(&file), "-o", "merged"]).ok();
    let extract = ["lora", "extract", "--base", text(&model), "--tuned", "merged", "--f32"];
    let run = |more: &[&str]| place.run(&[&extract[..], more].concat());
    let facts = run(&["--rank", "4", "--out", "found.safetensors", "--json"]).ok().json();
    assert_eq!((&facts["modules"], &facts["rank"]), (&48.into(), &4.into()));
    assert!(facts["energy"].as_f64().unwrap() > 0.999_999, "{facts}");
    let wanted = pixels(&place.generate(&MERGED));
    let found = draw(&place, &["loras=[{path: found.safetensors}]"]);
    assert!(distance(&wanted, &found) <= 1);
    let less = run(&["--rank", "1", "--out", "less.safetensors", "--json"]).ok().json();
    assert!(less["energy"].as_f64().unwrap() < 0.99, "{less}");
    place
        .run(&[
            "lora",
            "extract",
            "--base",
            text(&model),
            "--tuned",
            text(&model),
            "--out",
            "none.safetensors",
        ])
        .fails(3, &["do not differ"]);
}

#[test]
fn every_layout_is_converted_into_every_other() {
    let place = place();
    let wanted = draw(&place, &["prompt=shoes<lora:plain:1>"]);
    let mut from = lora("kohya.safetensors").display().to_string();
    for (to, out) in [("diffusers", "d.safetensors"), ("kohya", "k.safetensors")] {
        place.run(&["lora", "convert", &from, "--to", to, "--out", out]).ok();
        let list = format!("loras=[{{path: {out}}}]");
        assert!(wanted == draw(&place, &["prompt=shoes", &list]), "{to}");
        from = out.into();
    }
    place.run(&["lora", "convert", &from, "--to", "peft", "--out", "p"]).ok();
    let both = "loras=[{path: p/unet}, {path: p/text_encoder}]";
    assert!(wanted == draw(&place, &["prompt=shoes", both]));
    place
        .run(&[
            "lora",
            "convert",
            text(&lora("lycoris.safetensors")),
            "--to",
            "kohya",
            "--out",
            "x.safetensors",
        ])
        .fails(3, &["none of the 16 modules"]);
}
