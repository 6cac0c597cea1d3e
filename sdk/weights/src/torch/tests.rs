use crate::error::Error;
use crate::weights::Weights;
use candle_core::{DType, Device};
use std::io::Write;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights").join(name)
}

fn values(weights: &Weights, name: &str, shape: &[usize]) -> Vec<f32> {
    let tensor = weights.get(name, shape, DType::F32, &Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Opens bytes as a file.
fn open(bytes: &[u8]) -> Result<Weights, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Weights::open(file.path())
}

fn message(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

fn put16(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u16).to_le_bytes());
}

fn put32(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u32).to_le_bytes());
}

/// A ZIP archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let start = out.len();
        let common = |to: &mut Vec<u8>| {
            [0, 0, 0, 0].into_iter().for_each(|n| put16(to, n)); // flags, method, time, date
            [0, data.len(), data.len()].into_iter().for_each(|n| put32(to, n)); // checksum, sizes
            put16(to, name.len());
            put16(to, 0);
        };
        out.extend(b"PK\x03\x04\x14\x00");
        common(&mut out);
        out.extend(name.as_bytes());
        out.extend(*data);
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        common(&mut directory);
        [0, 0, 0].into_iter().for_each(|n| put16(&mut directory, n));
        [0, start].into_iter().for_each(|n| put32(&mut directory, n));
        directory.extend(name.as_bytes());
    }
    let start = out.len();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    [entries.len(), entries.len()].into_iter().for_each(|n| put16(&mut out, n));
    [directory.len(), start].into_iter().for_each(|n| put32(&mut out, n));
    put16(&mut out, 0);
    out
}

/// The same archive with all sizes and places in 64-bit fields, as in files beyond 4 GiB.
fn widened(narrow: &[u8]) -> Vec<u8> {
    let end = narrow.len() - 22;
    let number =
        |at: usize, n: usize| narrow[at..at + n].iter().rev().fold(0u64, |a, b| a << 8 | u64::from(*b));
    let (entries, start) = (number(end + 10, 2), number(end + 16, 4) as usize);
    let mut out = narrow[..start].to_vec();
    let mut at = start;
    for _ in 0..entries {
        let name = number(at + 28, 2) as usize;
        out.extend(&narrow[at..at + 20]);
        out.extend([0xff; 8]);
        out.extend(&narrow[at + 28..at + 30]);
        put16(&mut out, 4 + 2 + 28);
        out.extend(&narrow[at + 32..at + 42]);
        out.extend([0xff; 4]);
        out.extend(&narrow[at + 46..at + 46 + name]);
        // A field of another kind goes before.
        [7, 2, 0, 1, 24].into_iter().for_each(|n| put16(&mut out, n));
        for n in [number(at + 24, 4), number(at + 20, 4), number(at + 42, 4)] {
            out.extend(n.to_le_bytes());
        }
        at += 46 + name;
    }
    let record = out.len() as u64;
    out.extend(b"PK\x06\x06");
    out.extend([0; 20]);
    [entries, entries, record - start as u64, start as u64].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend(b"PK\x06\x07\x00\x00\x00\x00");
    out.extend(record.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend([0xff; 12]);
    out.extend([0; 2]);
    out
}

#[test]
fn archives_with_64_bit_places_are_read_like_the_others() {
    let file = widened(&pickled(&view(4, 0, &[2, 2], &[2, 1])));
    let weights = open(&file).unwrap();
    assert_eq!(values(&weights, "w", &[2, 2]), [0.0; 4]);
    for keep in 0..file.len() {
        assert!(open(&file[..keep]).is_err(), "{keep}");
    }
}

/// An archive with this pickle, and a storage of 16 bytes.
fn pickled(code: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", code), ("a/data/0", &[0; 16])])
}

/// The pickle of `{"w": tensor}`, of a storage of so many elements, with one-byte numbers.
fn view(elements: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let mut code = b"(".to_vec();
        numbers.iter().for_each(|n| code.extend([b'K', *n]));
        code.push(b't');
        code
    };
    let mut code = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
    code.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK");
    code.extend([elements, b't', b'Q', b'K', offset]);
    code.extend(tuple(shape));
    code.extend(tuple(strides));
    code.extend(b"\x89NtRs.");
    code
}

#[test]
fn archives_of_every_protocol_give_the_tensors_that_were_saved() {
    for protocol in 2..=4 {
        let weights = Weights::open(fixture(&format!("torch_protocol{protocol}.ckpt"))).unwrap();
        let names: Vec<_> = weights.names().collect();
        assert_eq!(names, ["brain", "double", "half", "part", "plain", "position_ids", "turned"]);
        let ramp: Vec<f32> = (0..12u8).map(|i| 0.5 * f32::from(i)).collect();
        assert_eq!(values(&weights, "plain", &[3, 4]), ramp);
        let turned: Vec<f32> = (0..12).map(|i| ramp[i % 3 * 4 + i / 3]).collect();
        assert_eq!(values(&weights, "turned", &[4, 3]), turned);
        assert_eq!(values(&weights, "part", &[2, 2]), [2.5, 3.0, 4.5, 5.0]);
        assert_eq!(values(&weights, "half", &[3]), [1.0, -2.0, 0.25]);
        assert_eq!(values(&weights, "double", &[2, 1]), [1e-3, 2.0]);
        assert_eq!(values(&weights, "brain", &[2]), [1.0, -3.0]);
        let whole = weights.get("position_ids", &[1, 300], DType::F32, &Device::Cpu).unwrap_err();
        assert!(matches!(whole, Error::NotAWeight { .. }), "{whole}");
    }
}

#[test]
fn code_in_a_pickle_is_named_with_its_place_and_not_run() {
    for (code, global) in [
        (&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."[..], "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
    ] {
        let file = pickled(code);
        let at = file.windows(code.len()).position(|w| w == code).unwrap();
        let Err(Error::ForbiddenGlobal { global: found, offset, .. }) = open(&file) else {
            panic!("{global} was not refused");
        };
        assert_eq!(found, global);
        let instruction = if global.starts_with("posix") { 17 } else { 2 };
        assert_eq!(offset, (at + instruction) as u64);
    }
}

#[test]
fn calls_of_known_names_make_tensors_and_nothing_else() {
    let message = message(&pickled(b"\x80\x02ctorch\nFloatStorage\n)R."));
    assert!(message.contains("expected a call that makes a tensor"), "{message}");
}

#[test]
fn instructions_that_torch_does_not_write_are_refused() {
    for code in
        [&b"\x80\x02(ios\nsystem\n."[..], b"\x80\x02(cos\nsystem\no.", b"\x80\x02\x82\x01.", b"\x80\x02P1\n."]
    {
        assert!(open(&pickled(code)).is_err());
    }
    assert!(message(&pickled(b"\x80\x02\x82\x01.")).contains("0x82"));
    assert!(message(&pickled(b"\x80\x01.")).contains("protocol"));
}

#[test]
fn a_pickle_that_ends_early_or_lies_about_lengths_is_refused() {
    let whole = view(4, 0, &[2, 2], &[2, 1]);
    assert_eq!(open(&pickled(&whole)).unwrap().names().collect::<Vec<_>>(), ["w"]);
    for keep in 0..whole.len() {
        assert!(matches!(open(&pickled(&whole[..keep])), Err(Error::Pickle { .. })), "{keep}");
    }
    let lie = message(&pickled(b"\x80\x02X\xff\xff\xff\xffab."));
    assert!(lie.contains("4294967295 more bytes"), "{lie}");
}

#[test]
fn views_stay_in_their_storage() {
    for (elements, offset, shape, strides) in [
        (4, 1, &[2, 2][..], &[2, 1][..]), // past the end
        (4, 0, &[200, 200], &[0, 0]),     // many out of one
        (5, 0, &[2, 2], &[2, 1]),         // a storage longer than its entry
        (3, 0, &[2], &[1]),               // and shorter
    ] {
        let error = open(&pickled(&view(elements, offset, shape, strides))).unwrap_err();
        assert!(matches!(error, Error::BadView { .. }), "{error}");
        assert!(error.to_string().contains("\"w\""), "{error}");
    }
    let missing = archive(&[("a/data.pkl", &view(4, 0, &[4], &[1]))]);
    assert!(message(&missing).contains("data/0"));
}

#[test]
fn compressed_encrypted_and_overlapping_entries_are_refused() {
    let sound = pickled(&view(4, 0, &[4], &[1]));
    let central = |n: usize| {
        let places: Vec<_> =
            (0..sound.len() - 4).filter(|i| sound[*i..].starts_with(b"PK\x01\x02")).collect();
        places[n]
    };
    let edited = |at: usize, new: &[u8]| {
        let mut file = sound.clone();
        file[at..at + new.len()].copy_from_slice(new);
        message(&file)
    };
    assert!(edited(central(0) + 10, &[8]).contains("compression method 8"));
    assert!(edited(central(0) + 8, &[1]).contains("encrypted"));
    assert!(edited(central(1) + 42, &[0, 0]).contains("overlap"));
    assert!(edited(central(1) + 20, &[255, 255, 255, 0, 255, 255, 255, 0]).contains("found fewer"));
    assert!(edited(sound.len() - 12, &[255, 0]).contains("entry 2"));
    assert!(message(&sound[..sound.len() - 1]).contains("cut off"));
}

#[test]
fn old_files_and_programs_are_named_in_words() {
    let old = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    assert!(message(old).contains("before 1.6"));
    let script = archive(&[("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"\x80\x02).")]);
    assert!(message(&script).contains("TorchScript"));
    assert!(message(&archive(&[("a/x", b"")])).contains("data.pkl"));
    let big = archive(&[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"big")]);
    assert!(message(&big).contains("little-endian"));
}

#[test]
fn what_is_no_dictionary_has_no_tensors() {
    assert!(message(&pickled(b"\x80\x02K\x01.")).contains("dictionary"));
}

#[test]
fn a_dictionary_in_itself_ends() {
    let code = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    assert_eq!(open(&pickled(code)).unwrap().names().count(), 0);
}
