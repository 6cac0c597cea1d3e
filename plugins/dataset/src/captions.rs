//! Sentences about records, from templates.
//!
//! `{field}` is the field's value, by the name that the locale gives it; `{field|lower}` in lower case, `|upper`,
//! `|title`. A clause in `[brackets]` is left out when one of its fields has no value. A field without value outside
//! of brackets leaves nothing behind; spaces and commas around it are put right. `{{`, `}}`, `[[`, `]]` stand for the
//! signs themselves.

use crate::definition::{CaptionRule, Template};
use crate::draw_lots;
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result};
use std::collections::BTreeMap;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Field { name: String, case: Case },
    Optional(Vec<Part>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    AsIs,
    Lower,
    Upper,
    Title,
}

/// The captions of one locale.
#[derive(Debug)]
pub struct Captioner {
    templates: Vec<(Vec<Part>, f64)>,
    words: BTreeMap<String, BTreeMap<String, String>>,
}

impl Captioner {
    /// Reads the templates of a locale.
    ///
    /// # Errors
    /// There are none, or one is malformed: with its text and place.
    pub fn new(rule: &CaptionRule, locale: &str) -> Result<Self> {
        let templates = rule.templates.get(locale).ok_or_else(|| {
            let there: Vec<&str> = rule.templates.keys().map(String::as_str).collect();
            Error::new(ErrorKind::NotFound, format!("the definition has no captions for locale `{locale}`"))
                .hint(format!("it has: {}", there.join(", ")))
        })?;
        let templates = templates.iter().map(|Template { text, weight }| Ok((parse(text)?, *weight)));
        let words = rule.words.get(locale).cloned().unwrap_or_default();
        Ok(Self { templates: templates.collect::<Result<_>>()?, words })
    }

    /// Checks that every field of the templates is known.
    ///
    /// # Errors
    /// One is not; with the nearest.
    pub fn check_fields(&self, known: &[&str]) -> Result<()> {
        for name in self.templates.iter().flat_map(|t| fields(&t.0)) {
            if !known.contains(&name) {
                let e = Error::new(
                    ErrorKind::NotFound,
                    format!("a caption template names the field `{name}`, which no record has"),
                );
                return Err(match nearest(name, known.iter().copied()) {
                    Some(near) => e.hint(format!("did you mean `{near}`?")),
                    None => e,
                });
            }
        }
        Ok(())
    }

    /// The caption of a record, and the number of its template from 0; `value` gives its fields, empty for none.
    pub fn caption<'a>(&self, seed: u64, id: &str, value: impl Fn(&str) -> &'a str) -> (String, usize) {
        let chosen = self.choose(draw_lots::unit(seed, "caption", id));
        let mut out = String::new();
        self.write(&self.templates[chosen].0, &value, &mut out);
        (tidy(&out), chosen)
    }

    fn choose(&self, lot: f64) -> usize {
        let total: f64 = self.templates.iter().map(|t| t.1).sum();
        let mut left = lot * total;
        for (i, (_, weight)) in self.templates.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return i;
            }
        }
        0
    }

    /// Writes parts; false if one of their fields has no value.
    fn write<'a>(&self, parts: &[Part], value: &impl Fn(&str) -> &'a str, out: &mut String) -> bool {
        let mut whole = true;
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Optional(inner) => {
                    let before = out.len();
                    if !self.write(inner, value, out) {
                        out.truncate(before);
                    }
                }
                Part::Field { name, case } => {
                    let text = value(name);
                    whole &= !text.is_empty();
                    let text = self.words.get(name).and_then(|w| w.get(text)).map_or(text, String::as_str);
                    out.push_str(&cased(text, *case));
                }
            }
        }
        whole
    }
}

fn cased(text: &str, case: Case) -> String {
    match case {
        Case::AsIs => text.to_string(),
        Case::Lower => text.to_lowercase(),
        Case::Upper => text.to_uppercase(),
        Case::Title => {
            let mut letters = text.chars();
            letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
        }
    }
}

/// Puts right what missing values leave: doubled spaces and commas, spaces before commas.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            ',' | '.' | ';' => {
                out.truncate(out.trim_end().len());
                if c == ',' && (out.is_empty() || out.ends_with(',')) {
                    continue;
                }
                if c == '.' && out.ends_with(',') {
                    out.pop();
                }
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.trim_end_matches([' ', ',']).to_string()
}

fn fields(parts: &[Part]) -> Vec<&str> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Text(_) => {}
            Part::Field { name, .. } => out.push(name.as_str()),
            Part::Optional(inner) => out.extend(fields(inner)),
        }
    }
    out
}

fn parse(text: &str) -> Result<Vec<Part>> {
    let chars: Vec<char> = text.chars().collect();
    let mut stack: Vec<Vec<Part>> = vec![Vec::new()];
    let mut at = 0;
    let wrong = |at: usize, what: &str| {
        Error::invalid(format!("caption template, character {}: {what}: {text}", at + 1))
    };
    while let Some(&c) = chars.get(at) {
        let doubled = chars.get(at + 1) == Some(&c);
        match c {
            '{' | '}' | '[' | ']' if doubled => {
                push(&mut stack, c);
                at += 1;
            }
            '{' => {
                let end = chars[at..]
                    .iter()
                    .position(|c| *c == '}')
                    .ok_or_else(|| wrong(at, "`{` is not closed"))?;
                let inside: String = chars[at + 1..at + end].iter().collect();
                let field = field(&inside).map_err(|what| wrong(at, &what))?;
                top(&mut stack).push(field);
                at += end;
            }
            '[' => stack.push(Vec::new()),
            ']' if stack.len() > 1 => {
                let inner = stack.pop().unwrap_or_default();
                if fields(&inner).is_empty() {
                    return Err(wrong(at, "a clause without a field is not optional"));
                }
                top(&mut stack).push(Part::Optional(inner));
            }
            '}' | ']' => return Err(wrong(at, &format!("`{c}` closes nothing"))),
            other => push(&mut stack, other),
        }
        at += 1;
    }
    match (stack.len(), stack.pop()) {
        (1, Some(parts)) => Ok(parts),
        _ => Err(wrong(chars.len(), "`[` is not closed")),
    }
}

fn top(stack: &mut Vec<Vec<Part>>) -> &mut Vec<Part> {
    if stack.is_empty() {
        stack.push(Vec::new());
    }
    let last = stack.len() - 1;
    &mut stack[last]
}

fn push(stack: &mut Vec<Vec<Part>>, c: char) {
    match top(stack).last_mut() {
        Some(Part::Text(text)) => text.push(c),
        _ => top(stack).push(Part::Text(c.to_string())),
    }
}

fn field(inside: &str) -> Result<Part, String> {
    let (name, case) = inside.split_once('|').unwrap_or((inside, ""));
    let case = match case.trim() {
        "" => Case::AsIs,
        "lower" => Case::Lower,
        "upper" => Case::Upper,
        "title" => Case::Title,
        other => return Err(format!("`{other}` is not one of lower, upper, title")),
    };
    match name.trim() {
        "" => Err("a field has no name".into()),
        name => Ok(Part::Field { name: name.into(), case }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captioner(texts: &[(&str, f64)]) -> Result<Captioner> {
        let of = |(text, weight): &(&str, f64)| Template { text: text.to_string(), weight: *weight };
        let words = serde_json::json!({"pt": {"baseColour": {"Navy Blue": "azul-marinho"}}});
        let rule = CaptionRule {
            templates: [("pt".to_string(), texts.iter().map(of).collect())].into(),
            words: serde_json::from_value(words).unwrap(),
        };
        Captioner::new(&rule, "pt")
    }

    fn one(text: &str, values: &[(&str, &str)]) -> String {
        let value = |name: &str| values.iter().find(|v| v.0 == name).map_or("", |v| v.1);
        captioner(&[(text, 1.0)]).unwrap().caption(0, "1", value).0
    }

    #[test]
    fn clauses_without_value_are_left_out_cleanly() {
        let text = "A photo of {baseColour|lower} {articleType|lower}[, {season|lower} collection][, {gender|lower}], centered";
        let all =
            [("baseColour", "Red"), ("articleType", "Casual Shoes"), ("season", "Fall"), ("gender", "Men")];
        assert_eq!(one(text, &all), "A photo of red casual shoes, fall collection, men, centered");
        assert_eq!(one(text, &all[..2]), "A photo of red casual shoes, centered");
        assert_eq!(one(text, &all[1..2]), "A photo of casual shoes, centered");
        assert_eq!(one(text, &[]), "A photo of, centered");
        assert_eq!(one("{a}, {b}, {c}.", &[("b", "x")]), "x.");
        assert_eq!(one("x[ [of {a}] {b}]", &[("b", "y")]), "x y");
        assert_eq!(one("[[{a|title}]] {{b}}", &[("a", "étoile")]), "[Étoile] {b}");
    }

    #[test]
    fn a_locale_has_its_own_names_of_values() {
        assert_eq!(one("tênis {baseColour}", &[("baseColour", "Navy Blue")]), "tênis azul-marinho");
        assert_eq!(one("tênis {baseColour|lower}", &[("baseColour", "Teal")]), "tênis teal");
    }

    #[test]
    fn templates_are_chosen_by_their_weights() {
        let c = captioner(&[("{a} one", 3.0), ("{a} two", 1.0), ("{a} never", 0.0)]).unwrap();
        let mut counts = [0; 3];
        (0..4000).for_each(|i| counts[c.caption(7, &i.to_string(), |_| "x").1] += 1);
        assert!((2900..3100).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn malformed_templates_say_where() {
        for (text, expected) in [
            ("a {b", "character 3: `{` is not closed"),
            ("a [b {c}", "`[` is not closed"),
            ("a ]", "character 3: `]` closes nothing"),
            ("a [b]", "without a field"),
            ("{a|loud}", "`loud` is not one of"),
            ("{}", "no name"),
        ] {
            let e = captioner(&[(text, 1.0)]).unwrap_err();
            assert!(e.message().contains(expected), "{text}: {e}");
        }
        let e = captioner(&[("{seson}", 1.0)]).unwrap().check_fields(&["season", "gender"]).unwrap_err();
        assert!(e.hints()[0].contains("`season`"));
    }
}
