//! Errors of the readers as errors of the sdk.

use atelier_sdk::{Error, ErrorKind};
use atelier_weights::Error as WeightsError;

/// What reading a model's files ran into.
pub fn weights(e: WeightsError) -> Error {
    let kind = match &e {
        WeightsError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => ErrorKind::Corrupt,
            _ => ErrorKind::Environment,
        },
        WeightsError::MissingFile { .. } | WeightsError::MissingPart { .. } => ErrorKind::NotFound,
        WeightsError::OtherModel { .. } | WeightsError::OldTorch { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    let is_code = matches!(e, WeightsError::ForbiddenGlobal { .. });
    let e = Error::new(kind, "cannot read the model").because(e);
    if is_code { e.hint("get the model as a safetensors file, which cannot hold code") } else { e }
}
