//! The readers of model files.

use crate::fuzzing::{Target, as_it_is};
use atelier_weights::lora::Adapter;
use atelier_weights::{Checkpoint, ConfigFile, DiffusersFolder, StoredDtype, Weights};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

/// All of them. A new reader needs a line here and sound files to begin with.
pub const TARGETS: &[Target] = &[
    Target {
        name: "safetensors",
        seeds: safetensors,
        read: weights,
        words: &[
            b"\"dtype\":\"F16\"",
            b"\"F8_E4M3\"",
            b"\"BOOL\"",
            b"\"shape\":[]",
            b"__metadata__",
            b"\"data_offsets\":[0,0]",
            b"[",
            b"}",
            b",",
        ],
        mend: header_length,
    },
    Target {
        name: "checkpoint",
        seeds: checkpoints,
        read: checkpoint,
        words: &[
            b"model.diffusion_model.",
            b"first_stage_model.",
            b"input_blocks.",
            b"output_blocks.0.",
            b"lora_unet_",
            b"[320,4,3,3]",
            b"[]",
        ],
        mend: header_length,
    },
    Target {
        name: "lora",
        seeds: adapters,
        read: adapter,
        words: &[
            b"lora_unet_",
            b".lora_mid.weight",
            b".alpha",
            b".dora_scale",
            b".hada_t1",
            b".lokr_w1_a",
            b".diff_b",
            b"[8,8,1,1]",
            b"[]",
        ],
        mend: header_length,
    },
    Target {
        name: "ckpt",
        seeds: archives,
        read: weights,
        words: &[
            b"PK\x03\x04",
            b"PK\x01\x02",
            b"PK\x05\x06",
            b"data.pkl",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"\x8a\x08",
            b"R",
            b"(",
            b"t",
            b"Q",
        ],
        mend: as_it_is,
    },
    Target {
        name: "gguf",
        seeds: gguf,
        read: weights,
        words: &[b"GGUF", b"general.alignment", b"comfy.gguf.orig_shape.b", b"\x08\0\0\0", b"\x09\0\0\0"],
        mend: as_it_is,
    },
    Target {
        name: "ncnn",
        seeds: ncnn,
        read: ncnn_model,
        words: &[
            b"7767517",
            b"Convolution",
            b"PReLU",
            b" 0=4294967296",
            b" 6=18446744073709551615",
            b" -23310=1,2.0e-01",
            b"\x47\x6b\x30\x01",
            b"\x38\x4b\x0d\0",
        ],
        mend: as_it_is,
    },
    Target {
        name: "folder",
        seeds: folders,
        read: folder,
        words: &[
            b"_class_name",
            b"\"diffusers\"",
            b"null",
            b"[",
            b"]",
            b"{",
            b"}",
            b"weight_map",
            b"../",
            b"\"x.safetensors\"",
        ],
        mend: as_it_is,
    },
];

fn tensor(rows: usize) -> Tensor {
    Tensor::from_vec((0..rows * 64).map(|i| i as f32).collect(), (rows, 64), &Device::Cpu).unwrap()
}

fn file(tensors: &[(&str, Tensor)], metadata: bool) -> Vec<u8> {
    let outlines = tensors.iter().map(|(name, t)| atelier_weights::Outline {
        name: (*name).into(),
        dtype: StoredDtype::F32,
        shape: t.dims().to_vec(),
    });
    let remarks = metadata.then(|| ("format".to_string(), "pt".to_string())).into_iter().collect();
    let mut out = Vec::new();
    atelier_weights::write_safetensors(
        &mut out,
        outlines.collect(),
        &remarks,
        |o| -> std::io::Result<Vec<u8>> {
            let values = &tensors.iter().find(|(n, _)| *n == o.name).unwrap().1;
            Ok(values
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect())
        },
    )
    .unwrap();
    out
}

fn safetensors() -> Vec<Vec<u8>> {
    let small = [("a", tensor(1)), ("b.weight", tensor(3)), ("b.bias", tensor(1))];
    vec![file(&small, true), file(&small[..1], false), file(&[], false)]
}

fn checkpoints() -> Vec<Vec<u8>> {
    let shaped = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let root = "model.diffusion_model.";
    let name = |rest: &str| format!("{root}{rest}");
    let unet: Vec<(String, Tensor)> = [
        ("input_blocks.0.0.weight", vec![8, 4, 3, 3]),
        ("input_blocks.1.0.in_layers.0.weight", vec![8]),
        ("input_blocks.1.0.in_layers.2.weight", vec![8, 8, 3, 3]),
        ("input_blocks.1.1.proj_in.weight", vec![8, 8, 1, 1]),
        ("middle_block.1.proj_in.weight", vec![8, 8, 1, 1]),
        ("middle_block.1.transformer_blocks.0.attn2.to_k.weight", vec![8, 16]),
        ("output_blocks.0.0.in_layers.0.weight", vec![8]),
        ("output_blocks.0.0.in_layers.2.weight", vec![8, 8, 3, 3]),
        ("time_embed.0.weight", vec![32, 8]),
        ("out.2.weight", vec![4, 8, 3, 3]),
    ]
    .iter()
    .map(|(n, s)| (name(n), shaped(s)))
    .collect();
    let vae = [
        ("first_stage_model.encoder.conv_in.weight", shaped(&[8, 3, 3, 3])),
        ("first_stage_model.encoder.down.0.block.0.norm1.weight", shaped(&[8])),
        ("first_stage_model.encoder.down.0.block.0.conv1.weight", shaped(&[8, 8, 3, 3])),
        ("first_stage_model.decoder.conv_in.weight", shaped(&[8, 4, 3, 3])),
        ("first_stage_model.decoder.conv_out.weight", shaped(&[3, 8, 3, 3])),
        ("first_stage_model.decoder.up.0.block.0.norm1.weight", shaped(&[8])),
    ];
    let text = [
        ("cond_stage_model.model.token_embedding.weight", shaped(&[16, 8])),
        ("cond_stage_model.model.positional_embedding", shaped(&[7, 8])),
        ("cond_stage_model.model.transformer.resblocks.0.ln_1.weight", shaped(&[8])),
        ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", shaped(&[24, 8])),
        ("cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight", shaped(&[32, 8])),
        ("cond_stage_model.model.transformer.resblocks.1.ln_1.weight", shaped(&[8])),
    ];
    let unet: Vec<(&str, Tensor)> = unet.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    vec![
        file(&unet, true),
        file(&vae, false),
        file(&text, false),
        file(&[&unet[..], &vae, &text].concat(), true),
    ]
}

/// One adapter of each kind, for a matrix of 8 by 8.
fn adapters() -> Vec<Vec<u8>> {
    let shaped = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let kind = |ends: &[(&str, &[usize])]| {
        let named: Vec<(String, Tensor)> = ends
            .iter()
            .map(|(end, shape)| (format!("lora_unet_mid_block_attentions_0_proj_in.{end}"), shaped(shape)))
            .collect();
        let named: Vec<(&str, Tensor)> = named.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        file(&named, true)
    };
    vec![
        kind(&[("lora_down.weight", &[2, 8]), ("lora_up.weight", &[8, 2]), ("alpha", &[])]),
        kind(&[("lora_down.weight", &[2, 8]), ("lora_up.weight", &[8, 2]), ("dora_scale", &[8, 1])]),
        kind(&[
            ("lora_down.weight", &[2, 8, 1, 1]),
            ("lora_mid.weight", &[2, 2, 3, 3]),
            ("lora_up.weight", &[8, 2, 1, 1]),
        ]),
        kind(&[
            ("hada_w1_a", &[8, 2]),
            ("hada_w1_b", &[2, 8]),
            ("hada_w2_a", &[8, 2]),
            ("hada_w2_b", &[2, 8]),
        ]),
        kind(&[("lokr_w1", &[2, 2]), ("lokr_w2_a", &[4, 2]), ("lokr_w2_b", &[2, 4])]),
        kind(&[("diff", &[8, 8]), ("diff_b", &[8])]),
    ]
}

/// The archives that torch wrote for the tests, and the smallest one.
fn archives() -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights");
    let read = |version: &str| std::fs::read(fixtures.join(format!("torch_protocol{version}.ckpt"))).unwrap();
    vec![read("2"), read("3"), read("4")]
}

fn gguf() -> Vec<Vec<u8>> {
    let tensor = Tensor::from_vec((0..1024).map(|i| i as f32).collect(), (4, 256), &Device::Cpu).unwrap();
    let formats = [GgmlDType::Q4_0, GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::F16];
    let quantized: Vec<_> = formats.iter().map(|f| QTensor::quantize(&tensor, *f).unwrap()).collect();
    let named: Vec<_> = ["a", "b", "c", "d"].into_iter().zip(&quantized).collect();
    let shape = gguf_file::Value::Array([4, 16, 16].map(gguf_file::Value::I32).to_vec());
    let remark = gguf_file::Value::String("x".into());
    let texts = gguf_file::Value::Array(vec![remark.clone(), remark.clone()]);
    let mut out = std::io::Cursor::new(Vec::new());
    let remarks = [("comfy.gguf.orig_shape.b", &shape), ("general.name", &remark), ("tokens", &texts)];
    gguf_file::write(&mut out, &remarks, &named).unwrap();
    vec![out.into_inner()]
}

/// Files of a folder one after the other, each under its name.
const SEPARATOR: &[u8] = b"\n=== ";

fn folders() -> Vec<Vec<u8>> {
    let index = r#"{"_class_name":"StableDiffusionPipeline","safety_checker":[null,null],
        "unet":["diffusers","UNet2DConditionModel"],"vae":["diffusers","AutoencoderKL"]}"#;
    let config = r#"{"in_channels":4,"block_out_channels":[32,64],"attention_head_dim":8,"act_fn":"silu","x":{"y":[1.5]}}"#;
    let shards = r#"{"metadata":{},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}"#;
    vec![[index.as_bytes(), SEPARATOR, config.as_bytes(), SEPARATOR, shards.as_bytes()].concat()]
}

/// The length of the header before it, as far as the header can be told by its end.
fn header_length(file: &mut [u8]) {
    let Some(end) = file.windows(2).position(|w| w == b"}}").map(|i| i + 2).filter(|end| *end > 8) else {
        return;
    };
    // The reference implementation fills up with spaces.
    let spaces = file[end..].iter().take_while(|b| **b == b' ').count();
    let length = (end + spaces - 8) as u64;
    file[..8].copy_from_slice(&length.to_le_bytes());
}

/// The text and the weights of a small model, one after the other.
fn ncnn() -> Vec<Vec<u8>> {
    let text = "7767517\n5 6\nInput data 0 1 data\nSplit s 1 2 data a b\nConvolution conv 1 1 a c 0=2 1=3 4=1 5=1 6=54 9=2 -23310=1,0.2\n\
                PReLU slopes 1 1 c d 0=2\nBinaryOp sum 2 1 d b e 0=0\n";
    let model = |tag: u32, kernel: usize| {
        let weights = [&tag.to_le_bytes()[..], &vec![0; kernel + 8 + 8]].concat();
        [text.as_bytes(), SEPARATOR, &weights].concat()
    };
    vec![model(0, 4 * 54), model(0x0130_6B47, 2 * 54)]
}

fn ncnn_model(bytes: &[u8]) -> bool {
    let Some(at) = bytes.windows(SEPARATOR.len()).position(|w| w == SEPARATOR) else { return false };
    let bin = bytes[at + SEPARATOR.len()..].to_vec();
    let Ok(model) = atelier_weights::Ncnn::from_bytes(&bytes[..at], bin, "input") else { return false };
    for layer in model.layers() {
        let _ = (layer.number(0), layer.count(0, 1), layer.list(10));
    }
    read_all(model.weights());
    true
}

/// Opens a file and reads every tensor in every way there is.
fn weights(file: &[u8]) -> bool {
    let Ok(weights) = Weights::from_bytes(file.to_vec(), "input") else { return false };
    read_all(&weights);
    true
}

fn read_all(weights: &Weights) {
    for name in weights.names() {
        let info = weights.info(name).unwrap();
        let _ = weights.get(name, &info.shape.clone(), DType::F32, &Device::Cpu);
        let _ = (
            weights.encoded(name, None),
            weights.encoded(name, Some(StoredDtype::F16)),
            weights.format(name),
        );
    }
    let _ = weights.unused();
}

fn on_disk(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// What a file is, and its parts.
fn checkpoint(bytes: &[u8]) -> bool {
    let file = on_disk(bytes);
    let Ok(checkpoint) = Checkpoint::open(file.path()) else { return false };
    let _ = (checkpoint.kind().describe(), checkpoint.prediction_type());
    for part in [checkpoint.unet(), checkpoint.vae(), checkpoint.text_encoder()].into_iter().flatten() {
        for (name, _) in part.tensors() {
            let _ = part.encoded(name, None);
        }
        let _ = part.config().fields().count();
    }
    true
}

/// An adapter, and what it changes in weights that it says it fits.
fn adapter(bytes: &[u8]) -> bool {
    let file = on_disk(bytes);
    let Ok(adapter) = Adapter::open(file.path()) else { return false };
    let _ = (adapter.layout(), adapter.base().to_string(), adapter.embeddings());
    for (_, _, delta) in adapter.changes() {
        let _ = (delta.kind(), delta.rank(), delta.alpha(), delta.size());
        for shape in [&[8, 8][..], &[8, 8, 1, 1], &[8, 8, 3, 3]] {
            let base = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
            if delta.fits(shape) {
                delta.change(&base).unwrap();
            }
        }
    }
    true
}

/// A folder with the files that a sound index names.
fn shards() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("unet")).unwrap();
    for (name, tensor_name) in [("x", "a"), ("y", "b")] {
        let path = dir.path().join(format!("unet/{name}.safetensors"));
        std::fs::write(path, file(&[(tensor_name, tensor(1))], false)).unwrap();
    }
    dir
}

fn folder(bytes: &[u8]) -> bool {
    let mut pieces: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut rest = bytes;
    for i in 0..3 {
        let at = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR);
        pieces.insert(i, rest[..at.unwrap_or(rest.len())].to_vec());
        rest = at.map_or(&[][..], |at| &rest[at + SEPARATOR.len()..]);
    }
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = PLACE.get_or_init(shards);
    let names = ["model_index.json", "unet/config.json", "unet/model.safetensors.index.json"];
    for (i, name) in names.iter().enumerate() {
        std::fs::write(dir.path().join(name), &pieces[&i]).unwrap();
    }
    let config = String::from_utf8_lossy(&pieces[&1]).into_owned();
    let _ = ConfigFile::parse(&config, "config.json").map(|c| c.fields().count());
    let Ok(folder) = DiffusersFolder::open(dir.path()) else { return false };
    let (_, _) = (folder.pipeline(), folder.components());
    let Ok(unet) = folder.component("unet") else { return false };
    let sound = unet.config().is_ok();
    unet.weights().map(|w| read_all(&w)).is_ok() && sound
}
