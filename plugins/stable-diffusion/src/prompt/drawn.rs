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

    /// What the image's metadata says where it differs from the request: the texts as drawn, and that they are
    /// no templates any more, so that braces in them stay letters.
    pub fn facts(&self, seed: i64) -> Value {
        let mut facts = json!({"seed": seed, "count": 1});
        if self.chosen {
            facts["prompt"] = json!(self.prompt);
            facts["negative_prompt"] = json!(self.negative);
            facts["prompt_templates"] = json!(false);
        }
        facts
    }
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
    fn texts_without_choices_are_no_facts() {
        let drawn = Drawn::new("a {shoe}", "", true, 3).unwrap();
        assert_eq!(drawn.facts(3), json!({"seed": 3, "count": 1}));
    }
}
