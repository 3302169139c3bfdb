//! The layer.

use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{limit::Limit, service::BodyLimit};
use crate::{context::Context, head::Head};

/// Refuses bodies that are too large or too slow. See the [module](super) for the rules.
#[derive(Clone)]
#[must_use]
pub struct BodyLimitLayer {
    pub(super) config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) limit: Limit,
    pub(super) context: Context,
    pub(super) only_if: fn(Head<'_>) -> bool,
}

impl BodyLimitLayer {
    /// At most `max_bytes` of body.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            config: Arc::new(Config {
                limit: Limit::new(max_bytes),
                context: Context::new(),
                only_if: |_| true,
            }),
        }
    }

    /// Sets the longest wait for the next bytes while somebody reads; 30 s where it is not set.
    pub fn with_idle(self, idle: Duration) -> Self {
        self.with(|config| config.limit.idle = idle)
    }

    /// Sets the longest time from the request's head to the body's end; 5 minutes where it is not
    /// set.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.with(|config| config.limit.total = deadline)
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

impl fmt::Debug for BodyLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyLimitLayer")
            .field("limit", &self.config.limit)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for BodyLimitLayer {
    type Service = BodyLimit<S>;

    fn layer(&self, inner: S) -> BodyLimit<S> {
        BodyLimit::new(inner, Arc::clone(&self.config))
    }
}
