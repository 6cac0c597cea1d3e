//! What host and worker say to each other: frames of a small header and three payloads.

use atelier_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, Read, Write};

/// What a frame is. Requests are answered by `Ok` or `Err`, except the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// An answer.
    Ok,
    /// An answer that is an error.
    Err,
    /// json: key, options. Gives an object.
    MakeSampler,
    /// object; json: run; floats: sigmas, then x. Gives x.
    Sample,
    /// n: values wanted; a: sigma; floats: x. Gives the denoised x.
    Denoise,
    /// a, b: levels; n: values wanted. Gives noise.
    Noise,
    /// n: step; floats: x.
    StepDone,
    /// Gives n: 0 or 1.
    Cancelled,
    /// json: key, options. Gives an object.
    MakeSchedule,
    /// object; n: steps; bytes: levels as f64. Gives sigmas.
    Sigmas,
    /// json: engine, task, params, ctx. Gives json.
    Plan,
    /// json: engine. Gives json.
    Devices,
    /// json: engine, request. Gives an object.
    Load,
    /// object. Gives json.
    Describe,
    /// object; json: task, plan. Gives json.
    Run,
    /// json: the event.
    Event,
    /// json: field; n: 1 for an image, 0 for bytes. Gives json, bytes.
    Input,
    /// json: about the image; bytes: its pixels.
    Image,
    /// json: about the preview; bytes: its pixels.
    Preview,
    /// object. Not answered.
    Drop,
    /// n: level; json: target, message. Not answered.
    Log,
}

impl Tag {
    const ALL: [Self; 21] = [
        Self::Ok,
        Self::Err,
        Self::MakeSampler,
        Self::Sample,
        Self::Denoise,
        Self::Noise,
        Self::StepDone,
        Self::Cancelled,
        Self::MakeSchedule,
        Self::Sigmas,
        Self::Plan,
        Self::Devices,
        Self::Load,
        Self::Describe,
        Self::Run,
        Self::Event,
        Self::Input,
        Self::Image,
        Self::Preview,
        Self::Drop,
        Self::Log,
    ];
}

/// A frame as received.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What it is.
    pub tag: Tag,
    /// The object that it is about.
    pub object: u32,
    /// A first number.
    pub a: f32,
    /// A second number.
    pub b: f32,
    /// A count.
    pub n: u64,
    /// Text.
    pub json: String,
    /// Latents.
    pub floats: Vec<f32>,
    /// Pixels and the like.
    pub bytes: Vec<u8>,
}

/// A frame to send.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields of Frame, borrowed")]
pub struct Out<'a> {
    pub tag: Tag,
    pub object: u32,
    pub a: f32,
    pub b: f32,
    pub n: u64,
    pub json: &'a str,
    /// Sent one after the other, received as one.
    pub floats: [&'a [f32]; 2],
    pub bytes: &'a [u8],
}

impl Out<'_> {
    /// An empty frame.
    pub const fn new(tag: Tag) -> Self {
        Self { tag, object: 0, a: 0.0, b: 0.0, n: 0, json: "", floats: [&[], &[]], bytes: &[] }
    }

    /// The frame as the other side receives it.
    pub fn to_owned(self) -> Frame {
        Frame {
            tag: self.tag,
            object: self.object,
            a: self.a,
            b: self.b,
            n: self.n,
            json: self.json.to_string(),
            floats: self.floats.concat(),
            bytes: self.bytes.to_vec(),
        }
    }
}

/// An error as it is sent.
#[derive(Serialize, Deserialize)]
struct ErrorParts(u32, String, String);

impl Frame {
    /// An empty frame.
    pub fn new(tag: Tag) -> Self {
        Out::new(tag).to_owned()
    }

    /// The frame, to be sent.
    pub fn out(&self) -> Out<'_> {
        let Self { tag, object, a, b, n, json, floats, bytes } = self;
        Out { tag: *tag, object: *object, a: *a, b: *b, n: *n, json, floats: [floats, &[]], bytes }
    }

    /// The answer that is an error.
    pub fn of_error(e: &Error) -> Self {
        let (code, message, detail) = e.to_parts();
        // Texts and a number are always JSON.
        let json = serde_json::to_string(&ErrorParts(code, message, detail)).unwrap_or_default();
        Self { json, ..Self::new(Tag::Err) }
    }

    /// The error of an answer.
    pub fn error(&self) -> Error {
        match serde_json::from_str(&self.json) {
            Ok(ErrorParts(code, message, detail)) => Error::from_parts(code, &message, &detail),
            Err(e) => Error::internal("an error that cannot be read").because(e),
        }
    }

    /// The text as a value.
    ///
    /// # Errors
    /// Another value than expected: a bug of one side.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_str(&self.json)
            .map_err(|e| Error::internal(format!("a {:?} frame that cannot be read", self.tag)).because(e))
    }
}

const HEADER: usize = 41;
/// Largest payload, in bytes: more is a bug or a damaged stream.
const MAX: u64 = 4 << 30;

/// Writes a frame.
///
/// # Errors
/// The other side is gone.
pub fn write(w: &mut impl Write, f: Out<'_>) -> io::Result<()> {
    let floats = (f.floats[0].len() + f.floats[1].len()) * 4;
    let mut head = [0u8; HEADER];
    head[0] = f.tag as u8;
    head[1..5].copy_from_slice(&f.object.to_le_bytes());
    head[5..9].copy_from_slice(&f.a.to_le_bytes());
    head[9..13].copy_from_slice(&f.b.to_le_bytes());
    head[13..21].copy_from_slice(&f.n.to_le_bytes());
    head[21..25].copy_from_slice(&u32::try_from(f.json.len()).map_err(io::Error::other)?.to_le_bytes());
    head[25..33].copy_from_slice(&(floats as u64).to_le_bytes());
    head[33..].copy_from_slice(&(f.bytes.len() as u64).to_le_bytes());
    // Both sides are on one machine: its own byte order will do.
    let [first, second] = f.floats.map(bytemuck::cast_slice);
    write_all(w, &mut [&head, f.json.as_bytes(), first, second, f.bytes].map(IoSlice::new))?;
    w.flush()
}

/// All of it in as few calls as possible: each may wake the other side.
fn write_all(w: &mut impl Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match w.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads a frame.
///
/// # Errors
/// The other side is gone, or sends nonsense.
pub fn read(r: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0u8; HEADER];
    r.read_exact(&mut head)?;
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let tag = *Tag::ALL.get(usize::from(head[0])).ok_or_else(|| nonsense("an unknown frame"))?;
    let (floats, bytes) = (u64_at(25), u64_at(33));
    if floats > MAX || bytes > MAX || floats % 4 != 0 {
        return Err(nonsense("a frame of impossible size"));
    }
    let mut json = vec![0; u32_at(21) as usize];
    r.read_exact(&mut json)?;
    let mut frame = Frame {
        tag,
        object: u32_at(1),
        a: f32::from_bits(u32_at(5)),
        b: f32::from_bits(u32_at(9)),
        n: u64_at(13),
        json: String::from_utf8(json).map_err(io::Error::other)?,
        floats: vec![0.0; (floats / 4) as usize],
        bytes: vec![0; bytes as usize],
    };
    r.read_exact(bytemuck::cast_slice_mut(&mut frame.floats))?;
    r.read_exact(&mut frame.bytes)?;
    Ok(frame)
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for tag in Tag::ALL {
            let out = Out {
                object: 7,
                a: -1.5,
                b: f32::INFINITY,
                n: u64::MAX,
                json: "{\"ä\": 1}",
                floats: [&[1.0, 2.0], &[3.0]],
                bytes: &[9; 5],
                ..Out::new(tag)
            };
            let mut bytes = Vec::new();
            write(&mut bytes, out).unwrap();
            let frame = read(&mut bytes.as_slice()).unwrap();
            assert_eq!(frame, out.to_owned());
            assert_eq!((frame.tag, frame.floats.as_slice()), (tag, &[1.0, 2.0, 3.0][..]));
            for cut in 0..bytes.len() {
                assert!(read(&mut &bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn nonsense_is_refused_before_memory_is_taken() {
        let mut bytes = Vec::new();
        write(&mut bytes, Out::new(Tag::Ok)).unwrap();
        let mut huge = bytes.clone();
        huge[40] = 0x7f;
        assert!(read(&mut huge.as_slice()).is_err());
        bytes[0] = 200;
        assert!(read(&mut bytes.as_slice()).is_err());
    }

    #[test]
    fn an_error_arrives_with_kind_causes_and_hints() {
        let e = Error::cancelled().hint("later").context("in step 3");
        let back = Frame::of_error(&e).error();
        assert_eq!((back.kind(), back.chain(), back.hints()), (e.kind(), e.chain(), e.hints()));
    }
}
