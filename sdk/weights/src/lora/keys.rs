//! Names of tensors in adapter files: which network, which module, which factor.

/// A network that an adapter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The text encoder; of SDXL the first.
    TextEncoder,
    /// The second text encoder of SDXL.
    TextEncoder2,
    /// The UNet.
    Unet,
}

impl Part {
    /// Its folder in diffusers' layout.
    pub fn folder(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Unet => "unet",
        }
    }
}

/// How a file spells a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spelling {
    /// kohya: underscores for dots.
    Flat(String),
    /// diffusers and PEFT: the path.
    Path(String),
    /// cloneofsimo: a number in the order of the network's modules.
    Number(usize),
}

impl std::fmt::Display for Spelling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flat(name) | Self::Path(name) => f.write_str(name),
            Self::Number(n) => write!(f, "number {n}"),
        }
    }
}

/// The layout of an adapter file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `lora_unet_down_blocks_0_….lora_down.weight`, LyCORIS included.
    Kohya,
    /// `unet.down_blocks.0.….lora.down.weight` or `.lora_A.weight`.
    Diffusers,
    /// `down_blocks.0.….processor.to_q_lora.down.weight`.
    AttnProcs,
    /// `base_model.model.down_blocks.0.….lora_A.weight`.
    Peft,
    /// `unet:0:down`.
    Cloneofsimo,
}

impl Layout {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kohya => "kohya",
            Self::Diffusers => "diffusers",
            Self::AttnProcs => "diffusers (attention processors)",
            Self::Peft => "peft",
            Self::Cloneofsimo => "cloneofsimo",
        }
    }
}

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are those of the formats
pub(super) enum Role {
    Down,
    Up,
    Mid,
    Alpha,
    Magnitude,
    Diff,
    DiffBias,
    UpBias,
    HadaW1A,
    HadaW1B,
    HadaT1,
    HadaW2A,
    HadaW2B,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
}

/// Ends of names; none is another's end.
const ENDS: [(&str, Role); 37] = [
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_B.default.bias", Role::UpBias),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector.default.weight", Role::Magnitude),
    (".diff", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".w_norm", Role::Diff),
    (".b_norm", Role::DiffBias),
    (".hada_w1_a", Role::HadaW1A),
    (".hada_w1_b", Role::HadaW1B),
    (".hada_t1", Role::HadaT1),
    (".hada_w2_a", Role::HadaW2A),
    (".hada_w2_b", Role::HadaW2B),
    (".hada_t2", Role::HadaT2),
    (".lokr_w1", Role::LokrW1),
    (".lokr_w1_a", Role::LokrW1A),
    (".lokr_w1_b", Role::LokrW1B),
    (".lokr_w2", Role::LokrW2),
    (".lokr_w2_a", Role::LokrW2A),
    (".lokr_w2_b", Role::LokrW2B),
    (".lokr_t2", Role::LokrT2),
];

/// Ends of the names of adapters that are something else.
const OTHERS: [(&str, &str); 8] = [
    (".oft_blocks", "OFT"),
    (".oft_diag", "OFT"),
    (".oft_R.weight", "OFT"),
    (".boft_R", "BOFT"),
    (".on_input", "IA3"),
    (".ia3_l", "IA3"),
    (".a1.weight", "GLoRA"),
    (".b1.weight", "GLoRA"),
];

/// The kind of adapter that a name belongs to, if it is one that nothing here applies.
pub(super) fn other_kind(name: &str) -> Option<&'static str> {
    OTHERS.iter().find_map(|(end, kind)| name.ends_with(end).then_some(*kind))
}

/// A name taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) part: Part,
    pub(super) module: Spelling,
    pub(super) role: Role,
    pub(super) layout: Layout,
}

/// What `name` means; none if it is no adapter's.
pub(super) fn parse(name: &str) -> Option<Key> {
    if let Some(key) = numbered(name) {
        return Some(key);
    }
    let (module, end, role) = ended(name)?;
    if let Some((part, flat)) = flat(module) {
        return Some(Key { part, module: Spelling::Flat(flat.into()), role, layout: Layout::Kohya });
    }
    let is_peft = module.starts_with("base_model.model.");
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    // Some write alpha beside the factors, some beside their folder.
    let module = module.strip_suffix(".lora").unwrap_or(module);
    let is_processor = module.contains(".processor.") || end.starts_with('_');
    let layout = match (is_peft, is_processor) {
        (true, _) => Layout::Peft,
        (_, true) => Layout::AttnProcs,
        _ => Layout::Diffusers,
    };
    let (part, path) = path(module, is_processor);
    Some(Key { part, module: Spelling::Path(path), role, layout })
}

/// What stands before the end that says the role, that end, and the role.
fn ended(name: &str) -> Option<(&str, &'static str, Role)> {
    ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *end, *role)))
}

/// `unet:12:up`.
fn numbered(name: &str) -> Option<Key> {
    let mut items = name.split(':');
    let part = match items.next()? {
        "unet" => Part::Unet,
        "text_encoder" => Part::TextEncoder,
        _ => return None,
    };
    let number = items.next()?.parse().ok()?;
    let role = match items.next()? {
        "up" => Role::Up,
        "down" => Role::Down,
        _ => return None,
    };
    let module = Spelling::Number(number);
    items.next().is_none().then_some(Key { part, module, role, layout: Layout::Cloneofsimo })
}

/// Network and module of kohya's names.
fn flat(module: &str) -> Option<(Part, &str)> {
    const STARTS: [(&str, Part); 6] = [
        ("lora_unet_", Part::Unet),
        ("lycoris_text_model_", Part::TextEncoder),
        ("lycoris_", Part::Unet),
        ("lora_te1_", Part::TextEncoder),
        ("lora_te2_", Part::TextEncoder2),
        ("lora_te_", Part::TextEncoder),
    ];
    let (part, rest) = STARTS.iter().find_map(|(start, p)| Some((*p, module.strip_prefix(start)?)))?;
    Some((part, rest.strip_prefix("text_model_").unwrap_or(rest)))
}

/// Network and path of names with dots.
fn path(module: &str, is_processor: bool) -> (Part, String) {
    const STARTS: [(&str, Part); 5] = [
        ("unet.", Part::Unet),
        ("text_encoder_2.", Part::TextEncoder2),
        ("text_encoder.", Part::TextEncoder),
        ("model.diffusion_model.", Part::Unet),
        ("diffusion_model.", Part::Unet),
    ];
    let named = STARTS.iter().find_map(|(start, p)| Some((*p, module.strip_prefix(start)?)));
    let is_text = module.starts_with("text_model.") || module.starts_with("encoder.layers.");
    let (part, path) = named.unwrap_or((if is_text { Part::TextEncoder } else { Part::Unet }, module));
    let path = path.strip_prefix("text_model.").unwrap_or(path);
    if !is_processor {
        return (part, path.into());
    }
    (part, processor(&path.replace(".processor.", "."), part))
}

/// The layer that an attention processor's `to_q` stands for.
fn processor(path: &str, part: Part) -> String {
    let is_text = part != Part::Unet;
    let layers = [
        (".to_q", if is_text { ".q_proj" } else { ".to_q" }),
        (".to_k", if is_text { ".k_proj" } else { ".to_k" }),
        (".to_v", if is_text { ".v_proj" } else { ".to_v" }),
        (".to_out", if is_text { ".out_proj" } else { ".to_out.0" }),
    ];
    let found = layers.iter().find_map(|(from, to)| Some(format!("{}{to}", path.strip_suffix(from)?)));
    found.unwrap_or_else(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> (Part, String, Role) {
        let key = parse(name).unwrap_or_else(|| panic!("{name}"));
        (key.part, key.module.to_string(), key.role)
    }

    #[test]
    fn every_layout_names_the_same_module() {
        let path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";
        for name in [
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.up.weight",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
            "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight",
            "base_model.model.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.default.weight",
            "diffusion_model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_up.weight",
        ] {
            assert_eq!(read(name), (Part::Unet, path.into(), Role::Up), "{name}");
        }
        let flat = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0";
        let name = format!("lora_unet_{flat}.lora_up.weight");
        assert_eq!(read(&name), (Part::Unet, flat.into(), Role::Up));
    }

    #[test]
    fn text_encoders_are_told_apart() {
        let layer = "encoder.layers.0.self_attn.q_proj".to_string();
        for name in [
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
            "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(read(name), (Part::TextEncoder, layer.clone(), Role::Down), "{name}");
        }
        let flat = "encoder_layers_0_mlp_fc1".to_string();
        let of = |start: &str| read(&format!("{start}_text_model_encoder_layers_0_mlp_fc1.alpha"));
        assert_eq!(of("lora_te"), (Part::TextEncoder, flat.clone(), Role::Alpha));
        assert_eq!(of("lora_te2"), (Part::TextEncoder2, flat, Role::Alpha));
        assert_eq!(read("text_encoder:3:down"), (Part::TextEncoder, "number 3".into(), Role::Down));
    }

    #[test]
    fn names_of_other_things_mean_nothing() {
        for name in ["<s1>", "unet:x:up", "unet:0:up:1", "conv_in.weight", "emb_params", ""] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(other_kind("lora_unet_x.oft_blocks"), Some("OFT"));
    }
}
