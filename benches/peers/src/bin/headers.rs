//! The same fourteen security headers by this crate, by tower-helmet, by axum-helmet (its twelve),
//! and by fourteen of tower-http's layers, on an empty answer and on one with two headers; and the
//! floor, a prepared map cloned by hand, which asks nothing of the request or the answer.
//!
//! Its last lines are `name, ours, peer, ratio, budget, ok, over or floor`, in nanoseconds that are added
//! to the bare service and separated by tabs.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    mem,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum_helmet::{Helmet, HelmetLayer};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::Full;
use portcullis::{
    Client,
    headers::{EmbedderPolicy, Profile, SecurityHeaders, SecurityHeadersLayer},
};
use portcullis_peers::{Candidate, Counting, compare};
use tower::{Layer, Service};
use tower_http::set_header::SetResponseHeaderLayer;

#[global_allocator]
static COUNTING: Counting = Counting;

type Answer = Response<Full<Bytes>>;

/// The handler: no header, or two.
#[derive(Clone, Copy)]
struct Inner {
    two: bool,
}

impl Service<Request<()>> for Inner {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let mut response = Response::new(Full::default());
        if self.two {
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        ready(Ok(response))
    }
}

/// The least that the same can be done by: the map is cloned, and what the handler set is put back.
#[derive(Clone)]
struct Floor {
    inner: Inner,
    prepared: HeaderMap,
}

impl Service<Request<()>> for Floor {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let Ok(mut response) = self.inner.call(request).into_inner();
        let given = mem::replace(response.headers_mut(), self.prepared.clone());
        for (name, value) in given {
            if let Some(name) = name {
                response.headers_mut().insert(name, value);
            }
        }
        ready(Ok(response))
    }
}

fn main() {
    let ours = SecurityHeaders::pinned(fourteen()).no_store_when(|_| false);
    let ours = SecurityHeadersLayer::new(ours);
    let by_type = SecurityHeadersLayer::default();
    let helmet = tower_helmet::HelmetLayer::with_defaults();
    let theirs = HelmetLayer::try_from(Helmet::default()).unwrap();

    let sent = headers(ours.layer(Inner { two: false }));
    let same = headers(helmet.layer(Inner { two: false }));
    let names = |map: &HeaderMap| {
        let mut names: Vec<_> = map
            .keys()
            .map(HeaderName::as_str)
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(sent.len(), 14);
    assert_eq!(names(&sent), names(&same));

    let mut lines = Vec::new();
    for (kind, two) in [("empty", false), ("two headers", true)] {
        let inner = Inner { two };
        macro_rules! stacked {
            ($($index:literal)*) => {{
                let service = inner;
                let mut values = sent.iter();
                $(
                    let _ = $index;
                    let (name, value) = values.next().unwrap();
                    let layer = SetResponseHeaderLayer::overriding(name.clone(), value.clone());
                    let service = layer.layer(service);
                )*
                service
            }};
        }
        let mut bare = inner;
        let mut tower_helmet = helmet.layer(inner);
        let mut stack = stacked!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        let mut axum_helmet = theirs.layer(inner);
        let mut own = ours.layer(inner);
        let mut own_by_type = by_type.layer(inner);
        let mut floor = Floor {
            inner,
            prepared: sent.clone(),
        };
        let medians = compare(
            &format!("fourteen headers, {kind} answer"),
            41,
            vec![
                Candidate::new("inner alone", || drop(black_box(call(&mut bare)))),
                Candidate::new("tower-helmet", || drop(black_box(call(&mut tower_helmet)))),
                Candidate::new("14 SetResponseHeaderLayer", || {
                    drop(black_box(call(&mut stack)))
                }),
                Candidate::new("axum-helmet, its 12", || {
                    drop(black_box(call(&mut axum_helmet)))
                }),
                Candidate::new("portcullis, the 14", || drop(black_box(call(&mut own)))),
                Candidate::new("portcullis, by content type", || {
                    drop(black_box(call(&mut own_by_type)));
                }),
                Candidate::new("by hand: a clone of the map", || {
                    drop(black_box(call(&mut floor)));
                }),
            ],
        );
        let added = |index: usize| medians[index] - medians[0];
        for (peer, name, budget) in [(1, "tower-helmet", 0.35), (2, "14 layers", 0.25)] {
            let (own, their) = (added(4), added(peer));
            let ratio = own / their;
            let verdict = if ratio <= budget { "ok" } else { "over" };
            lines.push(format!(
                "headers on {kind} to {name}\t{own:.0}\t{their:.0}\t{ratio:.2}\t{budget}\t{verdict}"
            ));
            // What a budget leaves over for the layer itself.
            let least = added(6);
            lines.push(format!(
                "the floor of that, a cloned map\t{least:.0}\t{their:.0}\t{:.2}\t{budget}\tfloor",
                least / their
            ));
        }
    }
    for line in lines {
        println!("{line}");
    }
}

/// One call with a request as a server hands it on, the client in its extensions.
fn call<S>(service: &mut S) -> Answer
where
    S: Service<Request<()>, Response = Answer, Error = Infallible>,
{
    let mut request = Request::new(());
    request.extensions_mut().insert(Client::new(None, true));
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let future = pin!(service.call(request));
    match future.poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("nothing waits"),
    }
}

fn headers<S>(mut service: S) -> HeaderMap
where
    S: Service<Request<()>, Response = Answer, Error = Infallible>,
{
    call(&mut service).into_parts().0.headers
}

fn fourteen() -> Profile {
    let expect_ct = HeaderName::from_static("expect-ct");
    Profile::helmet()
        .embedder_policy(EmbedderPolicy::RequireCorp)
        .header(expect_ct, HeaderValue::from_static("max-age=0"))
        .unwrap_or_else(|error| panic!("{error}"))
}
