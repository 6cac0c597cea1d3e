//! Errors of the networks as errors of the sdk.

use atelier_models::Error as ModelError;
use atelier_sdk::{Error, ErrorKind};
use atelier_weights::Error as WeightsError;

/// What doing something with a network ran into.
pub fn model(what: &str, e: ModelError) -> Error {
    let kind = match &e {
        ModelError::Weights(w) => weights_kind(w),
        ModelError::Input { .. } => ErrorKind::InvalidRequest,
        ModelError::Tokenizer { .. } => ErrorKind::Corrupt,
        ModelError::NotAnUpscaler { .. } => ErrorKind::Unsupported,
        ModelError::Cancelled { .. } => ErrorKind::Cancelled,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, what).because(e)
}

/// What reading a model's files ran into.
pub fn weights(what: &str, e: WeightsError) -> Error {
    Error::new(weights_kind(&e), what).because(e)
}

/// [`weights`] for `map_err`.
pub fn weights_of(what: &str) -> impl Fn(WeightsError) -> Error {
    move |e| weights(what, e)
}

/// What the tensor library ran into.
pub fn tensor(what: &'static str) -> impl Fn(candle_core::Error) -> Error {
    move |e| {
        let text = e.to_string();
        let memory = ["out of memory", "OutOfMemory", "OUT_OF_MEMORY"].iter().any(|m| text.contains(m));
        let err = Error::new(if memory { ErrorKind::Environment } else { ErrorKind::Internal }, what);
        if memory { err.because(e).hint("choose a smaller size") } else { err.because(e) }
    }
}

fn weights_kind(e: &WeightsError) -> ErrorKind {
    match e {
        WeightsError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => ErrorKind::Corrupt,
            _ => ErrorKind::Environment,
        },
        WeightsError::MissingFile { .. } | WeightsError::MissingPart { .. } => ErrorKind::NotFound,
        WeightsError::OtherModel { .. }
        | WeightsError::OldTorch { .. }
        | WeightsError::OtherAdapter { .. }
        | WeightsError::AdapterBase { .. } => ErrorKind::Unsupported,
        WeightsError::NothingMatches { .. } | WeightsError::Blocks { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::Corrupt,
    }
}
