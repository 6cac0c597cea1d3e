//! `atelier models list`, `inspect`, `import`, `verify` and `convert` on real files.

use crate::model_server::sha256;
use crate::support::{Place, Said, copy, names, pixels, root};
use std::path::{Path, PathBuf};

fn tiny() -> PathBuf {
    root().join("tests/fixtures/golden/tiny-sd")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A safetensors file with these tensors of zeros, of 16-bit floats.
fn safetensors(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<usize>();
        header.insert(
            name.to_string(),
            serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [at, end]}),
        );
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at]].concat()
}

/// The tiny model as one file, with its tokenizer beside it.
fn as_one_file(place: &Place) -> PathBuf {
    place.run(&["models", "convert", text(&tiny()), "--to", "ldm", "-o", "one.safetensors"]).ok();
    copy(&tiny().join("tokenizer"), &place.path("tokenizer"));
    place.path("one.safetensors")
}

fn inspect(place: &Place, what: &str) -> serde_json::Value {
    place.run(&["models", "inspect", what, "--json"]).ok().json()
}

#[test]
fn a_folder_and_the_file_made_of_it_are_the_same_model() {
    let place = Place::new();
    let file = as_one_file(&place);
    let (a, b) = (inspect(&place, text(&tiny())), inspect(&place, text(&file)));
    for field in ["kind", "architecture", "tensors", "parameters", "formats", "engines"] {
        assert_eq!(a[field], b[field], "{field}");
    }
    assert_eq!(a["kind"], "stable-diffusion");
    assert_eq!(a["engines"], serde_json::json!(["benchmark", "lora-trainer", "stable-diffusion"]));
    assert_eq!(b["parts"]["unet"]["tensors"], 208);
    let digest = sha256(&std::fs::read(&file).unwrap());
    assert_eq!(
        (b["sha256"].as_str(), b["short_hash"].as_str()),
        (Some(digest.as_str()), Some(&digest[..10]))
    );
    let said = place.run(&["models", "inspect", text(&file)]).ok();
    assert!(said.out.starts_with("Stable Diffusion") && said.out.contains("short hash  "), "{}", said.out);
    // A key means the model's files.
    assert_eq!(inspect(&place, "tiny")["parameters"], a["parameters"]);
}

#[test]
fn what_stands_in_a_file_is_told_by_names_and_shapes() {
    let place = Place::new();
    let (in9, out) = ("model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight");
    let key = "attn2.to_k.weight";
    let middle = format!("model.diffusion_model.middle_block.1.transformer_blocks.0.{key}");
    let block = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";
    let proj = "model.diffusion_model.middle_block.1.proj_in.weight";
    let time = "model.diffusion_model.time_embed.0.weight";
    let start = "model.diffusion_model.input_blocks.1.0.in_layers.0.weight";
    let unet = |channels: usize, context: usize| {
        safetensors(&[
            (in9, &[320, channels, 3, 3]),
            (start, &[320]),
            (block, &[320, 320, 3, 3]),
            (&middle, &[1280, context]),
            (proj, &[1280, 1280, 1, 1]),
            (time, &[1280, 320]),
            (out, &[4, 320, 3, 3]),
        ])
    };
    for (name, file, kind, what) in [
        ("9", unet(9, 768), "unet", "Stable Diffusion 1.x, inpainting (9 channels), the UNet alone"),
        ("2", unet(4, 1024), "unet", "Stable Diffusion 2.x, text to image, the UNet alone"),
        (
            "xl",
            safetensors(&[("conditioner.embedders.0.x", &[1]), (in9, &[320, 4, 3, 3])]),
            "sdxl",
            "an SDXL checkpoint",
        ),
        ("cn", safetensors(&[("control_model.x", &[1])]), "controlnet", "a ControlNet"),
        (
            "ti",
            safetensors(&[("emb_params", &[2, 768])]),
            "textual-inversion",
            "a textual inversion embedding",
        ),
        (
            "lora",
            safetensors(&[
                (
                    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
                    &[8, 2048],
                ),
                (
                    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight",
                    &[640, 8],
                ),
            ]),
            "lora",
            "a LoRA in the layout of kohya, for Stable Diffusion SDXL",
        ),
        (
            "srvgg",
            safetensors(&[
                ("body.0.weight", &[64, 3, 3, 3]),
                ("body.0.bias", &[64]),
                ("body.1.weight", &[64]),
                ("body.2.weight", &[64, 64, 3, 3]),
                ("body.2.bias", &[64]),
                ("body.3.weight", &[64]),
                ("body.4.weight", &[48, 64, 3, 3]),
                ("body.4.bias", &[48]),
            ]),
            "upscaler",
            "an upscaler of the class SRVGGNetCompact (ESRGAN, Real-ESRGAN)",
        ),
        (
            "taesd",
            safetensors(&[
                ("decoder.layers.0.weight", &[64, 4, 3, 3]),
                ("decoder.layers.2.conv.4.bias", &[64]),
            ]),
            "tiny-vae",
            "a tiny autoencoder (TAESD): decoder",
        ),
        (
            "what",
            safetensors(&[("network.a", &[1])]),
            "unknown",
            "a file of tensors whose names are not known",
        ),
    ] {
        let path = place.write(&format!("{name}.safetensors"), file);
        let facts = inspect(&place, text(&path));
        assert_eq!((facts["kind"].as_str(), facts["what"].as_str()), (Some(kind), Some(what)), "{facts}");
    }
    let two = inspect(&place, text(&place.path("2.safetensors")));
    assert_eq!(two["details"]["prediction"], "not said");
    assert!(two["notes"].to_string().contains("v_prediction"), "{two}");
    assert_eq!(
        inspect(&place, text(&place.path("lora.safetensors")))["details"]["rank"],
        serde_json::json!([8])
    );
    assert_eq!(inspect(&place, text(&place.path("srvgg.safetensors")))["details"]["factor"], 4);
}

#[test]
fn real_files_are_known_for_what_they_are() {
    let Some(assets) = std::env::var_os("ATELIER_ASSETS_DIR").map(PathBuf::from) else {
        eprintln!("ATELIER_ASSETS_DIR is not set: nothing to look at");
        return;
    };
    let place = Place::new();
    for (file, kind, words) in [
        ("lora/analog_svd_rank4.safetensors", "lora", "cloneofsimo"),
        ("lora/diffusers_sd-pokemon-model-lora.safetensors", "lora", "1.x"),
        ("taesd/taesd_decoder.fp16.safetensors", "tiny-vae", "decoder"),
        ("taesd/taesd-decoder.gguf", "tiny-vae", "decoder"),
        ("taesd/taef2_encoder.fp16.safetensors", "tiny-vae", "encoder"),
        ("realesrgan/RealESRGAN_x4plus.fp16.safetensors", "upscaler", "RRDBNet"),
        ("realesrgan/realesr-animevideov3.fp16.safetensors", "upscaler", "SRVGGNetCompact"),
        ("efficientnet_lite0/efficientnet_lite0.fp16.safetensors", "unknown", "not known"),
    ] {
        let facts = inspect(&place, text(&assets.join(file)));
        assert_eq!(facts["kind"], kind, "{file}");
        assert!(facts["what"].as_str().unwrap().contains(words), "{file}: {facts}");
    }
}

#[test]
fn numbers_that_are_none_are_found() {
    let place = Place::new();
    let mut file = safetensors(&[("a.weight", &[2, 2]), ("b.weight", &[2, 2]), ("c.weight", &[2, 2])]);
    let end = file.len();
    file[end - 24..end - 22].copy_from_slice(&0x7e00u16.to_le_bytes());
    file[end - 16..end - 14].copy_from_slice(&0x7c00u16.to_le_bytes());
    place.write("x.safetensors", file);
    let said = place.run(&["models", "inspect", "x.safetensors", "--values"]).ok();
    for words in [
        "1 tensors have NaN: a.weight",
        "1 tensors have infinite numbers: b.weight",
        "zero throughout: c.weight",
    ] {
        assert!(said.out.contains(words), "{}", said.out);
    }
    let said = place.run(&["models", "inspect", text(&tiny()), "--values"]).ok();
    assert!(said.out.contains("every number is finite"), "{}", said.out);
}

/// An archive of `torch.save` whose pickle is this.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/version", b"3\n")] {
        zip.start_file(name, stored).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_is_no_model_is_refused_with_the_reason() {
    let place = Place::new();
    let look = |path: &str| -> Said { place.run(&["models", "inspect", path]) };
    place.write("text.safetensors", "this is a text, and a long one at that");
    look("text.safetensors").fails(7, &["text.safetensors", "header"]);
    place.write("empty.safetensors", "");
    look("empty.safetensors").fails(7, &["at least 10 bytes"]);
    let whole = safetensors(&[("a", &[100])]);
    place.write("cut.safetensors", &whole[..whole.len() - 10]);
    look("cut.safetensors").fails(7, &["cut off"]);
    let mut lies = whole.clone();
    lies[6] = 0xff;
    place.write("lies.safetensors", lies);
    look("lies.safetensors").fails(7, &["length field"]);
    place.write("cut.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    look("cut.gguf").fails(7, &["cut.gguf"]);
    place.write("code.ckpt", archive(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R0cbuiltins\neval\n."));
    look("code.ckpt").fails(7, &["os.system", "was not run", "safetensors", "builtins.eval (byte"]);
    place.write("page.ckpt", "<!DOCTYPE html><html>404</html>");
    look("page.ckpt").fails(7, &["page.ckpt"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    look("./empty").fails(4, &["not a model's folder", "model_index.json"]);
    look("nothing").fails(3, &["nothing"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let path = place.write("x.safetensors", safetensors(&[("a", &[1])]));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(&path).is_ok() {
        eprintln!("this user may read everything: nothing to see");
        return;
    }
    let said = place.run(&["models", "inspect", "x.safetensors"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("x.safetensors") && !said.err.contains("panicked"), "{said:?}");
}

#[test]
fn a_model_goes_through_all_layouts_and_stays_the_same_to_the_bit() {
    let place = Place::new();
    let one = as_one_file(&place);
    place.run(&["models", "convert", "one.safetensors", "--to", "diffusers", "-o", "folder"]).ok();
    place.run(&["models", "convert", "folder", "--to", "ldm", "-o", "two.safetensors"]).ok();
    assert!(std::fs::read(&one).unwrap() == std::fs::read(place.path("two.safetensors")).unwrap());
    for part in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
        let open = |folder: &Path| {
            atelier_weights::Weights::open(folder.join(format!("{part}.safetensors"))).unwrap()
        };
        let (a, b) = (open(&tiny()), open(&place.path("folder")));
        assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
        for name in a.names() {
            assert_eq!(a.info(name).unwrap().shape, b.info(name).unwrap().shape, "{name}");
            assert!(a.encoded(name, None).unwrap() == b.encoded(name, None).unwrap(), "{name}");
        }
    }
    let draw = |model: &str| {
        let more = ["-s", "width=64", "-s", "height=64", "-s", "seed=1"];
        pixels(&place.generate(&[&["-p", "tiny/quick", "-m", model][..], &more].concat()))
    };
    let drawn = draw(text(&tiny()));
    assert_eq!(draw("./folder"), drawn);
    assert_eq!(draw("./two.safetensors"), drawn);
    let left = names(place.dir.path());
    assert!(!left.iter().any(|n| n.starts_with(".atelier")), "{left:?}");
}

#[test]
fn a_model_converted_to_eight_bits_draws_what_the_original_draws_in_eight_bits() {
    let place = Place::new();
    copy(&tiny().join("tokenizer"), &place.path("tokenizer"));
    let convert = |from: &str, dtype: &str, out: &str| {
        place.run(&["models", "convert", from, "--to", "gguf", "--dtype", dtype, "-o", out]).ok();
        atelier_weights::Weights::open(place.path(out)).unwrap()
    };
    let small = convert(text(&tiny()), "int8", "small.gguf");
    let formats = |end: &str| {
        let names: Vec<_> = small.names().filter(|n| n.ends_with(end)).collect();
        assert!(!names.is_empty(), "{end}");
        names.iter().filter_map(|n| small.format(n)).collect::<std::collections::BTreeSet<_>>()
    };
    let only = |format: &str| std::collections::BTreeSet::from([format.to_string()]);
    assert_eq!(formats("attn1.to_q.weight"), only("Q8_0"));
    assert_eq!(formats("in_layers.2.weight"), only("Q8_0"));
    assert_eq!(formats("token_embedding.weight"), only("F16"));
    assert_eq!(formats("attn1.to_out.0.bias"), only("F16"));
    assert!(
        small.names().filter(|n| n.starts_with("first_stage")).all(|n| small.format(n).unwrap() == "F16")
    );
    assert_eq!(small.metadata()["general.architecture"], "sd1");
    let draw = |model: &str, precision: &str| {
        let more = ["-s", "width=64", "-s", "height=64", "-s", "seed=1", "--precision", precision];
        pixels(&place.generate(&[&["-p", "tiny/quick", "-m", model][..], &more].concat()))
    };
    assert_eq!(draw("./small.gguf", "int8"), draw(text(&tiny()), "int8"));
    // Other numbers are carried over as they are; blocks stay blocks.
    convert(text(&tiny()), "keep", "kept.gguf");
    assert_eq!(draw("./kept.gguf", "f32"), draw(text(&tiny()), "f32"));
    let again = convert("small.gguf", "keep", "again.gguf");
    for name in small.names() {
        let (a, b) = (small.info(name).unwrap(), again.info(name).unwrap());
        assert_eq!((&a.shape, a.bytes.len()), (&b.shape, b.bytes.len()), "{name}");
    }
    assert!(
        std::fs::read(place.path("small.gguf")).unwrap() == std::fs::read(place.path("again.gguf")).unwrap()
    );
    place
        .run(&["models", "convert", text(&tiny()), "--to", "ldm", "--dtype", "int8", "-o", "x.safetensors"])
        .fails(3, &["/dtype", "no blocks of integers", "--to gguf"]);
}

#[test]
fn number_formats_change_and_what_is_no_weight_does_not() {
    let place = Place::new();
    let fixture = root().join("tests/fixtures/weights/torch_protocol2.ckpt");
    let convert = |dtype: &str, out: &str| {
        place
            .run(&["models", "convert", text(&fixture), "--to", "safetensors", "--dtype", dtype, "-o", out])
            .ok();
        atelier_weights::Weights::open(place.path(out)).unwrap()
    };
    let source = atelier_weights::Weights::open(&fixture).unwrap();
    let kept = convert("keep", "keep.safetensors");
    assert_eq!(kept.names().collect::<Vec<_>>(), source.names().collect::<Vec<_>>());
    for name in source.names() {
        let (a, b) = (source.info(name).unwrap(), kept.info(name).unwrap());
        assert_eq!((a.dtype, &a.shape), (b.dtype, &b.shape), "{name}");
        assert_eq!(source.encoded(name, None).unwrap(), kept.encoded(name, None).unwrap(), "{name}");
    }
    for (dtype, stored) in
        [("f16", atelier_weights::StoredDtype::F16), ("bf16", atelier_weights::StoredDtype::BF16)]
    {
        let changed = convert(dtype, &format!("{dtype}.safetensors"));
        for name in source.names() {
            let wanted = if source.info(name).unwrap().dtype.is_float() {
                stored
            } else {
                source.info(name).unwrap().dtype
            };
            assert_eq!(changed.info(name).unwrap().dtype, wanted, "{name}");
        }
    }
    // One number of 32 bits in the place of two of 16.
    let halves = String::from_utf8(safetensors(&[("a", &[2])])).unwrap();
    let mut file = halves.replace("F16", "F32").replace("[2]", "[1]").into_bytes();
    let end = file.len();
    file[end - 4..].copy_from_slice(&1e9f32.to_le_bytes());
    place.write("large.safetensors", file);
    let said = place
        .run(&[
            "models",
            "convert",
            "large.safetensors",
            "--to",
            "safetensors",
            "--dtype",
            "f16",
            "-o",
            "small.safetensors",
        ])
        .ok();
    assert!(said.err.contains("too large for the format") && said.err.contains("bf16"), "{said:?}");
}

#[test]
fn nothing_is_written_over_and_nothing_half() {
    let place = Place::new();
    let one = as_one_file(&place);
    let again = |extra: &[&str]| {
        let mut args = vec!["models", "convert", text(&one), "--to", "diffusers", "-o", "out"];
        args.extend(extra);
        place.run(&args)
    };
    place.write("out/precious", "x");
    again(&[]).fails(3, &["out exists", "--overwrite"]);
    assert!(place.path("out/precious").exists());
    again(&["--overwrite"]).ok();
    assert!(!place.path("out/precious").exists() && place.path("out/model_index.json").exists());
    // A file that is damaged in its last part leaves no folder.
    let bytes = std::fs::read(&one).unwrap();
    place.write("cut.safetensors", &bytes[..bytes.len() - 1]);
    place
        .run(&["models", "convert", "cut.safetensors", "--to", "diffusers", "-o", "none"])
        .fails(7, &["cut off"]);
    place.write("far/lora.safetensors", safetensors(&[("lora_unet_x.lora_down.weight", &[4, 4])]));
    place
        .run(&["models", "convert", "far/lora.safetensors", "--to", "diffusers", "-o", "none"])
        .fails(5, &["LoRA"]);
    place
        .run(&["models", "convert", "far/lora.safetensors", "--to", "ldm", "-o", "none"])
        .fails(5, &["LoRA", "--to safetensors"]);
    place
        .run(&["models", "convert", text(&tiny()), "--to", "safetensors", "-o", "none"])
        .fails(3, &["--to ldm"]);
    std::fs::remove_dir_all(place.path("tokenizer")).unwrap();
    place.run(&["models", "convert", text(&one), "--to", "diffusers", "-o", "none"]).fails(4, &["tokenizer"]);
    assert!(!place.path("none").exists());
    let left = names(place.dir.path());
    assert!(!left.iter().any(|n| n.starts_with(".atelier")), "{left:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_leaves_nothing_of_a_conversion() {
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    let mut limited = place.command();
    limited.args(["models", "convert", text(&tiny()), "--to", "ldm", "-o", "x.safetensors"]);
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        limited.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1_000_000, rlim_max: libc::RLIM_INFINITY };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    Said::from(limited.output().unwrap()).fails(6, &["cannot write", "x.safetensors"]);
    assert!(!names(place.dir.path()).iter().any(|n| n.contains("atelier") || n.contains("x.safetensors")));
}

#[test]
fn an_imported_model_has_a_key_draws_and_is_verified() {
    for how in ["", "--copy", "--link"] {
        let place = Place::new();
        copy(&tiny(), &place.path("My Model"));
        let mut args = vec!["models", "import", "My Model"];
        args.extend((!how.is_empty()).then_some(how));
        let said = place.run(&args).ok();
        assert!(said.out.contains("--model my-model"), "{said:?}");
        if how == "--copy" {
            std::fs::remove_dir_all(place.path("My Model")).unwrap();
        }
        place.generate(&["-p", "tiny/quick", "-m", "my-model", "-s", "width=64", "-s", "height=64"]);
        let listed = place.run(&["models", "list"]).ok();
        assert!(listed.out.contains("ready: "), "{listed:?}");
        let said = place.run(&["models", "verify", "my-model"]).ok();
        assert!(
            said.out.contains("unet/diffusion_pytorch_model.safetensors") && !said.out.contains("CHANGED")
        );
        place.run(&args).fails(if how == "--copy" { 4 } else { 3 }, &[]);
        if how.is_empty() {
            damage_and_verify(&place);
        }
    }
}

fn damage_and_verify(place: &Place) {
    let file = place.path("My Model/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(place.path("My Model/scheduler/scheduler_config.json")).unwrap();
    let said = place.run(&["models", "verify", "all"]).fails(7, &["1 files have changed and 1 are missing"]);
    assert!(said.out.contains("CHANGED: expected") && said.out.contains("MISSING"), "{said:?}");
    assert!(said.out.contains("no digest is known"), "of the model that has none: {said:?}");
}

#[test]
fn what_is_no_model_is_not_imported() {
    let place = Place::new();
    place.write("l.safetensors", safetensors(&[("lora_unet_x.lora_down.weight", &[4, 4])]));
    place
        .run(&["models", "import", "l.safetensors"])
        .fails(5, &["no model that a description is for", "LoRA"]);
    place.run(&["models", "import", "far"]).fails(4, &["cannot open far"]);
    place
        .run(&["models", "import", text(&tiny()), "--name", "tiny"])
        .fails(3, &["there is a model `tiny` already"]);
    place.run(&["models", "import", text(&tiny()), "--name", "No Key"]).fails(3, &["No Key"]);
    assert!(!place.path("config/atelier/models").exists());
}
