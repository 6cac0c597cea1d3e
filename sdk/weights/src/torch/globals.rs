//! Every name that a pickle asks for, listed without following anything: what stands in a file that is refused.

use super::pickle::known;
use std::collections::HashMap;

/// A name in a pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Module and name: `os.system`.
    pub name: String,
    /// Where in the pickle it is asked for.
    pub offset: usize,
    /// Whether it is one that tensors need.
    pub harmless: bool,
}

/// Most names that are listed.
const MOST: usize = 1000;
/// Longest name that is listed.
const LONGEST: usize = 100;

/// The names in order. The list ends where the pickle does, or where it stops making sense.
pub(crate) fn list(pickle: &[u8]) -> Vec<Global> {
    let mut walk = Walk { pickle, at: 0, texts: Vec::new(), memo: HashMap::new(), found: Vec::new() };
    while walk.found.len() < MOST && walk.step().is_some() {}
    walk.found
}

struct Walk<'a> {
    pickle: &'a [u8],
    at: usize,
    /// What was pushed last, as far as it is text.
    texts: Vec<Option<String>>,
    memo: HashMap<usize, Option<String>>,
    found: Vec<Global>,
}

impl Walk<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.pickle.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        let bytes = self.take(width)?;
        let value = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        usize::try_from(value).ok()
    }

    fn line(&mut self) -> Option<String> {
        let rest = self.pickle.get(self.at..)?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        self.at += end + 1;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn text(&mut self, width: usize) -> Option<()> {
        let length = self.number(width)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.texts.push(Some(text));
        Some(())
    }

    fn note(&mut self, offset: usize, module: &str, name: &str) {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let harmless = known(module, name).is_some();
        self.found.push(Global { name: format!("{}.{}", short(module), short(name)), offset, harmless });
        self.texts.push(None);
    }

    /// One instruction of Python's `pickletools`.
    fn step(&mut self) -> Option<()> {
        let offset = self.at;
        let code = *self.take(1)?.first()?;
        match code {
            b'.' => return None,
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.note(offset, &module, &name);
            }
            0x93 => {
                let (name, module) = (self.texts.pop()?, self.texts.pop()?);
                let unknown = || "?".to_string();
                self.note(offset, &module.unwrap_or_else(unknown), &name.unwrap_or_else(unknown));
            }
            b'X' | b'T' => self.text(4)?,
            b'U' | 0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'q' | b'r' | 0x94 => {
                let slot = match code {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                self.memo.insert(slot, self.texts.last().cloned().flatten());
            }
            b'h' | b'j' => {
                let slot = self.number(if code == b'h' { 1 } else { 4 })?;
                self.texts.push(self.memo.get(&slot).cloned().flatten());
            }
            b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'P' => {
                let line = self.line()?;
                let text = matches!(code, b'S' | b'V').then(|| line.trim_matches(['\'', '"']).to_string());
                self.texts.push(text);
            }
            _ => {
                self.skip(code)?;
                self.texts.push(None);
            }
        }
        // Only the last two are ever asked for.
        if self.texts.len() > 64 {
            self.texts.drain(..32);
        }
        Some(())
    }

    /// Passes over what belongs to an instruction.
    fn skip(&mut self, code: u8) -> Option<()> {
        let length = match code {
            b'C' => self.number(1)?,
            b'B' => self.number(4)?,
            0x8e | 0x96 => self.number(8)?,
            0x8a => self.number(1)?,
            0x8b => self.number(4)?,
            b'K' | 0x80 | 0x82 => 1,
            b'M' | 0x83 => 2,
            b'J' | 0x84 => 4,
            b'G' | 0x95 => 8,
            _ => 0,
        };
        self.take(length).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_listed_with_their_places() {
        let old = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\ncos\nsystem\nX\x04\0\0\0trueR.cnever\nseen\n";
        let found = list(old);
        let names: Vec<_> = found.iter().map(|g| (g.name.as_str(), g.offset, g.harmless)).collect();
        assert_eq!(names, [("torch._utils._rebuild_tensor_v2", 2, true), ("os.system", 35, false)]);
        // As protocol 4 has it, the module out of the memo.
        let new =
            b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x04eval\x94\x93\x94h\0\x8c\x04exec\x93.";
        let names: Vec<_> = list(new).into_iter().map(|g| g.name).collect();
        assert_eq!(names, ["builtins.eval", "builtins.exec"]);
    }

    #[test]
    fn a_pickle_that_breaks_off_ends_the_list() {
        for broken in [
            &b"c"[..],
            b"cos\nsys",
            b"X\xff\xff\xff\xff",
            b"\x93",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
            b"",
        ] {
            assert_eq!(list(broken), []);
        }
    }
}
