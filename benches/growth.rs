//! What a check costs as what it stands on grows: keys, policies, gates, bodies, remembered tokens.
//! Lines that should be flat are flat.

use std::{
    convert::Infallible,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    task::{Context as Task, Poll},
    time::Duration,
};

use bytes::Bytes;
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use portcullis::{
    Client, ClientLayer, Context, Origin, Secret, TrustedProxies,
    cors::CorsPolicy,
    csrf::CsrfPolicy,
    headers::SecurityHeaders,
    https::HttpsPolicy,
    jwt::{AccessToken, Algorithm, CacheLimits, Issuer, JwtLayer, SigningKey, Verifier},
    rate_limit::{Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
    upload::{UploadLayer, UploadPolicy},
};
use tower::{Layer as _, Service, service_fn};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = keys, policies, gates, bodies, tokens
}
criterion_main!(benches);

const WINDOW: Duration = Duration::from_secs(900);
const PLENTY: u32 = 100_000_000;

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keys of a rate limit");
    for (name, policy) in [
        ("strict", Policy::strict as fn(_, _, _) -> _),
        ("smooth", Policy::smooth),
    ] {
        for keys in [1, 1_000, 100_000, 1_000_000, 10_000_000_u64] {
            // No key is used up, and none is as good as new before the end, which would clear it.
            let limit = PLENTY / keys.min(1_000) as u32;
            let policy = policy("general", limit, 366 * 24 * 4 * WINDOW).unwrap();
            let layer = RateLimitLayer::new([policy.with_capacity(32_000_000).unwrap()]);
            let mut service = layer.layer(service_fn(answer::<Full<Bytes>>));
            for key in 0..keys {
                now(service.call(of_client(key)));
            }
            assert_eq!(
                (layer.handle().keys(), layer.handle().overflowed()),
                (keys as usize, 0)
            );
            let mut random = 0;
            group.bench_function(BenchmarkId::new(name, keys), |bencher| {
                bencher.iter_batched(
                    || {
                        random = mixed(random + 1);
                        of_client(random % keys)
                    },
                    |request| now(service.call(request)),
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policies of a rate limit");
    for count in [1, 2, 4, 8] {
        let policies = ["a", "b", "c", "d", "e", "f", "g", "h"]
            .into_iter()
            .take(count);
        let policies = policies.map(|name| Policy::strict(name, PLENTY, WINDOW).unwrap());
        let layer = RateLimitLayer::new(policies);
        let mut service = layer.layer(service_fn(answer::<Full<Bytes>>));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || of_client(1),
                |request| now(service.call(request)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The same request through a stack of ever more gates.
fn gates(criterion: &mut Criterion) {
    let secret = Secret::generate();
    let issuer = issuer(&secret);
    let verifier = Verifier::new(issuer.key_set(), ISSUER, AUDIENCE).unwrap();
    let jwt = JwtLayer::new(verifier.with_cache(CacheLimits::new()));
    let bearer = HeaderValue::try_from(format!("Bearer {}", token(&issuer, 0))).unwrap();
    let origin = || Origin::new("https://example.com").unwrap();
    let general = Policy::strict("general", PLENTY, WINDOW).unwrap();
    let add: [&dyn Fn(SecurityStack, Guard) -> (SecurityStack, Guard); 8] = [
        &|stack, guard| {
            (
                stack.with_client(ClientLayer::new(TrustedProxies::none())),
                guard,
            )
        },
        &|stack, guard| (stack.with_headers(SecurityHeaders::new()), guard),
        &|stack, guard| {
            (
                stack.with_https(HttpsPolicy::new(origin()).without_redirect()),
                guard,
            )
        },
        &|stack, guard| (stack.with_csrf(CsrfPolicy::new([origin()])), guard),
        &|stack, guard| {
            let limits = RateLimitLayer::new([general.clone()]);
            (stack.with_limits(limits), guard.limit("general"))
        },
        &|stack, guard| (stack.with_jwt(jwt.clone()), guard.authenticate()),
        &|stack, guard| (stack, guard.scope("model")),
        &|stack, guard| {
            (
                stack.with_cors(CorsPolicy::new(["https://app.example.net"]).unwrap()),
                guard,
            )
        },
    ];
    let mut group = criterion.benchmark_group("gates of a stack");
    for count in 1..=add.len() {
        let start = (SecurityStack::new(Context::new()), Guard::new());
        let (stack, guard) = add[..count]
            .iter()
            .fold(start, |(stack, guard), add| add(stack, guard));
        let inner = service_fn(answer);
        let mut service = stack.around(stack.route(guard).unwrap().layer(inner));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || {
                    let mut request = of_client(1);
                    let headers = request.headers_mut();
                    headers.insert(header::HOST, HeaderValue::from_static("example.com"));
                    headers.insert(header::AUTHORIZATION, bearer.clone());
                    request
                },
                |request| now(service.call(request)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A file of a form, in frames of 64 KiB.
fn bodies(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("bytes of an upload");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    for kibibytes in [1, 64, 1_024, 32 << 10, 1 << 20_u64] {
        let policy = UploadPolicy::new(["application/gzip"]).unwrap();
        let policy = policy.max_body(u64::MAX).max_file(u64::MAX).min_rate(0);
        let mut service = UploadLayer::new(policy).layer(service_fn(read));
        let bytes = kibibytes << 10;
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::from_parameter(bytes), |bencher| {
            bencher.iter_batched(
                || form(bytes),
                |request| {
                    let answer = runtime.block_on(service.call(request)).unwrap();
                    assert_eq!(answer.status(), 200);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn tokens(criterion: &mut Criterion) {
    let issuer = issuer(&Secret::generate());
    let mut group = criterion.benchmark_group("tokens that are remembered");
    for count in [1, 1_000, 100_000, 1_000_000_usize] {
        let limits = CacheLimits::new()
            .with_entries(2 * count)
            .with_bytes(8 << 30);
        let verifier = Verifier::new(issuer.key_set(), ISSUER, AUDIENCE).unwrap();
        let verifier = verifier.with_cache(limits);
        let tokens: Vec<_> = (0..count).map(|index| token(&issuer, index)).collect();
        let wall = Context::new().wall();
        for token in &tokens {
            verifier.verify(token, wall).unwrap();
        }
        assert!(verifier.cached() > count * 9 / 10);
        let mut random = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                random = mixed(random + 1);
                let token = &tokens[random as usize % count];
                black_box(verifier.verify(token, wall).is_ok())
            });
        });
    }
    group.finish();
}

async fn answer<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::default()))
}

async fn read<B: Body + Unpin>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        drop(frame);
    }
    Ok(Response::new(Full::default()))
}

fn now<T>(answer: impl Future<Output = Result<Response<T>, Infallible>>) {
    let answer = answer
        .now_or_never()
        .expect("nothing waits")
        .unwrap_or_else(|never| match never {});
    assert_eq!(answer.status(), 200);
}

fn of_client(index: u64) -> Request<Full<Bytes>> {
    // One to one, over all networks.
    let ip = Ipv4Addr::from((index as u32).wrapping_mul(0x9e37_79b1));
    let mut request = Request::new(Full::default());
    request
        .extensions_mut()
        .insert(Client::new(Some(IpAddr::V4(ip)), true));
    request
}

fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "api";

fn issuer(secret: &Secret) -> Issuer {
    let key = SigningKey::secret(Algorithm::HS256, secret)
        .unwrap()
        .with_id("k1");
    Issuer::new(key, ISSUER, AUDIENCE).unwrap()
}

fn token(issuer: &Issuer, subject: usize) -> String {
    let claims = AccessToken::new(format!("user-{subject}")).with_scopes(["model"]);
    issuer
        .issue(&claims, Context::new().wall())
        .unwrap()
        .into_string()
}

const FRAME: usize = 64 << 10;

/// A form whose file has so many bytes.
struct Form {
    head: Option<Bytes>,
    frame: Bytes,
    left: u64,
    tail: Option<Bytes>,
}

fn form(bytes: u64) -> Request<Form> {
    let head = "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.gz\"\r\n\
        Content-Type: application/gzip\r\n\r\n\x1f";
    let mut head = head.as_bytes().to_vec();
    head.extend(b"\x8b\x08\0");
    let body = Form {
        head: Some(head.into()),
        frame: vec![0x5a; FRAME].into(),
        left: bytes,
        tail: Some(Bytes::from_static(b"\r\n--B--\r\n")),
    };
    let form = Request::post("/").header("content-type", "multipart/form-data; boundary=B");
    form.body(body).unwrap()
}

impl Body for Form {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match (self.head.take(), self.left) {
            (Some(head), _) => Some(head),
            (None, 0) => self.tail.take(),
            (None, left) => {
                let size = left.min(FRAME as u64);
                self.left -= size;
                Some(self.frame.slice(..size as usize))
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }
}
