//! The decision of a JWT gate, without tower: for a layer, and for whoever asks several gates in
//! turn.

use std::sync::Arc;

use http::Request;

use super::{source::TokenSource, verified::Insert};
use crate::{challenge::Challenge, head::Head, rejection::Rejection};

/// A gate whose type of claims is not named.
pub(crate) trait Authenticate: Send + Sync {
    /// Who sends a request: nothing where the request goes on as it is.
    fn authenticate(&self, head: Head<'_>) -> Result<Option<Grant>, Rejection>;

    /// What its challenges name, for a gate behind it that refuses too.
    fn challenge(&self) -> &Challenge;

    /// The cookies that tokens are read from, which browsers send by themselves.
    fn cookies(&self) -> Vec<&str>;
}

/// What an admitted request gets.
pub(crate) struct Grant {
    outcome: Outcome,
    /// Where the token stands that is to be taken out of the request.
    remove: Option<Arc<[TokenSource]>>,
}

enum Outcome {
    Verified(Arc<dyn Insert>),
    Failed(Rejection),
}

impl Grant {
    pub(crate) fn verified(token: Arc<dyn Insert>) -> Self {
        Self {
            outcome: Outcome::Verified(token),
            remove: None,
        }
    }

    pub(crate) fn failed(rejection: Rejection) -> Self {
        Self {
            outcome: Outcome::Failed(rejection),
            remove: None,
        }
    }

    pub(crate) fn removing(mut self, sources: Option<Arc<[TokenSource]>>) -> Self {
        self.remove = sources;
        self
    }

    /// Leaves with the request what the gate found.
    pub(crate) fn insert<A>(self, request: &mut Request<A>) {
        for source in self.remove.iter().flat_map(|sources| sources.iter()) {
            source.remove(request.headers_mut());
        }
        match self.outcome {
            Outcome::Verified(token) => token.insert(request.extensions_mut()),
            Outcome::Failed(rejection) => {
                request.extensions_mut().insert(Failure { rejection });
            }
        }
    }
}

/// Why a request is not authenticated, where the gate lets it through all the same
/// ([`Mode::Recorded`](super::Mode::Recorded)). Found in the request's extensions.
#[derive(Clone, Debug)]
pub struct Failure {
    rejection: Rejection,
}

impl Failure {
    /// The refusal that the request would have got.
    pub fn rejection(&self) -> &Rejection {
        &self.rejection
    }
}
