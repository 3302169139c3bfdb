//! The extractors for axum, behind the gate and without it.

#![cfg(all(feature = "axum", feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use portcullis::{
    Identity,
    authorize::RequireScopeLayer,
    jwt::{AccessToken, Claims, JwtLayer, Mode},
};
use tower::ServiceExt as _;

use self::jwt_support::Setup;

#[derive(serde::Deserialize)]
struct Mine {
    preferred_username: String,
}

fn app(gate: JwtLayer<Mine>) -> Router {
    let named = |identity: Option<Identity>, claims: Option<Claims<Mine>>| async move {
        let subject = identity.map(|identity| identity.subject().to_owned());
        let name = claims.map(|claims| claims.preferred_username.clone());
        format!("{subject:?} {name:?}")
    };
    Router::new()
        .route("/perhaps", get(named))
        .route(
            "/claims",
            get(|claims: Claims<Mine>| async move { claims.preferred_username.clone() }),
        )
        .route(
            "/identity",
            get(|identity: Identity| async move { identity.subject().to_owned() }),
        )
        .route(
            "/scoped",
            get(|identity: Identity| async move { identity.subject().to_owned() })
                .layer(RequireScopeLayer::new("model").unwrap()),
        )
        // A type that the gate does not fill.
        .route("/other", get(|_: Claims<String>| async { "reached" }))
        .layer(gate)
}

async fn ask(app: &Router, path: &str, token: Option<&str>) -> (StatusCode, String, String) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map_or(String::new(), |field| field.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, challenge, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_take_claims_and_identity_as_arguments() {
    let setup = Setup::new();
    let token = |scope: &str| {
        let claims = AccessToken::new("u")
            .with_scopes([scope])
            .with_claim("preferred_username", "ada")
            .unwrap();
        let token = setup.issuer.issue(&claims, setup.now());
        token.unwrap().into_string()
    };
    let gate = setup.layer().claims::<Mine>();
    let (model, other) = (token("model"), token("other"));
    let strict = app(gate.clone());
    for (path, answer) in [
        ("/claims", "ada"),
        ("/identity", "u"),
        ("/scoped", "u"),
        ("/perhaps", "Some(\"u\") Some(\"ada\")"),
    ] {
        let (status, _, body) = ask(&strict, path, Some(&model)).await;
        assert_eq!((status, &*body), (StatusCode::OK, answer), "{path}");
        let (status, challenge, body) = ask(&strict, path, None).await;
        assert_eq!(status, 401, "{path}");
        assert_eq!(challenge, "Bearer");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], 401);
    }
    let (status, challenge, _) = ask(&strict, "/scoped", Some(&other)).await;
    assert_eq!(status, 403);
    assert_eq!(
        challenge,
        "Bearer error=\"insufficient_scope\", scope=\"model\""
    );

    let open = app(gate.with_mode(Mode::Optional));
    let (status, _, body) = ask(&open, "/perhaps", None).await;
    assert_eq!((status, &*body), (StatusCode::OK, "None None"));
    // Where the gate lets nobody in particular through, the argument asks for somebody.
    for path in ["/claims", "/identity", "/scoped"] {
        let (status, challenge, _) = ask(&open, path, None).await;
        assert_eq!((status, &*challenge), (StatusCode::UNAUTHORIZED, "Bearer"));
    }
    let (status, _, _) = ask(&open, "/other", Some(&model)).await;
    assert_eq!(status, 401);
}
