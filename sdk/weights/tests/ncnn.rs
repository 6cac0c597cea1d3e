//! The pair of files of an ncnn model: what is read, and each way in which they can lie.

#![allow(clippy::unwrap_used)] // helpers of tests; clippy.toml covers only the test functions themselves

use atelier_weights::{Error, Ncnn, Result};
use candle_core::{DType, Device};

/// A convolution of one channel to two with a LeakyReLU, and a PReLU.
const TEXT: &str = "7767517
3 3
Input            data   0 1 data
Convolution      conv   1 1 data c 0=2 1=3 4=1 5=1 6=18 9=2 -23310=1,2.000000e-01
PReLU            slopes 1 1 c d 0=2
";

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn kernel() -> Vec<f32> {
    (0..18u8).map(|i| f32::from(i) * 0.5).collect()
}

/// The weights with this tag and these bytes of the kernel.
fn bin(tag: u32, kernel: &[u8]) -> Vec<u8> {
    [&tag.to_le_bytes(), kernel, &floats(&[1.0, 2.0]), &floats(&[0.25, 0.75])].concat()
}

fn sound() -> Vec<u8> {
    bin(0, &floats(&kernel()))
}

fn read(text: &str, bin: Vec<u8>) -> Result<Ncnn> {
    Ncnn::from_bytes(text.as_bytes(), bin, "model")
}

fn message(text: &str, bin: Vec<u8>) -> String {
    read(text, bin).unwrap_err().to_string()
}

fn values(model: &Ncnn, name: &str) -> Vec<f32> {
    let shape = model.weights().info(name).unwrap().shape.clone();
    let tensor = model.weights().get(name, &shape, DType::F32, &Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn weights_of_each_width_are_read_under_their_layers_names() {
    let half: Vec<u8> = kernel().iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    for file in [sound(), bin(0x0002_C056, &floats(&kernel())), bin(0x0130_6B47, &half)] {
        let model = read(TEXT, file).unwrap();
        assert_eq!(
            model.weights().names().collect::<Vec<_>>(),
            ["conv.bias", "conv.weight", "slopes.weight"]
        );
        assert_eq!(model.weights().info("conv.weight").unwrap().shape, [2, 1, 3, 3]);
        assert_eq!(values(&model, "conv.weight"), kernel());
        assert_eq!(values(&model, "conv.bias"), [1.0, 2.0]);
        assert_eq!(values(&model, "slopes.weight"), [0.25, 0.75]);
    }
}

#[test]
fn an_odd_number_of_halves_is_filled_up() {
    let text = "7767517\n2 2\nInput data 0 1 data\nConvolution conv 1 1 data c 0=1 1=3 5=1 6=9\n";
    let half: Vec<u8> = (0..9u8).flat_map(|i| half::f16::from_f32(i.into()).to_le_bytes()).collect();
    let file = [&0x0130_6B47u32.to_le_bytes()[..], &half, &[0xff; 2], &floats(&[3.0])].concat();
    let model = read(text, file).unwrap();
    assert_eq!(values(&model, "conv.bias"), [3.0]);
    assert_eq!(values(&model, "conv.weight")[8], 8.0);
}

#[test]
fn layers_are_as_the_text_has_them() {
    let model = read(TEXT, sound()).unwrap();
    let conv = &model.layers()[1];
    assert_eq!(
        (conv.kind.as_str(), conv.inputs[0].as_str(), conv.outputs[0].as_str()),
        ("Convolution", "data", "c")
    );
    assert_eq!(
        (conv.count(0, 7), conv.count(2, 7), conv.number(9), conv.list(10)),
        (Some(2), Some(7), Some(2.0), &[0.2][..])
    );
    assert_eq!((conv.number(2), conv.list(3)), (None, &[][..]));
}

#[test]
fn weights_of_other_formats_are_refused_by_name() {
    let e = message(TEXT, bin(0x000D_4B38, &[0; 20]));
    assert!(e.contains("layer conv") && e.contains("8-bit integers"), "{e}");
    let e = message(TEXT, bin(0x0000_0001, &[0; 1044]));
    assert!(e.contains("0x00000001") && e.contains("table of 256"), "{e}");
    let e = message(&TEXT.replace("9=2", "8=1 9=2"), sound());
    assert!(e.contains("8-bit integers"), "{e}");
}

#[test]
fn a_file_of_weights_of_another_length_is_refused() {
    let whole = sound();
    for keep in 1..whole.len() {
        let e = read(TEXT, whole[..keep].to_vec()).unwrap_err();
        assert!(matches!(e, Error::NcnnBin { .. }), "{keep}: {e}");
    }
    let e = message(TEXT, [whole, vec![0; 4]].concat());
    assert!(e.contains("expected 92 bytes, found 96") && e.contains("added"), "{e}");
}

#[test]
fn sizes_that_lie_are_refused_before_anything_is_allocated() {
    for (from, to, expected) in [
        ("6=18", "6=17", "expected weights for 2 channels of 3x3, found 17"),
        ("6=18", "6=0", "found 0 of them"),
        ("6=18", "6=4294967292", "expected its weight of shape"),
        ("0=2 1=3", "0=4294967296 1=4294967296 11=4294967296", "expected weights for"),
        ("0=2 1=3", "0=2 1=99999999999", "expected a count as parameter 1"),
        ("0=2 1=3", "0=-2 1=3", "expected a count as parameter 0"),
        ("0=2 1=3", "0=2.5 1=3", "expected a count as parameter 0"),
        ("d 0=2", "d 0=4294967296", "expected its weight of shape [4294967296]"),
    ] {
        let e = message(&TEXT.replace(from, to), sound());
        assert!(e.contains(expected), "{to}: {e}");
    }
}

#[test]
fn layers_with_weights_of_another_kind_are_refused_by_name() {
    let e = message(&TEXT.replace("PReLU ", "InnerProduct "), sound());
    assert!(e.contains("layer slopes") && e.contains("InnerProduct"), "{e}");
}

#[test]
fn a_text_that_contradicts_itself_is_refused_with_its_line() {
    for (from, to, expected) in [
        ("7767517", "7767516", "line 1: expected 7767517"),
        ("3 3", "3", "line 2: expected the counts"),
        ("3 3", "2 3", "line 5: expected 2 layers, found more"),
        ("3 3", "4 3", "expected 4 layers and 3 blobs, found 3 and 3"),
        ("3 3", "3 4", "expected 3 layers and 4 blobs, found 3 and 3"),
        ("3 3", "999999999 3", "line 2: expected at most"),
        ("1 1 data c", "1 1 other c", "line 4: expected blobs of layers before it, found \"other\""),
        ("1 1 c d", "1 1 c c", "line 5: expected each blob once, found \"c\" twice"),
        ("1 1 c d", "x 1 c d", "line 5: expected a count of blobs, found \"x\""),
        ("1 1 c d", "1 9999999 c d", "line 5: expected a count of blobs"),
        ("1 1 c d 0=2", "2 2 c d", "line 5: expected 4 names of blobs, found 2"),
        ("PReLU            slopes 1 1 c d 0=2", "PReLU slopes", "line 5: expected a layer's type"),
        ("0=2 1=3", "0=2 0=3", "line 4: expected each parameter once, found 0 twice"),
        ("0=2 1=3", "0=2 1", "line 4: expected a parameter `number=value`, found \"1\""),
        ("0=2 1=3", "0=2 99=3", "found \"99=3\""),
        ("0=2 1=3", "0=nan 1=3", "found \"0=nan\""),
        ("-23310=1,2.000000e-01", "-23310=2,2.000000e-01", "found \"-23310=2"),
        ("-23310=1,2.000000e-01", "-9223372036854775808=1,2", "found \"-92233"),
    ] {
        assert!(TEXT.contains(from), "{from}");
        let e = message(&TEXT.replacen(from, to, 1), sound());
        assert!(e.contains(expected), "{to}: {e}");
        assert!(e.starts_with("model"), "{e}");
    }
    assert!(message("", sound()).contains("7767517"));
    let e = Ncnn::from_bytes(&[0xff, 0xfe], sound(), "model").unwrap_err().to_string();
    assert!(e.contains("no text"), "{e}");
}

#[test]
fn missing_and_empty_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (param, bin) = (dir.path().join("x.param"), dir.path().join("x.bin"));
    let open = || Ncnn::open(&param, &bin).unwrap_err().to_string();
    assert!(open().contains("x.param"));
    std::fs::write(&param, TEXT).unwrap();
    assert!(open().contains("x.bin"));
    std::fs::write(&bin, []).unwrap();
    assert!(open().contains("found 0 bytes"));
    std::fs::write(&bin, sound()).unwrap();
    assert_eq!(Ncnn::open(&param, &bin).unwrap().weights().paths(), [bin]);
}
