//! The authorisation layers through their public API.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Context, Identity, IdentityKind, Rejection,
    authorize::{RequireFreshLoginLayer, RequireLayer, RequireRoleLayer, RequireScopeLayer},
    time::{Clock as _, ManualClock},
};
use tower::{Layer, Service, ServiceExt as _, service_fn};

type Body = Full<Bytes>;

async fn call<L, S>(layer: &L, identity: Option<Identity>) -> Response<Body>
where
    L: Layer<Inner, Service = S>,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let inner: Inner = service_fn(|_| std::future::ready(Ok(Response::new(Body::default()))));
    let mut request = Request::new(Body::default());
    request.extensions_mut().extend(
        identity
            .map(|identity| {
                let mut extensions = http::Extensions::new();
                extensions.insert(identity);
                extensions
            })
            .unwrap_or_default(),
    );
    layer.layer(inner).oneshot(request).await.unwrap()
}

type Answer = std::future::Ready<Result<Response<Body>, Infallible>>;
type Inner = tower::util::ServiceFn<fn(Request<Body>) -> Answer>;

fn caller() -> Identity {
    Identity::new(IdentityKind::AccessToken, "u")
}

fn challenge(response: &Response<Body>) -> &str {
    response.headers()["www-authenticate"].to_str().unwrap()
}

#[tokio::test]
async fn scopes_are_compared_exactly() {
    let both = RequireScopeLayer::all(["model", "upload"]).unwrap();
    let one = RequireScopeLayer::any(["model", "upload"]).unwrap();
    for (scopes, all, any) in [
        (&["model", "upload", "x"][..], 200, 200),
        (&["model"], 403, 200),
        (&["models", "Upload", "mode"], 403, 403),
        (&[], 403, 403),
    ] {
        let identity = Some(caller().with_scopes(scopes));
        assert_eq!(
            call(&both, identity.clone()).await.status(),
            all,
            "{scopes:?}"
        );
        assert_eq!(call(&one, identity).await.status(), any, "{scopes:?}");
    }
    let response = call(&both, Some(caller())).await;
    assert_eq!(
        challenge(&response),
        "Bearer error=\"insufficient_scope\", scope=\"model upload\""
    );
}

#[tokio::test]
async fn nobody_is_401_without_an_error_code() {
    let response = call(&RequireScopeLayer::new("model").unwrap(), None).await;
    assert_eq!(response.status(), 401);
    assert_eq!(challenge(&response), "Bearer");
    assert_eq!(
        call(&RequireRoleLayer::new("admin").unwrap(), None)
            .await
            .status(),
        401
    );
    assert_eq!(
        call(&RequireLayer::new("never", |_| true), None)
            .await
            .status(),
        401
    );
}

#[tokio::test]
async fn roles_and_predicates_decide() {
    let admin = RequireRoleLayer::new("admin").unwrap();
    let either = RequireRoleLayer::any(["admin", "ops"]).unwrap();
    let ops = || Some(caller().with_roles(["ops"]));
    assert_eq!(call(&admin, ops()).await.status(), 403);
    assert_eq!(call(&either, ops()).await.status(), 200);
    let both = RequireRoleLayer::all(["admin", "ops"]).unwrap();
    assert_eq!(call(&both, ops()).await.status(), 403);
    let two = caller().with_roles(["ops", "admin"]);
    assert_eq!(call(&both, Some(two)).await.status(), 200);
    let keys_only = RequireLayer::new("not_a_key", |identity| {
        identity.kind() == IdentityKind::ApiKey
    });
    let response = call(&keys_only, ops()).await;
    assert_eq!(response.status(), 403);
    let rejection = response.extensions().get::<Rejection>().unwrap();
    assert_eq!(
        (rejection.gate(), rejection.reason()),
        ("authorize", "not_a_key")
    );
    let key = Identity::new(IdentityKind::ApiKey, "u");
    assert_eq!(call(&keys_only, Some(key)).await.status(), 200);
}

#[tokio::test]
async fn an_old_login_is_not_enough() {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let fresh = RequireFreshLoginLayer::new(Duration::from_secs(900)).with_context(context);
    let identity = caller().with_auth_time(clock.wall());
    clock.advance(Duration::from_secs(900));
    assert_eq!(call(&fresh, Some(identity.clone())).await.status(), 200);
    clock.advance(Duration::from_millis(1));
    let response = call(&fresh, Some(identity)).await;
    assert_eq!(response.status(), 403);
    assert_eq!(
        challenge(&response),
        "Bearer error=\"insufficient_user_authentication\", max_age=\"900\""
    );
    assert_eq!(call(&fresh, Some(caller())).await.status(), 403);
}

#[tokio::test]
async fn requests_that_are_not_asked_about_go_on() {
    let layer = RequireScopeLayer::new("model")
        .unwrap()
        .only_if(|head| head.uri.path() != "/");
    assert_eq!(call(&layer, None).await.status(), 200);
}

#[test]
fn what_is_no_scope_is_refused_at_setup() {
    for scope in ["", "a b", "a\"b", "a\\b", "ä", "a\n"] {
        assert!(RequireScopeLayer::new(scope).is_err(), "{scope:?}");
    }
    assert!(RequireScopeLayer::all::<&str>([]).is_err());
    assert!(RequireRoleLayer::any::<&str>([]).is_err());
    assert!(RequireRoleLayer::new("").is_err());
}

/// RFC 6750 section 3 and RFC 9728 section 5.1: every challenge names them, 401 and 403.
#[tokio::test]
async fn challenges_name_the_realm_and_the_metadata() {
    const METADATA: &str = "https://api.example/.well-known/oauth-protected-resource";
    let scoped = RequireScopeLayer::new("model")
        .and_then(|layer| layer.with_realm("api"))
        .and_then(|layer| layer.with_resource_metadata(METADATA))
        .unwrap();
    let names = format!("Bearer realm=\"api\", resource_metadata=\"{METADATA}\"");
    let response = call(&scoped, None).await;
    assert_eq!(
        (response.status().as_u16(), challenge(&response)),
        (401, &*names)
    );
    let response = call(&scoped, Some(caller())).await;
    let insufficient = format!("{names}, error=\"insufficient_scope\", scope=\"model\"");
    assert_eq!(
        (response.status().as_u16(), challenge(&response)),
        (403, &*insufficient)
    );
    let fresh = RequireFreshLoginLayer::new(Duration::from_secs(60))
        .with_realm("api")
        .unwrap();
    let response = call(&fresh, Some(caller())).await;
    assert_eq!(
        challenge(&response),
        "Bearer realm=\"api\", error=\"insufficient_user_authentication\", max_age=\"60\""
    );
    let role = RequireRoleLayer::new("admin").unwrap();
    assert!(role.clone().with_realm("a\"b").is_err());
    assert!(role.clone().with_realm("").is_err());
    assert!(role.with_resource_metadata("http://api.example").is_err());
}
