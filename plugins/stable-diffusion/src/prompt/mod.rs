//! Prompts: from text to what guides each step.
//!
//! ```text
//! template ─▶ text ─▶ lora tags ─▶ AND parts ─▶ texts over the steps ─▶ weights ─▶ chunks ─▶ embeddings
//! ```
//!
//! The grammar is that of A1111's web UI, `modules/prompt_parser.py`.

pub mod chunks;
pub mod conditioning;
pub mod drawn;
pub mod encode;
pub mod grammar;
pub mod inversion;
pub mod schedule;
pub mod tags;
pub mod template;

use std::ops::Range;

/// Something in a prompt that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes.
    pub at: Range<usize>,
    /// What.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (bytes {} to {})", self.message, self.at.start, self.at.end)
    }
}

impl std::error::Error for Problem {}

/// What is wrong with a prompt before anything is drawn or loaded; `loras` says whether it may have tags.
pub fn check(text: &str, templates: bool, loras: bool) -> Vec<Problem> {
    // A choice may be anywhere, also within a tag: what is drawn is looked at.
    let drawn = if templates { template::expand(text, 0) } else { Ok(text.into()) };
    let extracted = drawn.and_then(|text| tags::extract(&text));
    match extracted {
        Err(problem) => vec![problem],
        Ok((text, tags)) => {
            let refused = tags.iter().filter(|_| !loras).map(tags::LoraTag::refuse);
            refused.chain(schedule::Script::parse(&text).err()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift (Marsaglia 2003): the same texts in every run.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as usize
    }

    fn any_text(state: &mut u64) -> String {
        let bits = [
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            "|",
            "\\",
            "<",
            ">",
            "1",
            ".5",
            "-",
            "e9",
            " ",
            "a",
            "BREAK",
            "AND",
            "<lora:",
            "::",
            "é",
            "\u{1F45F}",
            "\n",
            "\0",
            ",",
            "[a:b:",
            "(x:1.3)",
        ];
        let length = random(state) % 24;
        (0..length).map(|_| bits[random(state) % bits.len()]).collect()
    }

    #[test]
    fn any_text_has_a_reading() {
        let mut state = 42;
        for _ in 0..20_000 {
            let text = any_text(&mut state);
            let seed = random(&mut state) as u64;
            let text = template::expand(&text, seed).unwrap_or(text);
            let _ = check(&text, true, true);
            let text = tags::extract(&text).map_or(text, |(text, _)| text);
            for part in grammar::parts(&text) {
                assert!(part.weight.is_finite());
                let Ok(script) = schedule::Script::parse(&part.text) else { continue };
                for (end, text) in script.timeline(5).entries() {
                    assert!(*end <= 5);
                    assert!(!grammar::weighted(text).is_empty());
                }
            }
        }
    }

    #[test]
    fn any_text_fills_whole_chunks() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/tiny-sd/tokenizer");
        let tokenizer = atelier_models::ClipTokenizer::open(folder).unwrap();
        let mut state = 7;
        for _ in 0..300 {
            let text: String = (0..8).map(|_| any_text(&mut state)).collect();
            let chunks = chunks::chunks(&text, true, &tokenizer, 20, &[]).unwrap();
            assert!(chunks.iter().all(|c| c.ids.len() == 77 && c.weights.len() == 77), "{text:?}");
            assert!(!chunks.is_empty());
        }
    }

    #[test]
    fn problems_point_into_the_text() {
        let text = "é <lora:a:x> b";
        let found = check(text, true, true);
        assert_eq!(&text[found[0].at.clone()], "<lora:a:x>");
        assert!(check("a (plain) [prompt:5]", true, true).is_empty());
        assert!(check("<lora:{a|b}:{0.5|1}> x", true, true).is_empty());
        assert_eq!(check("<lora:a>", true, false).len(), 1);
    }
}
