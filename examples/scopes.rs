//! What a caller may do: scopes in the stack's guards, and a role, a predicate and a fresh login as
//! layers of their own.
//!
//! `cargo run --example scopes --features axum`, then
//! `curl -i -H 'Authorization: Bearer …' http://…/reports` with one of the tokens that it prints.

use std::{convert::Infallible, error::Error, time::Duration};

use axum::{
    Router,
    routing::{delete, get, post},
};
use portcullis::{
    Context, Secret,
    authorize::{RequireFreshLoginLayer, RequireLayer, RequireRoleLayer},
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, Verifier},
    stack::{Guard, SecurityStack},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new();
    let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
    let issuer = Issuer::new(key, "scopes-example", "scopes-example")?;
    let verifier = Verifier::new(issuer.key_set(), "scopes-example", "scopes-example")?;
    let stack = SecurityStack::new(context.clone()).with_jwt(JwtLayer::new(verifier));

    let read = stack.route(Guard::new().authenticate().scope("reports:read"))?;
    let write = Guard::new().authenticate().scope("reports:read");
    let write = stack.route(write.scope("reports:write"))?;
    let known = stack.route(Guard::new().authenticate())?;
    let in_house = RequireLayer::new("not_in_house", |caller| {
        caller.subject().ends_with("@example.org")
    });

    // What is added last stands outermost: authentication comes before what reads its identity.
    let router = Router::new()
        .route("/reports", get(async || "the reports").layer(read))
        .route("/reports", post(async || "written").layer(write))
        .route(
            "/reports",
            delete(async || "gone")
                .layer::<_, Infallible>(RequireFreshLoginLayer::new(Duration::from_secs(300)))
                .layer::<_, Infallible>(RequireRoleLayer::new("admin")?)
                .layer(known.clone()),
        )
        .route(
            "/staff",
            get(async || "the staff")
                .layer::<_, Infallible>(in_house)
                .layer(known),
        );

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let now = context.wall();
    let callers = [
        (
            "reader",
            AccessToken::new("ada@example.org").with_scopes(["reports:read"]),
        ),
        (
            "writer",
            AccessToken::new("bob@example.com").with_scopes(["reports:read", "reports:write"]),
        ),
        (
            "admin",
            AccessToken::new("eve@example.org").with_roles(["admin"]),
        ),
        (
            "fresh-admin",
            AccessToken::new("eve@example.org")
                .with_roles(["admin"])
                .with_auth_time(now),
        ),
    ];
    for (name, token) in callers {
        println!("{name} {}", issuer.issue(&token, now)?.as_str());
    }
    axum::serve(listener, router.layer(stack.layer())).await?;
    Ok(())
}
