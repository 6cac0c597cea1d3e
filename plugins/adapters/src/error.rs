//! Errors of files as errors of the sdk.

use atelier_sdk::{Error, ErrorKind};
use atelier_weights::Error as WeightsError;
use atelier_weights::lora::layouts::LayoutError;

/// What working with a file ran into.
pub fn weights(what: impl Into<String>) -> impl FnOnce(WeightsError) -> Error {
    let what = what.into();
    move |e| Error::new(kind(&e), what).because(e)
}

/// What the tensor library ran into.
pub fn tensor(what: &'static str) -> impl Fn(candle_core::Error) -> Error {
    move |e| Error::internal(what).because(e)
}

/// What has no place in a layout.
pub fn layout(e: LayoutError) -> Error {
    let unsupported = |e: &LayoutError| Error::new(ErrorKind::Unsupported, e.to_string());
    match e {
        LayoutError::Kind { .. } => unsupported(&e).hint("convert it with `--to kohya`"),
        LayoutError::ByInputs { .. } => unsupported(&e),
        LayoutError::Tensor(e) => tensor("writing factors")(e),
    }
}

fn kind(e: &WeightsError) -> ErrorKind {
    match e {
        WeightsError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ErrorKind::NotFound
        }
        WeightsError::Io { .. } => ErrorKind::Environment,
        WeightsError::MissingFile { .. } | WeightsError::MissingPart { .. } => ErrorKind::NotFound,
        WeightsError::AdapterBase { .. }
        | WeightsError::OtherAdapter { .. }
        | WeightsError::OtherModel { .. }
        | WeightsError::OldTorch { .. } => ErrorKind::Unsupported,
        WeightsError::NothingMatches { .. } | WeightsError::Blocks { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::Corrupt,
    }
}
