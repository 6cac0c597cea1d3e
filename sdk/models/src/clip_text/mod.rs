//! The text encoder of CLIP ("Learning Transferable Visual Models From Natural Language Supervision", Radford et al.
//! 2021), as transformers' `CLIPTextModel` saves it.

mod config;

pub use config::ClipTextConfig;

use crate::error::{Error, Result};
use crate::layers::{Embedding, LayerNorm, Linear, compute_dtype, products};
use crate::network::Network;
use atelier_ops::{Activation, Products, attention, span, with_products};
use atelier_weights::{ConfigFile, Source};
use candle_core::{DType, Tensor};

const NETWORK: &str = "text encoder";

/// What the encoder computes for a batch of prompts.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// The embeddings, then the result of every layer: each (B, tokens, hidden size).
    pub hidden_states: Vec<Tensor>,
    /// The last layer's result through the final norm, (B, tokens, hidden size).
    pub last_hidden_state: Tensor,
    /// The last hidden state at each prompt's first end token, (B, hidden size).
    pub pooler_output: Tensor,
}

/// A CLIP text encoder.
#[derive(Clone, Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    dtype: DType,
    products: Products,
}

impl Network for ClipTextModel {
    type Config = ClipTextConfig;

    fn configure(file: &ConfigFile) -> Result<ClipTextConfig> {
        Ok(ClipTextConfig::read(file)?)
    }

    fn build(source: &Source, config: &ClipTextConfig) -> Result<Self> {
        Self::new(source, config)
    }
}

impl ClipTextModel {
    /// Builds the encoder from `source`, with or without the prefix `text_model.` (transformers 5 saves none).
    ///
    /// Errors: missing or misshapen tensors.
    pub fn new(source: &Source, config: &ClipTextConfig) -> Result<Self> {
        let (dtype, products) = (compute_dtype(source), products(source));
        let prefixed = source.pp("text_model");
        let bare =
            !prefixed.contains("final_layer_norm.weight") && source.contains("final_layer_norm.weight");
        let source = if bare { source.clone() } else { prefixed };
        let (embeddings, layers) = (source.pp("embeddings"), source.pp("encoder").pp("layers"));
        let (width, positions) = (config.hidden_size, config.max_position_embeddings);
        Ok(Self {
            config: config.clone(),
            token_embedding: Embedding::new(&embeddings.pp("token_embedding"), config.vocab_size, width)?,
            position_embedding: embeddings.pp("position_embedding").get(&[positions, width], "weight")?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&layers.pp(i), config))
                .collect::<atelier_weights::Result<_>>()?,
            final_layer_norm: LayerNorm::new(&source.pp("final_layer_norm"), width, config.layer_norm_eps)?,
            dtype,
            products,
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Encodes prompts of the same number of tokens, padding included.
    ///
    /// Errors: no prompts, lengths that differ or exceed the positions, ids outside the vocabulary.
    pub fn forward(&self, prompts: &[Vec<u32>]) -> Result<TextOutput> {
        self.check(prompts)?;
        with_products(self.products, || self.compute(prompts)).map_err(Error::compute(NETWORK))
    }

    /// The context a UNet is conditioned on, (B, tokens, hidden size): the last hidden state, or with `clip_skip` n
    /// the states n layers before it, through the final norm.
    ///
    /// Errors: see [`Self::forward`]; fewer layers than are to be skipped.
    pub fn encode(&self, prompts: &[Vec<u32>], clip_skip: usize) -> Result<Tensor> {
        self.check_skip(clip_skip)?;
        self.skip(self.forward(prompts)?, clip_skip)
    }

    /// As [`Self::encode`] for one prompt some of whose tokens have embeddings of their own: each of `replaced` is
    /// a position and the rows, (n, hidden size), that take the place of the vocabulary's from there on (textual
    /// inversion, Gal et al. 2022, arXiv:2208.01618).
    ///
    /// Errors: see [`Self::encode`]; rows of another width or beyond the prompt's end.
    pub fn encode_replacing(
        &self,
        prompt: &[u32],
        replaced: &[(usize, Tensor)],
        clip_skip: usize,
    ) -> Result<Tensor> {
        self.check_skip(clip_skip)?;
        let prompts = [prompt.to_vec()];
        self.check(&prompts)?;
        for (at, rows) in replaced {
            let fits = matches!(rows.dims(), [n, width]
                if *width == self.config.hidden_size && at + n <= prompt.len());
            if !fits {
                let message = format!(
                    "expected embeddings of width {} within {} tokens, found shape {:?} at {at}",
                    self.config.hidden_size,
                    prompt.len(),
                    rows.dims()
                );
                return Err(Error::input(NETWORK, message));
            }
        }
        let compute = || {
            let x = self.replace(self.embed(&prompts)?, replaced)?;
            self.layers(x, &prompts)
        };
        let output = with_products(self.products, compute).map_err(Error::compute(NETWORK))?;
        self.skip(output, clip_skip)
    }

    fn replace(&self, embedded: Tensor, replaced: &[(usize, Tensor)]) -> candle_core::Result<Tensor> {
        let mut x = embedded;
        for (at, rows) in replaced {
            let rows = rows.to_device(x.device())?.to_dtype(x.dtype())?.unsqueeze(0)?;
            let end = at + rows.dim(1)?;
            let (before, after) = (x.narrow(1, 0, *at)?, x.narrow(1, end, x.dim(1)? - end)?);
            x = Tensor::cat(&[&before, &rows, &after], 1)?;
        }
        Ok(x)
    }

    fn check_skip(&self, clip_skip: usize) -> Result<()> {
        let layers = self.layers.len();
        if clip_skip >= layers {
            let message = format!("expected clip skip below its {layers} layers, found {clip_skip}");
            return Err(Error::input(NETWORK, message));
        }
        Ok(())
    }

    fn skip(&self, output: TextOutput, clip_skip: usize) -> Result<Tensor> {
        match clip_skip {
            0 => Ok(output.last_hidden_state),
            n => self
                .final_layer_norm
                .forward(&output.hidden_states[self.layers.len() - n])
                .map_err(Error::compute(NETWORK)),
        }
    }

    fn check(&self, prompts: &[Vec<u32>]) -> Result<()> {
        let c = &self.config;
        let tokens = prompts.first().map_or(0, Vec::len);
        if tokens == 0 || tokens > c.max_position_embeddings || prompts.iter().any(|p| p.len() != tokens) {
            let found: Vec<usize> = prompts.iter().map(Vec::len).collect();
            let message = format!(
                "expected prompts of one length up to {}, found {found:?}",
                c.max_position_embeddings
            );
            return Err(Error::input(NETWORK, message));
        }
        match prompts.iter().flatten().find(|id| **id as usize >= c.vocab_size) {
            Some(id) => {
                let message =
                    format!("expected token ids below {}, found {id}: another tokenizer's?", c.vocab_size);
                Err(Error::input(NETWORK, message))
            }
            None => Ok(()),
        }
    }

    fn compute(&self, prompts: &[Vec<u32>]) -> candle_core::Result<TextOutput> {
        self.layers(self.embed(prompts)?, prompts)
    }

    /// The vocabulary's embeddings of the tokens, without their positions.
    fn embed(&self, prompts: &[Vec<u32>]) -> candle_core::Result<Tensor> {
        let (batch, tokens, width) = (prompts.len(), prompts[0].len(), self.config.hidden_size);
        self.token_embedding.forward(&prompts.concat(), self.dtype)?.reshape((batch, tokens, width))
    }

    fn layers(&self, embedded: Tensor, prompts: &[Vec<u32>]) -> candle_core::Result<TextOutput> {
        let _span = span!("text_encoder", embedded = ?embedded.dims());
        let positions = self.position_embedding.narrow(0, 0, embedded.dim(1)?)?.to_dtype(self.dtype)?;
        let mut x = embedded.broadcast_add(&positions)?;
        let mut hidden_states = vec![x.clone()];
        for (i, layer) in self.layers.iter().enumerate() {
            let _span = span!("text_layer", i);
            x = layer.forward(&x)?;
            hidden_states.push(x.clone());
        }
        let last_hidden_state = self.final_layer_norm.forward(&x)?;
        let pooled: Vec<Tensor> = prompts
            .iter()
            .enumerate()
            .map(|(b, ids)| last_hidden_state.get(b)?.get(self.end_of(ids)))
            .collect::<candle_core::Result<_>>()?;
        Ok(TextOutput { hidden_states, last_hidden_state, pooler_output: Tensor::stack(&pooled, 0)? })
    }

    /// Position of the first end token, where transformers pools; 0 if there is none, as there.
    fn end_of(&self, ids: &[u32]) -> usize {
        let end = match self.config.eos_token_id {
            // Configurations written before transformers 4.24 say 2, whatever the vocabulary: the largest id it is.
            2 => ids.iter().max().copied(),
            id => u32::try_from(id).ok(),
        };
        ids.iter().position(|id| Some(*id) == end).unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn new(source: &Source, c: &ClipTextConfig) -> atelier_weights::Result<Self> {
        let (attn, mlp) = (source.pp("self_attn"), source.pp("mlp"));
        let square = |name| Linear::new(&attn.pp(name), c.hidden_size, c.hidden_size);
        Ok(Self {
            layer_norm1: LayerNorm::new(&source.pp("layer_norm1"), c.hidden_size, c.layer_norm_eps)?,
            q_proj: square("q_proj")?,
            k_proj: square("k_proj")?,
            v_proj: square("v_proj")?,
            out_proj: square("out_proj")?,
            layer_norm2: LayerNorm::new(&source.pp("layer_norm2"), c.hidden_size, c.layer_norm_eps)?,
            fc1: Linear::new(&mlp.pp("fc1"), c.hidden_size, c.intermediate_size)?,
            fc2: Linear::new(&mlp.pp("fc2"), c.intermediate_size, c.hidden_size)?,
            heads: c.num_attention_heads,
            activation: c.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let h = self.layer_norm1.forward(x)?;
        let (q, k, v) = (self.q_proj.forward(&h)?, self.k_proj.forward(&h)?, self.v_proj.forward(&h)?);
        let x = (x + self.out_proj.forward(&attention(&q, &k, &v, self.heads, true)?)?)?;
        let h = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        x + self.fc2.forward(&self.activation.forward(&h)?)?
    }
}
