//! What model an adapter was made for, by the names and sizes in it.

use super::Adapter;
use super::keys::{Part, Spelling};
use super::modules::Modules;

/// The kind of model that an adapter changes, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A UNet whose prompts have this width.
    Context(usize),
    /// SDXL: two text encoders, or their joined width.
    Sdxl,
    /// A diffusion transformer.
    Transformer(&'static str),
    /// Nothing in it tells.
    Unknown,
}

impl Base {
    /// By the width of the prompts.
    fn of_width(width: usize) -> Self {
        if width == 2048 { Self::Sdxl } else { Self::Context(width) }
    }

    /// The base of the network with these modules.
    pub fn of_modules(unet: &Modules) -> Self {
        let mut keys = unet.names().filter(|name| name.ends_with("attn2.to_k"));
        let width = keys.next().and_then(|name| unet.shape(name)?.get(1).copied());
        width.map_or(Self::Unknown, Self::of_width)
    }

    /// Whether an adapter for this base may be one for `other`.
    pub fn may_be(self, other: Self) -> bool {
        self == other || self == Self::Unknown || other == Self::Unknown
    }
}

impl std::fmt::Display for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Context(768) => f.write_str("Stable Diffusion 1.x"),
            Self::Context(1024) => f.write_str("Stable Diffusion 2.x"),
            Self::Context(1280) => f.write_str("the refiner of SDXL"),
            Self::Context(width) => write!(f, "a UNet whose prompts have width {width}"),
            Self::Sdxl => f.write_str("SDXL"),
            Self::Transformer(name) => f.write_str(name),
            Self::Unknown => f.write_str("a model that nothing in it tells"),
        }
    }
}

impl Adapter {
    /// The model it was made for.
    pub fn base(&self) -> Base {
        const TRANSFORMERS: [(&str, &str); 5] = [
            ("single_transformer_blocks", "Flux"),
            ("double_blocks", "Flux"),
            ("single_blocks", "Flux"),
            ("joint_blocks", "Stable Diffusion 3"),
            ("add_k_proj", "Stable Diffusion 3 or another diffusion transformer"),
        ];
        let names: Vec<String> = self.changes().map(|(_, module, _)| module.to_string()).collect();
        let transformer = TRANSFORMERS.iter().find(|(sign, _)| names.iter().any(|name| name.contains(sign)));
        if let Some((_, name)) = transformer {
            return Base::Transformer(name);
        }
        if self.count(Part::TextEncoder2) > 0 {
            return Base::Sdxl;
        }
        self.context().map_or(Base::Unknown, Base::of_width)
    }

    /// The width of prompts: the inputs of keys and values that look at the prompt.
    fn context(&self) -> Option<usize> {
        let looks = |name: &str| {
            name.contains("attn2") && [".to_k", "_to_k", ".to_v", "_to_v"].iter().any(|e| name.ends_with(e))
        };
        let mut changes = self.changes().filter(|(part, ..)| *part == Part::Unet);
        let named = changes.find(|(_, module, _)| looks(&module.to_string()));
        if let Some((.., delta)) = named {
            return delta.size().map(|size| size.1);
        }
        // A text encoder's width is the prompts'.
        let mut text = self.changes().filter(|(part, ..)| *part == Part::TextEncoder);
        let query = text.find(|(_, module, _)| match module {
            Spelling::Flat(name) => name.ends_with("self_attn_q_proj"),
            Spelling::Path(name) => name.ends_with("self_attn.q_proj"),
            // Only attention is numbered, whose layers are all square.
            Spelling::Number(_) => true,
        });
        query.and_then(|(.., delta)| delta.size()).map(|size| size.1)
    }
}
