//! Tasks: what a person asks for.

use crate::registry::Keyed;

/// Describes a task; the standard ones are constants here, a plugin may bring its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TaskInfo {
    /// `txt2img`, `upscale`, ...
    pub key: &'static str,
    /// A few words for lists and menus.
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

/// A text becomes an image.
pub const TXT2IMG: TaskInfo =
    TaskInfo { key: "txt2img", title: "Text to image", summary: "Draws an image from a text prompt." };
/// An image and a text become an image.
pub const IMG2IMG: TaskInfo =
    TaskInfo { key: "img2img", title: "Image to image", summary: "Redraws an image under a text prompt." };
/// The masked part of an image is drawn anew.
pub const INPAINT: TaskInfo = TaskInfo {
    key: "inpaint",
    title: "Inpaint",
    summary: "Redraws the masked part of an image under a text prompt.",
};
/// An image becomes a larger one.
pub const UPSCALE: TaskInfo =
    TaskInfo { key: "upscale", title: "Upscale", summary: "Enlarges an image with a network." };
/// Images with captions become an adapter.
pub const TRAIN_LORA: TaskInfo = TaskInfo {
    key: "train-lora",
    title: "Train a LoRA",
    summary: "Trains a low-rank adapter on images with captions.",
};

/// The tasks atelier knows by name, whether or not an engine for them is present.
pub const STANDARD: [TaskInfo; 5] = [TXT2IMG, IMG2IMG, INPAINT, UPSCALE, TRAIN_LORA];

/// A task that a plugin brings.
#[derive(Debug, Clone, Copy)]
pub struct TaskReg {
    /// What it is.
    pub info: &'static TaskInfo,
    /// The crate that registers it.
    pub origin: &'static str,
}

impl Keyed for TaskReg {
    fn key(&self) -> &str {
        self.info.key
    }
    fn origin(&self) -> &str {
        self.origin
    }
}

inventory::collect!(TaskReg);
