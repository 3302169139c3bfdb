//! Every layer of the crate, held to every rule of how a gate behaves in tower.
//!
//! A new layer is one line in [`every_layer_keeps_every_rule`].

mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::stream;
use http::{
    Method, Request, Response,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
#[cfg(feature = "upload")]
use portcullis::upload::{UploadLayer, UploadPolicy};
use portcullis::{
    Identity, IdentityKind, OwnBodyLayer, Peer, Rejection, TrustedProxies,
    authorize::{RequireRoleLayer, RequireScopeLayer},
    body_limit::BodyLimitLayer,
    client::{ClientLayer, with_peer},
    stack::{Guard, SecurityStack},
};
use support::probe::{Mark, Mode, Probe, REQUEST_DATA, TestBody, TestError};
use tower::{Layer, Service, ServiceExt as _, layer::layer_fn};

#[test]
fn every_layer_keeps_every_rule() {
    let mut table = Table::default();
    let peer = Peer::new("192.0.2.1:4711".parse().unwrap());
    table.hold(
        "with_peer",
        layer_fn(move |inner| with_peer(inner, peer)),
        request,
    );
    table.hold(
        "ClientLayer",
        ClientLayer::new(TrustedProxies::none()),
        request,
    );
    #[cfg(feature = "headers")]
    table.hold(
        "SecurityHeadersLayer",
        portcullis::headers::SecurityHeadersLayer::default(),
        request,
    );
    #[cfg(feature = "csrf")]
    table.hold(
        "CsrfLayer",
        portcullis::csrf::CsrfLayer::new(portcullis::csrf::CsrfPolicy::new([])),
        request,
    );
    #[cfg(feature = "csrf")]
    table.hold(
        "CsrfTokenLayer",
        portcullis::csrf::CsrfTokenLayer::new(portcullis::csrf::CsrfTokens::new(
            &portcullis::Secret::generate().into(),
        ))
        .only_if(|_| false),
        request,
    );
    table.hold(
        "HttpsLayer",
        portcullis::https::HttpsLayer::new(
            portcullis::https::HttpsPolicy::new(
                portcullis::Origin::new("https://example.com").unwrap(),
            )
            .any_host()
            .without_redirect(),
        ),
        request,
    );
    table.hold("OwnBodyLayer", OwnBodyLayer::new(), request);
    table.hold("BodyLimitLayer", BodyLimitLayer::new(1_024), request);
    table.refuse("BodyLimitLayer", BodyLimitLayer::new(1), request);
    #[cfg(feature = "upload")]
    table.hold(
        "UploadLayer",
        UploadLayer::new(
            UploadPolicy::new(["application/json"])
                .unwrap()
                .raw_bodies(),
        ),
        request,
    );
    #[cfg(feature = "rate-limit")]
    {
        use portcullis::rate_limit::{FieldsVersion, Policy, RateLimitLayer};
        let minute = std::time::Duration::from_secs(60);
        let layer = |limit| RateLimitLayer::new([Policy::strict("any", limit, minute).unwrap()]);
        let fields = layer(1_000).with_fields(FieldsVersion::Draft10);
        table.hold("RateLimitLayer", fields, request);
        let spent = layer(1);
        run(spent.layer(Probe::new(Mode::Answer)).oneshot(request())).unwrap();
        table.refuse("RateLimitLayer", spent, request);
    }
    #[cfg(feature = "jwt")]
    {
        let jwt = portcullis::jwt::JwtLayer::new(verifier());
        table.hold("JwtLayer", jwt.clone(), identified);
        table.refuse("JwtLayer", jwt, request);
    }
    #[cfg(feature = "api-key")]
    {
        use portcullis::api_key::{ApiKeyLayer, ApiKeys, MemoryKeys};
        let keys = ApiKeyLayer::new(ApiKeys::new(MemoryKeys::new(), "dev").unwrap());
        table.hold("ApiKeyLayer", keys.clone(), identified);
        table.refuse("ApiKeyLayer", keys, request);
    }
    let scope = RequireScopeLayer::new("read").unwrap();
    table.hold("RequireScopeLayer", scope.clone(), identified);
    table.refuse("RequireScopeLayer", scope, request);
    let role = RequireRoleLayer::new("admin").unwrap();
    table.hold("RequireRoleLayer", role.clone(), identified);
    table.refuse("RequireRoleLayer", role, request);
    let stack = SecurityStack::new(portcullis::Context::new());
    #[cfg(feature = "headers")]
    let stack = stack.with_headers(portcullis::headers::SecurityHeaders::new());
    #[cfg(feature = "jwt")]
    let stack = stack.with_jwt(portcullis::jwt::JwtLayer::new(verifier()));
    table.hold("EdgeLayer", stack.layer(), request);
    #[cfg(all(feature = "cors", feature = "csrf"))]
    {
        let own = || portcullis::Origin::new("http://example.com").unwrap();
        let full = stack
            .clone()
            .with_cors(portcullis::cors::CorsPolicy::new(["https://example.net"]).unwrap())
            .with_https(portcullis::https::HttpsPolicy::new(own()).any_host())
            .with_csrf(portcullis::csrf::CsrfPolicy::new([own()]));
        table.hold("EdgeLayer, every gate", full.layer(), request);
        let strict = portcullis::csrf::CsrfPolicy::new([own()]).strict();
        table.refuse("EdgeLayer, strict", full.with_csrf(strict).layer(), request);
    }
    table.hold("GuardLayer", stack.route(Guard::new()).unwrap(), request);
    let small = stack.route(Guard::new().body(1)).unwrap();
    table.refuse("GuardLayer", small, request);
    #[cfg(feature = "jwt")]
    {
        let guard = stack.route(Guard::new().scope("read")).unwrap();
        table.hold("GuardLayer, authenticated", guard.clone(), identified);
        table.refuse("GuardLayer, authenticated", guard, request);
    }
    table.finish();
}

#[test]
fn the_table_catches_layers_that_break_its_rules() {
    let broken = |hold: fn(&mut Table)| {
        let mut table = Table::default();
        hold(&mut table);
        table.broken
    };
    assert_eq!(
        broken(|table| table.hold("bad", layer_fn(|inner| Unready { inner }), request)),
        [
            "bad: calls only what it polled ready",
            "bad: passes the error of the inner service",
            "bad: keeps the request's extensions",
            "bad: keeps the request body's hints exact",
            "bad: keeps the response's extensions",
            "bad: keeps the response body's hints exact",
            "bad: passes trailers",
            "bad: can be dropped before it is polled",
            "bad: leaves a HEAD answer as it is",
        ]
    );
    assert_eq!(
        broken(|table| table.hold("bad", layer_fn(|inner| Streamed { inner }), request)),
        [
            "bad: keeps the response's extensions",
            "bad: keeps the response body's hints exact",
            "bad: passes trailers",
            "bad: leaves a HEAD answer as it is",
        ]
    );
}

/// Breaks the readiness rule: calls a fresh clone.
#[derive(Clone)]
struct Unready {
    inner: Probe,
}

impl Service<Request<TestBody>> for Unready {
    type Response = Response<TestBody>;
    type Error = TestError;
    type Future = <Probe as Service<Request<TestBody>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TestError>> {
        Service::<Request<TestBody>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<TestBody>) -> Self::Future {
        self.inner.clone().call(request)
    }
}

/// Rebuilds the answer from its data alone.
#[derive(Clone)]
struct Streamed {
    inner: Probe,
}

impl Service<Request<TestBody>> for Streamed {
    type Response = Response<StreamBody<stream::Iter<std::vec::IntoIter<Streamable>>>>;
    type Error = TestError;
    type Future = std::future::Ready<Result<Self::Response, TestError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TestError>> {
        Service::<Request<TestBody>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<TestBody>) -> Self::Future {
        let answer = run_now(self.inner.call(request)).map(|response| {
            let data = run_now(response.into_body().collect()).unwrap().to_bytes();
            Response::new(StreamBody::new(stream::iter(vec![Ok(Frame::data(data))])))
        });
        std::future::ready(answer)
    }
}

type Streamable = Result<Frame<Bytes>, TestError>;

fn run_now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the probe answers at once"),
    }
}

#[cfg(feature = "jwt")]
fn verifier() -> portcullis::jwt::Verifier {
    use portcullis::jwt::{Algorithm, KeySet, Verifier};
    let secret = portcullis::Secret::generate();
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.into()).unwrap();
    Verifier::new(keys, "issuer", "audience").unwrap()
}

/// The same from a caller that an outer gate has authenticated.
fn identified() -> Request<TestBody> {
    let identity = Identity::new(IdentityKind::Other, "user-1")
        .with_scopes(["read"])
        .with_roles(["admin"]);
    let mut request = request();
    request.extensions_mut().insert(identity);
    request
}

/// A request that every layer of the table admits.
fn request() -> Request<TestBody> {
    Request::post("/")
        .header("content-type", "application/json")
        .extension(Mark(1))
        .extension(Peer::new("192.0.2.1:4711".parse().unwrap()))
        .body(TestBody::new(&[REQUEST_DATA], None))
        .unwrap()
}

#[derive(Default)]
struct Table {
    rows: usize,
    rules: Vec<&'static str>,
    broken: Vec<String>,
}

impl Table {
    /// Holds one layer to all rules.
    fn hold<L, B>(&mut self, name: &str, layer: L, request: impl Fn() -> Request<TestBody>)
    where
        L: Layer<Probe> + Clone + Send + Sync + 'static,
        L::Service: Service<Request<TestBody>, Response = Response<B>, Error = TestError>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<TestBody>>>::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Debug,
    {
        self.rows += 1;
        let start = |mode| {
            let probe = Probe::new(mode);
            let seen = probe.seen.clone();
            (layer.clone().layer(probe), seen)
        };

        self.rule(name, "calls only what it polled ready", || {
            let (mut service, seen) = start(Mode::Answer);
            // Twice through one service, and through a clone, as servers do.
            run(async {
                for _ in 0..2 {
                    service
                        .ready()
                        .await
                        .unwrap()
                        .call(request())
                        .await
                        .unwrap();
                }
                service.clone().oneshot(request()).await.unwrap();
            });
            seen.calls.load(Ordering::SeqCst) == 3
        });
        self.rule(name, "forwards poll_ready when it is pending", || {
            let (mut service, _) = start(Mode::Busy);
            service
                .poll_ready(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        });
        self.rule(name, "forwards the error of poll_ready", || {
            let (mut service, _) = start(Mode::Broken);
            let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
            matches!(ready, Poll::Ready(Err(TestError)))
        });
        self.rule(name, "passes the error of the inner service", || {
            let (service, _) = start(Mode::Fail);
            run(service.oneshot(request())).is_err()
        });
        self.rule(name, "keeps the request's extensions", || {
            let (service, seen) = start(Mode::Answer);
            run(service.oneshot(request())).unwrap();
            seen.marked.load(Ordering::SeqCst) == 1
        });
        self.rule(name, "keeps the request body's hints exact", || {
            let (service, seen) = start(Mode::Answer);
            run(service.oneshot(request())).unwrap();
            seen.exact.load(Ordering::SeqCst) == 1
        });
        self.rule(name, "keeps the response's extensions", || {
            let (service, _) = start(Mode::Answer);
            let response = run(service.oneshot(request())).unwrap();
            response.extensions().get::<Mark>() == Some(&Mark(2))
        });
        self.rule(name, "keeps the response body's hints exact", || {
            let (service, _) = start(Mode::Answer);
            let response = run(service.oneshot(request())).unwrap();
            let mut body = pin!(response.into_body());
            let mut left = 5;
            loop {
                if body.size_hint().exact() != Some(left) {
                    return false;
                }
                match run(body.frame()) {
                    Some(frame) => {
                        left -= frame
                            .unwrap()
                            .data_ref()
                            .map_or(0, |data| data.len() as u64)
                    }
                    None => return body.is_end_stream(),
                }
            }
        });
        self.rule(name, "passes trailers", || {
            let (service, _) = start(Mode::Answer);
            let response = run(service.oneshot(request())).unwrap();
            let trailers = run(response.into_body().collect()).map(|body| body.trailers().cloned());
            trailers.unwrap().unwrap()["x-trailer"] == "kept"
        });
        self.rule(name, "can be dropped before it is polled", || {
            let (mut service, seen) = start(Mode::Answer);
            run(async {
                drop(service.ready().await.unwrap().call(request()));
            });
            drop(service);
            seen.alive.load(Ordering::SeqCst) == 0
        });
        self.rule(name, "leaves a HEAD answer as it is", || {
            let (service, _) = start(Mode::Answer);
            let mut head = request();
            *head.method_mut() = Method::HEAD;
            let response = run(service.oneshot(head)).unwrap();
            response.headers()[CONTENT_LENGTH] == "5" && response.body().is_end_stream()
        });
    }

    /// Holds a layer that refuses `request` to the rules of refusals.
    fn refuse<L, B>(&mut self, name: &str, layer: L, request: impl Fn() -> Request<TestBody>)
    where
        L: Layer<Probe>,
        L::Service: Service<Request<TestBody>, Response = Response<B>, Error = TestError>,
        B: Body<Data = Bytes> + 'static,
        B::Error: std::fmt::Debug,
    {
        let answer = || {
            let probe = Probe::new(Mode::Fail);
            let seen = probe.seen.clone();
            (run(layer.layer(probe).oneshot(request())), seen)
        };
        self.rule(
            name,
            "refuses by an answer, not calling the inner service",
            || {
                let (answer, seen) = answer();
                answer.is_ok() && seen.calls.load(Ordering::SeqCst) == 0
            },
        );
        self.rule(
            name,
            "leaves the typed reason in a refusal's extensions",
            || {
                let response = answer().0.unwrap();
                let rejection = response.extensions().get::<Rejection>().unwrap();
                rejection.status() == response.status()
            },
        );
        self.rule(name, "forbids caches to keep a refusal", || {
            answer().0.unwrap().headers()[CACHE_CONTROL] == "no-store"
        });
        self.rule(name, "refuses gRPC by a grpc-status and no body", || {
            let mut grpc = request();
            grpc.headers_mut()
                .insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
            let probe = Probe::new(Mode::Fail);
            let response = run(layer.layer(probe).oneshot(grpc)).unwrap();
            response.status() == 200
                && response.headers().contains_key("grpc-status")
                && response.body().size_hint().exact() == Some(0)
        });
    }

    fn rule(&mut self, layer: &str, rule: &'static str, check: impl FnOnce() -> bool) {
        if !self.rules.contains(&rule) {
            self.rules.push(rule);
        }
        let kept = catch_unwind(AssertUnwindSafe(check)).unwrap_or(false);
        if !kept {
            self.broken.push(format!("{layer}: {rule}"));
        }
    }

    fn finish(self) {
        println!("{} layers x {} rules", self.rows, self.rules.len());
        assert!(self.broken.is_empty(), "{:#?}", self.broken);
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}
