//! What a case saw that it should not.

use crate::refresh_token::{RefreshError, StoreError};

/// What was seen.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

pub(super) type Verdict<T = ()> = Result<T, Fault>;

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        Self(format!("a step failed: {error}{source}"))
    }
}

impl From<RefreshError> for Fault {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Store(error) => error.into(),
            error => Self(error.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for Fault {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(error.to_string())
    }
}

macro_rules! ensure {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::refresh_token::conformance::fault::Fault(format!($($seen)+)));
        }
    };
}

macro_rules! ensure_eq {
    ($seen:expr, $wanted:expr, $what:literal) => {{
        let (seen, wanted) = (&$seen, &$wanted);
        if seen != wanted {
            let what = format!($what);
            let seen = format!("{what}: {seen:?} instead of {wanted:?}");
            return Err($crate::refresh_token::conformance::fault::Fault(seen));
        }
    }};
}

pub(super) use {ensure, ensure_eq};
