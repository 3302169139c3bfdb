//! Whether the stores answer, asked in the background.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use portcullis::{
    Context, Rejection, RejectionKind, deny_feed::DenyFeed, rate_limit::redis::RedisLimits,
};
use serde_json::json;

/// What is degraded; clones share it.
#[derive(Clone)]
pub(crate) struct Health {
    feed: DenyFeed,
    limits: Option<RedisLimits>,
    context: Context,
}

impl Health {
    pub(crate) fn new(feed: DenyFeed, limits: Option<RedisLimits>, context: Context) -> Self {
        Self {
            feed,
            limits,
            context,
        }
    }

    /// Asks again and again; learns, too, what other instances ended.
    pub(crate) async fn watch(self) {
        let probing = async {
            while let Some(limits) = &self.limits {
                tokio::time::sleep(EVERY).await;
                limits.probe(&self.context).await;
            }
        };
        tokio::join!(self.feed.clone().run(), probing);
    }

    pub(crate) fn answer(&self) -> Response {
        let limits = self.limits.as_ref();
        let parts = [
            ("sessions", !self.feed.store_is_up()),
            ("limits", limits.is_some_and(RedisLimits::is_degraded)),
            ("deny_list", self.feed.is_degraded()),
        ];
        let degraded = parts.iter().filter(|(_, is_degraded)| *is_degraded);
        let names: Vec<&str> = degraded.map(|(name, _)| *name).collect();
        if names.is_empty() {
            return Json(json!({"status": "ok"})).into_response();
        }
        Rejection::new(RejectionKind::Unavailable, "health", "degraded")
            .with_detail(format!("degraded: {}", names.join(", ")))
            .with_retry_after(EVERY)
            .into_response()
    }
}

const EVERY: Duration = Duration::from_secs(1);
