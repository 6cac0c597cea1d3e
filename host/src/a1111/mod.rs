//! The `parameters` text that A1111 and its relatives keep in images: prompt, negative prompt, settings.

mod hires;

use crate::items::{SamplerItem, ScheduleItem};
use atelier_sdk::{Error, ErrorKind, Keyed, Registry, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

const NEGATIVE: &str = "Negative prompt: ";

/// Names of fields there and here; sampler, schedule and size need more than a new name.
const FIELDS: [(&str, &str); 6] = [
    ("Steps", "steps"),
    ("CFG scale", "cfg_scale"),
    ("Seed", "seed"),
    ("Clip skip", "clip_skip"),
    ("Variation seed", "subseed"),
    ("Variation seed strength", "subseed_strength"),
];

/// The model of an image.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// Its key.
    pub name: &'a str,
    /// The digest of its UNet's file.
    pub sha256: Option<&'a str>,
}

/// Writes the text for the parameters of an image.
pub fn format(
    params: &Map<String, Value>,
    model: Model<'_>,
    loras: &Map<String, Value>,
    samplers: &Registry<SamplerItem>,
    schedules: &Registry<ScheduleItem>,
) -> String {
    let text = |key: &str| params.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = text("prompt").to_string();
    if !text("negative_prompt").is_empty() {
        out += &format!("\n{NEGATIVE}{}", text("negative_prompt"));
    }
    let mut settings: Vec<String> = Vec::new();
    let mut push = |name: &str, value: Option<String>| {
        settings.extend(value.map(|v| format!("{name}: {}", quoted(&v))));
    };
    let number = |key: &str| params.get(key).filter(|v| v.is_number()).map(Value::to_string);
    push("Steps", number("steps"));
    push("Sampler", samplers.find(text("sampler")).map(|s| s.about.title.clone()));
    push("Schedule type", schedules.find(text("schedule")).map(|s| s.about.title.clone()));
    push("CFG scale", number("cfg_scale"));
    push("Seed", number("seed"));
    push("Size", number("width").zip(number("height")).map(|(w, h)| format!("{w}x{h}")));
    let varied = params.get("subseed_strength").and_then(Value::as_f64).is_some_and(|s| s > 0.0);
    push("Variation seed", number("subseed").filter(|_| varied));
    push("Variation seed strength", number("subseed_strength").filter(|_| varied));
    for (name, value) in hires::write(params, samplers, schedules) {
        push(name, Some(value));
    }
    push("Clip skip", number("clip_skip").filter(|n| n != "1"));
    // The ten first digits, as A1111 shortens them.
    push("Model hash", model.sha256.and_then(|sha256| sha256.get(..10)).map(str::to_string));
    push("Model", (!model.name.is_empty()).then(|| model.name.to_string()));
    push("Lora hashes", lora_hashes(loras));
    push("Version", Some(format!("atelier {}", env!("CARGO_PKG_VERSION"))));
    out + "\n" + &settings.join(", ")
}

/// `name: digits, name: digits`: the first 12 digits of each file's SHA-256. (A1111 leaves a file's header out; its
/// digits tell files apart as these do, but are not the same.)
fn lora_hashes(loras: &Map<String, Value>) -> Option<String> {
    let hashes = loras.iter().filter_map(|(name, file)| {
        // Named by its path.
        let path = Some(Path::new(name))
            .filter(|p| p.file_name().is_some_and(|n| file["file"].as_str() == n.to_str()));
        let stem = path.and_then(Path::file_stem).and_then(|s| s.to_str());
        Some(format!("{}: {}", stem.unwrap_or(name), file["sha256"].as_str()?.get(..12)?))
    });
    let all: Vec<String> = hashes.collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// A value that holds a separator is written as a JSON string, as A1111 does.
fn quoted(value: &str) -> String {
    match value.contains([',', ':', '\n', '"']) {
        true => Value::String(value.to_string()).to_string(),
        false => value.to_string(),
    }
}

/// Reads the text back into parameters of `txt2img`. Settings without a counterpart are left out and
/// returned by name.
///
/// # Errors
/// The text has no settings line, or one of them cannot be read.
pub fn parse(
    text: &str,
    samplers: &Registry<SamplerItem>,
    schedules: &Registry<ScheduleItem>,
) -> Result<(Map<String, Value>, Vec<String>)> {
    let (prompts, line) = split_settings(text)?;
    let (prompt, negative) = match prompts.split_once(NEGATIVE) {
        Some((p, n)) => (p.trim_end(), n.trim_end()),
        None => (prompts.trim_end(), ""),
    };
    let mut out = Map::from_iter([
        ("prompt".to_string(), json!(prompt)),
        ("negative_prompt".to_string(), json!(negative)),
    ]);
    if prompts.contains(['{', '}']) {
        // Braces are letters there, and choices here.
        out.insert("prompt_templates".into(), json!(false));
    }
    let mut left = Vec::new();
    let mut settings = settings(line);
    if let Some(hires) = hires::take(&mut settings, samplers, schedules)? {
        out.insert("hires".into(), hires);
    }
    for (name, value) in settings {
        let known = FIELDS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
        match (name.as_str(), known) {
            (_, Some(ours)) => {
                let number: Value = serde_json::from_str(&value).map_err(|_| unreadable(&name, &value))?;
                out.insert(ours.into(), number);
            }
            ("Size", _) => {
                let (w, h) = value.split_once('x').ok_or_else(|| unreadable(&name, &value))?;
                for (key, side) in [("width", w), ("height", h)] {
                    let side: u32 = side.parse().map_err(|_| unreadable(&name, &value))?;
                    out.insert(key.into(), side.into());
                }
            }
            ("Sampler", _) => put_sampler(&value, &mut out, samplers, schedules),
            ("Schedule type", _) => {
                out.insert("schedule".into(), json!(name_of(schedules, &value)));
            }
            _ => left.push(name),
        }
    }
    Ok((out, left))
}

fn unreadable(name: &str, value: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the image's setting `{name}` is `{value}`"))
}

fn split_settings(text: &str) -> Result<(&str, &str)> {
    let start = text.rfind("\nSteps: ").map(|i| i + 1).or(text.starts_with("Steps: ").then_some(0));
    let start = start.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the image's `parameters` text has no line that begins with `Steps:`")
    })?;
    Ok((&text[..start], text[start..].lines().next().unwrap_or_default()))
}

/// Older versions wrote the schedule behind the sampler's name: "DPM++ 2M Karras".
fn put_sampler(
    value: &str,
    out: &mut Map<String, Value>,
    samplers: &Registry<SamplerItem>,
    schedules: &Registry<ScheduleItem>,
) {
    let older =
        value.rsplit_once(' ').filter(|(_, s)| samplers.find(value).is_none() && schedules.find(s).is_some());
    if let Some((sampler, schedule)) = older {
        out.insert("sampler".into(), json!(name_of(samplers, sampler)));
        out.insert("schedule".into(), json!(name_of(schedules, schedule)));
        return;
    }
    out.insert("sampler".into(), json!(name_of(samplers, value)));
}

/// The key of the item that is meant; else the name itself, for validation to refuse.
fn name_of<T: Keyed>(registry: &Registry<T>, name: &str) -> String {
    registry.find(name).map_or(name.to_string(), |item| registry.name_of(item))
}

/// `Name: value, Name: "value, with comma"`.
fn settings(line: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once(": ") {
        let quoted = after.starts_with('"').then(|| {
            let mut stream = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = stream.next().and_then(std::result::Result::ok);
            value.map(|v| (v, stream.byte_offset()))
        });
        let (value, end) = match quoted.flatten() {
            Some(found) => found,
            None => {
                let end = after.find(", ").unwrap_or(after.len());
                (after[..end].to_string(), end)
            }
        };
        out.push((name.trim().to_string(), value));
        rest = after[end..].trim_start_matches([',', ' ']);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_commas_in_quotes_stay_whole() {
        let found = settings("Steps: 20, Lora hashes: \"a: 1, b: 2\", Size: 512x768");
        assert_eq!(found[1], ("Lora hashes".into(), "a: 1, b: 2".into()));
        assert_eq!(found[2], ("Size".into(), "512x768".into()));
    }

    #[test]
    fn text_of_another_program_is_read_and_what_is_unknown_is_named() {
        let samplers = Registry::new("sampler", []).unwrap();
        let schedules = Registry::new("schedule", []).unwrap();
        let text = "red shoes,\nNegative: no\nNegative prompt: blurry\nSteps: 30, Sampler: Euler a, \
                    CFG scale: 7.5, Seed: 99, Size: 512x768, Clip skip: 2, ENSD: 31337";
        let (params, left) = parse(text, &samplers, &schedules).unwrap();
        assert_eq!(params["prompt"], "red shoes,\nNegative: no");
        assert_eq!(params["negative_prompt"], "blurry");
        assert_eq!((&params["steps"], &params["cfg_scale"]), (&json!(30), &json!(7.5)));
        assert_eq!((&params["width"], &params["height"]), (&json!(512), &json!(768)));
        assert_eq!(params["sampler"], "Euler a");
        assert_eq!((&params["clip_skip"], params.get("prompt_templates")), (&json!(2), None));
        assert_eq!(left, ["ENSD"]);
    }

    #[test]
    fn text_without_settings_is_refused() {
        let samplers = Registry::new("sampler", []).unwrap();
        let schedules = Registry::new("schedule", []).unwrap();
        assert!(parse("just a prompt", &samplers, &schedules).is_err());
        assert!(parse("Steps: 1, Size: huge", &samplers, &schedules).is_err());
    }
}
