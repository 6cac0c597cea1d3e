//! What can be wrong with what an optimiser is given.

use std::fmt;

/// A mistake in numbers handed over, in a configuration, or in a saved state. Nothing was changed when one comes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// As many of something were expected as there are tensors or groups.
    Count {
        /// What was counted.
        what: &'static str,
        /// As many as there should be.
        expected: usize,
        /// As many as came.
        got: usize,
    },
    /// A vector has another length than its tensor.
    Length {
        /// Which vector.
        name: String,
        /// The tensor's number of elements.
        expected: usize,
        /// The vector's.
        got: usize,
    },
    /// A gradient is infinite or not a number.
    NonFinite {
        /// The tensor it belongs to.
        name: String,
    },
    /// A setting is out of range.
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        must: &'static str,
    },
    /// A tensor names a group that does not exist.
    NoGroup {
        /// The tensor.
        name: String,
        /// The group it names.
        group: usize,
    },
    /// Two tensors have one name, so that their states could not be told apart.
    Twice {
        /// The name.
        name: String,
    },
    /// Prodigy estimates one rate; groups may switch it off, but not have different ones.
    UnequalRates,
    /// The saved state is that of something else.
    Foreign {
        /// Whose state was needed.
        expected: String,
        /// Whose it is.
        got: String,
    },
    /// The saved state lacks something.
    Missing {
        /// The name of the vector or number.
        name: String,
    },
    /// The saved state has something that nothing here goes by.
    Unknown {
        /// The name of the vector or number.
        name: String,
    },
    /// A number of the saved state cannot be.
    Damaged {
        /// The name of the number.
        name: String,
        /// What it is.
        value: f64,
    },
    /// The averaged weights are in use in place of the trained ones.
    Swapped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { what, expected, got } => write!(f, "{got} {what} instead of {expected}"),
            Self::Length { name, expected, got } => {
                write!(f, "`{name}` has {got} numbers instead of {expected}")
            }
            Self::NonFinite { name } => write!(f, "the gradient of `{name}` is not finite"),
            Self::Setting { name, value, must } => write!(f, "`{name}` is {value}, and must be {must}"),
            Self::NoGroup { name, group } => {
                write!(f, "`{name}` belongs to group {group}, which does not exist")
            }
            Self::Twice { name } => write!(f, "two tensors are named `{name}`"),
            Self::UnequalRates => f.write_str(
                "prodigy needs the same learning rate for all groups, or 0 to leave a group as it is",
            ),
            Self::Foreign { expected, got } => {
                write!(f, "the saved state is that of {got}, not of {expected}")
            }
            Self::Missing { name } => write!(f, "the saved state has no `{name}`"),
            Self::Unknown { name } => write!(f, "the saved state has `{name}`, which nothing here goes by"),
            Self::Damaged { name, value } => write!(f, "`{name}` of the saved state cannot be {value}"),
            Self::Swapped => f.write_str("the averaged weights are in the place of the trained ones"),
        }
    }
}

impl std::error::Error for Error {}
