//! The change of one module's weight, kept in factors.
//!
//! LoRA: Hu et al. 2021, arXiv:2106.09685. LoHa: Hyeon-Woo et al. 2021, arXiv:2108.06098. LoKr and the tensors'
//! shapes: Yeh et al. 2023, arXiv:2309.14859 (LyCORIS). DoRA: Liu et al. 2024, arXiv:2402.09353.

use candle_core::{Result, Tensor, bail};

/// A matrix or kernel, whole or in factors.
#[derive(Clone, Debug)]
pub enum Factor {
    /// As it is.
    Whole(Tensor),
    /// (rows, r) times (r, columns).
    Product(Tensor, Tensor),
    /// A core (r, r', kh, kw) with (r, rows) and (r', columns) on its sides.
    Tucker(Tensor, Tensor, Tensor),
}

impl Factor {
    /// Rows, and columns times kernel.
    fn size(&self) -> (usize, usize) {
        let side = |t: &Tensor, d: usize| t.dims().get(d).copied().unwrap_or(1);
        let rest = |t: &Tensor, d: usize| t.dims().iter().skip(d).product::<usize>();
        match self {
            Self::Whole(t) => (side(t, 0), rest(t, 1)),
            Self::Product(a, b) => (side(a, 0), rest(b, 1)),
            Self::Tucker(t, a, b) => (side(a, 1), side(b, 1) * rest(t, 2)),
        }
    }

    /// (rows, columns × kernel).
    fn matrix(&self) -> Result<Tensor> {
        match self {
            Self::Whole(t) => t.reshape(self.size()),
            Self::Product(a, b) => matmul(a, b),
            Self::Tucker(t, a, b) => tucker(t, a, b)?.reshape(self.size()),
        }
    }

    fn tensors(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Whole(t) => vec![t],
            Self::Product(a, b) => vec![a, b],
            Self::Tucker(t, a, b) => vec![t, a, b],
        }
    }
}

/// The product of the flattened factors.
fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.flatten_from(1)?.matmul(&b.flatten_from(1)?)
}

/// Σ core\[i, j, k, l\] a\[i, p\] b\[j, q\]: (p, q, k, l).
fn tucker(core: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (i, j, kh, kw) = core.dims4()?;
    let (p, q, kernel) = (a.dim(1)?, b.dim(1)?, kh * kw);
    let left = a.t()?.contiguous()?.matmul(&core.reshape((i, j * kernel))?)?;
    let left = left.reshape((p, j, kernel))?.transpose(1, 2)?.contiguous()?.reshape((p * kernel, j))?;
    let both = left.matmul(&b.contiguous()?)?.reshape((p, kernel, q))?;
    both.transpose(1, 2)?.contiguous()?.reshape((p, q, kh, kw))
}

/// What is added to a weight.
#[derive(Clone, Debug)]
pub enum Update {
    /// `scale · up · down`; between them `mid` where a convolution is in three parts.
    Lora {
        /// (r, inputs) or (r, inputs, kh, kw); (r, inputs, 1, 1) before a `mid`.
        down: Tensor,
        /// (outputs, r), with or without ones behind.
        up: Tensor,
        /// (r, r, kh, kw).
        mid: Option<Tensor>,
        /// alpha / r.
        scale: f64,
    },
    /// `scale · (first ∘ second)`, entry by entry.
    LoHa {
        /// One matrix.
        first: Factor,
        /// The other.
        second: Factor,
        /// alpha / r.
        scale: f64,
    },
    /// `scale · (first ⊗ second)`, Kronecker's product; on kernels over the first two dimensions.
    LoKr {
        /// (a, b).
        first: Factor,
        /// (p, q) or (p, q, kh, kw): the weight is (a p, b q, kh, kw).
        second: Factor,
        /// alpha / r; 1 if neither is in factors.
        scale: f64,
    },
    /// The difference itself.
    Full(Tensor),
    /// Nothing: only the bias or the magnitude changes.
    None,
}

/// The change of one module.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Of its weight.
    pub update: Update,
    /// Of its bias, (outputs).
    pub bias: Option<Tensor>,
    /// DoRA: the length that each row (or column) of the changed weight is given.
    pub magnitude: Option<Tensor>,
}

impl Delta {
    /// Plain LoRA.
    pub fn lora(down: Tensor, up: Tensor, scale: f64) -> Self {
        Self { update: Update::Lora { down, up, mid: None, scale }, bias: None, magnitude: None }
    }

    /// What it is called: `LoRA`, `LoRA (conv, mid)`, `LoHa`, `LoKr`, `difference`, with `DoRA` before it.
    pub fn kind(&self) -> String {
        let update = match &self.update {
            Update::Lora { mid: Some(_), .. } => "LoCon with mid",
            Update::Lora { down, .. } if down.dims().iter().skip(2).any(|d| *d > 1) => "LoCon",
            Update::Lora { .. } => "LoRA",
            Update::LoHa { .. } => "LoHa",
            Update::LoKr { .. } => "LoKr",
            Update::Full(_) => "difference",
            Update::None => "bias",
        };
        if self.magnitude.is_some() { format!("DoRA {update}") } else { update.into() }
    }

    /// The inner size of its factors, if it has one.
    pub fn rank(&self) -> Option<usize> {
        let of = |factor: &Factor| match factor {
            Factor::Whole(_) => None,
            Factor::Product(_, b) | Factor::Tucker(_, _, b) => b.dims().first().copied(),
        };
        match &self.update {
            Update::Lora { down, .. } => down.dims().first().copied(),
            Update::LoHa { first, .. } => of(first),
            Update::LoKr { first, second, .. } => of(first).or(of(second)),
            Update::Full(_) | Update::None => None,
        }
    }

    /// alpha, the scale times the rank, where there is a rank.
    pub fn alpha(&self) -> Option<f64> {
        let scale = match &self.update {
            Update::Lora { scale, .. } | Update::LoHa { scale, .. } | Update::LoKr { scale, .. } => *scale,
            Update::Full(_) | Update::None => return None,
        };
        self.rank().map(|rank| scale * rank as f64)
    }

    /// Whether a weight of `shape` can be changed by it. Ones behind count for nothing.
    pub fn fits(&self, shape: &[usize]) -> bool {
        let rows = shape.first().copied().unwrap_or(1);
        let columns: usize = shape.iter().skip(1).product();
        if self.bias.as_ref().is_some_and(|b| b.elem_count() != rows) {
            return false;
        }
        let kernel = |dims: &[usize]| dims.iter().skip(2).copied().filter(|d| *d > 1).collect::<Vec<_>>();
        match &self.update {
            Update::None => true,
            Update::Lora { down, up, mid, .. } => {
                let inputs = shape.get(1).copied().unwrap_or(1);
                let dims = |t: &Tensor, d: usize| t.dims().get(d).copied().unwrap_or(1);
                let spread = mid.as_ref().unwrap_or(down);
                dims(up, 0) == rows && dims(down, 1) == inputs && kernel(spread.dims()) == kernel(shape)
            }
            _ => self.size() == Some((rows, columns)),
        }
    }

    /// Rows, and columns times kernel, of the weight that it is for, as far as it tells.
    pub fn size(&self) -> Option<(usize, usize)> {
        match &self.update {
            Update::Lora { down, up, mid, .. } => {
                let kernel: usize = mid.as_ref().map_or(1, |m| m.dims().iter().skip(2).product());
                let columns: usize = down.dims().iter().skip(1).product();
                Some((up.dims().first().copied()?, columns * kernel))
            }
            Update::LoHa { first, .. } => Some(first.size()),
            Update::LoKr { first, second, .. } => {
                let ((a, b), (p, q)) = (first.size(), second.size());
                Some((a * p, b * q))
            }
            Update::Full(t) => Some(Factor::Whole(t.clone()).size()),
            Update::None => None,
        }
    }

    /// What is to be added to `base`, in its shape, type and place: differentiable in the factors.
    ///
    /// Errors: shapes that do not fit, see [`Self::fits`].
    pub fn change(&self, base: &Tensor) -> Result<Tensor> {
        let added = match self.added(base.dims())? {
            Some(added) => added.to_dtype(base.dtype())?.to_device(base.device())?,
            None => base.zeros_like()?,
        };
        let Some(magnitude) = &self.magnitude else { return Ok(added) };
        let changed = (base + added)?;
        let magnitude = magnitude.to_dtype(base.dtype())?.to_device(base.device())?;
        decomposed(&changed, &magnitude)? - base
    }

    /// The sum of the factors' products, in `shape`.
    fn added(&self, shape: &[usize]) -> Result<Option<Tensor>> {
        let (product, scale) = match &self.update {
            Update::None => return Ok(None),
            Update::Full(t) => (t.clone(), 1.0),
            Update::Lora { down, up, mid: None, scale } => (matmul(up, down)?, *scale),
            Update::Lora { down, up, mid: Some(mid), scale } => {
                let up = up.flatten_from(1)?.t()?.contiguous()?;
                (tucker(mid, &up, &down.flatten_from(1)?)?, *scale)
            }
            Update::LoHa { first, second, scale } => ((first.matrix()? * second.matrix()?)?, *scale),
            Update::LoKr { first, second, scale } => (kronecker(first, second, shape)?, *scale),
        };
        if !self.fits(shape) {
            bail!("an adapter for {:?} on a weight of {shape:?}", self.size())
        }
        Ok(Some((product.reshape(shape)? * scale)?))
    }

    /// All its tensors, to move or to convert them.
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let mut all = match &mut self.update {
            Update::Lora { down, up, mid, .. } => {
                let mut all = vec![down, up];
                all.extend(mid);
                all
            }
            Update::LoHa { first, second, .. } | Update::LoKr { first, second, .. } => {
                let mut all = first.tensors();
                all.extend(second.tensors());
                all
            }
            Update::Full(t) => vec![t],
            Update::None => Vec::new(),
        };
        all.extend(&mut self.bias);
        all.extend(&mut self.magnitude);
        all
    }
}

/// Kronecker's product of (a, b) and (p, q, kernel), for a weight of `shape`.
fn kronecker(first: &Factor, second: &Factor, shape: &[usize]) -> Result<Tensor> {
    let kernel: usize = shape.iter().skip(2).product();
    let ((a, b), (p, rest)) = (first.size(), second.size());
    if kernel == 0 || rest % kernel != 0 {
        bail!("a Kronecker factor with {rest} columns for a kernel of {kernel}")
    }
    let first = first.matrix()?.reshape((a, 1, b, 1, 1))?;
    let second = second.matrix()?.reshape((1, p, 1, rest / kernel, kernel))?;
    first.broadcast_mul(&second)
}

/// `changed` with its rows, or its columns, made as long as `magnitude` says.
///
/// Errors: a magnitude that is neither one number for each row nor one for each column.
fn decomposed(changed: &Tensor, magnitude: &Tensor) -> Result<Tensor> {
    let rows = changed.dim(0)?;
    let flat = changed.flatten_from(1)?;
    let by_rows = magnitude.elem_count() == rows && magnitude.dims().first() == Some(&rows);
    let lengths = if by_rows {
        flat.sqr()?.sum_keepdim(1)?.sqrt()?
    } else {
        let columns = changed.dim(1)?;
        if magnitude.elem_count() != columns {
            bail!("a magnitude of {:?} for a weight of {:?}", magnitude.dims(), changed.dims())
        }
        // One length for each input, over outputs and kernel.
        let squares = flat.sqr()?.reshape((rows, columns, flat.dim(1)? / columns))?;
        squares.sum_keepdim(0)?.sum_keepdim(2)?.sqrt()?
    };
    let factor = (magnitude.reshape(lengths.shape())? / (lengths + f64::from(f32::MIN_POSITIVE))?)?;
    let cells = if by_rows { flat } else { flat.reshape((rows, factor.dim(1)?, ()))? };
    cells.broadcast_mul(&factor)?.reshape(changed.shape())
}
