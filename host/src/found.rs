//! Files that a request means by name: LoRAs, looked for in folders of their own, and models that enlarge images.

use crate::config::Config;
use crate::digests;
use crate::inputs::Inputs;
use crate::paths::{self, Paths};
use crate::registries::Registries;
use atelier_sdk::engine::FoundFile;
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Endings of files with tensors.
const ENDINGS: [&str; 4] = ["safetensors", "ckpt", "pt", "bin"];
/// What makes a folder an adapter, and the files in it that matter.
const IN_FOLDER: [&str; 3] =
    ["adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors"];
/// How deep folders are searched.
const DEPTH: usize = 4;

/// Where files of each kind are looked for.
#[derive(Debug, Default)]
pub struct Folders {
    lora: Vec<PathBuf>,
}

impl Folders {
    /// `loras/` of each config folder, the folders of the settings, and `loras/` of the user's data folder.
    pub fn new(paths: &Paths, config: &Config) -> Self {
        let mut lora: Vec<PathBuf> = paths.configs.iter().map(|dir| dir.join("loras")).collect();
        lora.extend(config.lora_dirs().iter().cloned());
        lora.extend(paths::user_data_dir().map(|dir| dir.join("loras")));
        Self { lora }
    }

    fn of(&self, kind: &str) -> Result<&[PathBuf]> {
        match kind {
            "lora" => Ok(&self.lora),
            _ => Err(Error::internal(format!("an engine looks for files of the kind `{kind}`"))
                .hint("there are: lora, upscaler")),
        }
    }

    /// The file of this name: its path below one of the folders, or its own name, without ending.
    ///
    /// # Errors
    /// None, with the nearest name and the folders; several in different places.
    pub fn find(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let folders = self.of(kind)?;
        let mut all: Vec<(String, PathBuf)> = Vec::new();
        for folder in folders {
            walk(folder, "", DEPTH, &mut all);
        }
        if let Some((_, path)) = all.iter().find(|(known, _)| known == name) {
            return Ok(path.clone());
        }
        let last = |known: &str| known.rsplit('/').next().unwrap_or_default().to_string();
        let found: Vec<_> = all.iter().filter(|(known, _)| last(known) == name).collect();
        match found.as_slice() {
            [(_, path)] => Ok(path.clone()),
            [] => Err(missing(kind, name, folders, &all)),
            several => {
                let names: Vec<&str> = several.iter().map(|(known, _)| known.as_str()).collect();
                Err(Error::invalid(format!("{} files are called `{name}`", names.len()))
                    .hint(format!("say which: {}", names.join(", "))))
            }
        }
    }
}

fn missing(kind: &str, name: &str, folders: &[PathBuf], all: &[(String, PathBuf)]) -> Error {
    let e = Error::new(ErrorKind::NotFound, format!("there is no {kind} `{name}`"));
    let e = match nearest(name, all.iter().map(|(known, _)| known.as_str())) {
        Some(near) => e.hint(format!("did you mean `{near}`?")),
        None => e,
    };
    let e = if all.is_empty() { e } else { e.hint(format!("there are: {}", listed(all))) };
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    e.hint(format!("looked in: {}", looked.join(", ")))
}

fn listed(all: &[(String, PathBuf)]) -> String {
    const MOST: usize = 20;
    let some: Vec<&str> = all.iter().take(MOST).map(|(known, _)| known.as_str()).collect();
    format!("{}{}", some.join(", "), if all.len() > MOST { ", ..." } else { "" })
}

/// Files with tensors below a folder, by their paths without ending, and folders that are adapters.
fn walk(folder: &Path, at: &str, depth: usize, out: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) else {
            continue;
        };
        let below = |name: &str| if at.is_empty() { name.to_string() } else { format!("{at}/{name}") };
        if path.is_dir() {
            if IN_FOLDER.iter().any(|file| path.join(file).is_file()) {
                out.push((below(name), path.clone()));
            } else if depth > 0 {
                walk(&path, &below(name), depth - 1, out);
            }
        } else if let Some((stem, end)) = name.rsplit_once('.')
            && ENDINGS.contains(&end)
        {
            out.push((below(stem), path.clone()));
        }
    }
}

/// Models that enlarge images, as their descriptions have it.
const UPSCALER: &str = "esrgan";
/// Endings of files that such a model's network is in.
const NETWORKS: [&str; 4] = ["safetensors", "pth", "pt", "bin"];

/// The file or folder of a described model that enlarges images.
fn upscaler(name: &str, registries: &Registries) -> Result<PathBuf> {
    let model = registries.model(name)?;
    if model.spec.architecture == UPSCALER {
        return Ok(model.spec.weights()?.into());
    }
    let all: Vec<&str> = registries
        .models
        .iter()
        .map(|m| &m.spec)
        .filter(|s| s.architecture == UPSCALER)
        .map(|s| s.key.as_str())
        .collect();
    let e = Error::invalid(format!(
        "model `{name}` enlarges no images: its architecture is `{}`",
        model.spec.architecture
    ));
    Err(if all.is_empty() { e } else { e.hint(format!("these do: {}", all.join(", "))) })
}

/// The files found in a run.
#[derive(Debug, Default)]
pub struct Found {
    loras: BTreeMap<String, FoundFile>,
}

impl Found {
    /// The file that a request means by `name`: its path if a field of the request names it, else one of the folders.
    ///
    /// # Errors
    /// Those of [`Folders::find`]; the file cannot be read.
    pub fn find(
        &mut self,
        kind: &str,
        name: &str,
        registries: &Registries,
        inputs: &Inputs,
    ) -> Result<FoundFile> {
        if kind == "upscaler" {
            let path = if inputs.names(name) { PathBuf::from(name) } else { upscaler(name, registries)? };
            return Ok(FoundFile { sha256: digests::of_file(&network(&path))?, path });
        }
        if let Some(known) = self.loras.get(name) {
            return Ok(known.clone());
        }
        let path =
            if inputs.names(name) { PathBuf::from(name) } else { registries.files.find(kind, name)? };
        let sha256 = digests::of_file(&content(&path))?;
        let found = FoundFile { path, sha256 };
        self.loras.insert(name.into(), found.clone());
        Ok(found)
    }

    /// The adapters, for the metadata: name → `{file, sha256}`. Not the whole path: pictures are shared, and folders are nobody
    /// else's business.
    pub fn record(&self) -> Value {
        let about = |file: &FoundFile| {
            let name = file.path.file_name().map(|name| name.to_string_lossy());
            json!({"file": name, "sha256": file.sha256})
        };
        Value::Object(self.loras.iter().map(|(name, file)| (name.clone(), about(file))).collect())
    }
}

/// A file of the network in a folder; of several the first.
fn network(path: &Path) -> PathBuf {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    let ending = |p: &PathBuf| p.extension().is_some_and(|e| NETWORKS.iter().any(|n| e == *n));
    entries.filter(ending).min().unwrap_or_else(|| path.into())
}

/// The file whose content an adapter is.
fn content(path: &Path) -> PathBuf {
    let inside = IN_FOLDER.iter().map(|file| path.join(file)).find(|file| file.is_file());
    inside.filter(|_| path.is_dir()).unwrap_or_else(|| path.into())
}

/// Those of a run's adapters that an image with these parameters was made with: named by a tag of its prompt, or in a
/// list of the parameters.
pub fn used(loras: &Map<String, Value>, params: &Map<String, Value>) -> Map<String, Value> {
    let prompt = params.get("prompt").and_then(Value::as_str).unwrap_or_default();
    let tagged = |name: &str| {
        ["lora", "lyco"].iter().any(|tag| {
            let start = format!("<{tag}:{name}");
            prompt.match_indices(&start).any(|(i, _)| prompt[i + start.len()..].starts_with([':', '>']))
        })
    };
    let list = params.get("loras").and_then(Value::as_array);
    let listed = |name: &str| {
        list.into_iter().flatten().any(|item| ["name", "path"].iter().any(|field| item[field] == name))
    };
    loras
        .iter()
        .filter(|(name, _)| tagged(name) || listed(name))
        .map(|(n, f)| (n.clone(), f.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"abc").unwrap();
        }
        dir
    }

    #[test]
    fn a_name_is_a_path_without_ending_or_its_last_part() {
        let dir = folder(&[
            "a.safetensors",
            "shoes/red.v1.safetensors",
            "shoes/two.pt",
            "hats/two.pt",
            "peft/adapter_model.safetensors",
            "notes.txt",
        ]);
        let folders = Folders { lora: vec![dir.path().join("none"), dir.path().into()] };
        let found = |name: &str| {
            folders.find("lora", name).map(|p| p.strip_prefix(dir.path()).unwrap().to_path_buf())
        };
        assert_eq!(found("a").unwrap(), Path::new("a.safetensors"));
        assert_eq!(found("red.v1").unwrap(), Path::new("shoes/red.v1.safetensors"));
        assert_eq!(found("hats/two").unwrap(), Path::new("hats/two.pt"));
        assert_eq!(found("peft").unwrap(), Path::new("peft"));
        assert!(found("two").unwrap_err().hints()[0].contains("hats/two, shoes/two"));
        let e = found("shoes/rad.v1").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.hints()[0].contains("shoes/red.v1") && e.hints()[2].contains("none"), "{e:?}");
        assert!(found("../a").is_err() && found("notes").is_err());
    }

    #[test]
    fn only_what_an_image_uses_is_told_of_it() {
        let map = |v: Value| v.as_object().cloned().unwrap();
        let files = map(json!({"a": {}, "ab": {}, "b/c": {}, "x.safetensors": {}}));
        let params = map(json!({"prompt": "<lora:a:1> <lyco:b/c>", "loras": [{"path": "x.safetensors"}]}));
        assert_eq!(used(&files, &params).keys().collect::<Vec<_>>(), ["a", "b/c", "x.safetensors"]);
    }

    #[test]
    fn the_digest_is_that_of_the_content() {
        let dir = folder(&["a.pt", "peft/adapter_model.bin"]);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests::of_file(&content(&dir.path().join("a.pt"))).unwrap(), abc);
        assert_eq!(digests::of_file(&content(&dir.path().join("peft"))).unwrap(), abc);
    }
}
