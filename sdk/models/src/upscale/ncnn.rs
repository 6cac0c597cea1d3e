//! Upscalers in the files of ncnn, whose layers have numbers for names: what is what, the way they are connected says.
//!
//! The graph is worked out as a formula, and so is that of the network it should be: the file is taken only if both are the
//! same. Concats in another order, another slope or a forgotten residual make another formula.

use super::detect::{self, Found};
use super::{Architecture, Family, Rectifier, UpscalerFile};
use crate::error::{Error, Result};
use atelier_weights::{Ncnn, NcnnLayer};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Text and weights, if `path` is that of one of them.
pub(super) fn pair(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let (param, bin) = (path.with_extension("param"), path.with_extension("bin"));
    match path.extension()?.to_str()? {
        "param" => Some((param, bin)),
        "bin" if param.is_file() => Some((param, bin)),
        _ => None,
    }
}

pub(super) fn open(param: &Path, bin: &Path) -> Result<UpscalerFile> {
    of(Ncnn::open(param, bin)?, &param.display().to_string())
}

pub(super) fn of(model: Ncnn, place: &str) -> Result<UpscalerFile> {
    let found = recognised(&model).map_err(|found| Error::NotAnUpscaler { place: place.into(), found })?;
    Ok(UpscalerFile::found(Arc::new(model.into_weights()), found))
}

/// A formula that was seen before has the same number.
type Id = usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Formula {
    Image,
    /// The convolution of this number, counted through the file.
    Convolved(usize, Id),
    /// max(x, 0) + a min(x, 0) with the bits of `a`.
    Rectified(u32, Id),
    /// The same with the slopes of the PReLU of this number.
    Sloped(usize, Id),
    Stacked(Vec<Id>),
    /// Sorted, each with the bits of its factor.
    Sum(Vec<(Id, u32)>),
    /// Nearest-neighbour enlargement.
    Enlarged(usize, Id),
    /// Channels to squares of pixels.
    Unfolded(usize, Id),
    /// And back.
    Folded(usize, Id),
}

#[derive(Default)]
struct Formulas {
    known: HashMap<Formula, Id>,
    all: Vec<Formula>,
}

impl Formulas {
    fn id(&mut self, formula: Formula) -> Id {
        if let Some(id) = self.known.get(&formula) {
            return *id;
        }
        self.all.push(formula.clone());
        self.known.insert(formula, self.all.len() - 1);
        self.all.len() - 1
    }

    fn convolved(&mut self, number: usize, x: Id) -> Id {
        self.id(Formula::Convolved(number, x))
    }

    fn rectified(&mut self, slope: f32, x: Id) -> Id {
        self.id(Formula::Rectified(slope.to_bits(), x))
    }

    /// The sum of terms with factors. A term that is a multiple of something counts as that with its factor.
    fn sum(&mut self, terms: &[(Id, f32)]) -> Id {
        let plain = |(id, factor): &(Id, f32)| match &self.all[*id] {
            Formula::Sum(inner) if inner.len() == 1 => {
                (inner[0].0, (f32::from_bits(inner[0].1) * factor).to_bits())
            }
            _ => (*id, factor.to_bits()),
        };
        let mut terms: Vec<(Id, u32)> = terms.iter().map(plain).collect();
        terms.sort_unstable();
        self.id(Formula::Sum(terms))
    }
}

/// What a graph has in it.
struct Graph {
    formulas: Formulas,
    result: Id,
    convolutions: Vec<String>,
    slopes: Vec<String>,
    /// The fixed slope of an activation, the last that was seen.
    slope: Option<f32>,
    unfolds: bool,
}

fn recognised(model: &Ncnn) -> std::result::Result<Found, String> {
    let mut graph = graph(model.layers())?;
    let compact = graph.unfolds;
    let names = if compact { compact_names(&graph) } else { rrdb_names(&graph)? };
    let last = |names: &BTreeMap<String, String>| {
        names.keys().filter_map(|n| n.strip_prefix("body.")?.split('.').next()?.parse().ok()).max()
    };
    let shape = |name: &str| Some(model.weights().info(names.get(name)?)?.shape.clone());
    let architecture = match compact {
        true => detect::compact(&shape, last(&names), graph.slope.map(Rectifier::Fixed))?,
        false => detect::rrdb(&shape, last(&names))?,
    };
    let expected = match architecture.family {
        Family::Compact => compact_formula(&mut graph.formulas, &architecture),
        Family::Rrdb => rrdb_formula(&mut graph.formulas, &architecture),
    };
    match expected == graph.result {
        true => Ok(Found { architecture, names }),
        false => Err(format!(
            "an ncnn graph with the convolutions of {}, connected in another way",
            detect::describe(&architecture)
        )),
    }
}

/// Names of tensors: those of BasicSR, each with that in the file.
fn tensors(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    pairs
        .flat_map(|(new, layer)| {
            ["weight", "bias"].map(|end| (format!("{new}.{end}"), format!("{layer}.{end}")))
        })
        .collect()
}

fn compact_names(graph: &Graph) -> BTreeMap<String, String> {
    let convolutions = graph.convolutions.iter().enumerate().map(|(i, layer)| (2 * i, layer));
    let mut names = tensors(convolutions.map(|(i, layer)| (format!("body.{i}"), layer.clone())));
    let slopes = graph.slopes.iter().enumerate();
    names.extend(slopes.map(|(i, layer)| (format!("body.{}.weight", 2 * i + 1), format!("{layer}.weight"))));
    names
}

/// Fifteen convolutions a block, and beside them four and one for each doubling.
fn rrdb_names(graph: &Graph) -> std::result::Result<BTreeMap<String, String>, String> {
    let count = graph.convolutions.len();
    let blocks = count.saturating_sub(4) / 15;
    if blocks == 0 {
        return Err(format!("an ncnn graph with {count} convolutions"));
    }
    let doublings = count - 4 - 15 * blocks;
    let mut names = vec!["conv_first".to_string()];
    for i in 0..blocks {
        let dense = (1..=3).flat_map(|rdb| (1..=5).map(move |conv| (rdb, conv)));
        names.extend(dense.map(|(rdb, conv)| format!("body.{i}.rdb{rdb}.conv{conv}")));
    }
    names.push("conv_body".into());
    names.extend((1..=doublings).map(|i| format!("conv_up{i}")));
    names.extend(["conv_hr".into(), "conv_last".into()]);
    Ok(tensors(names.into_iter().zip(graph.convolutions.iter().cloned())))
}

fn compact_formula(f: &mut Formulas, a: &Architecture) -> Id {
    let image = f.id(Formula::Image);
    let mut x = image;
    for i in 0..=a.blocks {
        x = f.convolved(i, x);
        x = match a.rectifier {
            Rectifier::Learned => f.id(Formula::Sloped(i, x)),
            Rectifier::Fixed(slope) => f.rectified(slope, x),
        };
    }
    x = f.convolved(a.blocks + 1, x);
    let (drawn, enlarged) = (f.id(Formula::Unfolded(a.scale, x)), f.id(Formula::Enlarged(a.scale, image)));
    f.sum(&[(drawn, 1.0), (enlarged, 1.0)])
}

fn rrdb_formula(f: &mut Formulas, a: &Architecture) -> Id {
    let mut number = 0..;
    let mut convolved = |f: &mut Formulas, x| f.convolved(number.next().unwrap_or(usize::MAX), x);
    let mut image = f.id(Formula::Image);
    if a.unshuffle > 1 {
        image = f.id(Formula::Folded(a.unshuffle, image));
    }
    let first = convolved(f, image);
    let mut features = first;
    for _ in 0..a.blocks {
        let mut inner = features;
        for _ in 0..3 {
            let mut stack = vec![inner];
            for i in 0..4 {
                let all = if i == 0 { inner } else { f.id(Formula::Stacked(stack.clone())) };
                let y = convolved(f, all);
                stack.push(f.rectified(0.2, y));
            }
            let all = f.id(Formula::Stacked(stack));
            let y = convolved(f, all);
            inner = f.sum(&[(inner, 1.0), (y, 0.2)]);
        }
        features = f.sum(&[(features, 1.0), (inner, 0.2)]);
    }
    let body = convolved(f, features);
    let mut x = f.sum(&[(first, 1.0), (body, 1.0)]);
    for _ in 0..a.doublings() {
        x = f.id(Formula::Enlarged(2, x));
        x = convolved(f, x);
        x = f.rectified(0.2, x);
    }
    x = convolved(f, x);
    x = f.rectified(0.2, x);
    convolved(f, x)
}

/// Works out what each layer gives.
fn graph(layers: &[NcnnLayer]) -> std::result::Result<Graph, String> {
    let mut graph = Graph {
        formulas: Formulas::default(),
        result: 0,
        convolutions: Vec::new(),
        slopes: Vec::new(),
        slope: None,
        unfolds: false,
    };
    let mut blobs: HashMap<&str, Id> = HashMap::new();
    for layer in layers {
        let inputs: Option<Vec<Id>> =
            layer.inputs.iter().map(|name| blobs.get(name.as_str()).copied()).collect();
        // The reader has made sure of the names.
        let id = inputs.and_then(|inputs| graph.layer(layer, &inputs)).ok_or_else(|| refusal(layer))?;
        blobs.extend(layer.outputs.iter().map(|name| (name.as_str(), id)));
        graph.result = id;
    }
    Ok(graph)
}

fn refusal(layer: &NcnnLayer) -> String {
    let NcnnLayer { kind, name, .. } = layer;
    if kind == "Interp" {
        return format!(
            "an ncnn graph that resizes in layer {name}, which is no part of the network: files that shrink what a \
             network of a larger factor gives have its weights, open that file"
        );
    }
    format!(
        "an ncnn graph with the layer {name} of the type {kind}, which such a network has not, or not in this way"
    )
}

impl Graph {
    /// What a layer gives of what it takes; none for what no upscaler of these classes does.
    fn layer(&mut self, layer: &NcnnLayer, inputs: &[Id]) -> Option<Id> {
        let count = |number, default| layer.count(number, default);
        let number = |at, default| layer.number(at).map_or(default, |v| v as f32);
        let f = &mut self.formulas;
        Some(match (layer.kind.as_str(), inputs) {
            ("Input", []) => f.id(Formula::Image),
            ("Split" | "Noop" | "Dropout", [x]) => *x,
            ("Convolution", [x]) => return self.convolution(layer, *x),
            ("PReLU", [x]) => {
                self.slopes.push(layer.name.clone());
                f.id(Formula::Sloped(self.slopes.len() - 1, *x))
            }
            ("ReLU", [x]) => {
                self.slope = Some(number(0, 0.0));
                f.rectified(number(0, 0.0), *x)
            }
            ("Concat", [_, ..]) if count(0, 0)? == 0 => f.id(Formula::Stacked(inputs.to_vec())),
            // Operation 1 is the sum; factors are optional.
            ("Eltwise", [_, ..]) if count(0, 0)? == 1 => {
                let factors = layer.list(1);
                let factor = |i: usize| if factors.is_empty() { Some(1.0) } else { factors.get(i).copied() };
                let terms = inputs.iter().enumerate().map(|(i, x)| Some((*x, factor(i)? as f32)));
                let terms: Vec<(Id, f32)> = terms.collect::<Option<_>>()?;
                f.sum(&terms)
            }
            // 0 adds, 2 multiplies.
            ("BinaryOp", [a, b]) if count(0, 0)? == 0 && count(1, 0)? == 0 => f.sum(&[(*a, 1.0), (*b, 1.0)]),
            ("BinaryOp", [x]) if count(0, 0)? == 2 && count(1, 0)? == 1 => f.sum(&[(*x, number(2, 0.0))]),
            ("Interp", [x]) if count(0, 0)? == 1 && count(3, 0)? == 0 && count(4, 0)? == 0 => {
                let (down, across) = (count(1, 1)?, count(2, 1)?);
                (down == across && down > 0).then(|| f.id(Formula::Enlarged(down, *x)))?
            }
            ("PixelShuffle", [x]) if count(1, 0)? == 0 => {
                self.unfolds = true;
                f.id(Formula::Unfolded(count(0, 1)?, *x))
            }
            ("Reorg", [x]) if count(1, 0)? == 0 => f.id(Formula::Folded(count(0, 1)?, *x)),
            _ => return None,
        })
    }

    /// 3x3 with a border of one zero, and what may be fused with it.
    fn convolution(&mut self, layer: &NcnnLayer, x: Id) -> Option<Id> {
        let count = |number, default| layer.count(number, default);
        let (dilation, stride, border) = (count(2, 1)?, count(3, 1)?, count(4, 0)?);
        let square = [(11, 3), (12, dilation), (13, stride), (14, border), (15, border), (16, border)];
        let even = square.into_iter().all(|(number, same)| count(number, same) == Some(same));
        let value = layer.number(18).unwrap_or(0.0);
        if (count(1, 0)?, dilation, stride, border, count(5, 0)?) != (3, 1, 1, 1, 1) || !even || value != 0.0
        {
            return None;
        }
        self.convolutions.push(layer.name.clone());
        let y = self.formulas.convolved(self.convolutions.len() - 1, x);
        let slope = match (count(9, 0)?, layer.list(10)) {
            (0, _) => return Some(y),
            (1, _) => 0.0,
            (2, [slope]) => *slope as f32,
            _ => return None,
        };
        self.slope = Some(slope);
        Some(self.formulas.rectified(slope, y))
    }
}
