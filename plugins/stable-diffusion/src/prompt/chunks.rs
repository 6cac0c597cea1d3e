//! Prompts of any length: chunks of as many tokens as the text encoder was trained with, as A1111 cuts them.

use super::grammar::{Piece, weighted};
use super::inversion::Named;
use atelier_models::ClipTokenizer;

/// What is to be known of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Starts a chunk.
    pub bos: u32,
    /// Ends a chunk's text.
    pub eos: u32,
    /// Fills a chunk.
    pub pad: u32,
    /// A comma that ends a word; after one a text may be cut.
    pub comma: Option<u32>,
    /// Tokens of a chunk, the first and last included.
    pub length: usize,
}

impl Vocabulary {
    /// That of a tokenizer.
    ///
    /// # Errors
    /// Those of the tokenizer library.
    pub fn of(tokenizer: &ClipTokenizer) -> atelier_models::Result<Self> {
        let comma = match tokenizer.tokens(",")?.as_slice() {
            [comma] => Some(*comma),
            _ => None,
        };
        let (bos, eos, pad) = (tokenizer.bos(), tokenizer.eos(), tokenizer.pad());
        Ok(Self { bos, eos, pad, comma, length: tokenizer.max_length() })
    }
}

/// What the text encoder takes at once: always as many tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Start, text, end, padding.
    pub ids: Vec<u32>,
    /// A weight for each token; 1 for those that are no text.
    pub weights: Vec<f32>,
    /// Tokens with embeddings of their own: the position of the first, and which embedding.
    pub replaced: Vec<(usize, usize)>,
}

impl Chunk {
    /// Whether any token weighs more or less than 1.
    pub fn is_weighted(&self) -> bool {
        self.weights.iter().any(|w| *w != 1.0)
    }
}

/// The chunks of a prompt, at least one. With `emphasis` brackets and `BREAK` have their meaning, else they are
/// letters. The names of `embeddings` become their tokens. A text is rather cut at a comma if there is one in the last `backtrack` tokens of a full chunk.
///
/// # Errors
/// Those of the tokenizer library.
pub fn chunks(
    text: &str,
    emphasis: bool,
    tokenizer: &ClipTokenizer,
    backtrack: usize,
    embeddings: &[Named],
) -> atelier_models::Result<Vec<Chunk>> {
    let mut filler = Filler::new(Vocabulary::of(tokenizer)?, backtrack);
    let pieces = if emphasis { weighted(text) } else { vec![Piece::Text(text.to_string(), 1.0)] };
    for piece in pieces {
        match piece {
            Piece::Break => filler.next_chunk(),
            Piece::Text(text, weight) => {
                let tokens = tokenizer.tokens(&text)?;
                let mut at = 0;
                while at < tokens.len() {
                    match longest_name(&tokens[at..], embeddings) {
                        Some(which) => {
                            filler.embedding(which, embeddings[which].vectors(), weight as f32);
                            at += embeddings[which].tokens.len();
                        }
                        None => {
                            filler.token(tokens[at], weight as f32);
                            at += 1;
                        }
                    }
                }
            }
        }
    }
    Ok(filler.finish())
}

fn longest_name(tokens: &[u32], embeddings: &[Named]) -> Option<usize> {
    let found = embeddings.iter().enumerate().filter(|(_, e)| tokens.starts_with(&e.tokens));
    found.max_by_key(|(_, e)| e.tokens.len()).map(|(which, _)| which)
}

struct Filler {
    vocabulary: Vocabulary,
    backtrack: usize,
    done: Vec<Chunk>,
    tokens: Vec<(u32, f32)>,
    comma: Option<usize>,
    replaced: Vec<(usize, usize)>,
}

impl Filler {
    fn new(vocabulary: Vocabulary, backtrack: usize) -> Self {
        Self {
            vocabulary,
            backtrack,
            done: Vec::new(),
            tokens: Vec::new(),
            comma: None,
            replaced: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        self.vocabulary.length - 2
    }

    fn token(&mut self, token: u32, weight: f32) {
        if Some(token) == self.vocabulary.comma {
            self.comma = Some(self.tokens.len());
        } else if self.tokens.len() == self.room() {
            self.cut_after_comma();
        }
        if self.tokens.len() == self.room() {
            // As in A1111 this also forgets a comma that opens the next chunk.
            self.next_chunk();
        }
        self.tokens.push((token, weight));
    }

    /// The tokens of an embedding stay in one chunk.
    fn embedding(&mut self, which: usize, vectors: usize, weight: f32) {
        if self.tokens.len() + vectors > self.room() {
            self.next_chunk();
        }
        self.replaced.push((self.tokens.len(), which));
        self.tokens.extend(std::iter::repeat_n((0, weight), vectors));
    }

    /// Moves what follows the last comma into a new chunk, if that comma is near.
    fn cut_after_comma(&mut self) {
        let Some(comma) = self.comma.filter(|c| self.tokens.len() - c <= self.backtrack) else { return };
        let moved = self.tokens.split_off(comma + 1);
        let (kept, replaced) = self.replaced.drain(..).partition(|(at, _)| *at <= comma);
        self.replaced = kept;
        self.next_chunk();
        self.tokens = moved;
        self.replaced = replaced;
        self.replaced.iter_mut().for_each(|(at, _)| *at -= comma + 1);
    }

    fn next_chunk(&mut self) {
        let v = self.vocabulary;
        let (mut ids, mut weights) = (vec![v.bos], vec![1.0]);
        for (token, weight) in self.tokens.drain(..) {
            ids.push(token);
            weights.push(weight);
        }
        ids.push(v.eos);
        ids.resize(v.length, v.pad);
        weights.resize(v.length, 1.0);
        // The start token comes before the text.
        let replaced = self.replaced.drain(..).map(|(at, which)| (at + 1, which)).collect();
        self.done.push(Chunk { ids, weights, replaced });
        self.comma = None;
    }

    fn finish(mut self) -> Vec<Chunk> {
        if !self.tokens.is_empty() || self.done.is_empty() {
            self.next_chunk();
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: Vocabulary = Vocabulary { bos: 100, eos: 101, pad: 102, comma: Some(7), length: 8 };

    fn fill(tokens: &[u32], backtrack: usize) -> Vec<Vec<u32>> {
        let mut filler = Filler::new(V, backtrack);
        for token in tokens {
            filler.token(*token, 1.0);
        }
        filler.finish().into_iter().map(|c| c.ids).collect()
    }

    #[test]
    fn a_chunk_is_start_text_end_and_padding() {
        assert_eq!(fill(&[], 0), [[100, 101, 102, 102, 102, 102, 102, 102]]);
        assert_eq!(fill(&[1, 2, 3], 0), [[100, 1, 2, 3, 101, 102, 102, 102]]);
        assert_eq!(fill(&[1, 2, 3, 4, 5, 6], 0), [[100, 1, 2, 3, 4, 5, 6, 101]]);
    }

    #[test]
    fn what_does_not_fit_is_another_chunk() {
        let expected = [[100, 1, 2, 3, 4, 5, 6, 101], [100, 8, 101, 102, 102, 102, 102, 102]];
        assert_eq!(fill(&[1, 2, 3, 4, 5, 6, 8], 0), expected);
    }

    #[test]
    fn a_full_chunk_is_cut_after_a_near_comma() {
        let expected = [[100, 1, 2, 3, 7, 101, 102, 102], [100, 4, 5, 6, 101, 102, 102, 102]];
        assert_eq!(fill(&[1, 2, 3, 7, 4, 5, 6], 3), expected);
        let far = [[100, 1, 2, 3, 7, 4, 5, 101], [100, 6, 101, 102, 102, 102, 102, 102]];
        assert_eq!(fill(&[1, 2, 3, 7, 4, 5, 6], 2), far);
        assert_eq!(fill(&[1, 2, 3, 7, 4, 5, 6], 0), far);
    }

    #[test]
    fn a_comma_that_does_not_fit_opens_the_next_chunk() {
        let expected = [[100, 1, 2, 3, 4, 5, 6, 101], [100, 7, 8, 101, 102, 102, 102, 102]];
        assert_eq!(fill(&[1, 2, 3, 4, 5, 6, 7, 8], 6), expected);
    }

    #[test]
    fn an_embedding_stays_whole_and_moves_with_its_text() {
        let mut filler = Filler::new(V, 3);
        for token in [1, 2, 3, 7] {
            filler.token(token, 1.0);
        }
        filler.embedding(5, 2, 1.5);
        filler.token(6, 1.0);
        filler.embedding(4, 4, 1.0);
        let found = filler.finish();
        assert_eq!(found[0].ids, [100, 1, 2, 3, 7, 101, 102, 102]);
        assert_eq!((&found[1].ids[..4], &found[1].replaced), (&[100, 0, 0, 6][..], &vec![(1, 5)]));
        assert_eq!(found[1].weights[..4], [1.0, 1.5, 1.5, 1.0]);
        assert_eq!(found[2].replaced, [(1, 4)]);
    }

    fn tiny() -> ClipTokenizer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/tiny-sd/tokenizer");
        ClipTokenizer::open(folder).unwrap()
    }

    #[test]
    fn break_starts_a_chunk_and_weights_go_with_their_tokens() {
        let found = chunks("(a:1.5) BREAK b", true, &tiny(), 20, &[]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].weights[1], found[0].weights[2], found[1].is_weighted()), (1.5, 1.0, false));
        assert_eq!(chunks("a BREAK", true, &tiny(), 20, &[]).unwrap().len(), 1);
        assert_eq!(chunks("BREAK a", true, &tiny(), 20, &[]).unwrap().len(), 2);
        assert_eq!(chunks("(a:1.5) BREAK b", false, &tiny(), 20, &[]).unwrap().len(), 1);
    }

    /// Every reference text that has no brackets, against transformers' tokenizer.
    #[test]
    fn tokens_are_those_of_the_reference() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/tokens.json");
        let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let tokenizer = tiny();
        let ids = |v: &serde_json::Value| -> Vec<u32> { serde_json::from_value(v.clone()).unwrap() };
        for case in all["tiny"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = chunks(text, true, &tokenizer, 0, &[]).unwrap();
            assert_eq!(found[0].ids, ids(&case["ids77"]), "{text}");
            let (long, room) = (ids(&case["ids"]), 75);
            let words: Vec<u32> = long[1..long.len() - 1].to_vec();
            assert_eq!(found.len(), words.len().div_ceil(room).max(1), "{text}");
            for (chunk, words) in found.iter().zip(words.chunks(room)) {
                assert_eq!(&chunk.ids[1..=words.len()], words, "{text}");
            }
        }
    }
}
