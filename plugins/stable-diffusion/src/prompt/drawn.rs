//! The prompts of one image, drawn from its templates.

use super::template::{Dice, Template};
use atelier_sdk::{Error, Result};
use serde_json::{Value, json};

/// Sets the negative prompt's draws apart from the prompt's: a choice in one moves none in the other.
const NEGATIVE: u64 = 0x6E65_6761_7469_7665;

/// The prompts of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// What it shows.
    pub prompt: String,
    /// What it keeps away from.
    pub negative: String,
    chosen: bool,
}

impl Drawn {
    /// Draws both by the image's seed; without `templates` they are taken as they are.
    ///
    /// # Errors
    /// A template that cannot be drawn from.
    pub fn new(prompt: &str, negative: &str, templates: bool, seed: i64) -> Result<Self> {
        if !templates {
            return Ok(Self { prompt: prompt.into(), negative: negative.into(), chosen: false });
        }
        let draw = |field: &str, text: &str, seed: u64| {
            let template = Template::parse(text).map_err(|p| Error::invalid(format!("`{field}`: {p}")))?;
            Ok(template.draw(&mut Dice(seed)))
        };
        let drawn = draw("prompt", prompt, seed as u64)?;
        let other = draw("negative_prompt", negative, seed as u64 ^ NEGATIVE)?;
        let chosen = drawn != prompt || other != negative;
        Ok(Self { prompt: drawn, negative: other, chosen })
    }

    /// Every combination of the choices in both, the negative prompt's changing fastest.
    ///
    /// # Errors
    /// A template that cannot be read; more than `limit` combinations.
    pub fn all(prompt: &str, negative: &str, limit: usize) -> Result<Vec<Self>> {
        let every = |field: &str, text: &str| {
            let template = Template::parse(text).map_err(|p| Error::invalid(format!("`{field}`: {p}")))?;
            template.all(limit).ok_or_else(|| too_many(limit))
        };
        let (prompts, negatives) = (every("prompt", prompt)?, every("negative_prompt", negative)?);
        if prompts.len() * negatives.len() > limit {
            return Err(too_many(limit));
        }
        let both = |(p, n): (&String, &String)| {
            let chosen = p != prompt || n != negative;
            Self { prompt: p.clone(), negative: n.clone(), chosen }
        };
        Ok(prompts.iter().flat_map(|p| negatives.iter().map(move |n| (p, n))).map(both).collect())
    }

    /// What the image's metadata says where it differs from the request: the texts as drawn, and that they are
    /// no templates any more, so that braces in them stay letters.
    pub fn facts(&self, seed: i64) -> Value {
        let mut facts = json!({"seed": seed, "count": 1});
        if self.chosen {
            facts["prompt"] = json!(self.prompt);
            facts["negative_prompt"] = json!(self.negative);
            facts["prompt_templates"] = json!(false);
            facts["prompt_matrix"] = json!(false);
        }
        facts
    }
}

fn too_many(limit: usize) -> Error {
    Error::invalid(format!("the prompts have more than {limit} combinations"))
        .hint("leave out some choices, or `prompt_matrix`, which draws every one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_repeat_the_same_texts() {
        let drawn = Drawn::new(r"{red|blue} \{shoe\}", "{a|b}", true, 3).unwrap();
        let facts = drawn.facts(3);
        let text = |key: &str| facts[key].as_str().unwrap().to_string();
        let again = Drawn::new(&text("prompt"), &text("negative_prompt"), false, 3).unwrap();
        assert_eq!((again.prompt.as_str(), &again.negative), (drawn.prompt.as_str(), &drawn.negative));
        assert!(drawn.prompt.ends_with("{shoe}"), "{drawn:?}");
    }

    #[test]
    fn a_matrix_has_every_combination_and_a_bound() {
        let all = Drawn::all("a {red|{dark |}blue} shoe", "{x|y}", 6).unwrap();
        let texts: Vec<_> = all.iter().map(|d| format!("{}/{}", d.prompt, d.negative)).collect();
        let expected =
            ["red/x", "red/y", "dark blue/x", "dark blue/y", "blue/x", "blue/y"].map(|t| format!("a {t}"));
        let expected: Vec<_> = expected.iter().map(|t| t.replace('/', " shoe/")).collect();
        assert_eq!(texts, expected);
        assert!(Drawn::all("{a|b|c}", "{x|y}", 5).unwrap_err().message().contains("more than 5"));
        assert_eq!(Drawn::all("plain", "", 1).unwrap()[0].facts(3), json!({"seed": 3, "count": 1}));
    }

    #[test]
    fn texts_without_choices_are_no_facts() {
        let drawn = Drawn::new("a {shoe}", "", true, 3).unwrap();
        assert_eq!(drawn.facts(3), json!({"seed": 3, "count": 1}));
    }
}
