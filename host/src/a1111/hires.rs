//! The settings of a second pass ("Hires. fix") in A1111's text.

use super::unreadable;
use crate::items::{SamplerItem, ScheduleItem};
use atelier_sdk::{Registry, Result};
use serde_json::{Map, Value, json};

/// A1111's names of upscalers, and ours. `Bicubic` is ours alone.
const UPSCALERS: [(&str, &str); 7] = [
    ("Latent", "latent"),
    ("Latent (nearest)", "latent-nearest"),
    ("Latent (bicubic)", "latent-bicubic"),
    ("Latent (antialiased)", "latent-antialiased"),
    ("Lanczos", "lanczos"),
    ("Nearest", "nearest"),
    ("Bicubic", "bicubic"),
];

/// The settings of a request's second pass, if it has one.
pub(super) fn write(
    params: &Map<String, Value>,
    samplers: &Registry<SamplerItem>,
    schedules: &Registry<ScheduleItem>,
) -> Vec<(&'static str, String)> {
    let Some(hires) = params.get("hires").and_then(Value::as_object) else { return Vec::new() };
    let text = |key: &str| hires.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    if !["scale", "width", "height"]
        .iter()
        .any(|key| hires.get(*key).and_then(Value::as_f64).is_some_and(|n| n > 0.0))
    {
        return Vec::new();
    }
    let number = |key: &str| hires.get(key).filter(|v| v.as_f64().is_some_and(|n| n != 0.0));
    let side = |key: &str| hires.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut out = Vec::new();
    let mut push = |name, value: Option<String>| out.extend(value.map(|v| (name, v)));
    push("Denoising strength", hires.get("strength").map(Value::to_string));
    match (side("width"), side("height")) {
        (0, 0) => push("Hires upscale", number("scale").map(Value::to_string)),
        (w, h) => push("Hires resize", Some(format!("{w}x{h}"))),
    }
    push("Hires steps", number("steps").map(Value::to_string));
    let theirs = |ours: &str| UPSCALERS.iter().find(|u| u.1 == ours).map(|u| u.0.to_string());
    // A network goes by its own name.
    let network = text("upscaler").filter(|ours| *ours == "model").and_then(|_| text("model"));
    push("Hires upscaler", network.map(str::to_string).or_else(|| text("upscaler").and_then(theirs)));
    push("Hires sampler", text("sampler").and_then(|s| Some(samplers.find(s)?.about.title.clone())));
    push("Hires schedule type", text("schedule").and_then(|s| Some(schedules.find(s)?.about.title.clone())));
    push("Hires CFG Scale", number("cfg_scale").map(Value::to_string));
    push("Hires prompt", text("prompt").map(str::to_string));
    push("Hires negative prompt", text("negative_prompt").map(str::to_string));
    out
}

/// Takes the settings of a second pass out of all settings. None if there are none: a denoising strength alone belongs
/// to another task.
///
/// # Errors
/// One of them cannot be read.
pub(super) fn take(
    settings: &mut Vec<(String, String)>,
    samplers: &Registry<SamplerItem>,
    schedules: &Registry<ScheduleItem>,
) -> Result<Option<Value>> {
    let is_size = |name: &str| matches!(name, "Hires upscale" | "Hires resize");
    if !settings.iter().any(|(name, _)| is_size(name)) {
        return Ok(None);
    }
    let mut hires = Map::new();
    let mut rest = Vec::new();
    for (name, value) in std::mem::take(settings) {
        let bad = || unreadable(&name, &value);
        let number = || serde_json::from_str::<serde_json::Number>(&value).map_err(|_| bad());
        let (key, value) = match name.as_str() {
            "Denoising strength" => ("strength", json!(number()?)),
            "Hires upscale" => ("scale", json!(number()?)),
            "Hires steps" => ("steps", json!(number()?)),
            "Hires CFG Scale" => ("cfg_scale", json!(number()?)),
            "Hires sampler" => ("sampler", json!(super::name_of(samplers, &value))),
            "Hires schedule type" => ("schedule", json!(super::name_of(schedules, &value))),
            "Hires prompt" => ("prompt", json!(value)),
            "Hires negative prompt" => ("negative_prompt", json!(value)),
            "Hires upscaler" => match UPSCALERS.iter().find(|u| u.0 == value) {
                Some((_, ours)) => ("upscaler", json!(ours)),
                // A network that only A1111's own user has: named among what is left out.
                None => {
                    rest.push((name, value));
                    continue;
                }
            },
            "Hires resize" => {
                let (w, h) = value.split_once('x').ok_or_else(bad)?;
                let side = |s: &str| s.parse::<u32>().map_err(|_| bad());
                hires.insert("width".into(), json!(side(w)?));
                ("height", json!(side(h)?))
            }
            _ => {
                rest.push((name, value));
                continue;
            }
        };
        hires.insert(key.into(), value);
    }
    *settings = rest;
    Ok(Some(Value::Object(hires)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries() -> (Registry<SamplerItem>, Registry<ScheduleItem>) {
        (Registry::new("sampler", []).unwrap(), Registry::new("schedule", []).unwrap())
    }

    #[test]
    fn a_second_pass_is_read_back_as_it_was_written() {
        let (samplers, schedules) = registries();
        for hires in [
            json!({"scale": 1.5, "strength": 0.55, "upscaler": "latent-antialiased", "steps": 12}),
            json!({"width": 768, "height": 0, "strength": 0.7, "upscaler": "lanczos", "prompt": "red, shoes"}),
        ] {
            let params = Map::from_iter([("hires".to_string(), hires.clone())]);
            let text = super::super::format(
                &params,
                super::super::Model { name: "", sha256: None },
                &Map::new(),
                &samplers,
                &schedules,
            );
            let (read, left) =
                super::super::parse(&format!("p\nSteps: 20, {}", &text[1..]), &samplers, &schedules).unwrap();
            assert_eq!(read["hires"], hires, "{text}");
            assert_eq!(left, ["Version"]);
        }
    }

    #[test]
    fn another_program_s_upscaler_is_named_and_a_strength_alone_is_no_second_pass() {
        let (samplers, schedules) = registries();
        let parse = |text: &str| super::super::parse(text, &samplers, &schedules).unwrap();
        let (params, left) =
            parse("p\nSteps: 20, Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: 4x-UltraSharp");
        assert_eq!(params["hires"], json!({"strength": 0.4, "scale": 2}));
        assert_eq!(left, ["Hires upscaler"]);
        let (params, left) = parse("p\nSteps: 20, Denoising strength: 0.4");
        assert!(params.get("hires").is_none() && left == ["Denoising strength"]);
        assert!(super::super::parse("p\nSteps: 20, Hires upscale: big", &samplers, &schedules).is_err());
    }
}
