//! Policy names: every name that is taken is written as one String of RFC 9651 that reads back.
#![no_main]

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{Request, Response};
use http_body_util::Empty;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    ResponseBody,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
};
use tower::{Layer, Service, service_fn};

fuzz_target!(|name: &str| {
    let Ok(policy) = Policy::strict(name, 7, Duration::from_secs(60)) else {
        return;
    };
    assert_eq!(written(policy), Some(name.to_owned()));
});

/// The name as a reader of the field finds it.
fn written(policy: Policy) -> Option<String> {
    let layer = RateLimitLayer::new([policy]).with_fields(FieldsVersion::Draft10);
    let response = call(&layer);
    let field = response.headers().get("ratelimit")?.to_str().ok()?;
    let mut characters = field.strip_prefix('"')?.chars();
    let mut name = String::new();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => name.push(
                characters
                    .next()
                    .filter(|next| matches!(next, '"' | '\\'))?,
            ),
            plain => name.push(plain),
        }
    }
    (characters.as_str() == ";r=6;t=60").then_some(name)
}

fn call(layer: &RateLimitLayer) -> Response<ResponseBody<Empty<&'static [u8]>>> {
    let mut service = layer.layer(service_fn(|_: Request<Empty<&'static [u8]>>| {
        ready(Ok::<_, Infallible>(Response::new(ResponseBody::default())))
    }));
    let mut context = Context::from_waker(Waker::noop());
    let future = pin!(service.call(Request::new(Empty::new())));
    match future.poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        _ => unreachable!("the service answers at once"),
    }
}
