//! Which embeddings guide which step, and how the network's outputs under them become one.

use super::schedule::Timeline;
use crate::guided::Guidance;
use atelier_diffusion::error;
use atelier_sdk::Result;
use candle_core::Tensor;

/// The embeddings of a prompt over the steps.
#[derive(Debug, Clone)]
pub struct Track {
    timeline: Option<Timeline>,
    /// One for each entry of the timeline, (1, tokens, width).
    embeddings: Vec<Tensor>,
}

impl Track {
    /// One for all steps.
    pub fn constant(embedding: Tensor) -> Self {
        Self { timeline: None, embeddings: vec![embedding] }
    }

    /// One for each entry of a timeline.
    pub fn scheduled(timeline: Timeline, embeddings: Vec<Tensor>) -> Self {
        Self { timeline: Some(timeline), embeddings }
    }

    fn index(&self, step: usize) -> usize {
        let index = self.timeline.as_ref().map_or(0, |t| t.index(step));
        index.min(self.embeddings.len().saturating_sub(1))
    }
}

/// How strongly a prompt guides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strength {
    /// The scale of classifier-free guidance; 1 is none.
    pub scale: f64,
    /// How much of the result is brought to the spread of the output under the prompt (Lin et al. 2023,
    /// arXiv:2305.08891, section 3.4), 0 to 1.
    pub rescale: f64,
    /// The part of the steps after which guidance begins.
    pub start: f64,
    /// The part of the steps after which it ends.
    pub end: f64,
}

impl Strength {
    /// The scale in all steps and nothing else.
    pub fn scale(scale: f64) -> Self {
        Self { scale, rescale: 0.0, start: 0.0, end: 1.0 }
    }

    fn at(&self, step: usize, steps: usize) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        let within = done >= self.start && (done < self.end || self.end >= 1.0);
        if within { self.scale } else { 1.0 }
    }

    /// Whether any step needs a negative prompt beside one prompt.
    pub fn guides(&self) -> bool {
        self.scale != 1.0
    }
}

/// What guides a run.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// The prompts, each with its weight; one unless `AND` joins several (Liu et al. 2022, arXiv:2206.01714).
    pub parts: Vec<(Track, f64)>,
    /// The negative prompt; not needed for one prompt at scale 1.
    pub negative: Option<Track>,
    /// How strongly they guide.
    pub strength: Strength,
}

impl From<&Guidance> for Conditioning {
    fn from(guidance: &Guidance) -> Self {
        Self {
            parts: vec![(Track::constant(guidance.positive.clone()), 1.0)],
            negative: guidance.negative.clone().map(Track::constant),
            strength: Strength::scale(guidance.scale),
        }
    }
}

/// What tells the conditioning of one step from another's.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    scale: f64,
    negative: Option<usize>,
    parts: Vec<usize>,
}

/// The conditioning of a step.
#[derive(Debug, Clone)]
pub struct Now {
    key: Key,
    context: Tensor,
    weights: Vec<f64>,
    rescale: f64,
}

impl Conditioning {
    fn key(&self, step: usize, steps: usize) -> Key {
        let scale = self.strength.at(step, steps);
        // At scale 1 one prompt is the result itself; several are still differences to the negative one.
        let needed = scale != 1.0 || self.parts.len() > 1;
        Key {
            scale,
            negative: self.negative.as_ref().filter(|_| needed).map(|n| n.index(step)),
            parts: self.parts.iter().map(|(track, _)| track.index(step)).collect(),
        }
    }

    /// What guides a step, counted from 0.
    ///
    /// # Errors
    /// Embeddings that do not fit together.
    pub fn at(&self, step: usize, steps: usize) -> Result<Now> {
        let key = self.key(step, steps);
        let negative = self.negative.as_ref().zip(key.negative).map(|(n, i)| &n.embeddings[i]);
        let parts = self.parts.iter().zip(&key.parts).map(|((track, _), i)| &track.embeddings[*i]);
        let all: Vec<&Tensor> = negative.into_iter().chain(parts).collect();
        let context = match all.as_slice() {
            [one] => (*one).clone(),
            several => Tensor::cat(several, 0).map_err(error::tensor("joining the prompts' embeddings"))?,
        };
        let weights = self.parts.iter().map(|(_, weight)| *weight).collect();
        Ok(Now { key, context, weights, rescale: self.strength.rescale })
    }
}

impl Now {
    /// Whether this is the conditioning of that step too.
    pub fn holds(&self, conditioning: &Conditioning, step: usize, steps: usize) -> bool {
        self.key == conditioning.key(step, steps)
    }

    /// The embeddings: the negative ones first, then those of each prompt.
    pub fn context(&self) -> &Tensor {
        &self.context
    }

    /// Outputs that the network is to give.
    pub fn passes(&self) -> usize {
        self.weights.len() + usize::from(self.key.negative.is_some())
    }

    /// Makes one of the network's outputs: `negative + sum of weight * scale * (prompt - negative)`.
    pub fn combine(&self, outputs: Vec<f32>) -> Vec<f32> {
        if self.key.negative.is_none() {
            return outputs;
        }
        let length = outputs.len() / self.passes();
        let (negative, parts) = outputs.split_at(length);
        let sum = |scale: f64| {
            let mut out = negative.to_vec();
            for (part, weight) in parts.chunks(length).zip(&self.weights) {
                let factor = (weight * scale) as f32;
                for ((o, p), n) in out.iter_mut().zip(part).zip(negative) {
                    *o += factor * (p - n);
                }
            }
            out
        };
        let mut guided = sum(self.key.scale);
        if self.rescale > 0.0 && self.key.scale != 1.0 {
            // One prompt is its own sum at scale 1, up to rounding.
            let unguided = if self.weights.len() == 1 { parts.to_vec() } else { sum(1.0) };
            rescale(&mut guided, deviation(&unguided), self.rescale);
        }
        guided
    }
}

/// `phi * x * to / std(x) + (1 - phi) * x`.
fn rescale(x: &mut [f32], to: f64, phi: f64) {
    let from = deviation(x);
    if from > 0.0 {
        let factor = (phi * to / from + (1.0 - phi)) as f32;
        x.iter_mut().for_each(|v| *v *= factor);
    }
}

fn deviation(x: &[f32]) -> f64 {
    let n = x.len() as f64;
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    (x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Script;
    use super::*;
    use candle_core::Device;

    fn embedding(value: f32) -> Tensor {
        Tensor::full(value, (1, 2, 3), &Device::Cpu).unwrap()
    }

    fn conditioning(weights: &[f64], strength: Strength) -> Conditioning {
        let parts = weights.iter().enumerate().map(|(i, w)| (Track::constant(embedding(i as f32)), *w));
        Conditioning { parts: parts.collect(), negative: Some(Track::constant(embedding(-1.0))), strength }
    }

    #[test]
    fn joined_prompts_add_their_weighted_differences() {
        let now = conditioning(&[1.0, 0.5], Strength::scale(4.0)).at(0, 10).unwrap();
        assert_eq!(now.passes(), 3);
        // 1 + 1 * 4 * (3 - 1) + 0.5 * 4 * (2 - 1)
        assert_eq!(now.combine(vec![1.0, 3.0, 2.0]), [11.0]);
    }

    #[test]
    fn one_prompt_at_scale_one_needs_one_pass() {
        let now = conditioning(&[1.0], Strength::scale(1.0)).at(0, 10).unwrap();
        assert_eq!((now.passes(), now.combine(vec![3.0])), (1, vec![3.0]));
        let now = conditioning(&[1.0, 1.0], Strength::scale(1.0)).at(0, 10).unwrap();
        assert_eq!((now.passes(), now.combine(vec![1.0, 3.0, 2.0])), (3, vec![4.0]));
    }

    #[test]
    fn guidance_outside_its_interval_is_off() {
        let strength = Strength { start: 0.2, end: 0.5, ..Strength::scale(7.0) };
        let conditioning = conditioning(&[1.0], strength);
        let passes: Vec<_> = (0..10).map(|i| conditioning.at(i, 10).unwrap().passes()).collect();
        assert_eq!(passes, [1, 1, 2, 2, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_full_rescale_has_the_spread_of_the_prompt() {
        let strength = Strength { rescale: 1.0, ..Strength::scale(5.0) };
        let now = conditioning(&[1.0], strength).at(0, 1).unwrap();
        let out = now.combine(vec![0.0, 1.0, 3.0, 2.0, 0.5, -2.0]);
        assert!((deviation(&out) - deviation(&[2.0, 0.5, -2.0])).abs() < 1e-6);
        let none = Strength { rescale: 0.0, ..strength };
        let plain = conditioning_of(none).combine(vec![0.0, 1.0, 3.0, 2.0, 0.5, -2.0]);
        assert_eq!(plain, [10.0, -1.5, -22.0]);
    }

    fn conditioning_of(strength: Strength) -> Now {
        conditioning(&[1.0], strength).at(0, 1).unwrap()
    }

    #[test]
    fn each_step_has_the_embeddings_of_its_text() {
        let timeline = Script::parse("[a:b:2]").unwrap().timeline(4);
        let track = Track::scheduled(timeline, vec![embedding(5.0), embedding(6.0)]);
        let changing =
            Conditioning { parts: vec![(track, 1.0)], ..conditioning(&[1.0], Strength::scale(1.0)) };
        let first = changing.at(0, 4).unwrap();
        let held: Vec<_> = (0..4).map(|i| first.holds(&changing, i, 4)).collect();
        assert_eq!(held, [true, true, true, false]);
        let last = changing.at(3, 4).unwrap().context().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(last[0], 6.0);
    }
}
