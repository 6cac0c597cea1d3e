//! The codes of the rows of a column.

/// Codes, each in as few bytes as the largest of them takes: most columns have less than 256 values, and every page of
/// memory that is touched for the first time costs more than the codes in it.
#[derive(Debug, Clone)]
pub enum Codes {
    Bytes(Vec<u8>),
    Pairs(Vec<u16>),
    Words(Vec<u32>),
}

impl Codes {
    /// None yet, with memory for so many.
    pub fn of(rows: usize) -> Self {
        Self::Bytes(Vec::with_capacity(rows))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.len(),
            Self::Pairs(codes) => codes.len(),
            Self::Words(codes) => codes.len(),
        }
    }

    /// How many there is memory for.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.capacity(),
            Self::Pairs(codes) => codes.capacity(),
            Self::Words(codes) => codes.capacity(),
        }
    }

    /// That of a row.
    pub fn get(&self, row: usize) -> u32 {
        match self {
            Self::Bytes(codes) => codes[row].into(),
            Self::Pairs(codes) => codes[row].into(),
            Self::Words(codes) => codes[row],
        }
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Adds that of a row.
    #[inline]
    pub fn push(&mut self, code: u32) {
        match self {
            Self::Bytes(codes) if code <= u8::MAX.into() => codes.push(code as u8),
            Self::Pairs(codes) if code <= u16::MAX.into() => codes.push(code as u16),
            Self::Words(codes) => codes.push(code),
            _ => self.push_wider(code),
        }
    }

    #[cold]
    fn push_wider(&mut self, code: u32) {
        self.widen();
        self.push(code);
    }

    /// Adds those of others, each as what `new` has for it.
    pub fn append(&mut self, others: &Self, new: &[u32]) {
        let small: Option<Vec<u8>> = new.iter().map(|code| u8::try_from(*code).ok()).collect();
        match (&mut *self, others, small) {
            (Self::Bytes(codes), Self::Bytes(others), Some(new)) => {
                codes.extend(others.iter().map(|code| new[usize::from(*code)]));
            }
            _ => others.iter().for_each(|code| self.push(new[code as usize])),
        }
    }

    fn widen(&mut self) {
        *self = match self {
            Self::Bytes(codes) => Self::Pairs(wider(codes)),
            Self::Pairs(codes) => Self::Words(wider(codes)),
            Self::Words(codes) => Self::Words(std::mem::take(codes)),
        };
    }

    /// Adds a code up to so many rows.
    pub fn fill(&mut self, rows: usize, code: u32) {
        (self.len()..rows).for_each(|_| self.push(code));
    }
}

fn wider<A: Copy, B: From<A>>(codes: &Vec<A>) -> Vec<B> {
    let mut out = Vec::with_capacity(codes.capacity());
    out.extend(codes.iter().map(|code| B::from(*code)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_any_size_come_back() {
        let given = [0, 7, 255, 256, 3, 65_535, 1, 65_536, u32::MAX, 0];
        let mut codes = Codes::of(3);
        for (i, code) in given.into_iter().enumerate() {
            codes.push(code);
            assert_eq!(codes.iter().collect::<Vec<_>>(), given[..=i]);
        }
        let new: Vec<u32> = (0..=65_536).map(|code| 70_000 - code).collect();
        for count in [1, 4, 5, 8] {
            let (mut of, mut all) = (Codes::of(0), Codes::of(0));
            given[..count].iter().for_each(|code| of.push(*code));
            all.append(&of, &(0..=255).chain([9]).cycle().take(65_537).collect::<Vec<_>>());
            all.append(&of, &new);
            let first = given[..count].iter().map(|code| if code % 257 == 256 { 9 } else { code % 257 });
            let second = given[..count].iter().map(|code| 70_000 - code);
            assert_eq!(all.iter().collect::<Vec<_>>(), first.chain(second).collect::<Vec<_>>());
        }
        codes.fill(12, 5);
        assert_eq!((codes.len(), codes.get(8), codes.get(11)), (12, u32::MAX, 5));
    }
}
