//! Upscalers against PyTorch, in every kind of file, and in tiles.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests; clippy.toml covers only the test functions themselves

mod upscalers;

use atelier_models::{Architecture, Error, Family, Rectifier, Tiles, Upscaler, UpscalerFile};
use candle_core::{DType, Device, Tensor};
use upscalers::*;

fn small(family: Family) -> Architecture {
    let mut a = if family == Family::Rrdb { Architecture::X4_PLUS } else { Architecture::GENERAL_X4_V3 };
    (a.blocks, a.channels) = if family == Family::Rrdb { (1, 8) } else { (3, 8) };
    a.growth = a.growth.min(4);
    a
}

fn open(path: &std::path::Path) -> Upscaler {
    let file = UpscalerFile::open(path).unwrap();
    assert_eq!(file.unused(), [] as [&str; 0], "{}", path.display());
    file.build(DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn networks_give_what_pytorch_gives() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let mut names: Vec<&str> = want.keys().filter_map(|n| n.strip_suffix(".out")).collect();
    names.sort();
    assert!(names.contains(&"rrdb") && names.contains(&"srvgg"));
    for name in names {
        let model = open(&saved(&weights_of(&want, name), dir.path(), name));
        let input = &want[if name == "rrdb_x2" { "even" } else { "image" }];
        let d = difference(&model.forward(input).unwrap(), &want[&format!("{name}.out")]);
        println!("{name:<10} {:?} max |d| {d:.2e}", model.architecture());
        assert!(d <= 1e-4, "{name}: {d:e}");
    }
}

#[test]
fn sizes_are_told_by_shapes() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let file = |name: &str| *open(&saved(&weights_of(&want, name), dir.path(), name)).architecture();
    let rrdb = file("rrdb");
    assert_eq!((rrdb.family, rrdb.scale, rrdb.blocks, rrdb.unshuffle), (Family::Rrdb, 4, 1, 1));
    let srvgg = file("srvgg");
    assert_eq!((srvgg.family, srvgg.scale, srvgg.rectifier), (Family::Compact, 4, Rectifier::Learned));
    let mut tensors = weights_of(&want, "rrdb");
    let channels = tensors["conv_first.weight"].dims()[0];
    for (inputs, scale, unshuffle) in [(12, 2, 2), (48, 1, 4)] {
        let first = Tensor::zeros((channels, inputs, 3, 3), DType::F32, &Device::Cpu).unwrap();
        tensors.insert("conv_first.weight".into(), first);
        let found = *open(&saved(&tensors, dir.path(), "folded")).architecture();
        assert_eq!((found.scale, found.unshuffle), (scale, unshuffle));
    }
    tensors = weights_of(&want, "rrdb");
    tensors.retain(|name, _| !name.starts_with("conv_up2"));
    assert_eq!(open(&saved(&tensors, dir.path(), "one doubling")).scale(), 2);
}

/// The names that the first programs gave: of BSRGAN, and of ESRGAN's training program.
fn older(tensors: &Tensors, nested: bool) -> Tensors {
    let blocks = 1;
    let name = |name: &str| {
        if !nested {
            let words = [
                ("body.", "RRDB_trunk."),
                (".rdb", ".RDB"),
                ("conv_body", "trunk_conv"),
                ("conv_hr", "HRconv"),
            ];
            let name = words.iter().fold(name.to_string(), |name, (new, old)| name.replace(new, old));
            return name.replace("conv_up", "upconv");
        }
        let (module, kind) = name.rsplit_once('.').unwrap();
        let old = match module {
            "conv_first" => "0".into(),
            "conv_body" => format!("1.sub.{blocks}"),
            "conv_up1" => "3".into(),
            "conv_up2" => "6".into(),
            "conv_hr" => "8".into(),
            "conv_last" => "10".into(),
            inner => format!("1.sub.{}.0", inner.strip_prefix("body.").unwrap().replace("rdb", "RDB")),
        };
        format!("model.{old}.{kind}")
    };
    tensors.iter().map(|(n, t)| (name(n), t.clone())).collect()
}

#[test]
fn older_names_give_the_same_network() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let tensors = weights_of(&want, "rrdb");
    let basic = open(&saved(&tensors, dir.path(), "basic"));
    let expected = basic.forward(&want["image"]).unwrap();
    let rooted: Tensors = tensors.iter().map(|(n, t)| (format!("params_ema.{n}"), t.clone())).collect();
    for (what, tensors) in
        [("BSRGAN", older(&tensors, false)), ("ESRGAN", older(&tensors, true)), ("rooted", rooted)]
    {
        let model = open(&saved(&tensors, dir.path(), what));
        assert_eq!(model.architecture(), basic.architecture(), "{what}");
        assert_eq!(difference(&model.forward(&want["image"]).unwrap(), &expected), 0.0, "{what}");
    }
}

#[test]
fn every_kind_of_file_gives_the_same_network() {
    let fixture = fixtures().join("golden/upscale.safetensors");
    let want = candle_core::safetensors::load(fixture, &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let image = &want["image"];
    let near = |path: &std::path::Path, name: &str, tolerance: f64| {
        let d = difference(&open(path).forward(image).unwrap(), &want[&format!("{name}.out")]);
        println!("{}: {d:.2e}", path.display());
        assert!(d <= tolerance, "{}: {d:e}", path.display());
    };
    // The archive has weights of zeros as `params` beside the averages.
    near(&fixtures().join("weights/upscaler.pth"), "srvgg", 1e-4);
    let srvgg = weights_of(&want, "srvgg");
    let param = compact_files(&srvgg, 3, 4, false).write(dir.path(), "wide");
    near(&param, "srvgg", 1e-4);
    near(&param.with_extension("bin"), "srvgg", 1e-4);
    near(&compact_files(&srvgg, 3, 4, true).write(dir.path(), "half"), "srvgg", 5e-3);
    near(&rrdb_files(&weights_of(&want, "rrdb"), 1).write(dir.path(), "rrdb"), "rrdb", 1e-4);
}

#[test]
fn activations_without_slopes_are_those_that_the_file_says() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let mut tensors = weights_of(&want, "srvgg");
    let layers = tensors.len() / 3;
    let relu = |slope: &str| {
        let mut files = compact_files(&weights_of(&want, "srvgg"), layers - 1, 4, false);
        files.bin.clear();
        for i in 0..=layers {
            files.convolution(&weights_of(&want, "srvgg"), &format!("body.{}", 2 * i), "data", "");
            files.layers.pop();
        }
        for layer in files.layers.iter_mut().filter(|layer| layer.0 == "PReLU") {
            (layer.0, layer.3) = ("ReLU".into(), slope.into());
        }
        open(&files.write(dir.path(), "relu"))
    };
    tensors.retain(|name, t| t.rank() == 4 || !name.ends_with("weight"));
    let path = saved(&tensors, dir.path(), "silent");
    let e = UpscalerFile::open(&path).unwrap_err().to_string();
    assert!(e.contains("act_type"), "{e}");
    for (act_type, parameters, slope) in [("relu", "", 0.0), ("leakyrelu", "0=0.1", 0.1)] {
        let remarks = [("act_type".to_string(), act_type.to_string())].into();
        let names: Vec<_> = tensors.iter().map(|(n, t)| atelier_weights::Outline::of(n, t)).collect();
        let path = dir.path().join(act_type);
        let mut out = std::fs::File::create(&path).unwrap();
        atelier_weights::write_safetensors(&mut out, names, &remarks, |o| -> std::io::Result<Vec<u8>> {
            atelier_weights::bytes_of(&tensors[&o.name], o.dtype).map_err(std::io::Error::other)
        })
        .unwrap();
        let model = open(&path);
        assert_eq!(model.architecture().rectifier, Rectifier::Fixed(slope));
        let graph = relu(parameters);
        assert_eq!(graph.architecture(), model.architecture());
        let (a, b) = (model.forward(&want["image"]).unwrap(), graph.forward(&want["image"]).unwrap());
        assert_eq!(difference(&a, &b), 0.0);
    }
}

#[test]
fn tiles_give_what_the_whole_image_gives() {
    for family in [Family::Rrdb, Family::Compact] {
        let model = made(&small(family));
        let reach = model.architecture().reach();
        for (h, w) in [(45, 70), (1, 1), (7, 3), (1, 40), (33, 16)] {
            let image = picture(2, h, w);
            let whole = model.forward(&image).unwrap();
            let tiled =
                |overlap| model.upscale(&image, Some(Tiles { size: 16, overlap }), |_, _| Ok(())).unwrap();
            let d = difference(&tiled(reach), &whole);
            println!("{family:?} {h}x{w}, overlap {reach}: max |d| {d:.2e}");
            assert!(d <= 1e-5, "{family:?} {h}x{w}: {d:e}");
            assert_eq!(difference(&model.upscale(&image, None, |_, _| Ok(())).unwrap(), &whole), 0.0);
            if h > 16 {
                // With less they differ: the overlap is used.
                assert!(difference(&tiled(1), &whole) > 1e-4);
            }
        }
    }
}

#[test]
fn sides_that_do_not_fold_are_filled_up_with_mirrored_pixels() {
    let mut folding = small(Family::Rrdb);
    (folding.scale, folding.unshuffle) = (2, 2);
    let model = made(&folding);
    for (h, w) in [(1, 1), (7, 3), (5, 6), (33, 47)] {
        let image = picture(1, h, w);
        let (height, width) = (h.next_multiple_of(2), w.next_multiple_of(2));
        // One pixel more, mirrored at the last one, is the one before it.
        let mut filled = image.clone();
        if height > h {
            filled = Tensor::cat(&[&filled, &filled.narrow(2, h.saturating_sub(2), 1).unwrap()], 2).unwrap();
        }
        if width > w {
            filled = Tensor::cat(&[&filled, &filled.narrow(3, w.saturating_sub(2), 1).unwrap()], 3).unwrap();
        }
        let whole = model.forward(&filled).unwrap();
        let whole = whole.narrow(2, 0, 2 * h).unwrap().narrow(3, 0, 2 * w).unwrap();
        for tiles in [None, Some(Tiles { size: 16, overlap: model.architecture().reach() })] {
            let got = model.upscale(&image, tiles, |_, _| Ok(())).unwrap();
            let d = difference(&got, &whole);
            assert!(d <= 1e-5, "{h}x{w} {tiles:?}: {d:e}");
        }
    }
    let e = model.forward(&picture(1, 5, 6)).unwrap_err().to_string();
    assert!(e.contains("multiples of 2") && e.contains("5x6"), "{e}");
}

#[test]
fn pictures_of_8_bits_are_rounded_to_the_nearest_step() {
    let model = made(&small(Family::Compact));
    let (width, height) = (37, 21);
    let bytes: Vec<u8> = (0..width * height * 3).map(|i| (i * 29 % 256) as u8).collect();
    let planes: Vec<f32> =
        (0..3).flat_map(|c| bytes.iter().skip(c).step_by(3).map(|b| f32::from(*b) / 255.0)).collect();
    let image = Tensor::from_vec(planes, (1, 3, height, width), &Device::Cpu).unwrap();
    let tiles = Some(Tiles { size: 16, overlap: 8 });
    let want = model.upscale(&image, tiles, |_, _| Ok(())).unwrap();
    let want = want.permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let want: Vec<u8> = want.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let mut seen = Vec::new();
    let got = model
        .upscale_rgb8(&bytes, (width, height), tiles, |done, total| {
            seen.push((done, total));
            Ok(())
        })
        .unwrap();
    assert_eq!(got, want);
    assert_eq!(seen, (0..=6).map(|done| (done, 6)).collect::<Vec<_>>());
    let e = model.upscale_rgb8(&bytes, (width, 22), tiles, |_, _| Ok(())).unwrap_err().to_string();
    assert!(e.contains("37x22"), "{e}");
    assert!(model.upscale_rgb8(&[], (0, 0), tiles, |_, _| Ok(())).is_err());
}

#[test]
fn an_error_of_the_caller_ends_the_work_at_once() {
    let model = made(&small(Family::Compact));
    let mut calls = 0;
    let tiles = Some(Tiles { size: 16, overlap: 0 });
    let e = model.upscale(&picture(1, 64, 64), tiles, |done, total| {
        calls += 1;
        assert_eq!(total, 16);
        if done == 2 { Err(Error::Cancelled { network: "upscaler" }) } else { Ok(()) }
    });
    assert!(matches!(e, Err(Error::Cancelled { .. })));
    assert_eq!(calls, 3);
}

#[test]
fn blended_networks_lie_between_two() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let a = weights_of(&want, "srvgg");
    let b: Tensors = a.iter().map(|(n, t)| (n.clone(), (t * 0.5).unwrap())).collect();
    let middle: Tensors = a.iter().map(|(n, t)| (n.clone(), (t * 0.875).unwrap())).collect();
    let file = |tensors: &Tensors, name: &str| UpscalerFile::open(saved(tensors, dir.path(), name)).unwrap();
    let (a, b, middle) = (file(&a, "a"), file(&b, "b"), file(&middle, "middle"));
    let run =
        |file: &UpscalerFile| file.build(DType::F32, &Device::Cpu).unwrap().forward(&want["image"]).unwrap();
    assert_eq!(difference(&run(&a.blended(&b, 1.0).unwrap()), &run(&a)), 0.0);
    assert_eq!(difference(&run(&a.blended(&b, 0.0).unwrap()), &run(&b)), 0.0);
    assert!(difference(&run(&a.blended(&b, 0.75).unwrap()), &run(&middle)) < 1e-6);
    assert_eq!(a.blended(&b, 0.5).unwrap().paths().len(), 2);
    for strength in [-0.1, 1.1, f64::NAN] {
        assert!(a.blended(&b, strength).unwrap_err().to_string().contains("strength"));
    }
    let other = file(&weights_of(&want, "rrdb"), "rrdb");
    let e = a.blended(&other, 0.5).unwrap_err().to_string();
    assert!(e.contains("RRDBNet x4") && e.contains("SRVGGNetCompact x4"), "{e}");
}

#[test]
fn weights_of_16_bits_give_nearly_the_same() {
    let fixture = fixtures().join("golden/upscale.safetensors");
    let want = candle_core::safetensors::load(fixture, &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["rrdb", "srvgg"] {
        let path = saved(&weights_of(&want, name), dir.path(), name);
        for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 2e-2)] {
            let model = Upscaler::open(&path, dtype, &Device::Cpu).unwrap();
            let d = difference(&model.forward(&want["image"]).unwrap(), &want[&format!("{name}.out")]);
            println!("{name} with {dtype:?} weights: max |d| {d:.2e}");
            assert!(d > 1e-6 && d < tolerance, "{name} {dtype:?}: {d:e}");
            assert_eq!(2 * model.weight_bytes(), UpscalerFile::open(&path).unwrap().weight_bytes(DType::F32));
        }
    }
}

#[test]
fn memory_is_that_of_a_tile_and_not_of_the_image() {
    let model = made(&small(Family::Rrdb));
    let tiles = |size| Some(Tiles { size, overlap: 8 });
    let large = model.memory((4000, 6000), tiles(128));
    // Tiles share a side evenly, so that a pixel more or less is to be expected.
    assert!(large.abs_diff(model.memory((8000, 6000), tiles(128))) < large / 20);
    assert!(large > model.memory((4000, 6000), tiles(64)));
    assert!(large > model.weight_bytes() + 64 * 256 * 256 * 4);
    assert!(model.memory((4000, 6000), None) > 100 * large);
    assert!(model.memory((10, 10), tiles(128)) < large);
}

#[test]
fn images_of_another_shape_are_refused() {
    let model = made(&small(Family::Compact));
    for dims in [&[1usize, 4, 8, 8][..], &[3, 8, 8], &[1, 3, 0, 8], &[0, 3, 8, 8]] {
        let image = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        assert!(model.forward(&image).unwrap_err().to_string().contains("expected an image"), "{dims:?}");
        assert!(model.upscale(&image, None, |_, _| Ok(())).is_err());
    }
    let bytes = Tensor::zeros((1, 3, 8, 8), DType::U8, &Device::Cpu).unwrap();
    assert!(model.forward(&bytes).is_err());
}

#[test]
fn results_that_are_no_numbers_are_an_error() {
    let (want, dir) = (golden(), tempfile::tempdir().unwrap());
    let mut tensors = weights_of(&want, "srvgg");
    let bias = &tensors["body.2.bias"];
    let endless = Tensor::full(f32::INFINITY, bias.shape(), &Device::Cpu).unwrap();
    tensors.insert("body.2.bias".into(), endless);
    let model = open(&saved(&tensors, dir.path(), "endless"));
    let e = model.upscale(&picture(1, 4, 4), None, |_, _| Ok(())).unwrap_err().to_string();
    assert!(e.contains("NaN") && e.contains("32 bits"), "{e}");
}
