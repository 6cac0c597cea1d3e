//! UniPC: one multistep formula that predicts, and corrects with the evaluation the next step needs anyway.

use super::levels;
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The function `B(h)` of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `B(h) = h`: better for few steps without guidance.
    #[default]
    Bh1,
    /// `B(h) = exp(h) - 1`: the paper's choice under guidance.
    Bh2,
}

/// Options of [`UniPc`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UniPcOptions {
    /// Highest order of the predictor; the first steps have a lower one, for want of a past.
    #[schemars(range(min = 1, max = 3))]
    pub order: usize,
    /// The function `B(h)` of the paper.
    pub variant: Variant,
    /// Whether the last steps have a lower order; steadier with few steps. A step to level 0 always has order 1.
    pub lower_order_final: bool,
}

impl Default for UniPcOptions {
    fn default() -> Self {
        Self { order: 3, variant: Variant::Bh1, lower_order_final: true }
    }
}

/// Unified predictor-corrector in data prediction, `B(h)` variants.
///
/// Source: Zhao et al. 2023 (arXiv:2302.04867), Algorithms 5 to 8; the authors' `uni_pc.py` (as in A1111),
/// diffusers `UniPCMultistepScheduler`. Like both, the last step is not corrected.
#[derive(Debug, Clone, Copy)]
pub struct UniPc(UniPcOptions);

/// `D` at a level, by `lambda = -ln sigma`.
struct Eval {
    lambda: f64,
    d: Vec<f32>,
}

impl Sampler for UniPc {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let steps = sigmas.len().saturating_sub(1);
        // Evaluations, newest first; the state at the newest, after its correction; the order used from there.
        let mut past: VecDeque<Eval> = VecDeque::new();
        let (mut base, mut order) = (x.to_vec(), 0);
        for (i, pair) in sigmas.windows(2).enumerate() {
            let lambda = -f64::from(pair[0]).ln();
            let mut d = if past.len() > self.0.order { past.pop_back() } else { None }
                .map_or_else(|| vec![0f32; x.len()], |old| old.d);
            ctx.denoise(x, pair[0], &mut d)?;
            if i > 0 {
                self.advance(x, &base, &past, order, lambda, Some(&d));
            }
            base.copy_from_slice(x);
            past.push_front(Eval { lambda, d });
            order = self.0.order.min(i + 1);
            if self.0.lower_order_final {
                order = order.min(steps - i);
            }
            if pair[1] == 0.0 {
                order = 1;
            }
            self.advance(x, &base, &past, order, -f64::from(pair[1]).ln(), None);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl UniPc {
    /// Writes to `x` the state at level `lambda`, reached from `base` at the level of `past[0]`: UniP, or UniC
    /// where `d`, the evaluation at `lambda`, is known.
    ///
    /// `x' = exp(-h) x + (1 - exp(-h)) D_0 - B(h) sum_k rho_k (D_k - D_0) / r_k`, where `r_k h` is the way from
    /// the newest level to that of `D_k` (so `r = 1` for `d`), and rho makes the first terms of the Taylor
    /// expansion match.
    fn advance(
        &self,
        x: &mut [f32],
        base: &[f32],
        past: &VecDeque<Eval>,
        order: usize,
        lambda: f64,
        d: Option<&[f32]>,
    ) {
        let h = lambda - past[0].lambda;
        let q = (-h).exp();
        let mut r: Vec<f64> = (1..order).map(|k| (past[k].lambda - past[0].lambda) / h).collect();
        let mut ds: Vec<&[f32]> = (1..order).map(|k| &past[k].d[..]).collect();
        if let Some(d) = d {
            r.push(1.0);
            ds.push(d);
        }
        let (b, rho) = self.rho(h, &r);
        let weights: Vec<f64> = rho.iter().zip(&r).map(|(rho, r)| -b * rho / r).collect();
        let first = 1.0 - q - weights.iter().sum::<f64>();
        for (j, x) in x.iter_mut().enumerate() {
            let sum = q * f64::from(base[j]) + first * f64::from(past[0].d[j]);
            *x = ds.iter().zip(&weights).fold(sum, |sum, (d, w)| sum + w * f64::from(d[j])) as f32;
        }
    }

    /// `B(h)` and the weights that solve `sum_k rho_k r_k^(n-1) = n! phi_(n+1)(h) / B(h)` for `n = 1 ..`.
    fn rho(&self, h: f64, r: &[f64]) -> (f64, Vec<f64>) {
        let b = match self.0.variant {
            Variant::Bh1 => -h,
            Variant::Bh2 => (-h).exp_m1(),
        };
        // One unknown: the paper takes 1/2, the limit for small h, so that no system needs solving.
        if r.len() < 2 {
            return (b, vec![0.5; r.len()]);
        }
        let (mut factorial, mut phi) = (1.0, (-h).exp_m1() / -h - 1.0);
        let mut rows = Vec::new();
        for n in 0..r.len() {
            let mut row: Vec<f64> = r.iter().map(|r| r.powi(n as i32)).collect();
            row.push(phi * factorial / b);
            rows.push(row);
            factorial *= (n + 2) as f64;
            phi = phi / -h - 1.0 / factorial;
        }
        (b, solve(rows))
    }
}

/// Solves the system whose rows are coefficients followed by the right-hand side (at most 3 x 3 here).
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|a, b| rows[*a][k].abs().total_cmp(&rows[*b][k].abs())).unwrap_or(k);
        rows.swap(k, pivot);
        let top = rows[k].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != k) {
            let f = row[k] / top[k];
            row.iter_mut().zip(&top).for_each(|(v, t)| *v -= f * t);
        }
    }
    (0..n).map(|k| rows[k][n] / rows[k][k]).collect()
}

impl SamplerPlugin for UniPc {
    const INFO: SamplerInfo = SamplerInfo {
        key: "unipc",
        title: "UniPC",
        summary: "Predictor and corrector for one evaluation per step: made for few steps.",
        aliases: &["uni_pc"],
        evaluations: 1,
        order: 2,
        stochastic: false,
        source: "Zhao et al. 2023 (arXiv:2302.04867), Algorithms 5 to 8; diffusers UniPCMultistepScheduler",
    };
    type Options = UniPcOptions;

    fn new(options: UniPcOptions) -> Result<Self> {
        if !(1..=3).contains(&options.order) {
            return Err(Error::invalid(format!("`order` is {}, but UniPC has orders 1 to 3", options.order)));
        }
        Ok(Self(options))
    }
}
