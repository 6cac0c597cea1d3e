//! Tags in prompts: `<lora:name:1>`.

use super::Problem;
use std::ops::Range;

/// A `<lora:name:te:unet>` of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraTag {
    /// Its name: anything without `:` and `>`.
    pub name: String,
    /// Its strength in the text encoder.
    pub te: f64,
    /// Its strength in the UNet.
    pub unet: f64,
    /// Where the tag stands, in bytes.
    pub at: Range<usize>,
}

impl LoraTag {
    /// That a LoRA is asked for where none can be.
    pub fn refuse(&self) -> Problem {
        let message =
            format!("`{}` is a LoRA, which acts on the whole model: name it in the prompt", self.name);
        Problem { at: self.at.clone(), message }
    }
}

/// The prompt without its tags, and the tags. As in A1111 a tag leaves nothing behind, not even a space.
///
/// One number is the strength in both networks, two are text encoder and UNet, none is 1; `te=0.5` and
/// `unet=0.5` are taken too.
///
/// # Errors
/// A tag without a name, or with something else than numbers behind it; a hypernetwork.
pub fn extract(text: &str) -> Result<(String, Vec<LoraTag>), Problem> {
    let (mut out, mut tags) = (String::new(), Vec::new());
    let mut begin = 0;
    for (at, _) in text.match_indices('<') {
        if at < begin {
            continue;
        }
        let Some((kind, inside, length)) = tag(&text[at..]) else { continue };
        let range = at..at + length;
        let problem = |message: String| Problem { at: range.clone(), message };
        match kind {
            "lora" | "lyco" => tags.push(read(inside, range.clone()).map_err(problem)?),
            "hypernet" => {
                return Err(problem(format!("`{inside}` is a hypernetwork, which nothing here applies")));
            }
            _ => continue,
        }
        out.push_str(&text[begin..at]);
        begin = range.end;
    }
    out.push_str(&text[begin..]);
    Ok((out, tags))
}

/// Kind, what follows it, and the length of a tag that the text begins with.
fn tag(text: &str) -> Option<(&str, &str, usize)> {
    let end = text.find('>')?;
    let (kind, inside) = text[1..end].split_once(':')?;
    Some((kind, inside, end + 1))
}

fn read(inside: &str, at: Range<usize>) -> Result<LoraTag, String> {
    let mut items = inside.split(':');
    let name = items.next().unwrap_or_default().to_string();
    if name.trim().is_empty() {
        return Err("a LoRA tag without a name".into());
    }
    let (mut numbers, mut te, mut unet) = (Vec::new(), None, None);
    for item in items {
        match item.split_once('=') {
            None => numbers.push(strength(item)?),
            Some(("te", value)) => te = Some(strength(value)?),
            Some(("unet", value)) => unet = Some(strength(value)?),
            Some((key, _)) => return Err(format!("a LoRA tag has no `{key}`: it takes te and unet")),
        }
    }
    if numbers.len() > 2 {
        return Err(format!("a LoRA tag takes two strengths, not {}", numbers.len()));
    }
    let te = te.or(numbers.first().copied()).unwrap_or(1.0);
    let unet = unet.or(numbers.get(1).copied()).unwrap_or(te);
    Ok(LoraTag { name, te, unet, at })
}

fn strength(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|v| v.is_finite());
    number.ok_or_else(|| format!("`{text}` is not a strength of a LoRA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, String, f64, f64) {
        let (rest, tags) = extract(text).unwrap();
        assert_eq!(tags.len(), 1, "{text}");
        (rest, tags[0].name.clone(), tags[0].te, tags[0].unet)
    }

    #[test]
    fn tags_are_taken_out_with_their_strengths() {
        let of = |rest: &str, name: &str, te, unet| (rest.to_string(), name.to_string(), te, unet);
        assert_eq!(one("a <lora:shoes:0.8> b"), of("a  b", "shoes", 0.8, 0.8));
        assert_eq!(one("<lora:shoes>"), of("", "shoes", 1.0, 1.0));
        assert_eq!(one("<lora:s:0.5:-1>"), of("", "s", 0.5, -1.0));
        assert_eq!(one("<lora:s:te=0.2:unet=0.3>"), of("", "s", 0.2, 0.3));
        assert_eq!(one("<lora:s:0.5:unet=0>"), of("", "s", 0.5, 0.0));
    }

    #[test]
    fn names_may_hold_any_letters() {
        assert_eq!(one("x<lora:My style (v1.5) [é] {a}_-/b:1>").1, "My style (v1.5) [é] {a}_-/b");
        let (rest, tags) = extract("<lora:a:1><lora:b:2> c").unwrap();
        assert_eq!((rest.as_str(), tags.len(), tags[1].at.clone()), (" c", 2, 10..20));
    }

    #[test]
    fn what_is_no_tag_stays() {
        for text in ["a < b", "<b>", "<lora", "<lora:", "a <3:x> >", "&lt;", "<<>"] {
            assert_eq!(extract(text).unwrap(), (text.to_string(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn broken_tags_are_problems() {
        for (text, word) in [
            ("<lora::1>", "name"),
            ("<lora:a:strong>", "strong"),
            ("<lora:a:inf>", "inf"),
            ("<lora:a:1:2:3>", "two"),
            ("<lora:a:dyn=4>", "dyn"),
            ("<hypernet:a:1>", "hypernetwork"),
        ] {
            let problem = extract(text).unwrap_err();
            assert!(problem.message.contains(word), "{text}: {problem:?}");
            assert_eq!(problem.at, 0..text.len());
        }
    }
}
