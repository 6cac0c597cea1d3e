//! CLIP's byte-pair tokenizer (Radford et al. 2021), from the files of a diffusers folder.

use crate::error::{Error, Result};
use atelier_weights::ConfigFile;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    TokenizerImpl,
};

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Start token, the prompt's tokens, end token, padding: always as many as the model's maximum.
    pub ids: Vec<u32>,
    /// Tokens at the end of the prompt that did not fit.
    pub dropped: usize,
}

/// A CLIP tokenizer.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
}

/// Where words are cut, before byte pairs are merged: CLIP's own pattern, with the special tokens kept whole.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP was trained with 77 positions.
const POSITIONS: usize = 77;

/// The longest tokenizer file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The byte pairs of CLIP ViT-L/14, which all text encoders of Stable Diffusion share.
const CLIP_MERGES: &str = include_str!("../assets/clip-vit-l-14/merges.txt");

/// What fills a prompt up to the model's maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The end token, as in Stable Diffusion 1.x.
    End,
    /// The first token of the vocabulary, `!`, as in Stable Diffusion 2.x.
    Zero,
}

/// The special tokens and the vocabulary of CLIP.
fn clip_tables(padding: Padding, merges: &[(String, String)]) -> (Special, Vocab) {
    let (bos, eos) = ("<|startoftext|>", "<|endoftext|>");
    let pad = if padding == Padding::End { eos } else { "!" };
    let special = Special { bos: bos.into(), eos: eos.into(), pad: pad.into(), max_length: POSITIONS };
    let symbols = byte_symbols();
    let ends = symbols.iter().map(|c| format!("{c}</w>"));
    let pairs = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let tokens = symbols.iter().map(char::to_string).chain(ends).chain(pairs);
    let tokens = tokens.chain([special.bos.clone(), special.eos.clone()]);
    let vocab = (0..).zip(tokens).map(|(id, token)| (token, id)).collect();
    (special, vocab)
}

impl ClipTokenizer {
    /// Reads the folder of a tokenizer: `tokenizer.json`, or `vocab.json` and `merges.txt`, and beside them
    /// `tokenizer_config.json` and `special_tokens_map.json` for the special tokens and the maximal length, if there.
    ///
    /// Errors: files missing, broken or above 64 MiB; special tokens that the vocabulary lacks.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let special = Special::read(folder)?;
        let json = folder.join("tokenizer.json");
        let tokenizer =
            if json.is_file() { from_json(&json)? } else { from_vocab_and_merges(folder, &special)? };
        Self::finish(tokenizer, special, folder)
    }

    /// The files that a folder has of the tokenizer of every released Stable Diffusion: names and contents.
    ///
    /// Errors: never in practice; its tables are part of the program.
    pub fn clip_files(padding: Padding) -> Result<Vec<(&'static str, String)>> {
        let place = Path::new("the tokenizer of CLIP");
        let (special, vocab) = clip_tables(padding, &merges(CLIP_MERGES, place)?);
        let mut by_id: Vec<(&String, &u32)> = vocab.iter().collect();
        by_id.sort_by_key(|(_, id)| **id);
        let vocab: serde_json::Map<String, Value> =
            by_id.into_iter().map(|(t, id)| (t.clone(), json!(id))).collect();
        let (bos, eos, pad) = (&special.bos, &special.eos, &special.pad);
        let config = json!({
            "add_prefix_space": false, "bos_token": bos, "do_lower_case": true, "eos_token": eos, "errors": "replace",
            "model_max_length": POSITIONS, "pad_token": pad, "tokenizer_class": "CLIPTokenizer", "unk_token": eos,
        });
        let map = json!({"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": eos});
        Ok(vec![
            ("vocab.json", Value::Object(vocab).to_string()),
            ("merges.txt", CLIP_MERGES.to_string()),
            ("tokenizer_config.json", format!("{config:#}")),
            ("special_tokens_map.json", format!("{map:#}")),
        ])
    }

    /// The tokenizer of every released Stable Diffusion, for files that have none.
    ///
    /// Errors: never in practice; its tables are part of the program.
    pub fn clip(padding: Padding) -> Result<Self> {
        let place = Path::new("the tokenizer of CLIP");
        let merges = merges(CLIP_MERGES, place)?;
        let (special, vocab) = clip_tables(padding, &merges);
        let tokenizer = from_tables(vocab, merges, &special, place)?;
        Self::finish(tokenizer, special, place)
    }

    fn finish(mut tokenizer: Tokenizer, special: Special, folder: &Path) -> Result<Self> {
        // Both are done here, by the model's own settings.
        tokenizer.with_padding(None);
        let failed = |message: String| Error::Tokenizer { path: folder.into(), message };
        tokenizer.with_truncation(None).map_err(|e| failed(e.to_string()))?;
        let id = |token: &str| {
            let found = tokenizer.token_to_id(token);
            found.ok_or_else(|| {
                failed(format!("expected the special token {token:?} in the vocabulary, found none"))
            })
        };
        let (bos, eos, pad) = (id(&special.bos)?, id(&special.eos)?, id(&special.pad)?);
        Ok(Self { bos, eos, pad, max_length: special.max_length, tokenizer })
    }

    /// Entries of the vocabulary, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Tokens of an encoded prompt, 77 in every released model.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The token that starts a prompt.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The token that ends a prompt.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The token that fills a prompt up.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The prompt's tokens alone: no start, end or padding, and any number of them.
    ///
    /// Errors: those of the tokenizer library.
    pub fn tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode(prompt, false)
            .map_err(|e| Error::input("tokenizer", format!("{prompt:?}: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A prompt with start and end token, cut or padded to the model's maximum.
    ///
    /// Errors: those of the tokenizer library.
    pub fn encode(&self, prompt: &str) -> Result<Encoded> {
        let tokens = self.tokens(prompt)?;
        let kept = tokens.len().min(self.max_length - 2);
        let mut ids = vec![self.bos];
        ids.extend(&tokens[..kept]);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        Ok(Encoded { ids, dropped: tokens.len() - kept })
    }
}

/// The special tokens and length of a folder's configuration.
struct Special {
    bos: String,
    eos: String,
    pad: String,
    max_length: usize,
}

impl Special {
    fn read(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = folder.join(name);
            if path.is_file() {
                files.push(ConfigFile::read(path)?);
            }
        }
        let token = |field: &str| files.iter().find_map(|f| content(f.get(field)?));
        let eos = token("eos_token").unwrap_or_else(|| "<|endoftext|>".into());
        // "No limit" is written as an enormous number; the text encoder has its positions all the same.
        let length = files.iter().find_map(|f| f.get("model_max_length")?.as_f64());
        let max_length = match length {
            Some(n) if n < 3.0 => {
                let message = format!("expected model_max_length 3 or more, found {n}");
                return Err(Error::Tokenizer { path: folder.into(), message });
            }
            Some(n) if n <= 4096.0 => n as usize,
            _ => POSITIONS,
        };
        Ok(Self {
            bos: token("bos_token").unwrap_or_else(|| "<|startoftext|>".into()),
            pad: token("pad_token").unwrap_or_else(|| eos.clone()),
            eos,
            max_length,
        })
    }
}

/// A special token is a text, or an object with its text in `content`.
fn content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(String::from)
}

fn read(path: &Path) -> Result<String> {
    let failed = |message: String| Error::Tokenizer { path: path.into(), message };
    let length = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if length > MAX_BYTES {
        return Err(failed(format!("expected at most {MAX_BYTES} bytes, found {length}")));
    }
    std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))
}

/// CLIP's tokenizers are of byte pairs: told so, the library reads a file in half the time that it takes to find out.
type OfBytePairs =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

fn from_json(path: &Path) -> Result<Tokenizer> {
    let text = read(path)?;
    guarded(path, || serde_json::from_str::<OfBytePairs>(&text)).map(Tokenizer::from)
}

/// What the library makes of a file. It panics at merges that are longer than every token.
fn guarded<T, E: ToString>(path: &Path, load: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    let failed = |message: String| Error::Tokenizer { path: path.into(), message };
    match catch_unwind(AssertUnwindSafe(load)) {
        Ok(loaded) => loaded.map_err(|e| failed(e.to_string())),
        Err(_) => Err(failed("expected merges that make tokens of the vocabulary, found others".into())),
    }
}

/// The pairs of a `merges.txt`: two tokens a line, after a line with a version.
fn merges(text: &str, path: &Path) -> Result<Merges> {
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    lines
        .map(|(number, line)| match line.split_once(' ') {
            Some((a, b)) if !b.contains(' ') => Ok((a.to_string(), b.to_string())),
            _ => {
                let message = format!("line {}: expected two tokens, found {line:?}", number + 1);
                Err(Error::Tokenizer { path: path.into(), message })
            }
        })
        .collect()
}

/// The same tokenizer as a `tokenizer.json` would describe it.
fn from_vocab_and_merges(folder: &Path, special: &Special) -> Result<Tokenizer> {
    let (vocab_path, merges_path) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if !vocab_path.is_file() || !merges_path.is_file() {
        let message = "expected tokenizer.json, or vocab.json and merges.txt, found neither".into();
        return Err(Error::Tokenizer { path: folder.into(), message });
    }
    let failed = |message: String| Error::Tokenizer { path: vocab_path.clone(), message };
    let vocab = serde_json::from_str(&read(&vocab_path)?).map_err(|e| failed(e.to_string()))?;
    from_tables(vocab, merges(&read(&merges_path)?, &merges_path)?, special, &vocab_path)
}

/// The characters that stand for bytes in the vocabulary, in its order: those that can be seen stand for
/// themselves, the others for characters from 256 on.
fn byte_symbols() -> Vec<char> {
    let seen = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..256u32).filter(|b| !seen(*b)).count() as u32;
    (0..256).filter(|b| seen(*b)).chain(256..256 + hidden).filter_map(char::from_u32).collect()
}

/// The tokenizer with these tables; `path` is for messages.
fn from_tables(vocab: Vocab, merges: Merges, special: &Special, path: &Path) -> Result<Tokenizer> {
    let failed = |message: String| Error::Tokenizer { path: path.into(), message };
    let tokens = [&special.bos, &special.eos];
    if let Some(token) = tokens.into_iter().find(|token| !vocab.contains_key(*token)) {
        return Err(failed(format!("expected a token {token:?}, found none")));
    }
    let pairs = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(special.eos.clone())
        .end_of_word_suffix("</w>".into());
    let pairs = guarded(path, || pairs.build())?;
    let around = json!({
        "version": "1.0",
        // Composed characters, one space for any white space, lower case.
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    });
    // As text: the library wants to borrow its strings.
    let mut tokenizer: OfBytePairs =
        serde_json::from_str(&around.to_string()).map_err(|e| failed(e.to_string()))?;
    tokenizer.with_model(pairs);
    let tokens = tokens.map(|token| AddedToken::from(token.clone(), true));
    tokenizer.add_special_tokens(tokens).map_err(|e| failed(e.to_string()))?;
    Ok(tokenizer.into())
}
