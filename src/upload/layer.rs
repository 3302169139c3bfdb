//! The layer.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{check::Uploads, policy::UploadPolicy, service::Upload};
use crate::{context::Context, head::Head};

/// Checks uploads while they stream to the handler. See the [module](super) for the rules.
#[derive(Clone)]
#[must_use]
pub struct UploadLayer {
    pub(super) config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) uploads: Uploads,
    pub(super) hold: bool,
    pub(super) context: Context,
    pub(super) only_if: fn(Head<'_>) -> bool,
}

impl UploadLayer {
    /// Checks by `policy`.
    pub fn new(policy: UploadPolicy) -> Self {
        Self {
            config: Arc::new(Config {
                uploads: Uploads::new(policy),
                hold: true,
                context: Context::new(),
                only_if: |_| true,
            }),
        }
    }

    /// Lets the handler's answer go out before the body was checked to its end.
    ///
    /// For a handler that streams the body back in its answer, which otherwise waits for itself
    /// until the deadline. What a refused upload was answered by then stands; only the rest of its
    /// body ends with an error.
    pub fn with_early_answers(self) -> Self {
        self.with(|config| config.hold = false)
    }

    /// Renders refusals and sends events through `context`.
    pub fn with_context(self, context: Context) -> Self {
        self.with(|config| config.context = context)
    }

    /// Looks only at requests for which `applies` is true; others pass.
    pub fn only_if(self, applies: fn(Head<'_>) -> bool) -> Self {
        self.with(|config| config.only_if = applies)
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl fmt::Debug for UploadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadLayer")
            .field("uploads", &self.config.uploads)
            .field("hold", &self.config.hold)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for UploadLayer {
    type Service = Upload<S>;

    fn layer(&self, inner: S) -> Upload<S> {
        Upload::new(inner, Arc::clone(&self.config))
    }
}
