//! A forward pass cut into segments, whose gradients are taken one segment at a time.
//!
//! At the border of each segment the graph is cut: the value goes on as a variable of its own. In the backward pass the
//! last segment is differentiated first, from the gradient of its result to those of its inputs and of the variables
//! inside; then it is dropped, and the one before it follows. A segment's graph is either still there from the forward
//! pass, or made again from the kept inputs (gradient checkpointing: Chen et al. 2016, arXiv:1604.06174). Both ways
//! cut at the same borders and compute the same numbers in the same order: the gradients are the same to the last bit.

use crate::scope;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, TensorId, Var, bail};
use std::collections::{HashMap, HashSet};

/// Which segments keep their graph from the forward pass to the backward pass; the others are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All: fastest, most memory.
    All,
    /// None, only the values at the borders: least memory.
    Boundaries,
    /// The first ones whose graphs together take no more than so many bytes.
    Within(u64),
}

/// What of a segment is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its result.
    Value,
    /// The way back from its result to its inputs: the numbers of the result itself are not looked at.
    Gradient,
}

/// A value at the border of segments: not connected to the graph of the segment that made it.
#[derive(Clone, Debug)]
pub struct Value(Tensor);

impl Value {
    /// Its numbers.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }
}

/// What computes a segment's result from its inputs.
type Body<'a> = Box<dyn Fn(&[Tensor], Need) -> Result<Tensor> + Send + 'a>;

struct Segment<'a> {
    body: Body<'a>,
    inputs: Vec<Tensor>,
    output: TensorId,
    /// The result with its graph.
    kept: Option<Tensor>,
}

/// Records segments as they are run, to go back through them.
pub struct Tape<'a> {
    /// `None` records nothing.
    keep: Option<Keep>,
    segments: Vec<Segment<'a>>,
    /// Tensors that came from outside, and the variables that stand for them.
    entries: Vec<(TensorId, TensorId)>,
    kept: u64,
}

impl<'a> Tape<'a> {
    /// An empty tape.
    pub fn new(keep: Keep) -> Self {
        Self { keep: Some(keep), segments: Vec::new(), entries: Vec::new(), kept: 0 }
    }

    /// A tape that records nothing and cuts nothing: what runs on it is an ordinary computation.
    pub fn off() -> Self {
        Self { keep: None, segments: Vec::new(), entries: Vec::new(), kept: 0 }
    }

    /// A tensor from outside. Its gradient will be found under itself if it is a variable, or computed from one.
    pub fn input(&mut self, tensor: &Tensor) -> Result<Value> {
        if self.keep.is_none() || !tensor.track_op() {
            return Ok(Value(tensor.clone()));
        }
        let leaf = leaf(tensor)?;
        if leaf.id() != tensor.id() {
            self.entries.push((tensor.id(), leaf.id()));
        }
        Ok(Value(leaf))
    }

    /// Runs a segment.
    ///
    /// `body` may be run again in the backward pass and has to compute the same then. A value that depends on no
    /// variable is a constant to what follows: nothing is kept for it, and no gradient is computed.
    pub fn run(
        &mut self,
        inputs: &[&Value],
        body: impl Fn(&[Tensor], Need) -> Result<Tensor> + Send + 'a,
    ) -> Result<Value> {
        let inputs: Vec<Tensor> = inputs.iter().map(|v| v.0.clone()).collect();
        let result = scope(|| body(&inputs, Need::Value))?;
        let Some(keep) = self.keep else { return Ok(Value(result)) };
        if !result.track_op() || result.is_variable() {
            return Ok(Value(result));
        }
        let output = leaf(&result)?;
        let kept = self.keeps(keep, &result).then_some(result);
        self.segments.push(Segment { body: Box::new(body), inputs, output: output.id(), kept });
        Ok(Value(output))
    }

    /// Whether the graph of a segment with this result is kept.
    fn keeps(&mut self, keep: Keep, result: &Tensor) -> bool {
        match keep {
            Keep::All => true,
            Keep::Boundaries => false,
            Keep::Within(limit) => {
                let size = graph_size(result);
                let fits = self.kept.saturating_add(size) <= limit;
                self.kept += if fits { size } else { 0 };
                fits
            }
        }
    }

    /// How many segments were recorded, and how many of them keep their graph.
    pub fn segments(&self) -> (usize, usize) {
        (self.segments.len(), self.segments.iter().filter(|s| s.kept.is_some()).count())
    }

    /// The gradients of all variables, given the gradient of `output`, the last segment's result.
    ///
    /// Errors: a gradient of another shape or type; those of the segments that are computed again.
    pub fn backward(mut self, output: &Value, gradient: &Tensor) -> Result<Gradients> {
        let y = output.tensor();
        if gradient.shape() != y.shape() || gradient.dtype() != y.dtype() {
            let (shape, dtype) = (gradient.shape(), gradient.dtype());
            bail!("a gradient {shape:?} {dtype:?} of a result {:?} {:?}", y.shape(), y.dtype())
        }
        let mut gradients = Gradients::default();
        if !y.is_variable() {
            return Ok(gradients);
        }
        gradients.add(y.id(), gradient.detach())?;
        while let Some(segment) = self.segments.pop() {
            // What nothing came of has no gradient.
            if let Some(gradient) = gradients.0.remove(&segment.output) {
                scope(|| segment.backward(gradient, &mut gradients))?;
            }
        }
        for (outside, leaf) in self.entries {
            if let Some(gradient) = gradients.0.remove(&leaf) {
                gradients.add(outside, gradient)?;
            }
        }
        Ok(gradients)
    }
}

impl Segment<'_> {
    /// Adds the gradients of this segment's inputs and of the variables inside.
    fn backward(self, gradient: Tensor, gradients: &mut Gradients) -> Result<()> {
        let _span = crate::span!("segment.backward", kept = self.kept.is_some());
        let result = match self.kept {
            Some(result) => result,
            None => {
                let _span = crate::span!("segment.again");
                (self.body)(&self.inputs, Need::Gradient)?
            }
        };
        let scalar = seeded(&result, gradient)?;
        drop(result);
        let nodes = scalar.sorted_nodes();
        let variables: Vec<TensorId> = nodes.iter().filter(|n| n.is_variable()).map(|n| n.id()).collect();
        let found = scalar.backward()?;
        // Only variables: candle also leaves gradients of constants behind.
        for id in variables {
            if let Some(gradient) = found.get_id(id) {
                gradients.add(id, gradient.clone())?;
            }
        }
        Ok(())
    }
}

/// Gradients of variables.
#[derive(Debug, Default)]
pub struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradient of a variable, or of a tracked tensor that was an input.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }

    /// How many tensors have one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds to the gradient of a variable, which the same variable has from elsewhere.
    fn add(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&id) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(id, sum.detach());
        Ok(())
    }
}

/// A variable with these numbers, without the graph behind them.
fn leaf(tensor: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(tensor)?.into_inner())
}

/// Bytes that the graph behind a tensor holds, without its variables; views of the same memory count once.
fn graph_size(result: &Tensor) -> u64 {
    let mut seen = HashSet::new();
    let nodes = result.sorted_nodes();
    let own = nodes.iter().filter(|n| !n.is_variable());
    own.map(|node| {
        let (storage, _) = node.storage_and_layout();
        let first = seen.insert(std::ptr::from_ref::<Storage>(&storage));
        if first { (node.elem_count() * node.dtype().size_in_bytes()) as u64 } else { 0 }
    })
    .sum()
}

/// A scalar whose gradient with respect to `result` is `gradient`.
fn seeded(result: &Tensor, gradient: Tensor) -> Result<Tensor> {
    if result.device().is_cpu() {
        return result.apply_op1(Seed(gradient));
    }
    (result * gradient)?.sum_all()
}

/// Reads nothing of its operand: its numbers may not be there.
struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), ().into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::pseudo_normal;
    use crate::{linear, silu};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn var(seed: u64, shape: (usize, usize)) -> Tensor {
        leaf(&pseudo_normal(seed, shape, 0.5)).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Three layers, the first frozen, with `context` in two of them.
    struct Net {
        frozen: Tensor,
        first: Tensor,
        second: Tensor,
        x: Tensor,
        context: Tensor,
    }

    impl Net {
        fn new() -> Self {
            let (frozen, x) = (pseudo_normal(1, (6, 5), 0.5), pseudo_normal(2, (3, 5), 1.0));
            Self { frozen, first: var(3, (6, 6)), second: var(4, (6, 6)), x, context: var(5, (3, 6)) }
        }

        fn run<'a>(&'a self, tape: &mut Tape<'a>, context: &Tensor) -> Value {
            let (x, context) = (tape.input(&self.x).unwrap(), tape.input(context).unwrap());
            let x = tape.run(&[&x], |t, _| silu(&linear(&t[0], &self.frozen, None)?)).unwrap();
            let mut h = x.clone();
            for weight in [&self.first, &self.second] {
                h = tape
                    .run(&[&h, &context, &x], move |t, _| {
                        (linear(&t[0], weight, None)? * &t[1])? + silu(&t[2])?
                    })
                    .unwrap();
            }
            h
        }
    }

    #[test]
    fn segments_give_the_gradients_of_the_whole_whatever_is_kept() {
        let net = Net::new();
        // Something is computed before the context comes in, and its gradient is to go on from there.
        let context = net.context.sqr().unwrap();
        let seed = pseudo_normal(9, (3, 6), 1.0);
        let whole = net.run(&mut Tape::off(), &context);
        let want = (whole.tensor() * &seed).unwrap().sum_all().unwrap().backward().unwrap();
        let run = |keep| {
            let mut tape = Tape::new(keep);
            let y = net.run(&mut tape, &context);
            assert_eq!(numbers(y.tensor()), numbers(whole.tensor()));
            let kept = tape.segments();
            (tape.backward(&y, &seed).unwrap(), kept)
        };
        let (all, kept) = run(Keep::All);
        assert_eq!(kept, (2, 2), "the frozen layer is no segment");
        let (none, kept) = run(Keep::Boundaries);
        assert_eq!(kept, (2, 0));
        let (some, kept) = run(Keep::Within(3 * 3 * 6 * 4 + 1));
        assert_eq!(kept, (2, 1));
        for gradients in [&all, &none, &some] {
            assert_eq!(gradients.len(), 3);
        }
        let through = |g: &Gradients| {
            (&context * g.get(&context).unwrap()).unwrap().sum_all().unwrap().backward().unwrap()
        };
        for tensor in [&net.first, &net.second] {
            let got = numbers(all.get(tensor).unwrap());
            assert_eq!(got, numbers(want.get(tensor).unwrap()));
            assert_eq!(got, numbers(none.get(tensor).unwrap()));
            assert_eq!(got, numbers(some.get(tensor).unwrap()));
        }
        let wanted = numbers(want.get(&net.context).unwrap());
        let got = numbers(through(&none).get(&net.context).unwrap());
        for (a, b) in got.iter().zip(&wanted) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn a_kept_segment_runs_once_and_another_twice() {
        let weight = var(1, (4, 4));
        let x = pseudo_normal(2, (2, 4), 1.0);
        for (keep, runs) in [(Keep::All, 1), (Keep::Boundaries, 2)] {
            let count = AtomicUsize::new(0);
            let mut tape = Tape::new(keep);
            let x = tape.input(&x).unwrap();
            let y = tape
                .run(&[&x], |t, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                    linear(&t[0], &weight, None)
                })
                .unwrap();
            tape.backward(&y, &pseudo_normal(3, (2, 4), 1.0)).unwrap();
            assert_eq!(count.load(Ordering::Relaxed), runs);
        }
    }

    #[test]
    fn without_variables_there_are_no_segments_and_no_gradients() {
        let weight = pseudo_normal(1, (4, 4), 1.0);
        let mut tape = Tape::new(Keep::All);
        let x = tape.input(&pseudo_normal(2, (2, 4), 1.0)).unwrap();
        let y = tape.run(&[&x], |t, _| linear(&t[0], &weight, None)).unwrap();
        assert_eq!(tape.segments(), (0, 0));
        assert!(tape.backward(&y, &pseudo_normal(3, (2, 4), 1.0)).unwrap().is_empty());
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let weight = var(1, (4, 4));
        let mut tape = Tape::new(Keep::All);
        let x = tape.input(&pseudo_normal(2, (2, 4), 1.0)).unwrap();
        let y = tape.run(&[&x], |t, _| linear(&t[0], &weight, None)).unwrap();
        let error = tape.backward(&y, &pseudo_normal(3, (2, 5), 1.0)).unwrap_err().to_string();
        assert!(error.contains("[2, 5]") && error.contains("[2, 4]"), "{error}");
    }
}
