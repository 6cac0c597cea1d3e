//! Tensors out of a pickle, without running it.
//!
//! A pickle is a program for a small stack machine that may name and call any function of Python
//! (<https://docs.python.org/3/library/pickletools.html>). This machine knows the few names by which `torch.save`
//! writes tensors (<https://pytorch.org/docs/stable/notes/serialization.html>), builds data only, and stops with an
//! error at every other name. Protocols 2 to 5, as far as torch writes them.

use super::Place;
use crate::error::{Error, Result};
use crate::header::StoredDtype;
use std::collections::HashMap;

/// Instructions that are followed. Large checkpoints with their optimizer have some hundred thousand.
const MAX_STEPS: usize = 4_000_000;
/// Dictionaries in dictionaries that are searched for tensors.
const MAX_DEPTH: usize = 4;
/// Entries of dictionaries that are looked at, counted again for each way that leads to them.
const MAX_ENTRIES: usize = 200_000;
/// The longest name, in bytes: one long text may be referred to often.
const MAX_NAME: usize = 256;
/// The most arguments of a call that makes something.
const MAX_ARGUMENTS: usize = 16;
/// More dimensions than a weight has.
const MAX_DIMENSIONS: usize = 8;

/// A tensor as the pickle describes it: a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) storage: Storage,
    /// Elements before the first.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Elements from one to the next in each dimension.
    pub(super) strides: Vec<u64>,
}

/// Elements in an entry of the archive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub(super) dtype: StoredDtype,
    pub(super) key: String,
    pub(super) elements: u64,
}

/// A name that a pickle may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StoredDtype),
    /// Stands beside the weights in checkpoints of training programs; what it would make is not made.
    Ignored,
}

pub(super) fn known(module: &str, name: &str) -> Option<Known> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Known::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Known::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Known::RebuildParameter,
        ("torch", storage) => Known::Storage(match storage.strip_suffix("Storage")? {
            "Float" => StoredDtype::F32,
            "Half" => StoredDtype::F16,
            "BFloat16" => StoredDtype::BF16,
            "Double" => StoredDtype::F64,
            "Long" => StoredDtype::I64,
            "Int" => StoredDtype::I32,
            "Short" => StoredDtype::I16,
            "Char" => StoredDtype::I8,
            "Byte" => StoredDtype::U8,
            "Bool" => StoredDtype::Bool,
            _ => return None,
        }),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
        | ("numpy.core.multiarray", "scalar")
        | ("numpy", "dtype")
        | ("_codecs", "encode") => Known::Ignored,
        _ => return None,
    })
}

/// A value of the machine. Everything with contents is a number of an object, so that values are small and
/// pickles that refer to themselves need no care.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// None, floats, bytes and whatever else no tensor needs.
    Other,
    Bool,
    Int(i64),
    Mark,
    Known(Known),
    Object(usize),
}

#[derive(Debug)]
enum Object {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(View),
}

/// The tensors of a pickle by name: those of `params_ema`, `state_dict` or `params` if the outermost dictionary has one, in
/// this order (training programs that keep averaged weights beside the last ones mean the average), else its own; names of inner dictionaries are joined with dots.
///
/// Errors: a name that is not known, with its place; instructions that torch does not write; a damaged pickle.
pub(super) fn tensors(place: &Place, code: &[u8]) -> Result<Vec<(String, View)>> {
    let mut machine = Machine::new(place, code);
    let top = machine.run()?;
    machine.collect(top)
}

struct Machine<'a> {
    place: &'a Place<'a>,
    code: &'a [u8],
    at: usize,
    /// Where the instruction began that is being followed.
    instruction: usize,
    stack: Vec<Value>,
    memo: HashMap<usize, Value>,
    objects: Vec<Object>,
}

impl<'a> Machine<'a> {
    fn new(place: &'a Place<'a>, code: &'a [u8]) -> Self {
        Self {
            place,
            code,
            at: 0,
            instruction: 0,
            stack: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
        }
    }

    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::Pickle {
            path: self.place.path.into(),
            offset: (self.place.start + self.instruction) as u64,
            message: message.into(),
        }
    }

    fn run(&mut self) -> Result<Value> {
        for _ in 0..MAX_STEPS {
            self.instruction = self.at;
            let code = self.byte()?;
            if code == b'.' {
                return self.pop();
            }
            self.follow(code)?;
        }
        Err(self.wrong(format!("expected at most {MAX_STEPS} instructions, found more")))
    }

    fn follow(&mut self, code: u8) -> Result<()> {
        match code {
            b'(' => self.stack.push(Value::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.cut_at_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(|| self.wrong("the stack is empty"))?;
                self.stack.push(top);
            }
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?),
            b'c' | 0x93 => self.global(code)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(code)?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => self.storage()?,
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' => self.container(code)?,
            b'a' | b'e' | b's' | b'u' => self.extend(code)?,
            _ => self.plain(code)?,
        }
        Ok(())
    }

    fn protocol(&mut self) -> Result<()> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(self.wrong(format!("expected pickle protocol 2 to 5, found {other}"))),
        }
    }

    /// Numbers, texts and bytes.
    fn plain(&mut self, code: u8) -> Result<()> {
        let value = match code {
            b'N' => Value::Other,
            0x88 | 0x89 => Value::Bool,
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                Value::Other
            }
            b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(code)?,
            b'B' | b'C' | 0x8e => {
                let length = self.length(code)?;
                self.take(length)?;
                Value::Other
            }
            _ => return Err(self.wrong(format!("instruction {code:#04x} is none that torch writes"))),
        };
        self.stack.push(value);
        Ok(())
    }

    /// A whole number of up to eight bytes; longer ones are no sizes.
    fn long(&mut self) -> Result<Value> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        if length > 8 {
            return Ok(Value::Other);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    /// The length that follows an instruction for text or bytes.
    fn length(&mut self, code: u8) -> Result<usize> {
        Ok(match code {
            0x8c | b'U' | b'C' => usize::from(self.byte()?),
            0x8d | 0x8e => usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX),
            _ => u32::from_le_bytes(self.array()?) as usize,
        })
    }

    fn text(&mut self, code: u8) -> Result<Value> {
        let length = self.length(code)?;
        let bytes = self.take(length)?;
        let text = String::from_utf8_lossy(bytes).into_owned();
        Ok(self.object(Object::Text(text)))
    }

    fn global(&mut self, code: u8) -> Result<()> {
        let known = if code == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            self.look_up(&module, &name)?
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            self.look_up(self.text_of(module)?, self.text_of(name)?)?
        };
        self.stack.push(Value::Known(known));
        Ok(())
    }

    fn look_up(&self, module: &str, name: &str) -> Result<Known> {
        let short = |text: &str| text.chars().take(MAX_NAME).collect::<String>();
        known(module, name).ok_or_else(|| Error::ForbiddenGlobal {
            path: self.place.path.into(),
            offset: (self.place.start + self.instruction) as u64,
            global: format!("{}.{}", short(module), short(name)),
        })
    }

    fn memory(&mut self, code: u8) -> Result<()> {
        let slot = match code {
            b'q' | b'h' => usize::from(self.byte()?),
            b'r' | b'j' => u32::from_le_bytes(self.array()?) as usize,
            _ => self.memo.len(),
        };
        if matches!(code, b'h' | b'j') {
            let value = self.memo.get(&slot).copied();
            self.stack.push(value.ok_or_else(|| self.wrong(format!("nothing was remembered under {slot}")))?);
        } else {
            let top = *self.stack.last().ok_or_else(|| self.wrong("the stack is empty"))?;
            self.memo.insert(slot, top);
        }
        Ok(())
    }

    fn container(&mut self, code: u8) -> Result<()> {
        let object = match code {
            b')' => Object::Tuple(Vec::new()),
            b't' => Object::Tuple(self.cut_at_mark()?),
            b']' => Object::List(Vec::new()),
            b'l' => Object::List(self.cut_at_mark()?),
            b'}' => Object::Dict(Vec::new()),
            b'd' => Object::Dict(self.pairs()?),
            _ => {
                let count = usize::from(code - 0x84);
                let start = self.stack.len().checked_sub(count);
                let start = start.ok_or_else(|| self.wrong("the stack is empty"))?;
                Object::Tuple(self.stack.split_off(start))
            }
        };
        let value = self.object(object);
        self.stack.push(value);
        Ok(())
    }

    /// Appends to the list, or adds to the dictionary, below.
    fn extend(&mut self, code: u8) -> Result<()> {
        if matches!(code, b'a' | b'e') {
            let new = if code == b'a' { vec![self.pop()?] } else { self.cut_at_mark()? };
            return match self.below()? {
                Some(Object::List(list)) => {
                    list.extend(new);
                    Ok(())
                }
                _ => Err(self.wrong("expected a list to append to")),
            };
        }
        let new = if code == b'u' {
            self.pairs()?
        } else {
            let value = self.pop()?;
            vec![(self.pop()?, value)]
        };
        match self.below()? {
            Some(Object::Dict(dict)) => {
                dict.extend(new);
                Ok(())
            }
            _ => Err(self.wrong("expected a dictionary to add to")),
        }
    }

    fn call(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let arguments = match self.get(arguments) {
            Some(Object::Tuple(items)) if items.len() <= MAX_ARGUMENTS => items.clone(),
            _ => return Err(self.wrong("expected the arguments of a call")),
        };
        let made = match callee {
            Value::Known(Known::OrderedDict) if arguments.is_empty() => self.object(Object::Dict(Vec::new())),
            Value::Known(Known::RebuildTensor) => self.tensor(&arguments)?,
            Value::Known(Known::RebuildParameter) => match arguments.first() {
                Some(tensor) if matches!(self.get(*tensor), Some(Object::Tensor(_))) => *tensor,
                _ => return Err(self.wrong("expected a parameter made of a tensor")),
            },
            Value::Known(Known::Ignored) => Value::Other,
            _ => return Err(self.wrong("expected a call that makes a tensor or a dictionary")),
        };
        self.stack.push(made);
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...)`.
    fn tensor(&mut self, arguments: &[Value]) -> Result<Value> {
        let view = || -> Option<View> {
            let [storage, offset, shape, strides, ..] = arguments else { return None };
            let (Some(Object::Storage(storage)), Value::Int(offset)) = (self.get(*storage), *offset) else {
                return None;
            };
            let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
            let offset = u64::try_from(offset).ok()?;
            (shape.len() == strides.len()).then(|| View { storage: storage.clone(), offset, shape, strides })
        };
        let view = view().ok_or_else(|| {
            self.wrong("expected a tensor's storage, offset, sizes and strides, found something else")
        })?;
        Ok(self.object(Object::Tensor(view)))
    }

    fn sizes(&self, value: Value) -> Option<Vec<u64>> {
        let Object::Tuple(items) = self.get(value)? else { return None };
        let size = |v: &Value| if let Value::Int(n) = v { u64::try_from(*n).ok() } else { None };
        if items.len() > MAX_DIMENSIONS { None } else { items.iter().map(size).collect() }
    }

    /// The persistent id of a storage: `("storage", type, key, device, elements)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let storage = || -> Option<Storage> {
            let Object::Tuple(items) = self.get(id)? else { return None };
            let [kind, Value::Known(Known::Storage(dtype)), key, _, Value::Int(elements)] = items[..] else {
                return None;
            };
            if self.text_of(kind).ok()? != "storage" {
                return None;
            }
            let key = self.text_of(key).ok().filter(|key| key.len() <= MAX_NAME)?.to_owned();
            Some(Storage { dtype, key, elements: u64::try_from(elements).ok()? })
        };
        let storage =
            storage().ok_or_else(|| self.wrong("expected the place of a storage, found something else"))?;
        let value = self.object(Object::Storage(storage));
        self.stack.push(value);
        Ok(())
    }

    /// Attributes of an object: torch gives dictionaries of weights their versions. They are not kept.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let known = self.stack.last().copied();
        match known {
            Some(Value::Other) => Ok(()),
            Some(value) if matches!(self.get(value), Some(Object::Dict(_) | Object::Tensor(_))) => Ok(()),
            _ => Err(self.wrong("expected a dictionary to give attributes to")),
        }
    }

    // The stack and the code.

    fn object(&mut self, object: Object) -> Value {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    fn get(&self, value: Value) -> Option<&Object> {
        if let Value::Object(i) = value { self.objects.get(i) } else { None }
    }

    /// The object on top of the stack.
    fn below(&mut self) -> Result<Option<&mut Object>> {
        match self.stack.last() {
            Some(Value::Object(i)) => Ok(self.objects.get_mut(*i)),
            Some(_) => Ok(None),
            None => Err(self.wrong("the stack is empty")),
        }
    }

    fn text_of(&self, value: Value) -> Result<&str> {
        match self.get(value) {
            Some(Object::Text(text)) => Ok(text),
            _ => Err(self.wrong("expected a text")),
        }
    }

    fn pop(&mut self) -> Result<Value> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err(self.wrong("the stack is empty")),
            Some(value) => Ok(value),
        }
    }

    /// What lies above the last mark, which goes.
    fn cut_at_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark));
        let mark = mark.ok_or_else(|| self.wrong("expected a mark on the stack, found none"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn pairs(&mut self) -> Result<Vec<(Value, Value)>> {
        let items = self.cut_at_mark()?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.wrong("expected keys with values, found a key without one"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.code.get(self.at..end)) {
            Some(bytes) => {
                self.at += count;
                Ok(bytes)
            }
            None => Err(self.wrong(format!("expected {count} more bytes, found the end"))),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.wrong("the end"))
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.code[self.at..];
        let length = rest.iter().take(1000).position(|b| *b == b'\n');
        let length = length.ok_or_else(|| self.wrong("expected the end of a name, found none"))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    // What was built.

    fn collect(&self, top: Value) -> Result<Vec<(String, View)>> {
        let Some(Object::Dict(outer)) = self.get(top) else {
            return Err(self.wrong("expected a dictionary of tensors, found something else"));
        };
        let inner = |wanted: &str| {
            let found = outer.iter().find(|(key, _)| self.text_of(*key).is_ok_and(|k| k == wanted));
            found.map(|(_, value)| *value).filter(|v| matches!(self.get(*v), Some(Object::Dict(_))))
        };
        let root = ["params_ema", "state_dict", "params"].into_iter().find_map(inner).unwrap_or(top);
        let mut found = Vec::new();
        let mut waiting = vec![(String::new(), root, 0)];
        // A dictionary may be reached in many ways; every way counts, so that the search ends.
        let mut ways = 0;
        while let Some((prefix, value, depth)) = waiting.pop() {
            let Some(Object::Dict(pairs)) = self.get(value) else { continue };
            for (key, value) in pairs {
                ways += 1;
                if ways > MAX_ENTRIES {
                    return Err(self.wrong("expected fewer dictionaries in dictionaries"));
                }
                let Some(key) = self.text_of(*key).ok().filter(|key| key.len() <= MAX_NAME) else { continue };
                match self.get(*value) {
                    Some(Object::Tensor(view)) => found.push((format!("{prefix}{key}"), view.clone())),
                    Some(Object::Dict(_)) if depth < MAX_DEPTH => {
                        waiting.push((format!("{prefix}{key}."), *value, depth + 1));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}
