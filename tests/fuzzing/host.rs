//! What the host reads of files that people give it: metadata of images, presets and other YAML.

use crate::fuzzing::{Target, as_it_is};
use atelier::{a1111, pngmeta, yaml};
use atelier_sdk::{Image, PixelFormat, Registry, SamplerReg, ScheduleReg};
use std::io::Write;

/// All of them. A new reader needs a line here and sound files to begin with.
pub const TARGETS: &[Target] = &[
    Target {
        name: "png-metadata",
        seeds: images,
        read: metadata,
        words: &[b"tEXt", b"zTXt", b"iTXt", b"IEND", b"IHDR", b"parameters\0", b"atelier\0", b"\0\0\0\0"],
        mend: checksums,
    },
    Target {
        name: "a1111-text",
        seeds: texts,
        read: text,
        words: &[
            b"\nNegative prompt: ",
            b"\nSteps: ",
            b", Size: 512x512",
            b"\"",
            b"\\",
            b": ",
            b", ",
            b"{",
            b"\xc3\xa9",
        ],
        mend: as_it_is,
    },
    Target {
        name: "yaml",
        seeds: presets,
        read: yaml_text,
        words: &[b"&a ", b"*a", b"<<: ", b"!!binary ", b"- ", b"? ", b": ", b"|\n", b"\n  ", b"{", b"["],
        mend: as_it_is,
    },
];

fn images() -> Vec<Vec<u8>> {
    let image = Image::new(4, 4, PixelFormat::Rgb8, vec![7; 48]).unwrap();
    let json = r#"{"schema_version":1,"params":{"prompt":"a shoe"}}"#;
    let plain = [(pngmeta::A1111_KEY, "a shoe\nSteps: 4, Seed: 1"), (pngmeta::ATELIER_KEY, json)];
    let wide = [(pngmeta::A1111_KEY, "ein Schuh \u{1f45f}\nSteps: 4")];
    vec![pngmeta::encode(&image, &plain).unwrap(), pngmeta::encode(&image, &wide).unwrap()]
}

/// PNG's checksums, so that changes reach what is behind them.
fn checksums(file: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = file.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= file.len()) else { return };
        let sum = crc32(&file[at + 4..end]);
        file[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

/// As the PNG specification's appendix defines it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { 0xEDB8_8320 ^ (sum >> 1) } else { sum >> 1 };
    !bytes.iter().fold(!0u32, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

fn metadata(bytes: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let Ok(texts) = pngmeta::read_texts(file.path()) else { return false };
    texts.iter().for_each(|(_, value)| {
        parse(value);
    });
    true
}

fn parse(value: &str) -> bool {
    let samplers =
        Registry::new("sampler", inventory::iter::<SamplerReg>.into_iter().map(atelier::items::Part::linked));
    let schedules = Registry::new(
        "schedule",
        inventory::iter::<ScheduleReg>.into_iter().map(atelier::items::Part::linked),
    );
    a1111::parse(value, &samplers.unwrap(), &schedules.unwrap()).is_ok()
}

fn texts() -> Vec<Vec<u8>> {
    let one = "a (red:1.2) shoe, {a|b}\nNegative prompt: dirt\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, \
               Seed: 1, Size: 512x768, Model hash: 6ce0161689, Lora hashes: \"a: 12, b: 34\", Version: v1.10";
    vec![one.into(), b"x\nSteps: 1, Sampler: Euler, Schedule type: Automatic".to_vec()]
}

fn text(bytes: &[u8]) -> bool {
    parse(&String::from_utf8_lossy(bytes))
}

fn presets() -> Vec<Vec<u8>> {
    let one = "schema_version: 1\ntask: txt2img\nextends: [a, b]\nparams:\n  prompt: >-\n    a shoe\n  steps: 20\n  cfg_scale: 7.5\n";
    let two = "a: &x {b: [1, 2.5, null, true, 'q', \"\\u00e9\"]}\nc: *x\nd: |\n  text\n";
    vec![one.into(), two.into()]
}

fn yaml_text(bytes: &[u8]) -> bool {
    yaml::parse(&String::from_utf8_lossy(bytes)).is_ok()
}
