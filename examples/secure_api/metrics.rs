//! Counters and histograms for Prometheus.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION, header::CONTENT_TYPE};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use portcullis::{
    ConfigError, Peer, Secret,
    event::metric::{self, LoginOutcome},
    problem,
    stack::Settings,
};
use tokio::time::MissedTickBehavior;

use crate::start::App;

/// What has been counted, and who may see it.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    is_guarded: bool,
    token: Option<Secret>,
}

impl Metrics {
    /// Installs the process's recorder.
    pub(crate) fn install(settings: &Settings) -> Result<Self, ConfigError> {
        let fault = |_: BuildError| ConfigError::new("metrics", "cannot be recorded");
        let handle = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .and_then(|builder| builder.install_recorder())
            .map_err(fault)?;
        metric::register();
        let kept = handle.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                kept.run_upkeep();
            }
        });
        Ok(Self {
            handle,
            is_guarded: settings.is_production(),
            token: settings.metrics_token.clone(),
        })
    }

    fn admits(&self, peer: Option<Peer>, headers: &HeaderMap) -> bool {
        !self.is_guarded || is_from_here(peer, headers) || self.holds_token(headers)
    }

    fn holds_token(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let bearer = value.as_bytes().split_at_checked(BEARER.len());
        let Some((_, shown)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER))
        else {
            return false;
        };
        // Compared as secrets are, in a time that tells nothing of the token.
        Secret::new(shown).is_ok_and(|shown| self.token.as_ref() == Some(&shown))
    }
}

/// `GET /metrics`: in production for whoever asks from this machine, or shows the token; for others
/// there is no such page.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    if !app.metrics.admits(peer.map(|peer| peer.0), &headers) {
        return problem::not_found().await.into_response();
    }
    let text = app.metrics.handle.render();
    ([(CONTENT_TYPE, EXPOSITION)], text).into_response()
}

/// Counts a login by the status of its answer.
pub(crate) async fn count_login(answer: Response) -> Response {
    if let Some(outcome) = LoginOutcome::of(answer.status()) {
        outcome.count();
    }
    answer
}

/// A proxy on this machine asks from here too, for others: what it forwards does not count.
fn is_from_here(peer: Option<Peer>, headers: &HeaderMap) -> bool {
    peer.and_then(Peer::ip)
        .is_some_and(|ip| ip.to_canonical().is_loopback())
        && !FORWARDED.iter().any(|name| headers.contains_key(name))
}

const FORWARDED: [HeaderName; 3] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];
const BEARER: &[u8] = b"Bearer ";
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const UPKEEP: Duration = Duration::from_secs(5);
/// In seconds: from a store in memory to a hash that waited.
const BUCKETS: [f64; 12] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
