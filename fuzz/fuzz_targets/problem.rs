//! Problem details, differential: whatever an application puts into them, a reader of JSON reads it
//! back, and a client of gRPC gets a status whose message stands in a header.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{Context, Rejection, RejectionKind};
use portcullis_fuzz::{bytes, quiet};
use serde_json::Value;

static CONTEXT: LazyLock<Context> = LazyLock::new(quiet);

fuzz_target!(|text: &str| {
    let names: Vec<&str> = text.split('\n').collect();
    let rejection = Rejection::new(RejectionKind::RateLimited, "gate", "reason")
        .with_detail(text.to_owned())
        .with_violated_policies(names.iter().map(|name| (*name).into()));
    let refuse = |kind: &str| -> Response<Full<Bytes>> {
        let request = Request::post("/")
            .header("content-type", kind)
            .body(())
            .unwrap();
        CONTEXT.refuse(&request, rejection.clone())
    };
    let answer = refuse("application/json");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body: Value = serde_json::from_slice(&bytes(answer.into_body())).expect("JSON");
    assert_eq!(body["status"], 429);
    assert_eq!(body["detail"], text);
    assert_eq!(body["violated-policies"], Value::from(names));
    assert!(body.get("reason").is_none());

    let answer = refuse("application/grpc");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "8");
    if let Some(message) = answer.headers().get("grpc-message") {
        assert!(
            message
                .as_bytes()
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~'))
        );
    }
    assert!(bytes(answer.into_body()).is_empty());
});
