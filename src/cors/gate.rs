//! tower-http's answer to a request's head, taken ahead of the service's own.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context as Task, Poll, Waker},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
    header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY},
};
use tower_http::cors::CorsLayer;
use tower_layer::Layer as _;
use tower_service::Service;

use super::policy::CorsPolicy;
use crate::{client::Client, context::Context, head::Head};

/// A policy that is asked by a request's head, for whoever puts several gates together.
#[derive(Clone, Debug)]
pub(crate) struct CorsGate {
    layer: CorsLayer,
    /// For the answer to a request that names no origin.
    unnamed: HeaderMap,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is answered with these headers alone.
    Answered(HeaderMap),
    /// It goes on, and its answer gets [`CorsGate::finish`] with this.
    Admitted(Named),
}

/// What the answer gets; `None` for a request that names no origin.
pub(crate) type Named = Option<Box<HeaderMap>>;

impl CorsGate {
    pub(crate) fn new(policy: &CorsPolicy, context: &Context) -> Self {
        let layer = policy.layer(context);
        let unnamed = ask(&layer, Request::new(()));
        Self { layer, unnamed }
    }

    pub(crate) fn decide(&self, head: Head<'_>) -> Verdict {
        let answered = *head.method == Method::OPTIONS;
        if !answered && !head.headers.contains_key(ORIGIN) {
            return Verdict::Admitted(None);
        }
        let mut request = Request::new(());
        request.method_mut().clone_from(head.method);
        for name in READ {
            if let Some(value) = head.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        if let Some(client) = Client::of(head) {
            request.extensions_mut().insert(client);
        }
        let headers = ask(&self.layer, request);
        match answered {
            true => Verdict::Answered(headers),
            false => Verdict::Admitted(Some(Box::new(headers))),
        }
    }

    /// Puts on an answer what [`decide`](Self::decide) said of its request.
    pub(crate) fn finish(&self, named: Named, answer: &mut HeaderMap) {
        for (name, value) in named.as_deref().unwrap_or(&self.unnamed) {
            match *name == VARY {
                true => vary(value, answer),
                false => drop(answer.insert(name.clone(), value.clone())),
            }
        }
    }
}

/// The headers that the layer puts on an empty answer.
fn ask(layer: &CorsLayer, request: Request<()>) -> HeaderMap {
    let answer = pin!(layer.layer(Nothing).call(request));
    match answer.poll(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(Ok(answer)) => answer.into_parts().0.headers,
        // The rules of a policy decide at once, and no header is no leave.
        Poll::Ready(Err(_)) | Poll::Pending => HeaderMap::new(),
    }
}

/// The service that would be asked.
#[derive(Clone, Copy)]
struct Nothing;

impl Service<Request<()>> for Nothing {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// Adds the names that the answer does not vary by yet.
fn vary(value: &HeaderValue, answer: &mut HeaderMap) {
    if !answer.contains_key(VARY) {
        answer.insert(VARY, value.clone());
        return;
    }
    let names = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let names: Vec<_> = value
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect();
        names
    };
    let there: Vec<_> = answer.get_all(VARY).iter().flat_map(names).collect();
    if there.iter().any(|name| name == "*") {
        return;
    }
    let mut missing = names(value);
    missing.retain(|name| !there.contains(name));
    if !missing.is_empty()
        && let Ok(value) = HeaderValue::from_str(&missing.join(", "))
    {
        answer.append(VARY, value);
    }
}

/// What tower-http's layer reads of a request.
const READ: [HeaderName; 3] = [
    ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD,
    ACCESS_CONTROL_REQUEST_HEADERS,
];
