//! The files of an upscaler.

use super::Network;
use crate::error;
use atelier_models::UpscalerFile;
use atelier_sdk::{Error, ErrorKind, Result};
use atelier_weights::Precision;
use candle_core::Device;
use std::path::{Path, PathBuf};

/// Endings of files with a network; of ncnn's pairs the one that describes it.
const ENDINGS: [&str; 5] = ["safetensors", "pth", "pt", "gguf", "param"];
/// What the name of the network says that leaves noise ("weak denoise").
const WEAK: &str = "wdn";
/// How much noise is taken away where nothing is said, as Real-ESRGAN has it.
const DENOISE: f64 = 0.5;

/// An upscaler's network, and the one beside it that leaves noise, if there is one. No weights are read yet.
#[derive(Debug)]
pub struct UpscalerFiles {
    network: UpscalerFile,
    weak: Option<UpscalerFile>,
}

impl UpscalerFiles {
    /// Looks at a file, or at a folder with one network and perhaps a second one whose name has `wdn` in it.
    ///
    /// # Errors
    /// Nothing there, several networks, damaged files, a network of another kind.
    pub fn find(path: &Path) -> Result<Self> {
        let (network, weak) = if path.is_dir() { in_folder(path)? } else { (path.to_path_buf(), None) };
        let open = |path: &Path| {
            let what = format!("cannot load the upscaler from {}", path.display());
            UpscalerFile::open(path).map_err(|e| error::model(&what, e))
        };
        Ok(Self { network: open(&network)?, weak: weak.as_deref().map(open).transpose()? })
    }

    /// The files, each with what it is for.
    pub fn paths(&self) -> Vec<(&'static str, &Path)> {
        let network = self.network.paths().iter().map(|p| ("upscaler", p.as_path()));
        let weak = self.weak.iter().flat_map(|w| w.paths().iter().map(|p| ("upscaler_wdn", p.as_path())));
        network.chain(weak).collect()
    }

    /// How much noise a network takes away for a request that may say so; none if the model leaves no choice.
    ///
    /// # Errors
    /// A strength for a model of one network.
    pub fn strength(&self, given: Option<f64>) -> Result<Option<f64>> {
        match (&self.weak, given) {
            (Some(_), given) => Ok(Some(given.unwrap_or(DENOISE))),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Error::invalid("`denoise_strength` is given, but the model has one network alone")
                    .hint("leave it out, or use a model of two: realesr-general-x4v3"))
            }
        }
    }

    /// Loads the network that takes away this much noise.
    ///
    /// # Errors
    /// As for [`Self::strength`]; missing or misshapen tensors, networks that do not belong together.
    pub fn load(&self, denoise: Option<f64>, precision: Precision, device: &Device) -> Result<Network> {
        let failed = |e| error::model("cannot load the upscaler", e);
        let upscaler = match (self.strength(denoise)?, &self.weak) {
            (Some(strength), Some(weak)) if strength < 1.0 => {
                self.network.blended(weak, strength).and_then(|file| file.build(precision, device))
            }
            _ => self.network.build(precision, device),
        };
        Ok(Network::new(upscaler.map_err(failed)?))
    }
}

/// The network of a folder, and the one that leaves noise.
fn in_folder(folder: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let entries = std::fs::read_dir(folder)
        .map_err(|e| Error::io(format!("cannot read the folder {}", folder.display()), e))?;
    let ending = |p: &PathBuf| p.extension().is_some_and(|e| ENDINGS.iter().any(|known| e == *known));
    let mut all: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.is_file() && ending(p)).collect();
    all.sort();
    let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (weak, mut networks): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| name(p).contains(WEAK));
    match (networks.len(), weak.len()) {
        (1, 0 | 1) => Ok((networks.remove(0), weak.into_iter().next())),
        (0, _) => {
            Err(Error::new(ErrorKind::NotFound, format!("there is no network in {}", folder.display()))
                .hint(format!("a network's file ends in: {}", ENDINGS.join(", "))))
        }
        _ => {
            let names: Vec<String> = networks.iter().chain(&weak).map(|p| name(p)).collect();
            let message = format!("there are several networks in {}", folder.display());
            Err(Error::invalid(message).hint(format!("name the file of one: {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[&str]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("atelier-upscaler-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|file| std::fs::write(dir.join(file), "x").unwrap());
        dir
    }

    #[test]
    fn a_folder_has_one_network_and_perhaps_the_one_that_leaves_noise() {
        let pair = folder("pair", &["a-x4v3.pth", "a-wdn-x4v3.pth", "LICENSE", ".pulled.json"]);
        let (network, weak) = in_folder(&pair).unwrap();
        assert!(network.ends_with("a-x4v3.pth") && weak.unwrap().ends_with("a-wdn-x4v3.pth"));
        let ncnn = folder("ncnn", &["a.param", "a.bin"]);
        assert!(in_folder(&ncnn).unwrap().0.ends_with("a.param"));
        let several = folder("several", &["a.pth", "b.safetensors"]);
        let e = in_folder(&several).unwrap_err();
        assert!(e.hints()[0].contains("a.pth, b.safetensors"), "{e:?}");
        let none = folder("none", &["a.txt"]);
        assert_eq!(in_folder(&none).unwrap_err().kind(), ErrorKind::NotFound);
        [pair, ncnn, several, none].iter().for_each(|dir| std::fs::remove_dir_all(dir).unwrap());
    }
}
