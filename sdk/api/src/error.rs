//! One error type for everything that crosses the line between host and plugin.
//!
//! An error says what was wrong, where, and what to do. It carries a kind (which decides the exit code and
//! whether it is the user's or our mistake), hints, and the chain of causes. Nothing is logged where an
//! error is made: only the host's dispatch logs a failed run, once.

use std::fmt;

/// What sort of failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A bug of atelier or of a plugin.
    Internal,
    /// The person asked the run to stop.
    Cancelled,
    /// The request is wrong: unknown field, wrong type, out of range, a combination that cannot work.
    InvalidRequest,
    /// A named thing does not exist: preset, engine, task, model, sampler, file.
    NotFound,
    /// The thing exists but not in this build or on this machine.
    Unsupported,
    /// The machine refused: permission, disk full, no device, out of memory.
    Environment,
    /// A file is damaged or is not what it claims to be.
    Corrupt,
    /// A plugin panicked.
    Panic,
    /// A plugin took longer than it may.
    Timeout,
}

impl ErrorKind {
    /// The process exit code for this kind (documented in `docs/reference/exit-codes.md`).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal | Self::Panic => 1,
            // 2 is clap's code for a wrong command line.
            Self::InvalidRequest => 3,
            Self::NotFound => 4,
            Self::Unsupported => 5,
            Self::Environment => 6,
            Self::Corrupt => 7,
            Self::Timeout => 8,
            Self::Cancelled => 130,
        }
    }

    /// The number under which this kind crosses to and from a plugin library; never changed, only added to.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Internal => 0,
            Self::Cancelled => 1,
            Self::InvalidRequest => 2,
            Self::NotFound => 3,
            Self::Unsupported => 4,
            Self::Environment => 5,
            Self::Corrupt => 6,
            Self::Panic => 7,
            Self::Timeout => 8,
        }
    }

    /// The kind of a number; one that a newer side has made up is a bug of that side until known better.
    pub(crate) const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Cancelled,
            2 => Self::InvalidRequest,
            3 => Self::NotFound,
            4 => Self::Unsupported,
            5 => Self::Environment,
            6 => Self::Corrupt,
            7 => Self::Panic,
            8 => Self::Timeout,
            _ => Self::Internal,
        }
    }

    /// Whether the user or the machine caused it, as opposed to a bug.
    pub const fn is_expected(self) -> bool {
        !matches!(self, Self::Internal | Self::Panic)
    }
}

type BoxedCause = Box<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hints: Vec<String>,
    source: Option<BoxedCause>,
}

/// The error of the sdk. Cheap to move (one pointer).
#[derive(Debug)]
pub struct Error(Box<Inner>);

/// A result with the sdk's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` whose message says what was wrong and where.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hints: Vec::new(), source: None }))
    }

    /// A bug.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// The run was stopped on request.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped on request")
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxedCause>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Changes the kind, for a caller that knows better what a failure means.
    #[must_use]
    pub fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Wraps this error in a wider one of the same kind; hints stay visible.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let hints = std::mem::take(&mut self.0.hints);
        let kind = self.0.kind;
        Self(Box::new(Inner { kind, message: message.into(), hints, source: Some(Box::new(self)) }))
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person can do about it.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// The messages from this error down to the first cause, without the backtraces that some libraries put
    /// into theirs; `Debug` has those.
    pub fn chain(&self) -> Vec<String> {
        let mut out = vec![self.0.message.clone()];
        let mut next = std::error::Error::source(self);
        while let Some(e) = next {
            let text = e.to_string();
            let text = text.split("\n   0: ").next().unwrap_or_default().to_string();
            // Wrappers that repeat their cause's text would say everything twice.
            if out.last().is_none_or(|last| !last.ends_with(&text)) {
                out.push(text);
            }
            next = e.source();
        }
        out
    }

    /// The kind that best describes an I/O error.
    pub fn io(what: impl Into<String>, e: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match e.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Environment,
        };
        let hint = match e.kind() {
            Io::PermissionDenied => Some("check the permissions, or choose another folder"),
            Io::StorageFull => Some("free some disk space, or choose another folder"),
            _ => None,
        };
        let err = Self::new(kind, what).because(e);
        match hint {
            Some(h) => err.hint(h),
            None => err,
        }
    }
}

/// What of an error crosses to another library or process beside kind and message.
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Detail {
    hints: Vec<String>,
    causes: Vec<String>,
    /// Backtraces and the like, of unexpected errors.
    debug: Option<String>,
}

/// Longest debugging text that crosses.
const MAX_DEBUG: usize = 64 << 10;

/// A cause that came from elsewhere as text.
struct Cause {
    message: String,
    next: Option<Box<Cause>>,
    debug: Option<String>,
}

impl Error {
    /// This error as it crosses to another library or process: code, message, JSON.
    pub fn to_parts(&self) -> (u32, String, String) {
        let debug = (!self.kind().is_expected()).then(|| format!("{self:?}")).map(|mut text| {
            text.truncate(text.floor_char_boundary(MAX_DEBUG));
            text
        });
        let causes = self.chain().into_iter().skip(1).collect();
        let detail = Detail { hints: self.0.hints.clone(), causes, debug };
        // Three texts are always JSON.
        let json = serde_json::to_string(&detail).unwrap_or_default();
        (self.kind().code(), self.0.message.clone(), json)
    }

    /// The error that [`Self::to_parts`] took apart. Details that cannot be read are left out.
    pub fn from_parts(code: u32, message: &str, detail_json: &str) -> Self {
        let detail: Detail = serde_json::from_str(detail_json).unwrap_or_default();
        let mut debug = detail.debug;
        let chain = detail
            .causes
            .into_iter()
            .rev()
            .fold(None, |next, message| Some(Box::new(Cause { message, next, debug: debug.take() })));
        let mut error = Self::new(ErrorKind::from_code(code), message);
        error.0.hints = detail.hints;
        error.0.source = chain.map(|c| c as BoxedCause);
        error
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.debug.iter().try_for_each(|d| write!(f, "\n{d}"))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|c| c as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}

/// Turns any error into an sdk [`Error`] with words about what was being done.
pub trait ResultExt<T> {
    /// Wraps the error as an internal one.
    ///
    /// # Errors
    /// The wrapped error.
    fn internal(self, message: &str) -> Result<T>;

    /// Wraps the error as one of `kind`.
    ///
    /// # Errors
    /// The wrapped error.
    fn kind(self, kind: ErrorKind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<BoxedCause>> ResultExt<T> for std::result::Result<T, E> {
    fn internal(self, message: &str) -> Result<T> {
        self.map_err(|e| Error::internal(message).because(e))
    }

    fn kind(self, kind: ErrorKind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(kind, message()).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_hints_and_causes() {
        let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let e = Error::io("cannot write `a.png`", io).context("saving image 1");
        assert_eq!(e.kind(), ErrorKind::Environment);
        assert_eq!(e.hints().len(), 1);
        assert_eq!(e.chain()[..2], ["saving image 1", "cannot write `a.png`"]);
        assert_eq!(e.chain().len(), 3);
    }

    #[test]
    fn an_error_that_crossed_says_the_same() {
        let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let e = Error::io("cannot write `a.png`", io).context("saving image 1").hint("again");
        let (code, message, detail) = e.to_parts();
        let back = Error::from_parts(code, &message, &detail);
        assert_eq!((back.kind(), back.chain(), back.hints()), (e.kind(), e.chain(), e.hints()));
        let bare = Error::from_parts(9999, "from the future", "not json");
        assert_eq!((bare.kind(), bare.chain().len()), (ErrorKind::Internal, 1));
    }

    #[test]
    fn every_kind_has_a_number_that_leads_back_to_it() {
        for code in 0..9 {
            assert_eq!(ErrorKind::from_code(code).code(), code);
        }
    }

    #[test]
    fn every_expected_kind_has_an_exit_code_of_its_own() {
        use ErrorKind::*;
        let kinds =
            [InvalidRequest, NotFound, Unsupported, Environment, Corrupt, Timeout, Cancelled, Internal];
        let codes: std::collections::BTreeSet<u8> = kinds.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&0) && !codes.contains(&2));
    }
}
