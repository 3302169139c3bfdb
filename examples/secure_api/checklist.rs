//! The production checklist of this service.

use std::time::Duration;

use http::Method;
use portcullis::{
    audit::{self, Carrier, Checklist, Counting, Limit, Route, Site},
    stack::Settings,
    upload::scan::Clamd,
};

use crate::start::{self, Service};

/// Probes the service as it will be served, and asks the parts that it depends on.
pub(crate) async fn run(settings: &Settings, service: &Service) -> Checklist {
    let host = settings.public_origin.as_ref();
    let host = host.map_or("localhost", |origin| {
        let text = origin.as_str();
        text.split_once("://").map_or(text, |(_, host)| host)
    });
    let site = match &settings.public_origin {
        Some(origin) if origin.is_https() => Site::https(host),
        _ => Site::http(host),
    };
    let counting = match settings.redis_url {
        Some(_) => Counting::Shared,
        None => Counting::Unstated,
    };
    // Without a token what stands behind authentication is the operator's to see.
    let site = match service
        .audit_token()
        .map(|token| site.clone().with_token(&token))
    {
        Some(Ok(site)) => site,
        _ => site,
    };
    let checklist = audit::probe(service.edge.clone(), &site, &routes(settings))
        .await
        .and(audit::of_settings(settings, counting))
        .and([service.app.accounts.audited().await]);
    match &settings.clamd_addr {
        Some(_) if carries(settings) => checklist,
        addr => {
            let scanner = addr.as_deref().map(Clamd::at);
            checklist.and([audit::scanner(scanner.as_ref()).await])
        }
    }
}

/// Whether a file that may be uploaded can have the test file in it.
fn carries(settings: &Settings) -> bool {
    let mut types = settings.upload_allowed_types.iter();
    types.any(|media_type| media_type == "application/pdf")
}

/// Every route, with what it is meant to ask.
fn routes(settings: &Settings) -> Vec<Route> {
    let window = settings.rate_limit_window;
    let general = || Limit::general(settings.rate_limit_max_requests, window);
    let auth = || Limit::auth(settings.auth_rate_limit_max, window);
    let model = Limit::model(settings.model_rate_limit_max, Duration::from_secs(60));
    let upload = Limit::upload(settings.upload_rate_limit_max, Duration::from_secs(3_600));
    let user = |method, path| Route::new(method, path).authenticated().limited(general());
    let mut routes = vec![
        Route::new(Method::GET, "/"),
        Route::new(Method::GET, "/healthz").over_plain_http(),
        Route::new(Method::GET, "/metrics").hidden(),
        Route::new(Method::POST, "/csp-reports").limited(general()),
        Route::new(Method::POST, "/auth/register")
            .limited(auth())
            .body(JSON),
        Route::new(Method::POST, "/auth/login")
            .limited(auth())
            .body(JSON),
        Route::new(Method::POST, "/auth/password")
            .authenticated()
            .limited(auth())
            .body(JSON),
        Route::new(Method::POST, "/auth/refresh")
            .limited(general())
            .body(JSON),
        Route::new(Method::POST, "/auth/logout")
            .limited(general())
            .body(JSON),
        user(Method::GET, "/auth/sessions"),
        user(Method::DELETE, "/auth/sessions"),
        user(Method::DELETE, "/auth/sessions/1"),
        user(Method::GET, "/api/me"),
        user(Method::GET, "/api/keys"),
        user(Method::POST, "/api/keys").body(JSON),
        user(Method::POST, "/api/keys/1/rotate").body(JSON),
        user(Method::DELETE, "/api/keys/1"),
        user(Method::GET, "/api/ping"),
        Route::new(Method::POST, "/api/model")
            .authenticated()
            .limited(model)
            .body(256 * 1024),
    ];
    let uploads = Route::new(Method::POST, "/api/upload")
        .authenticated()
        .limited(upload)
        .body_of(
            "multipart/form-data; boundary=b",
            start::max_upload(settings),
        );
    routes.push(match &settings.clamd_addr {
        Some(_) if carries(settings) => uploads.scanned("file", Carrier::Pdf),
        _ => uploads,
    });
    routes
}

const JSON: u64 = 16 * 1024;
