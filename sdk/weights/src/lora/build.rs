//! Factors of one module to its change, each lie an error of its own.

use super::delta::{Delta, Factor, Update};
use super::keys::Role;
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of one module.
pub(super) struct Group<'a> {
    pub(super) path: &'a Path,
    /// The module as the file spells it.
    pub(super) module: String,
    pub(super) tensors: BTreeMap<Role, Tensor>,
    /// alpha divided by the rank, where something else than the file says it.
    pub(super) scale: Option<f64>,
}

impl Group<'_> {
    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::Adapter { path: self.path.into(), module: self.module.clone(), message: message.into() }
    }

    fn take(&mut self, role: Role) -> Option<Tensor> {
        self.tensors.remove(&role)
    }

    fn has(&self, role: Role) -> bool {
        self.tensors.contains_key(&role)
    }

    /// A factor without which the others mean nothing.
    fn need(&mut self, role: Role, name: &str) -> Result<Tensor> {
        self.take(role)
            .ok_or_else(|| self.wrong(format!("expected a {name} factor beside the others, found none")))
    }

    /// The change that the tensors stand for.
    pub(super) fn delta(mut self) -> Result<Delta> {
        let alpha = self.alpha()?;
        let magnitude = self.take(Role::Magnitude);
        let bias = self.bias()?;
        let update = if self.has(Role::Down) || self.has(Role::Up) || self.has(Role::Mid) {
            self.lora(alpha)?
        } else if self.has(Role::HadaW1A) || self.has(Role::HadaW1B) || self.has(Role::HadaW2A) {
            self.loha(alpha)?
        } else if self.has(Role::LokrW1) || self.has(Role::LokrW1A) || self.has(Role::LokrW2) {
            self.lokr(alpha)?
        } else if let Some(diff) = self.take(Role::Diff) {
            Update::Full(diff)
        } else if bias.is_some() {
            Update::None
        } else {
            return Err(self.wrong("expected factors of a change, found none"));
        };
        if let Some(role) = self.tensors.keys().next() {
            return Err(self.wrong(format!("expected factors of one kind, found also {role:?}")));
        }
        Ok(Delta { update, bias, magnitude })
    }

    fn alpha(&mut self) -> Result<Option<f64>> {
        let Some(alpha) = self.take(Role::Alpha) else { return Ok(None) };
        let values = alpha.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>());
        match values.ok().as_deref() {
            Some([value]) if value.is_finite() => Ok(Some(*value)),
            _ => Err(self.wrong(format!("expected alpha to be one number, found {:?}", alpha.dims()))),
        }
    }

    /// The change of the bias: the difference, or what PEFT adds behind `up`.
    fn bias(&mut self) -> Result<Option<Tensor>> {
        let bias = self.take(Role::DiffBias).or_else(|| self.take(Role::UpBias));
        match bias {
            Some(bias) if bias.dims().len() != 1 => {
                Err(self.wrong(format!("expected a bias in one row, found {:?}", bias.dims())))
            }
            bias => Ok(bias),
        }
    }

    fn scale(&self, alpha: Option<f64>, rank: usize) -> f64 {
        self.scale.unwrap_or_else(|| alpha.map_or(1.0, |alpha| alpha / rank as f64))
    }

    fn lora(&mut self, alpha: Option<f64>) -> Result<Update> {
        let (down, up) = (self.need(Role::Down, "down")?, self.need(Role::Up, "up")?);
        let mid = self.take(Role::Mid);
        let rank = down.dims().first().copied().unwrap_or(0);
        let up_rank = match *up.dims() {
            [_, r] | [_, r, 1, 1] => r,
            _ => return Err(self.wrong(format!("expected up as (outputs, rank), found {:?}", up.dims()))),
        };
        if !matches!(down.dims().len(), 2 | 4) || rank == 0 {
            return Err(self.wrong(format!("expected down as (rank, inputs, ...), found {:?}", down.dims())));
        }
        let middle = match &mid {
            None => Some((rank, rank)),
            Some(mid) => mid.dims4().ok().map(|(i, j, ..)| (i, j)),
        };
        let plain = |t: &Tensor| t.dims().iter().skip(2).all(|d| *d == 1);
        if middle != Some((up_rank, rank)) || (mid.is_some() && !plain(&down)) {
            return Err(self.wrong(format!(
                "expected factors of one rank, found down {:?}, up {:?}{}",
                down.dims(),
                up.dims(),
                mid.as_ref().map(|m| format!(", mid {:?}", m.dims())).unwrap_or_default()
            )));
        }
        Ok(Update::Lora { scale: self.scale(alpha, rank), down, up, mid })
    }

    fn loha(&mut self, alpha: Option<f64>) -> Result<Update> {
        let first = self.product(Role::HadaW1A, Role::HadaW1B, Role::HadaT1)?;
        let second = self.product(Role::HadaW2A, Role::HadaW2B, Role::HadaT2)?;
        let delta = Update::LoHa { first, second, scale: 1.0 };
        let delta = Delta { update: delta, bias: None, magnitude: None };
        let rank = delta.rank().unwrap_or(1);
        let Update::LoHa { first, second, .. } = delta.update else {
            return Err(self.wrong("expected the factors of LoHa"));
        };
        Ok(Update::LoHa { first, second, scale: self.scale(alpha, rank) })
    }

    /// a times b, around a core if there is one.
    fn product(&mut self, a: Role, b: Role, core: Role) -> Result<Factor> {
        let (a, b) = (self.need(a, "first")?, self.need(b, "second")?);
        let core = self.take(core);
        if a.dims().len() != 2 || b.dims().len() != 2 || a.elem_count() == 0 || b.elem_count() == 0 {
            return Err(self.wrong(format!(
                "expected two matrices, found {:?} and {:?}",
                a.dims(),
                b.dims()
            )));
        }
        let fits = match &core {
            None => a.dims()[1] == b.dims()[0],
            Some(core) => matches!(*core.dims(), [i, j, ..] if core.dims().len() == 4
                && i == a.dims()[0] && j == b.dims()[0]),
        };
        if !fits {
            return Err(self.wrong(format!(
                "expected factors of one rank, found {:?} and {:?}{}",
                a.dims(),
                b.dims(),
                core.as_ref().map(|c| format!(" around {:?}", c.dims())).unwrap_or_default()
            )));
        }
        Ok(match core {
            None => Factor::Product(a, b),
            Some(core) => Factor::Tucker(core, a, b),
        })
    }

    fn lokr(&mut self, alpha: Option<f64>) -> Result<Update> {
        let first = match self.take(Role::LokrW1) {
            Some(whole) if whole.dims().len() == 2 => Factor::Whole(whole),
            Some(whole) => {
                return Err(self.wrong(format!("expected w1 as a matrix, found {:?}", whole.dims())));
            }
            None => {
                let (a, b) = (self.need(Role::LokrW1A, "w1_a")?, self.need(Role::LokrW1B, "w1_b")?);
                self.tensors.extend([(Role::HadaW1A, a), (Role::HadaW1B, b)]);
                self.product(Role::HadaW1A, Role::HadaW1B, Role::HadaT1)?
            }
        };
        let second = match self.take(Role::LokrW2) {
            Some(whole) if matches!(whole.dims().len(), 2 | 4) => Factor::Whole(whole),
            Some(whole) => {
                return Err(
                    self.wrong(format!("expected w2 as a matrix or kernel, found {:?}", whole.dims()))
                );
            }
            None => self.product(Role::LokrW2A, Role::LokrW2B, Role::LokrT2)?,
        };
        let inner = |f: &Factor| match f {
            Factor::Whole(_) => None,
            Factor::Product(_, b) | Factor::Tucker(_, _, b) => b.dims().first().copied(),
        };
        // With two whole matrices there is no rank, and alpha means nothing.
        let scale = match inner(&first).or(inner(&second)) {
            Some(rank) => self.scale(alpha, rank),
            None => self.scale.unwrap_or(1.0),
        };
        Ok(Update::LoKr { first, second, scale })
    }
}
