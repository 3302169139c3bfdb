//! Whether the stores answer, asked in the background.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use portcullis::{Rejection, RejectionKind, session::Sessions};
use serde_json::json;

/// What is degraded; clones share it.
#[derive(Clone)]
pub(crate) struct Health {
    sessions: Sessions,
    up: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            up: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Asks again and again; learns, too, which sessions another instance ended.
    pub(crate) async fn watch(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let up = self.sessions.recover().await.is_ok();
            self.up.store(up, Ordering::Relaxed);
        }
    }

    pub(crate) fn answer(&self) -> Response {
        if self.up.load(Ordering::Relaxed) {
            Json(json!({"status": "ok"})).into_response()
        } else {
            Rejection::new(RejectionKind::Unavailable, "health", "degraded")
                .with_detail("degraded: sessions")
                .with_retry_after(EVERY)
                .into_response()
        }
    }
}

const EVERY: Duration = Duration::from_secs(1);
