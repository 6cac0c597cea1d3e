//! What the frozen networks make of images and captions: computed once, kept on disk, found again by content.

use crate::base::{Base, tensor, values};
use crate::data::{Cache, Key, LatentKey, Opened, Record, Set, TextKey, pixels};
use crate::params::TrainLora;
use crate::sets::Sets;
use atelier_diffusion::error;
use atelier_models::{AutoencoderKl, ClipTextModel};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Event, Result, Stage};
use candle_core::Tensor;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Bytes of encodings that stay in memory; the others are read when they are needed.
const HELD: usize = 512 << 20;

/// Encodings of one training.
pub struct Encodings {
    cache: Cache,
    side: u32,
    clip_skip: u32,
    held: RefCell<Held>,
}

#[derive(Default)]
struct Held {
    records: HashMap<Key, Rc<Record>>,
    bytes: usize,
}

impl Encodings {
    /// Makes what is not kept yet: latents of all images, embeddings of all texts unless the text encoder is trained.
    ///
    /// # Errors
    /// A network that cannot be loaded or fails, a disk that is full, the request to stop.
    pub fn keep(base: &Base, params: &TrainLora, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<Self> {
        let folder = match params.cache_dir.as_str() {
            "" => Path::new(&params.out).join("cache"),
            named => PathBuf::from(named),
        };
        let cache = Cache::open(Some(&folder))?;
        let held = RefCell::default();
        let encodings = Self { cache, side: params.resolution, clip_skip: params.clip_skip, held };
        encodings.keep_latents(base, params, sets, ctx)?;
        if !params.train_text_encoder {
            encodings.keep_texts(base, params, sets, ctx)?;
        }
        for remark in encodings.cache.report().remarks {
            ctx.event(Event::Warning { message: format!("{}: {}", remark.file, remark.text) })?;
        }
        Ok(encodings)
    }

    fn keep_latents(&self, base: &Base, p: &TrainLora, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<()> {
        let both: &[bool] = if p.flip { &[false, true] } else { &[false] };
        let of = |set: &'_ Set, flips: &'_ [bool]| -> Vec<(Opened, bool)> {
            set.items.iter().flat_map(|i| flips.iter().map(move |f| (i.clone(), *f))).collect()
        };
        let mut wanted = of(&sets.train, both);
        wanted.extend(sets.val.iter().flat_map(|val| of(val, &[false])));
        wanted.retain(|(image, flip)| !self.cache.has(&self.latent_key(base, image, *flip)));
        if wanted.is_empty() {
            return Ok(());
        }
        ctx.event(Event::Stage { stage: Stage::Load })?;
        let vae = base.load_vae()?;
        for (done, (image, flip)) in wanted.iter().enumerate() {
            self.cache.get_or(&self.latent_key(base, image, *flip), || {
                atelier_ops::scope(|| latents(&vae, base, image, self.side, *flip))
            })?;
            let (done, total) = (done as u64 + 1, wanted.len() as u64);
            ctx.event(Event::Progress { done, total, unit: "images encoded".into() })?;
        }
        drop(vae);
        base.release();
        Ok(())
    }

    fn keep_texts(&self, base: &Base, p: &TrainLora, sets: &Sets, ctx: &mut dyn EngineCtx) -> Result<()> {
        let captions = |set: &Set| set.items.iter().map(|i| i.item.caption.clone()).collect::<Vec<_>>();
        let mut texts: BTreeSet<String> = captions(&sets.train).into_iter().collect();
        texts.extend(sets.val.iter().flat_map(captions));
        texts.extend(p.sample_prompts.iter().cloned());
        texts.insert(String::new());
        let cut = cut(base, &texts)?;
        if cut > 0 {
            let message = format!("{cut} captions are longer than the text encoder takes, and are cut there");
            ctx.event(Event::Warning { message })?;
        }
        texts.retain(|text| !self.cache.has(&self.text_key(base, text)));
        if texts.is_empty() {
            return Ok(());
        }
        ctx.event(Event::Stage { stage: Stage::Load })?;
        let encoder = base.load_text()?;
        for (done, text) in texts.iter().enumerate() {
            self.cache.get_or(&self.text_key(base, text), || {
                atelier_ops::scope(|| embedding(&encoder, base, text, self.clip_skip as usize))
            })?;
            let (done, total) = (done as u64 + 1, texts.len() as u64);
            ctx.event(Event::Progress { done, total, unit: "captions encoded".into() })?;
        }
        drop(encoder);
        base.release();
        Ok(())
    }

    /// Mean and deviation of the latents of an image, unscaled, and the shape of each.
    ///
    /// # Errors
    /// They are not kept any more.
    pub fn latents(&self, base: &Base, image: &Opened, flip: bool) -> Result<Rc<Record>> {
        self.get(&self.latent_key(base, image, flip))
    }

    /// The embeddings of a text, (1, tokens, width).
    ///
    /// # Errors
    /// They are not kept any more; the device failed.
    pub fn text(&self, base: &Base, text: &str) -> Result<Tensor> {
        let record = self.get(&self.text_key(base, text))?;
        let hidden = record.get("hidden").ok_or_else(gone)?;
        tensor(&hidden.data, &hidden.shape, &base.device)
    }

    fn get(&self, key: &Key) -> Result<Rc<Record>> {
        let mut held = self.held.borrow_mut();
        if let Some(record) = held.records.get(key) {
            return Ok(record.clone());
        }
        let record = Rc::new(self.cache.get(key).ok_or_else(gone)?);
        let bytes: usize = record.tensors().iter().map(|t| 4 * t.data.len()).sum();
        if held.bytes + bytes <= HELD {
            held.bytes += bytes;
            held.records.insert(*key, record.clone());
        }
        Ok(record)
    }

    fn latent_key(&self, base: &Base, image: &Opened, flip: bool) -> Key {
        let resolution = (self.side, self.side);
        LatentKey { image: &image.sha256, resolution, flip, encoder: &base.vae_print, format: "f32" }.key()
    }

    fn text_key(&self, base: &Base, text: &str) -> Key {
        // The tokenizer of a model comes with its text encoder.
        let encoder = &base.text_print;
        TextKey { caption: text, tokenizer: encoder, encoder, clip_skip: self.clip_skip, format: "f32" }.key()
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Environment, "the cache of encodings changed while it was in use")
        .hint("go on with the training by `--resume`: what is missing is made again")
}

fn cut(base: &Base, texts: &BTreeSet<String>) -> Result<usize> {
    texts.iter().try_fold(0, |n, text| Ok(n + usize::from(base.tokens(text)?.1 > 0)))
}

fn latents(vae: &AutoencoderKl, base: &Base, image: &Opened, side: u32, flip: bool) -> Result<Record> {
    let planes = pixels(image, (side, side), flip)?;
    let images = tensor(&planes, &[1, 3, side as usize, side as usize], &base.device)?;
    let failed = |e| error::model("cannot encode an image", e);
    let found = vae.encode(&images).map_err(failed)?;
    let shape = found.mean.dims().to_vec();
    let std = found.std().map_err(failed)?;
    Record::default().with("mean", &shape, values(&found.mean)?)?.with("std", &shape, values(&std)?)
}

fn embedding(encoder: &ClipTextModel, base: &Base, text: &str, clip_skip: usize) -> Result<Record> {
    let (ids, _) = base.tokens(text)?;
    let hidden = encoder.encode(&[ids], clip_skip).map_err(|e| error::model("cannot encode a caption", e))?;
    Record::default().with("hidden", hidden.dims(), values(&hidden)?)
}
