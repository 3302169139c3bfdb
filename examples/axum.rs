//! An axum service behind a stack: headers on every answer, two limits, access tokens.
//!
//! `cargo run --example axum --features axum`, then try the commands that it prints.

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{Json, Router, ServiceExt, extract::Request, routing::get};
use portcullis::{
    Context, Identity, Secret,
    headers::SecurityHeaders,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, Verifier},
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new();
    // A service reads its secret from the environment; this one lives as long as the process.
    let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
    let issuer = Issuer::new(key, "axum-example", "axum-example")?;
    let verifier = Verifier::new(issuer.key_set(), "axum-example", "axum-example")?;

    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let limits = RateLimitLayer::new([
        Policy::strict("general", 100, minutes(15))?,
        Policy::strict("report", 3, minutes(1))?.by_subject(),
    ]);
    let stack = SecurityStack::new(context.clone())
        .with_headers(SecurityHeaders::new())
        .with_limits(limits.with_fields(FieldsVersion::Draft10))
        .with_jwt(JwtLayer::new(verifier));

    let open = stack.route(Guard::new().limit("general"))?;
    let known = Guard::new().limit("general").authenticate();
    let report = stack.route(known.clone().limit("report").body(64 * 1024))?;
    let router = Router::new()
        .route("/", get(async || "Hello").layer(open))
        .route("/me", get(me).layer(stack.route(known)?))
        .route("/report", get(async || "all is well").layer(report));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let token = issuer.issue(&AccessToken::new("ada"), context.wall())?;
    println!("listening on http://{}", listener.local_addr()?);
    println!("token {}", token.as_str());
    println!("try: curl -i -H 'Authorization: Bearer …' http://…/me");

    // Outside the router the edge is fastest, and answers what no route knows as well.
    let app = stack.around(router);
    let app = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(app);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn me(identity: Identity) -> Json<Value> {
    Json(json!({ "subject": identity.subject() }))
}
