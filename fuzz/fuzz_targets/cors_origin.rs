//! The list of CORS: an origin is allowed by a pattern that is it, or that is one label above it. The
//! first line is the pattern, the second what a browser says.
#![no_main]

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{Origin, cors::CorsPolicy};
use portcullis_fuzz::{ask, quiet};
use tower::{Layer as _, service_fn};

fuzz_target!(|text: &str| {
    let Some((pattern, said)) = text.split_once('\n') else {
        return;
    };
    let (Ok(policy), Ok(value)) = (CorsPolicy::new([pattern]), HeaderValue::from_str(said)) else {
        return;
    };
    let allowed = policy.allows(&value);
    assert!(allowed <= matches(pattern, said), "{pattern} allows {said}");
    assert!(
        allowed || pattern != said || pattern.contains('*'),
        "{pattern} refuses itself"
    );
    let handler = service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let request = Request::get("/")
        .header("origin", value.clone())
        .body(())
        .unwrap();
    let answer = ask(
        policy.credentials(true).layer(&quiet()).layer(handler),
        request,
    );
    let named = answer.headers().get("access-control-allow-origin");
    assert_eq!(named, allowed.then_some(&value));
});

fn matches(pattern: &str, said: &str) -> bool {
    if Origin::new(said).is_err() {
        return false;
    }
    let Some((scheme, domain)) = pattern.split_once("://*.") else {
        return pattern == said;
    };
    let (own, authority) = said.split_once("://").unwrap();
    let (label, above) = authority.split_once('.').unwrap_or_default();
    own == scheme && above == domain && !label.is_empty()
}
