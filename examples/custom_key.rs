//! A rate limit that counts by tenant, whatever address a request comes from.
//!
//! `cargo run --example custom_key --features axum`, then
//! `curl -i -H 'X-Tenant: acme' http://…/` to the address that it prints, four times.
//!
//! A header that anybody can write is a key only where something in front has checked it; behind
//! authentication, take the key from the [`Identity`](portcullis::Identity) in `head.extensions`.

use std::{error::Error, time::Duration};

use axum::{Router, routing::get};
use portcullis::{
    Head,
    rate_limit::{FieldsVersion, Key, MissingKey, Policy, RateLimitLayer},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let minute = Duration::from_secs(60);
    // Both are judged together: what one refuses, the other does not count.
    let limits = RateLimitLayer::new([
        Policy::strict("tenant", 3, minute)?
            .by(|head| Some(Key::of(tenant(head)?)))
            .with_quota(|head| (tenant(head)? == b"trial").then_some(1))
            .with_missing_key(MissingKey::Reject),
        Policy::strict("tenant-and-path", 2, minute)?.by(|head| {
            let path = head.uri.path();
            Some(Key::of(tenant(head)?).and(Key::of(path)))
        }),
    ]);
    let router: Router = Router::new()
        .route("/a", get(async || "a"))
        .route("/b", get(async || "b"))
        .layer(limits.with_fields(FieldsVersion::Draft10));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

fn tenant(head: Head<'_>) -> Option<&[u8]> {
    head.headers.get("x-tenant").map(|name| name.as_bytes())
}
