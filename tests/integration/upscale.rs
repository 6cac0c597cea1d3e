//! Upscaling, as a person uses it, with networks so small that a test can write them.

use crate::support::{Place, Said, names, root};
use crate::upscale_files::{Picture, network, picture, read};
use png::{BitDepth, ColorType};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const TASK: [&str; 4] = ["generate", "--json", "--task", "upscale"];

fn ask(place: &Place, model: &str, sets: &[&str]) -> Said {
    let mut args = [&TASK[..], &["--model", model]].concat();
    args.extend(sets.iter().flat_map(|s| ["-s", s]));
    place.run(&args)
}

/// The first image of a run.
fn enlarge(place: &Place, model: &str, sets: &[&str]) -> Picture {
    let said = ask(place, model, sets).ok().json();
    read(&place.path(said["images"][0].as_str().unwrap()))
}

/// What a network without weights makes: each pixel `n` x `n` times.
fn repeated(p: &Picture, n: usize) -> Vec<u8> {
    let pixel = p.data.len() / (p.width * p.height) as usize;
    let row = |y: usize| &p.data[y * p.width as usize * pixel..][..p.width as usize * pixel];
    let rows = (0..p.height as usize * n).map(|y| row(y / n));
    rows.flat_map(|row| row.chunks(pixel).flat_map(|p| std::iter::repeat_n(p, n)).flatten().copied())
        .collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn rgb(place: &Place, name: &str, width: u32, height: u32) -> Picture {
    let data = noise((width * height * 3) as usize);
    picture(place, name, Picture { width, height, data, ..Picture::default() })
}

#[test]
fn a_picture_becomes_as_many_times_larger_as_is_asked_for() {
    let place = Place::new();
    network(&place, "plain.safetensors", 4, 0.0, 0);
    let small = rgb(&place, "a.png", 7, 5);
    for (outscale, size) in [
        ("1", (7, 5)),
        ("1.5", (11, 8)),
        ("2", (14, 10)),
        ("3.5", (25, 18)),
        ("4", (28, 20)),
        ("5", (35, 25)),
    ] {
        let large = enlarge(&place, "./plain.safetensors", &["image=a.png", &format!("outscale={outscale}")]);
        assert_eq!((large.width, large.height), size, "{outscale}");
    }
    let large = enlarge(&place, "./plain.safetensors", &["image=a.png"]);
    assert_eq!(large.data, repeated(&small, 4), "without a factor, the network's own");
    rgb(&place, "dot.png", 1, 1);
    let dot = enlarge(&place, "./plain.safetensors", &["image=dot.png", "outscale=3"]);
    assert_eq!((dot.width, dot.height), (3, 3));
}

#[test]
fn depth_greys_and_alpha_stay() {
    let place = Place::new();
    network(&place, "plain.safetensors", 2, 0.0, 0);
    for depth in [BitDepth::Eight, BitDepth::Sixteen] {
        for colour in [ColorType::Grayscale, ColorType::GrayscaleAlpha, ColorType::Rgb, ColorType::Rgba] {
            let bytes = colour.samples() * if depth == BitDepth::Sixteen { 2 } else { 1 };
            let data = noise(6 * 4 * bytes);
            let small = Picture { width: 6, height: 4, colour, depth, data, ..Picture::default() };
            let small = picture(&place, "a.png", small);
            let large = enlarge(&place, "./plain.safetensors", &["image=a.png"]);
            assert_eq!((large.colour, large.depth), (colour, depth));
            assert_eq!(large.data, repeated(&small, 2), "{colour:?} {depth:?}");
        }
    }
}

#[test]
fn alpha_goes_through_the_network_or_through_a_filter() {
    let place = Place::new();
    network(&place, "noisy.safetensors", 2, 0.3, 1);
    let data = noise(8 * 8 * 4);
    let rgba = Picture { width: 8, height: 8, colour: ColorType::Rgba, data, ..Picture::default() };
    let small = picture(&place, "a.png", rgba);
    let drawn = enlarge(&place, "./noisy.safetensors", &["image=a.png"]);
    let filtered = enlarge(&place, "./noisy.safetensors", &["image=a.png", "alpha=lanczos"]);
    let part = |p: &Picture, alpha: bool| -> Vec<u8> {
        let pixels = p.data.chunks(4);
        pixels.flat_map(|p| if alpha { p[3..].to_vec() } else { p[..3].to_vec() }).collect()
    };
    assert_eq!(part(&drawn, false), part(&filtered, false));
    assert_ne!(part(&drawn, true), part(&filtered, true));
    // Nothing is drawn into what is transparent everywhere alike.
    let mut even = small.data;
    even.chunks_mut(4).for_each(|p| p[3] = 200);
    let even = Picture { width: 8, height: 8, colour: ColorType::Rgba, data: even, ..Picture::default() };
    picture(&place, "even.png", even);
    let large = enlarge(&place, "./noisy.safetensors", &["image=even.png"]);
    assert!(part(&large, true).iter().all(|a| *a == 200));
}

#[test]
fn a_photo_is_turned_upright_and_keeps_its_colour_profile() {
    let place = Place::new();
    network(&place, "plain.safetensors", 2, 0.0, 0);
    let mut profile = vec![7; 400];
    profile[..4].copy_from_slice(&400u32.to_be_bytes());
    profile[16..20].copy_from_slice(b"RGB ");
    profile[36..40].copy_from_slice(b"acsp");
    let data = noise(3 * 2 * 3);
    let given =
        Picture { width: 3, height: 2, data, profile: Some(profile), turned: Some(6), ..Picture::default() };
    let small = picture(&place, "a.png", given);
    let large = enlarge(&place, "./plain.safetensors", &["image=a.png"]);
    assert_eq!((large.width, large.height), (4, 6));
    // A quarter to the right: what was at the bottom left is at the top left.
    assert_eq!(large.data[..3], small.data[9..12]);
    assert_eq!((large.profile, large.turned), (small.profile, None));
}

#[test]
fn tiles_give_what_the_whole_gives() {
    let place = Place::new();
    network(&place, "noisy.safetensors", 4, 0.3, 2);
    rgb(&place, "a.png", 45, 70);
    let whole = enlarge(&place, "./noisy.safetensors", &["image=a.png", "tile=0"]);
    for sets in [["tile=16", "overlap=3"], ["tile=32", "overlap=8"]] {
        let tiled = enlarge(&place, "./noisy.safetensors", &[&["image=a.png"], &sets[..]].concat());
        let worst = tiled.data.iter().zip(&whole.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1, "{sets:?}: {worst}");
    }
    let cut = enlarge(&place, "./noisy.safetensors", &["image=a.png", "tile=16", "overlap=0"]);
    assert_ne!(cut.data, whole.data, "without an overlap, tiles show");
}

#[test]
fn a_model_of_two_networks_takes_away_more_or_less_noise() {
    let place = Place::new();
    network(&place, "pair/net.safetensors", 2, 0.3, 3);
    network(&place, "pair/net-wdn.safetensors", 2, 0.3, 4);
    rgb(&place, "a.png", 9, 9);
    let at = |s: &str| enlarge(&place, "./pair", &["image=a.png", &format!("denoise_strength={s}")]).data;
    let alone = |file: &str| enlarge(&place, file, &["image=a.png"]).data;
    assert_eq!(at("1"), alone("./pair/net.safetensors"));
    assert_eq!(at("0"), alone("./pair/net-wdn.safetensors"));
    let (half, unsaid) = (at("0.5"), alone("./pair"));
    assert_eq!(half, unsaid);
    assert!(half != at("1") && half != at("0"));
    let said = ask(&place, "./pair/net.safetensors", &["image=a.png", "denoise_strength=0.5"]);
    assert_eq!(said.code, 3);
    let text = said.json().to_string();
    assert!(text.contains("has one network alone") && text.contains("realesr-general-x4v3"), "{text}");
}

/// A folder of small pictures, each of its own size.
fn album(place: &Place, count: u32) {
    for i in 1..=count {
        rgb(place, &format!("album/p{i:03}.png"), 8 + i % 5, 8);
    }
}

fn folder(place: &Place, sets: &[&str]) -> Value {
    let all = [&["folder=album", "out=large"], sets].concat();
    ask(place, "./net.safetensors", &all).ok().json()["facts"].clone()
}

#[test]
fn the_pictures_of_a_folder_are_enlarged_under_their_names() {
    let place = Place::new();
    network(&place, "net.safetensors", 2, 0.3, 5);
    album(&place, 3);
    rgb(&place, "album/p001.copy.png", 4, 4);
    std::fs::copy(place.path("album/p002.png"), place.path("album/p002.apng")).unwrap();
    place.write("album/broken.png", "no picture");
    place.write("album/notes.txt", "no picture either");
    place.write("skip.txt", "p003.png # blurred\n");
    let facts = folder(&place, &["skip=skip.txt"]);
    assert_eq!((&facts["done"], &facts["there_already"]), (&4.into(), &0.into()), "{facts}");
    assert_eq!(facts["skipped"][0]["file"], "broken.png");
    assert!(facts["skipped"][0]["reason"].as_str().unwrap().contains("not an image"), "{facts}");
    let expected = ["p001.copy", "p001", "p002.apng", "p002.png"];
    let files = expected.iter().flat_map(|n| [format!("{n}.json"), format!("{n}.png")]);
    let mut files: Vec<String> = files.collect();
    files.sort();
    assert_eq!(names(&place.path("large")), files);
    // Each is what it would have been alone, and its metadata make it again.
    let alone = enlarge(&place, "./net.safetensors", &["image=album/p001.png"]);
    let large = place.path("large/p001.png");
    assert_eq!(read(&large).data, alone.data);
    let said =
        place.run(&["generate", "--json", "--like", large.to_str().unwrap(), "-s", "out="]).ok().json();
    assert_eq!(read(&place.path(said["images"][0].as_str().unwrap())).data, alone.data);
}

#[test]
fn a_folder_that_is_done_is_not_done_again_but_what_changed_is() {
    let place = Place::new();
    network(&place, "net.safetensors", 2, 0.3, 5);
    album(&place, 3);
    assert_eq!(folder(&place, &[])["done"], 3);
    let again = folder(&place, &["memory_limit=8"]);
    assert_eq!((&again["done"], &again["there_already"]), (&0.into(), &3.into()));
    rgb(&place, "album/p002.png", 20, 20);
    assert_eq!(folder(&place, &[])["done"], 1);
    assert_eq!(read(&place.path("large/p002.png")).width, 40);
    assert_eq!(folder(&place, &["outscale=1.5"])["done"], 3);
    assert_eq!(read(&place.path("large/p002.png")).width, 30);
    let named = folder(&place, &["outscale=1.5", "name={name}-{model}-x{scale}"]);
    assert_eq!(named["done"], 3);
    assert!(place.path("large/p002-net-x1.5.png").is_file());
}

#[test]
#[cfg(unix)]
fn a_folder_whose_run_was_killed_goes_on_where_it_was() {
    let place = Place::new();
    network(&place, "net.safetensors", 2, 0.3, 5);
    album(&place, 60);
    let mut command = place.command();
    command.args(TASK).args(["--model", "./net.safetensors", "-s", "folder=album", "-s", "out=large"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    let done = || names(&place.path("large")).iter().filter(|n| n.ends_with(".png")).count();
    while done() < 3 && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "nothing was enlarged");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let stood = done();
    for name in names(&place.path("large")).iter().filter(|n| n.ends_with(".png")) {
        assert!(!read(&place.path("large").join(name)).data.is_empty(), "{name} is whole");
    }
    let facts = folder(&place, &[]);
    assert_eq!(facts["there_already"], stood);
    assert_eq!(facts["done"], 60 - stood);
    assert_eq!(done(), 60);
    // What the killed process was writing has no result's name.
    let stray = |n: &&String| !n.ends_with(".png") && !n.ends_with(".json");
    assert!(names(&place.path("large")).iter().filter(stray).all(|n| n.starts_with('.')));
}

/// A PNG that claims a size and has next to no pixels.
fn claim(place: &Place, name: &str, width: u32, height: u32) {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in
        [(b"IHDR", head), (b"IDAT", vec![0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1]), (b"IEND", Vec::new())]
    {
        bytes.extend((data.len() as u32).to_be_bytes());
        let chunk = [&kind[..], &data].concat();
        bytes.extend(&chunk);
        bytes.extend(crc(&chunk).to_be_bytes());
    }
    place.write(name, bytes);
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn pictures_that_cannot_be_enlarged_are_refused_with_a_reason() {
    let place = Place::new();
    network(&place, "net.safetensors", 4, 0.0, 0);
    let net = |sets: &[&str]| ask(&place, "./net.safetensors", sets);
    let refused = |said: Said, code: i32, words: &[&str]| {
        let text = said.json().to_string();
        assert_eq!(said.code, code, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
    };
    place.write("text.png", "no picture at all");
    refused(net(&["image=text.png"]), 3, &["/image", "not an image"]);
    refused(net(&["image=none.png"]), 3, &["/image", "none.png"]);
    refused(net(&[]), 3, &["/image", "no file is named"]);
    claim(&place, "huge.png", 50_000, 50_000);
    refused(net(&["image=huge.png"]), 5, &["50000x50000", "16384"]);
    claim(&place, "nothing.png", 0, 0);
    refused(net(&["image=nothing.png"]), 7, &["nothing.png"]);
    rgb(&place, "long.png", 16_000, 1);
    refused(net(&["image=long.png", "outscale=16"]), 3, &["256000x16 pixels", "smaller `outscale`"]);
    rgb(&place, "a.png", 8, 8);
    for (outscale, words) in
        [("0", "less than 1"), ("1000", "more than 16"), ("NaN", "not null or a number"), (".nan", ".nan")]
    {
        refused(net(&["image=a.png", &format!("outscale={outscale}")]), 3, &[words, "outscale"]);
    }
    refused(net(&["image=a.png", "outscael=2"]), 3, &["/outscael", "did you mean `outscale`"]);
    refused(net(&["folder=."]), 3, &["/out"]);
    refused(net(&["image=a.png", "memory_limit=0.001"]), 6, &["32x32 pixels", "1.0 MiB"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    refused(net(&["folder=empty", "out=large"]), 4, &["no images in empty"]);
    refused(net(&["folder=.", "out=./"]), 3, &["`out` is `folder`"]);
    place.write("bad/a.png", "no");
    refused(net(&["folder=bad", "out=large"]), 7, &["none of the 1 images", "a.png"]);
}

#[test]
fn weights_that_are_no_upscaler_or_are_not_there_say_what_to_do() {
    let place = Place::with_own_configs();
    rgb(&place, "a.png", 8, 8);
    let refused = |model: &str, code: i32, words: &[&str]| {
        let said = ask(&place, model, &["image=a.png"]);
        let text = said.json().to_string();
        assert_eq!(said.code, code, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
    };
    let unet = root().join("tests/fixtures/golden/tiny-sd/unet/diffusion_pytorch_model.safetensors");
    refused(unet.to_str().unwrap(), 5, &["expected an upscaler", "UNet"]);
    place.write("cut.safetensors", &std::fs::read(&unet).unwrap()[..1000]);
    refused("./cut.safetensors", 7, &["cut.safetensors"]);
    let head = "schema_version: 1\ntitle: t\nlicense: MIT\n";
    let files = "files: [{path: a.pth, from: [{url: 'https://example.org/a.pth'}]}]\n";
    place.write("configs/models/far.yaml", format!("{head}key: far\narchitecture: esrgan\n{files}"));
    place.write("configs/models/other.yaml", format!("{head}key: other\narchitecture: sd\npath: x\n"));
    refused("far", 4, &["get it with: atelier models pull far"]);
    refused("other", 3, &["cannot load model `other`", "esrgan"]);
    refused("fro", 4, &["there is no model named `fro`"]);
}

#[test]
fn tiles_get_smaller_with_words_where_memory_is_short() {
    let place = Place::new();
    network(&place, "noisy.safetensors", 4, 0.3, 2);
    rgb(&place, "a.png", 300, 300);
    let whole = enlarge(&place, "./noisy.safetensors", &["image=a.png", "tile=0"]);
    let mut args = vec!["generate", "--task", "upscale", "--model", "./noisy.safetensors"];
    for set in ["image=a.png", "tile=0", "memory_limit=0.11", "out=elsewhere"] {
        args.extend(["-s", set]);
    }
    let said = place.run(&args).ok();
    assert!(said.err.contains("the image is enlarged in tiles of 150: with the whole at once"), "{said:?}");
    let tiled = read(&place.path("elsewhere/a.png"));
    let worst = tiled.data.iter().zip(&whole.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{worst}");
}

#[test]
fn a_run_records_what_it_takes_to_make_the_picture_again() {
    let place = Place::new();
    network(&place, "net.safetensors", 2, 0.3, 5);
    rgb(&place, "a.png", 20, 20);
    let said = ask(&place, "./net.safetensors", &["image=a.png", "tile=16"]).ok().json();
    let image = place.path(said["images"][0].as_str().unwrap());
    let about: Value = serde_json::from_slice(&std::fs::read(image.with_extension("json")).unwrap()).unwrap();
    assert_eq!(about["params"]["outscale"], 2.0);
    assert_eq!(about["model"]["files"][0]["role"], "upscaler");
    assert_eq!(about["model"]["files"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(about["inputs"]["image"]["path"], "a.png");
    let events = std::fs::read_to_string(image.with_file_name("events.jsonl")).unwrap();
    assert!(events.contains(r#""done":4,"total":4,"unit":"tiles""#), "{events}");
    let texts = String::from_utf8_lossy(&std::fs::read(&image).unwrap()).matches("parameters\0").count();
    assert_eq!(texts, 0, "there is no prompt to tell other programs of");
    let again = place.run(&["generate", "--json", "--like", image.to_str().unwrap()]).ok().json();
    assert_eq!(read(&image).data, read(&place.path(again["images"][0].as_str().unwrap())).data);
}

fn model_of(place: &Place, name: &str) -> PathBuf {
    let text = format!(
        "schema_version: 1\nkey: {name}\ntitle: t\narchitecture: esrgan\nlicense: MIT\npath: ../../{name}.safetensors\n"
    );
    place.write(&format!("configs/models/{name}.yaml"), text)
}

#[test]
fn a_drawn_picture_is_enlarged_as_the_last_step() {
    let place = Place::new();
    network(&place, "net.safetensors", 2, 0.3, 5);
    let configs = root().join("configs");
    let draw = |sets: &[&str]| -> PathBuf {
        let mut args =
            vec!["--configs", configs.to_str().unwrap(), "generate", "--json", "-p", "txt2img/basic"];
        args.extend(["-s", "steps=1"].into_iter().chain(sets.iter().flat_map(|s| ["-s", s])));
        place.path(place.run(&args).ok().json()["images"][0].as_str().unwrap())
    };
    let small = draw(&[]);
    let large = draw(&["upscale.path=net.safetensors", "upscale.outscale=1.5"]);
    let (a, b) = (read(&small), read(&large));
    assert_eq!((a.width, b.width, b.height), (192, 288, 288));
    let by_hand = format!("image={}", small.display());
    let by_hand = enlarge(&place, "./net.safetensors", &[&by_hand, "outscale=1.5"]);
    assert_eq!(by_hand.data, b.data);
    let about: Value = serde_json::from_slice(&std::fs::read(large.with_extension("json")).unwrap()).unwrap();
    assert_eq!(about["params"]["upscale"]["outscale"], 1.5);
    let files = about["model"]["files"].as_array().unwrap();
    let roles: Vec<&str> = files.iter().map(|f| f["role"].as_str().unwrap()).collect();
    assert!(roles.contains(&"unet") && roles.contains(&"upscaler"), "{roles:?}");
    let all = ["--configs", configs.to_str().unwrap(), "generate", "-p", "txt2img/basic"];
    let refused = |set: &str, code: i32, words: &[&str]| {
        place.run(&[&all[..], &["-s", set]].concat()).fails(code, words);
    };
    refused("upscale.outscale=2", 3, &["/upscale/model", "not with which model"]);
    refused("upscale.model=mini", 3, &["enlarges no images", "realesr-animevideov3"]);
    refused("upscale.model=realesr-animevideov3", 4, &["atelier models pull realesr-animevideov3"]);
    refused("upscale.model=realesr", 4, &["no model named `realesr`"]);
}

#[test]
fn a_first_pass_is_enlarged_by_a_network() {
    let place = Place::with_own_configs();
    network(&place, "plain.safetensors", 2, 0.0, 0);
    network(&place, "noisy.safetensors", 2, 0.3, 7);
    model_of(&place, "plain");
    model_of(&place, "noisy");
    let tiny = root().join("tests/fixtures/golden/tiny-sd");
    let draw = |sets: &[&str]| -> PathBuf {
        let mut args = vec!["--task", "txt2img", "-m", tiny.to_str().unwrap()];
        for set in ["seed=3", "steps=2", "width=64", "height=64", "hires.scale=2"].iter().chain(sets) {
            args.extend(["-s", set]);
        }
        place.generate(&args)
    };
    let nearest = read(&draw(&["hires.upscaler=nearest"]));
    let plain = read(&draw(&["hires.upscaler=model", "hires.model=plain"]));
    assert_eq!((plain.width, plain.height), (128, 128));
    assert_eq!(plain.data, nearest.data, "a network without weights repeats pixels");
    let noisy = draw(&["hires.upscaler=model", "hires.model=noisy"]);
    assert_ne!(read(&noisy).data, plain.data);
    let bytes = std::fs::read(&noisy).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("Hires upscaler: noisy"));
    let again = place.generate(&["--like", noisy.to_str().unwrap(), "-m", tiny.to_str().unwrap()]);
    assert_eq!(read(&again).data, read(&noisy).data);
    let refused = |sets: &[&str], code: i32, words: &[&str]| {
        let mut args =
            vec!["generate", "--task", "txt2img", "-m", tiny.to_str().unwrap(), "-s", "hires.scale=2"];
        args.extend(sets.iter().flat_map(|s| ["-s", s]));
        place.run(&args).fails(code, words);
    };
    refused(&["hires.upscaler=model"], 3, &["/hires/model", "no model is named"]);
    refused(&["hires.model=plain"], 3, &["/hires/model", "hires.upscaler=model"]);
    refused(&["hires.upscaler=model", "hires.model=palin"], 4, &["did you mean `plain`"]);
}

#[test]
fn every_field_is_described() {
    let schema = Place::new().run(&["schema", "esrgan", "upscale"]).ok().json();
    assert!(schema["description"].as_str().unwrap().starts_with("Enlarges an image"), "{schema}");
    for (name, field) in schema["properties"].as_object().unwrap() {
        assert!(field["description"].is_string() || field["$ref"].is_string(), "{name} has no description");
        assert!(field.get("default").is_some(), "{name} has no default");
    }
    let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert!(names.iter().any(|n| *n == "outscale") && names.iter().any(|n| *n == "tile"), "{names:?}");
    assert!(Path::new(&root()).join("docs/guides/upscale.md").is_file());
}

/// A network of ncnn with three convolutions and no weights but zeros: it repeats pixels.
fn ncnn(place: &Place, stem: &str) {
    let param = "7767517\n10 11\n\
        Input in 0 1 data\n\
        Split split 1 2 data data_0 data_1\n\
        Convolution conv_0 1 1 data_0 conv_0 0=4 1=3 4=1 5=1 6=108\n\
        PReLU prelu_0 1 1 conv_0 prelu_0 0=4\n\
        Convolution conv_1 1 1 prelu_0 conv_1 0=4 1=3 4=1 5=1 6=144\n\
        PReLU prelu_1 1 1 conv_1 prelu_1 0=4\n\
        Convolution conv_2 1 1 prelu_1 conv_2 0=12 1=3 4=1 5=1 6=432\n\
        PixelShuffle drawn 1 1 conv_2 drawn 0=2\n\
        Interp enlarged 1 1 data_1 enlarged 0=1 1=2.0 2=2.0\n\
        BinaryOp output 2 1 drawn enlarged output 0=0\n";
    // Each convolution: a mark, its weights, its bias; each PReLU its slopes.
    let words = (1 + 108 + 4) + 4 + (1 + 144 + 4) + 4 + (1 + 432 + 12);
    place.write(&format!("{stem}.param"), param);
    place.write(&format!("{stem}.bin"), vec![0u8; 4 * words]);
}

#[test]
fn networks_of_ncnn_are_told_and_used_by_file_or_folder() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder")).unwrap();
    ncnn(&place, "folder/tiny");
    let small = rgb(&place, "a.png", 6, 5);
    for path in ["./folder", "./folder/tiny.param"] {
        let facts = place.run(&["models", "inspect", path, "--json"]).ok().json();
        assert_eq!(
            facts["what"], "an upscaler of the class SRVGGNetCompact (ESRGAN, Real-ESRGAN)",
            "{facts}"
        );
        assert_eq!((facts["format"].as_str(), facts["details"]["factor"].as_u64()), (Some("ncnn"), Some(2)));
        assert_eq!(enlarge(&place, path, &["image=a.png"]).data, repeated(&small, 2));
    }
    std::fs::write(place.path("folder/tiny.bin"), [0u8; 100]).unwrap();
    place.run(&["models", "inspect", "./folder"]).fails(7, &["tiny"]);
}
