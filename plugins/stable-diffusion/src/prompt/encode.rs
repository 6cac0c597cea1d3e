//! From a prompt's text to its embeddings.

use super::chunks::{Chunk, chunks};
use super::conditioning::{Conditioning, Strength, Track};
use super::grammar::{self, Part};
use super::inversion::Named;
use super::schedule::{Script, Timeline};
use super::tags;
use crate::pipeline::Pipeline;
use atelier_diffusion::error;
use atelier_sdk::{Error, Result};
use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How weights in a prompt act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Emphasis {
    /// Weights multiply the embeddings, whose mean is then restored (A1111 "Original").
    #[default]
    Original,
    /// Weights multiply the embeddings, and that is all (A1111 "No norm").
    NoNorm,
    /// There are no weights: brackets and `BREAK` are letters (A1111 "None").
    None,
}

/// How texts are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Layers from the end, counted from 1, whose states are taken; 1 is the last.
    pub clip_skip: usize,
    /// How weights act.
    pub emphasis: Emphasis,
    /// Tokens at the end of a full chunk among which a comma is looked for.
    pub comma_backtrack: usize,
}

/// Embeddings kept for the next image; templates may draw new texts for each.
const KEPT: usize = 256;

/// Chunks that the processor encodes in one pass: a weight is then brought from memory once for all of them.
const TOGETHER: usize = 4;

/// Encodes texts, each distinct one once.
pub struct Encoder<'a> {
    pipeline: &'a Pipeline,
    encoding: Encoding,
    embeddings: Vec<Named>,
    known: HashMap<String, Tensor>,
}

impl<'a> Encoder<'a> {
    /// An encoder that knows no text yet.
    pub fn new(pipeline: &'a Pipeline, encoding: Encoding) -> Self {
        Self { pipeline, encoding, embeddings: Vec::new(), known: HashMap::new() }
    }

    /// Adds embeddings whose names stand for them in every text.
    #[must_use]
    pub fn with_embeddings(mut self, embeddings: Vec<Named>) -> Self {
        self.embeddings = embeddings;
        self.known.clear();
        self
    }

    /// Forgets what it encoded: the text encoder is another.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// What guides a run of this many steps.
    ///
    /// The embeddings of all texts have the length of the longest: shorter ones are continued with those of
    /// empty chunks.
    ///
    /// # Errors
    /// A prompt that asks for what there is not, and whatever keeps the networks from encoding.
    pub fn conditioning(
        &mut self,
        prompt: &str,
        negative: &str,
        strength: Strength,
        steps: usize,
    ) -> Result<Conditioning> {
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let parts = grammar::parts(&without_tags("prompt", prompt)?);
        let negative = without_tags("negative_prompt", negative)?;
        let needs_negative = strength.guides() || parts.len() > 1;
        let mut texts = Vec::new();
        for Part { text, weight } in &parts {
            texts.push((self.timeline("prompt", text, steps)?, *weight));
        }
        let negative =
            needs_negative.then(|| self.timeline("negative_prompt", &negative, steps)).transpose()?;
        let all = texts.iter().map(|(t, _)| t).chain(&negative).flat_map(Timeline::entries);
        let tokens = self.longest(&all.map(|(_, text)| text.as_str()).collect::<Vec<_>>())?;
        Ok(Conditioning {
            parts: texts
                .into_iter()
                .map(|(timeline, weight)| Ok((self.track(timeline, tokens)?, weight)))
                .collect::<Result<_>>()?,
            negative: negative.map(|timeline| self.track(timeline, tokens)).transpose()?,
            strength,
        })
    }

    fn timeline(&self, field: &str, text: &str, steps: usize) -> Result<Timeline> {
        let script = Script::parse(text).map_err(|p| Error::invalid(format!("`{field}`: {p}")))?;
        Ok(script.timeline(steps))
    }

    fn longest(&mut self, texts: &[&str]) -> Result<usize> {
        self.learn(texts)?;
        let mut longest = 0;
        for text in texts {
            longest = longest.max(tokens_of(&self.text(text)?)?);
        }
        Ok(longest)
    }

    fn track(&mut self, timeline: Timeline, tokens: usize) -> Result<Track> {
        let mut embeddings = Vec::new();
        for (_, text) in timeline.entries() {
            embeddings.push(self.padded(text, tokens)?);
        }
        Ok(Track::scheduled(timeline, embeddings))
    }

    fn padded(&mut self, text: &str, tokens: usize) -> Result<Tensor> {
        let embedding = self.text(text)?;
        let missing = tokens.saturating_sub(tokens_of(&embedding)?);
        if missing == 0 {
            return Ok(embedding);
        }
        let empty = self.text("")?;
        let copies = missing / tokens_of(&empty)?.max(1);
        let all: Vec<&Tensor> =
            std::iter::once(&embedding).chain(std::iter::repeat_n(&empty, copies)).collect();
        Tensor::cat(&all, 1).map_err(error::tensor("padding a prompt's embeddings"))
    }

    /// The embeddings of a text, (1, tokens, width): as many tokens as its chunks have together.
    ///
    /// # Errors
    /// Weights beyond what numbers hold; fewer layers than are to be skipped; the encoder failed.
    pub fn text(&mut self, text: &str) -> Result<Tensor> {
        if let Some(known) = self.known.get(text) {
            return Ok(known.clone());
        }
        self.learn(&[text])?;
        self.known.get(text).cloned().ok_or_else(|| Error::internal("a text that was encoded is not known"))
    }

    /// Encodes those of the texts that it does not know yet.
    fn learn(&mut self, texts: &[&str]) -> Result<()> {
        let mut unknown: Vec<(&str, Vec<Chunk>)> = Vec::new();
        for text in texts {
            if !self.known.contains_key(*text) && unknown.iter().all(|(other, _)| other != text) {
                unknown.push((text, self.chunks(text)?));
            }
        }
        let chunks: Vec<&Chunk> = unknown.iter().flat_map(|(_, chunks)| chunks).collect();
        let mut embeddings = self.embeddings_of(&chunks)?.into_iter();
        for (text, chunks) in unknown {
            let own: Vec<Tensor> = embeddings.by_ref().take(chunks.len()).collect();
            let embedding = match own.as_slice() {
                [one] => one.clone(),
                several => Tensor::cat(several, 1).map_err(error::tensor("joining a prompt's embeddings"))?,
            };
            self.known.insert(text.to_string(), embedding);
        }
        Ok(())
    }

    fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        let emphasis = self.encoding.emphasis != Emphasis::None;
        match self.pipeline.tokenizer() {
            Some(tokenizer) => {
                chunks(text, emphasis, tokenizer, self.encoding.comma_backtrack, &self.embeddings)
                    .map_err(|e| error::model("cannot encode the prompt", e))
            }
            // Made-up weights have no vocabulary; speed does not depend on the words.
            None => {
                let length = self.pipeline.text_config().max_position_embeddings;
                Ok(vec![Chunk { ids: vec![0; length], weights: vec![1.0; length], replaced: Vec::new() }])
            }
        }
    }

    /// The embeddings of each chunk, (1, tokens, width).
    fn embeddings_of(&self, chunks: &[&Chunk]) -> Result<Vec<Tensor>> {
        let weights = chunks.iter().flat_map(|chunk| &chunk.weights);
        if let Some(weight) = weights.into_iter().find(|w| !w.is_finite()) {
            return Err(Error::invalid(format!("the prompt's brackets multiply to a weight of {weight}"))
                .hint("write the weight as a number: `(words:1.5)`"));
        }
        // A chunk with embeddings of its own in it is encoded alone.
        let of_words = |a: &&Chunk, b: &&Chunk| a.replaced.is_empty() && b.replaced.is_empty();
        let groups = chunks.chunk_by(of_words).flat_map(|group| group.chunks(self.together()));
        let mut out = Vec::new();
        for group in groups {
            let plain = self.group(group)?;
            for (i, chunk) in group.iter().enumerate() {
                out.push(self.weighted(&plain, i, chunk).map_err(error::tensor("weighing the prompt"))?);
            }
        }
        Ok(out)
    }

    /// Chunks that are encoded at a time. An embedding is always the same bits, whatever is encoded beside it: only the
    /// processor's operations promise that of a batch.
    fn together(&self) -> usize {
        if self.pipeline.device().is_cpu() { TOGETHER } else { 1 }
    }

    /// (chunks, tokens, width).
    fn group(&self, chunks: &[&Chunk]) -> Result<Tensor> {
        let encoder = self.pipeline.text_encoder()?;
        for chunk in chunks {
            self.pipeline.count_text(chunk.ids.len());
        }
        let skip = self.encoding.clip_skip.saturating_sub(1);
        let encoded = match chunks {
            [chunk] if !chunk.replaced.is_empty() => {
                let rows = |(at, which): &(usize, usize)| (*at, self.embeddings[*which].rows.clone());
                let replaced: Vec<_> = chunk.replaced.iter().map(rows).collect();
                encoder.encode_replacing(&chunk.ids, &replaced, skip)
            }
            _ => encoder.encode(&chunks.iter().map(|chunk| chunk.ids.clone()).collect::<Vec<_>>(), skip),
        };
        encoded.map_err(|e| error::model("cannot encode the prompt", e))
    }

    /// Chunk `i` of a group.
    fn weighted(&self, group: &Tensor, i: usize, chunk: &Chunk) -> candle_core::Result<Tensor> {
        let plain = group.narrow(0, i, 1)?;
        if !chunk.is_weighted() {
            return Ok(plain);
        }
        emphasise(&plain, &chunk.weights, self.encoding.emphasis == Emphasis::Original)
    }
}

fn tokens_of(embedding: &Tensor) -> Result<usize> {
    embedding.dim(1).map_err(error::tensor("a prompt's embeddings"))
}

/// Multiplies each token's embedding; `restore` then gives the whole the mean it had.
fn emphasise(embedding: &Tensor, weights: &[f32], restore: bool) -> candle_core::Result<Tensor> {
    let plain = embedding.to_dtype(DType::F32)?;
    let weights = Tensor::from_slice(weights, (1, weights.len(), 1), embedding.device())?;
    let mut out = plain.broadcast_mul(&weights)?;
    if restore {
        let mean = |t: &Tensor| t.mean_all()?.to_scalar::<f32>();
        let factor = mean(&plain)? / mean(&out)?;
        // A mean of 0 cannot be restored.
        if factor.is_finite() {
            out = out.affine(f64::from(factor), 0.0)?;
        }
    }
    out.to_dtype(embedding.dtype())
}

/// The text without tags, whose LoRAs are on the model by now.
fn without_tags(field: &str, text: &str) -> Result<String> {
    let extracted = tags::extract(text).map_err(|p| Error::invalid(format!("`{field}`: {p}")))?;
    Ok(extracted.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn weights_multiply_tokens_and_the_mean_comes_back() {
        let plain = Tensor::new(&[[[1f32, 3.0], [2.0, 2.0]]], &Device::Cpu).unwrap();
        let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(emphasise(&plain, &[1.0, 2.0], false).unwrap()), [1.0, 3.0, 4.0, 4.0]);
        let restored = values(emphasise(&plain, &[1.0, 2.0], true).unwrap());
        assert!(
            restored.iter().zip([2.0 / 3.0, 2.0, 8.0 / 3.0, 8.0 / 3.0]).all(|(a, b)| (a - b).abs() < 1e-6)
        );
    }

    #[test]
    fn a_lora_tag_is_no_word() {
        assert_eq!(without_tags("prompt", "a <lora:shoes:1>b").unwrap(), "a b");
        let e = without_tags("prompt", "a <lora:shoes:x>").unwrap_err();
        assert!(e.message().contains("bytes 2 to 16"), "{e:?}");
    }
}
