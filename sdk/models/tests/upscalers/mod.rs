//! What the tests of upscalers share: small networks in every kind of file.

#![allow(dead_code)] // each test uses its part

use atelier_models::{Architecture, Upscaler};
use atelier_ops::gradcheck::pseudo_normal;
use atelier_weights::Source;
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub type Tensors = HashMap<String, Tensor>;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

pub fn golden() -> Tensors {
    let root = std::env::var_os("ATELIER_GOLDEN_DIR").map_or(fixtures().join("golden"), PathBuf::from);
    let path = root.join("upscale.safetensors");
    candle_core::safetensors::load(&path, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The weights of the network `name` in the references.
pub fn weights_of(golden: &Tensors, name: &str) -> Tensors {
    let prefix = format!("{name}.weights.");
    let named = golden.iter().filter_map(|(n, t)| Some((n.strip_prefix(&prefix)?.to_string(), t.clone())));
    named.collect()
}

pub fn saved(tensors: &Tensors, folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

/// A network of made-up weights.
pub fn made(architecture: &Architecture) -> Upscaler {
    Upscaler::new(&Source::fake(3, DType::F32, &Device::Cpu), architecture).unwrap()
}

/// An image with edges and some noise, of values about 0..1.
pub fn picture(batch: usize, height: usize, width: usize) -> Tensor {
    let noise = pseudo_normal(5, (batch, 3, height, width), 0.1);
    let value = |i: usize| {
        let (y, x) = ((i / width) % height, i % width);
        if (x / 5 + y / 7) % 2 == 0 { 0.8 } else { 0.2 }
    };
    let shapes: Vec<f32> = (0..noise.elem_count()).map(value).collect();
    (Tensor::from_vec(shapes, noise.shape(), &Device::Cpu).unwrap() + noise).unwrap()
}

pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    f64::from(d.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap())
}

/// The files of an ncnn model, made of layers.
#[derive(Default)]
pub struct NcnnFiles {
    /// (type, takes, gives, parameters), each under the name of what it gives.
    pub layers: Vec<(String, Vec<String>, String, String)>,
    pub bin: Vec<u8>,
    pub half: bool,
}

impl NcnnFiles {
    pub fn layer(&mut self, kind: &str, inputs: &[&str], gives: &str, parameters: &str) -> String {
        let inputs = inputs.iter().map(|i| i.to_string()).collect();
        self.layers.push((kind.into(), inputs, gives.into(), parameters.into()));
        gives.into()
    }

    pub fn floats(&mut self, tensor: &Tensor) {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        self.bin.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// A convolution and whatever `fused` says of its activation.
    pub fn convolution(&mut self, tensors: &Tensors, name: &str, input: &str, fused: &str) -> String {
        let (kernel, bias) = (&tensors[&format!("{name}.weight")], &tensors[&format!("{name}.bias")]);
        if self.half {
            self.bin.extend(0x0130_6B47u32.to_le_bytes());
            let values = kernel.to_dtype(DType::F16).unwrap().flatten_all().unwrap();
            let bits = values.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            self.bin.extend(bits.iter().flat_map(|v| half_bits(*v).to_le_bytes()));
            self.bin.resize(self.bin.len().next_multiple_of(4), 0);
        } else {
            self.bin.extend([0; 4]);
            self.floats(kernel);
        }
        self.floats(bias);
        let parameters = format!("0={} 1=3 4=1 5=1 6={}{fused}", kernel.dims()[0], kernel.elem_count());
        self.layer("Convolution", &[input], &name.replace('.', "_"), &parameters)
    }

    /// The text, with a `Split` for what is taken more than once, as ncnn's own tools write it.
    pub fn param(&self) -> String {
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        self.layers.iter().flat_map(|(_, inputs, ..)| inputs).for_each(|i| *uses.entry(i).or_default() += 1);
        let mut left: BTreeMap<&str, usize> = uses.clone();
        let (mut lines, mut blobs) = (Vec::new(), 0);
        for (kind, inputs, gives, parameters) in &self.layers {
            let mut taken = Vec::new();
            for input in inputs {
                let next = left.get_mut(input.as_str()).unwrap();
                *next -= 1;
                taken.push(if uses[input.as_str()] > 1 {
                    format!("{input}_split_{next}")
                } else {
                    input.clone()
                });
            }
            lines.push(format!(
                "{kind:<16} {gives} {} 1 {} {gives} {parameters}",
                inputs.len(),
                taken.join(" ")
            ));
            blobs += 1;
            let copies = uses.get(gives.as_str()).copied().unwrap_or(0);
            if copies > 1 {
                let names: Vec<String> = (0..copies).map(|i| format!("{gives}_split_{i}")).collect();
                lines.push(format!("Split split_{gives} 1 {copies} {gives} {}", names.join(" ")));
                blobs += copies;
            }
        }
        format!("7767517\n{} {blobs}\n{}\n", lines.len(), lines.join("\n"))
    }

    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        std::fs::write(folder.join(format!("{name}.bin")), &self.bin).unwrap();
        let path = folder.join(format!("{name}.param"));
        std::fs::write(&path, self.param()).unwrap();
        path
    }
}

/// Of a number that 16 bits hold exactly.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 112;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        ..-10 => sign,
        -10..=0 => sign | ((mantissa | 0x80_0000) >> (14 - exponent)) as u16,
        _ => sign | (exponent as u16) << 10 | (mantissa >> 13) as u16,
    }
}

/// SRVGGNetCompact as ncnn's tools write it.
pub fn compact_files(tensors: &Tensors, convolutions: usize, scale: usize, half: bool) -> NcnnFiles {
    let mut files = NcnnFiles { half, ..NcnnFiles::default() };
    let mut x = files.layer("Input", &[], "data", "");
    for i in 0..=convolutions {
        x = files.convolution(tensors, &format!("body.{}", 2 * i), &x, "");
        let slopes = &tensors[&format!("body.{}.weight", 2 * i + 1)];
        files.floats(slopes);
        x = files.layer("PReLU", &[&x], &format!("prelu_{i}"), &format!("0={}", slopes.elem_count()));
    }
    x = files.convolution(tensors, &format!("body.{}", 2 * convolutions + 2), &x, "");
    let drawn = files.layer("PixelShuffle", &[&x], "drawn", &format!("0={scale}"));
    let enlarged = files.layer("Interp", &["data"], "enlarged", &format!("0=1 1={scale}.0 2={scale}.0e0"));
    files.layer("BinaryOp", &[&drawn, &enlarged], "output", "0=0");
    files
}

/// RRDBNet x4 as ncnn's tools write it.
pub fn rrdb_files(tensors: &Tensors, blocks: usize) -> NcnnFiles {
    const LEAKY: &str = " 9=2 -23310=1,2.000000e-01";
    let mut files = NcnnFiles::default();
    let data = files.layer("Input", &[], "data", "");
    let first = files.convolution(tensors, "conv_first", &data, "");
    let mut features = first.clone();
    for i in 0..blocks {
        let mut inner = features.clone();
        for rdb in 1..=3 {
            let mut stack = vec![inner.clone()];
            for conv in 1..=5 {
                let name = format!("body.{i}.rdb{rdb}.conv{conv}");
                let takes: Vec<&str> = stack.iter().map(String::as_str).collect();
                let all = match conv {
                    1 => inner.clone(),
                    _ => files.layer("Concat", &takes, &format!("concat_{i}_{rdb}_{conv}"), "0=0"),
                };
                let fused = if conv < 5 { LEAKY } else { "" };
                stack.push(files.convolution(tensors, &name, &all, fused));
            }
            let sum = format!("sum_{i}_{rdb}");
            inner =
                files.layer("Eltwise", &[&stack[5], &inner], &sum, "0=1 -23301=2,2.000000e-01,1.000000e+00");
        }
        let sum = format!("sum_{i}");
        features = files.layer("Eltwise", &[&inner, &features], &sum, "0=1 -23301=2,2.0e-01,1.0");
    }
    let body = files.convolution(tensors, "conv_body", &features, "");
    let mut x = files.layer("BinaryOp", &[&first, &body], "trunk", "");
    for i in 1..=2 {
        let up = files.layer("Interp", &[&x], &format!("up{i}"), "0=1 1=2.000000e+00 2=2.000000e+00");
        x = files.convolution(tensors, &format!("conv_up{i}"), &up, LEAKY);
    }
    x = files.convolution(tensors, "conv_hr", &x, LEAKY);
    files.convolution(tensors, "conv_last", &x, "");
    files
}
