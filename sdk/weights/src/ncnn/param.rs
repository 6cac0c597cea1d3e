//! The text file: `7767517`, then how many layers and blobs there are, then a line for each layer: its type and name, how
//! many blobs it takes and gives, their names, and its parameters as `number=value`, or `-23300-number=count,value,...` for
//! arrays (<https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure>).

use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

const MAGIC: &str = "7767517";
/// More layers and blobs than any image model has.
const MAX_LAYERS: usize = 100_000;
/// Parameters of a layer have smaller numbers (`NCNN_MAX_PARAM_COUNT`).
const MAX_PARAMETERS: i64 = 32;
/// What the numbers of arrays count down from.
const ARRAY: i64 = -23300;

/// A layer as the text describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct NcnnLayer {
    /// What it does: `Convolution`, `PReLU`.
    pub kind: String,
    /// Its own name.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<String>,
    /// What it gives.
    pub outputs: Vec<String>,
    parameters: BTreeMap<i64, Vec<f64>>,
}

impl NcnnLayer {
    /// Parameter `number`, if it is there and is one value.
    pub fn number(&self, number: i64) -> Option<f64> {
        match self.parameters.get(&number)?[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// Parameter `number` as a count; `default` where it is not there, none where it is no count.
    pub fn count(&self, number: i64, default: usize) -> Option<usize> {
        let Some(values) = self.parameters.get(&number) else { return Some(default) };
        // Beyond 2^32 nothing is a count here.
        let count = |v: f64| (v.fract() == 0.0 && (0.0..=4294967296.0).contains(&v)).then_some(v as usize);
        if let [value] = values[..] { count(value) } else { None }
    }

    /// Parameter `number` as a list: empty where it is not there.
    pub fn list(&self, number: i64) -> &[f64] {
        self.parameters.get(&number).map_or(&[], Vec::as_slice)
    }
}

/// The layers of a text; `path` is for messages.
pub(super) fn read(text: &[u8], path: &Path) -> Result<Vec<NcnnLayer>> {
    let wrong =
        |line: usize, message: String| Error::NcnnParam { path: path.into(), line: line + 1, message };
    let text = std::str::from_utf8(text).map_err(|_| {
        wrong(0, "expected the text file of an ncnn model, found bytes that are no text".into())
    })?;
    let mut lines = text.lines().enumerate().map(|(i, line)| (i, line.trim())).filter(|(_, l)| !l.is_empty());
    let (line, magic) = lines.next().unwrap_or((0, ""));
    if magic != MAGIC {
        let found: String = magic.chars().take(40).collect();
        return Err(wrong(
            line,
            format!("expected {MAGIC}, with which ncnn's text files begin, found {found:?}"),
        ));
    }
    let (line, counts) = lines.next().unwrap_or((line, ""));
    let declared: Vec<usize> = counts.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [layer_count, blob_count] = declared[..] else {
        return Err(wrong(line, "expected the counts of layers and blobs, found something else".into()));
    };
    if layer_count > MAX_LAYERS || blob_count > MAX_LAYERS {
        let message =
            format!("expected at most {MAX_LAYERS} layers and blobs, found {layer_count} and {blob_count}");
        return Err(wrong(line, message));
    }
    let (mut layers, mut blobs) = (Vec::new(), HashSet::new());
    for (line, text) in lines {
        if layers.len() == layer_count {
            return Err(wrong(line, format!("expected {layer_count} layers, found more")));
        }
        let layer = layer(text).map_err(|message| wrong(line, message))?;
        if let Some(missing) = layer.inputs.iter().find(|blob| !blobs.contains(*blob)) {
            return Err(wrong(line, format!("expected blobs of layers before it, found {missing:?}")));
        }
        if let Some(twice) = layer.outputs.iter().find(|blob| !blobs.insert((*blob).clone())) {
            return Err(wrong(line, format!("expected each blob once, found {twice:?} twice")));
        }
        layers.push(layer);
    }
    if (layers.len(), blobs.len()) != (layer_count, blob_count) {
        let found = format!("{} and {}", layers.len(), blobs.len());
        return Err(wrong(
            line,
            format!("expected {layer_count} layers and {blob_count} blobs, found {found}"),
        ));
    }
    Ok(layers)
}

fn layer(line: &str) -> std::result::Result<NcnnLayer, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [kind, name, inputs, outputs, rest @ ..] = &words[..] else {
        return Err("expected a layer's type, name and counts of blobs, found less".into());
    };
    let count = |text: &str| {
        let count = text.parse::<usize>().ok().filter(|n| *n <= rest.len());
        count.ok_or_else(|| format!("expected a count of blobs, found {text:?}"))
    };
    let (inputs, outputs) = (count(inputs)?, count(outputs)?);
    if inputs + outputs > rest.len() {
        return Err(format!("expected {} names of blobs, found {}", inputs + outputs, rest.len()));
    }
    let (blobs, parameters) = rest.split_at(inputs + outputs);
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let mut found = BTreeMap::new();
    for text in parameters {
        let (number, values) =
            parameter(text).ok_or_else(|| format!("expected a parameter `number=value`, found {text:?}"))?;
        if found.insert(number, values).is_some() {
            return Err(format!("expected each parameter once, found {number} twice"));
        }
    }
    Ok(NcnnLayer {
        kind: kind.to_string(),
        name: name.to_string(),
        inputs: owned(&blobs[..inputs]),
        outputs: owned(&blobs[inputs..]),
        parameters: found,
    })
}

fn parameter(text: &str) -> Option<(i64, Vec<f64>)> {
    let (number, value) = text.split_once('=')?;
    let number: i64 = number.parse().ok()?;
    let finite = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
    if number > ARRAY {
        return (0..MAX_PARAMETERS).contains(&number).then_some((number, vec![finite(value)?]));
    }
    let number = ARRAY.checked_sub(number)?;
    let mut values = value.split(',');
    let count: usize = values.next()?.parse().ok()?;
    let values: Vec<f64> = values.map(finite).collect::<Option<_>>()?;
    (count == values.len() && number < MAX_PARAMETERS).then_some((number, values))
}
