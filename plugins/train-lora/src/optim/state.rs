//! State as plain data, for checkpoints.

use super::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that something here remembers, by name.
///
/// Numbers are written as text that reads back to the same bits, which JSON readers do not promise of a number.
/// Vectors are left out of what serde writes: they belong into a tensor file beside it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Whose state this is: `adamw`, `lion`, `prodigy`, `ema`, `loss_scaler`.
    pub of: String,
    /// Single numbers.
    #[serde(with = "exact")]
    pub scalars: BTreeMap<String, f64>,
    /// Vectors: `exp_avg.<tensor>` and the like.
    #[serde(skip)]
    pub vectors: BTreeMap<String, Vec<f32>>,
}

impl State {
    pub(super) fn new(of: &str) -> Self {
        Self { of: of.into(), ..Self::default() }
    }

    pub(super) fn with(mut self, name: &str, value: f64) -> Self {
        self.scalars.insert(name.into(), value);
        self
    }

    pub(super) fn put(&mut self, kind: &str, tensor: &str, vector: &[f32]) {
        self.vectors.insert(format!("{kind}.{tensor}"), vector.to_vec());
    }

    /// Starts taking the state apart.
    pub(super) fn open(self, of: &str) -> Result<Taking, Error> {
        if self.of != of {
            return Err(Error::Foreign { expected: of.into(), got: self.of });
        }
        Ok(Taking(self))
    }
}

/// A state that is being taken apart; what is left at the end was not meant for the taker.
pub(super) struct Taking(State);

impl Taking {
    pub fn scalar(&mut self, name: &str, fits: impl Fn(f64) -> bool) -> Result<f64, Error> {
        let value = self.0.scalars.remove(name).ok_or_else(|| Error::Missing { name: name.into() })?;
        if fits(value) { Ok(value) } else { Err(Error::Damaged { name: name.into(), value }) }
    }

    /// A count of steps or the like.
    pub fn count(&mut self, name: &str) -> Result<u64, Error> {
        const MOST: f64 = (1u64 << 53) as f64;
        self.scalar(name, |v| (0.0..=MOST).contains(&v) && v.fract() == 0.0).map(|v| v as u64)
    }

    pub fn vector(&mut self, kind: &str, tensor: &str, len: usize) -> Result<Vec<f32>, Error> {
        let name = format!("{kind}.{tensor}");
        match self.0.vectors.remove(&name) {
            None => Err(Error::Missing { name }),
            Some(v) if v.len() != len => Err(Error::Length { name, expected: len, got: v.len() }),
            Some(v) => Ok(v),
        }
    }

    pub fn finish(self) -> Result<(), Error> {
        match self.0.scalars.into_keys().chain(self.0.vectors.into_keys()).next() {
            Some(name) => Err(Error::Unknown { name }),
            None => Ok(()),
        }
    }
}

/// Numbers as the shortest text that gives their bits back.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::collections::BTreeMap;

    pub fn serialize<S: Serializer>(numbers: &BTreeMap<String, f64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(numbers.iter().map(|(name, v)| (name, format!("{v:?}"))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let number = |(name, text): (String, String)| match text.parse() {
            Ok(v) => Ok((name, v)),
            Err(_) => Err(D::Error::custom(format!("`{name}` is `{text}`, not a number"))),
        };
        BTreeMap::<String, String>::deserialize(from)?.into_iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_json_with_all_their_bits() {
        let values =
            [0.1 + 0.2, 1.0 / 3.0, 1e-6 * 1.02f64.powi(77), f64::MIN_POSITIVE, 5e-324, f64::INFINITY, -0.0];
        for v in values {
            let state = State::new("x").with("d", v);
            let back: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            assert_eq!(back.scalars["d"].to_bits(), v.to_bits(), "{v:?}");
        }
    }

    #[test]
    fn text_that_is_no_number_is_refused() {
        let e = serde_json::from_str::<State>(r#"{"of": "x", "scalars": {"d": "much"}}"#).unwrap_err();
        assert!(e.to_string().contains("`d` is `much`"), "{e}");
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        for v in [-1.0, 0.5, f64::NAN, f64::INFINITY, 1e17] {
            let mut taking = State::new("x").with("step", v).open("x").unwrap_or_else(|e| panic!("{e}"));
            assert!(matches!(taking.count("step"), Err(Error::Damaged { .. })), "{v}");
        }
    }
}
