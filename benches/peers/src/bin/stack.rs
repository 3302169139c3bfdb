//! An axum service on loopback, bare or with the same four duties: security headers, a limit by
//! client, CORS and a bound on bodies. `stack MODE` prints its address; a load generator does the
//! rest, and what the process used is in `/proc/PID/stat`.
//!
//! Modes: `bare`, `ours` (the stack around the Router), `ours-inside` (as `Router::layer`), `peers`
//! (one `Router::layer` each: tower-helmet, tower_governor, tower-http's CORS and body limit),
//! `peers-around` (the same in one `ServiceBuilder` around the Router).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo, routing::get};
use http::HeaderValue;
use portcullis::{
    Context,
    cors::CorsPolicy,
    headers::SecurityHeaders,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
};
use tower::ServiceBuilder;
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    limit::RequestBodyLimitLayer,
};

const ORIGIN: &str = "https://app.example.net";

#[tokio::main(worker_threads = 1)]
async fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let bare = Router::new().route("/", get(async || "hello"));
    match mode.as_str() {
        "bare" => {
            let service = bare.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        }
        "ours" | "ours-inside" => {
            let stack = stack();
            let guard = stack.route(Guard::new().limit("general")).unwrap();
            let router = Router::new().route("/", get(async || "hello").layer(guard));
            let router = match mode.as_str() {
                "ours" => Router::new().fallback_service(stack.around(router)),
                _ => router.layer(stack.layer()),
            };
            let service: IntoMakeServiceWithConnectInfo<_, SocketAddr> =
                router.into_make_service_with_connect_info();
            axum::serve(listener, service).await.unwrap();
        }
        "peers" | "peers-around" => {
            let limit = GovernorConfigBuilder::default()
                .period(Duration::from_nanos(1))
                .burst_size(100_000_000)
                .use_headers()
                .finish()
                .unwrap();
            let limit = GovernorLayer::new(Arc::new(limit));
            let origin = AllowOrigin::list([HeaderValue::from_static(ORIGIN)]);
            let cors = CorsLayer::new()
                .allow_origin(origin)
                .allow_credentials(true);
            let helmet = tower_helmet::HelmetLayer::with_defaults();
            let body = RequestBodyLimitLayer::new(16 * 1024);
            let router = match mode.as_str() {
                "peers" => bare.layer(body).layer(limit).layer(cors).layer(helmet),
                _ => {
                    let inside = ServiceBuilder::new().layer(helmet).layer(cors).layer(limit);
                    Router::new().fallback_service(inside.service(bare.layer(body)))
                }
            };
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        }
        _ => panic!("bare, ours, ours-inside, peers or peers-around"),
    }
}

fn stack() -> SecurityStack {
    let context = Context::new();
    let general = Policy::strict("general", 100_000_000, Duration::from_secs(900)).unwrap();
    let limits = RateLimitLayer::new([general]).with_fields(FieldsVersion::Draft10);
    SecurityStack::new(context.clone())
        .with_headers(SecurityHeaders::api())
        .with_cors(CorsPolicy::new([ORIGIN]).unwrap().credentials(true))
        .with_limits(limits.with_context(context))
}
