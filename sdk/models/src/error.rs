//! What can go wrong with a network.

use std::path::PathBuf;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its weights or configuration; the message names the file.
    #[error(transparent)]
    Weights(#[from] atelier_weights::Error),
    /// What it was given does not fit it.
    #[error("{network}: {message}")]
    Input {
        /// The network.
        network: &'static str,
        /// Expected and found.
        message: String,
    },
    /// The tensor library failed while computing.
    #[error("{network}: {source}")]
    Compute {
        /// The network.
        network: &'static str,
        /// Its message.
        source: Box<candle_core::Error>,
    },
    /// A file that holds another network than an upscaler of the family, or one with parts that are not known.
    #[error(
        "{place}: expected an upscaler of the class RRDBNet or SRVGGNetCompact (ESRGAN, Real-ESRGAN), found {found}"
    )]
    NotAnUpscaler {
        /// The file.
        place: String,
        /// What it is, with its article.
        found: String,
    },
    /// The caller asked for the end.
    #[error("{network}: ended before it was done")]
    Cancelled {
        /// The network.
        network: &'static str,
    },
    /// The files of a tokenizer.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// Expected and found.
        message: String,
    },
}

impl Error {
    /// Wraps a failure of the tensor library in `network`.
    pub(crate) fn compute(network: &'static str) -> impl Fn(candle_core::Error) -> Self {
        move |source| Self::Compute { network, source: Box::new(source) }
    }

    /// A wrong input of `network`.
    pub(crate) fn input(network: &'static str, message: impl Into<String>) -> Self {
        Self::Input { network, message: message.into() }
    }
}
