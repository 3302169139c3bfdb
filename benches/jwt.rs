//! What a token costs: the layer, the verifier, the cached verifier, `jsonwebtoken::decode`, and the
//! bare primitive with its key prepared, each on the same token.

#[path = "../tests/jwt_support/mod.rs"]
mod jwt_support;
#[path = "support/threads.rs"]
mod threads;

use std::{convert::Infallible, future::Ready, hint::black_box, time::Duration};

use aws_lc_rs::{hmac, signature as aws};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use portcullis::{
    Context,
    jwt::{
        AccessToken, Algorithm, CacheLimits, Issuer, JwksEndpoint, JwtLayer, KeySet, SigningKey,
        Verifier, VerifyingKey,
    },
    secret::Secret,
};
use serde::Deserialize;
use tower::{Layer, Service, service_fn};

use self::jwt_support::{AUDIENCE, ISSUER, signing_key};

type Body = Full<Bytes>;

/// Eight claims, as the peers of `research` read them.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Eight {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
    nbf: u64,
    jti: String,
    scope: String,
}

fn answer(request: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    let length = request.extensions().len();
    std::future::ready(Ok(Response::new(Body::from(if length > 1 {
        "in"
    } else {
        "out"
    }))))
}

fn run<S>(service: &mut S, field: &HeaderValue)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut request = Request::new(Body::default());
    request.headers_mut().insert(AUTHORIZATION, field.clone());
    let mut future = std::pin::pin!(service.call(request));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(response) => drop(black_box(response)),
        std::task::Poll::Pending => unreachable!("nothing waits"),
    }
}

fn bench(criterion: &mut Criterion) {
    for algorithm in [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let secret = Secret::generate();
        let (key, verifying) = match algorithm {
            Algorithm::HS256 => (
                SigningKey::secret(algorithm, &secret).unwrap(),
                Some(VerifyingKey::secret(algorithm, &secret).unwrap()),
            ),
            _ => (signing_key(algorithm), None),
        };
        let issuer = Issuer::new(key, ISSUER, AUDIENCE).unwrap();
        let keys = KeySet::new([verifying.unwrap_or(issuer.verifying_key())]).unwrap();
        let context = Context::new();
        let now = context.wall();
        let claims = AccessToken::new("5f1c9c52-6a1e-4b0e-8b1a-5b8f0c1c2d3e")
            .with_scopes(["model", "upload"]);
        let token = issuer.issue(&claims, now).unwrap().into_string();
        let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
        let cached = verifier.clone().with_cache(CacheLimits::new());
        let field = HeaderValue::try_from(format!("Bearer {token}")).unwrap();

        let mut group = criterion.benchmark_group(algorithm.as_str());
        let mut bare = service_fn(answer);
        group.bench_function("no layer", |bencher| {
            bencher.iter(|| run(&mut bare, &field))
        });

        let mut layer = JwtLayer::new(verifier.clone())
            .with_context(context.clone())
            .layer(service_fn(answer));
        group.bench_function("layer", |bencher| bencher.iter(|| run(&mut layer, &field)));
        let mut typed = JwtLayer::new(verifier.clone())
            .with_context(context.clone())
            .claims::<Eight>()
            .layer(service_fn(answer));
        group.bench_function("layer, eight claims", |bencher| {
            bencher.iter(|| run(&mut typed, &field))
        });
        let mut known = JwtLayer::new(cached.clone())
            .with_context(context.clone())
            .claims::<Eight>()
            .layer(service_fn(answer));
        group.bench_function("layer, cached", |bencher| {
            bencher.iter(|| run(&mut known, &field))
        });
        group.bench_function("layer, cached, two threads", |bencher| {
            let known = JwtLayer::new(cached.clone()).with_context(context.clone());
            let work = || {
                let mut known = known.layer(service_fn(answer));
                let field = &field;
                move || run(&mut known, field)
            };
            bencher.iter_custom(|calls| threads::on_two(calls, work));
        });
        group.bench_function("verify", |bencher| {
            bencher.iter(|| verifier.verify(black_box(&token), now).unwrap())
        });
        group.bench_function("verify, cached", |bencher| {
            bencher.iter(|| cached.verify(black_box(&token), now).unwrap())
        });

        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let jwks = JwksEndpoint::new(issuer.clone()).json();
        let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&jwks).unwrap();
        let decoding = match jwks.keys.first() {
            None => jsonwebtoken::DecodingKey::from_secret(secret.expose()),
            Some(jwk) => jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap(),
        };
        let name = algorithm.as_str().parse().unwrap();
        let mut validation = jsonwebtoken::Validation::new(name);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.validate_nbf = true;
        group.bench_function("jsonwebtoken::decode", |bencher| {
            bencher.iter(|| {
                jsonwebtoken::decode::<Eight>(black_box(&token), &decoding, &validation).unwrap()
            })
        });
        let public = |kind: &'static dyn aws::VerificationAlgorithm, bytes: &[u8]| {
            aws::ParsedPublicKey::new(kind, bytes).unwrap()
        };
        let primitive: Box<dyn Fn()> = match algorithm {
            Algorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
                let (message, signature) = (message.to_owned(), signature);
                Box::new(move || hmac::verify(&key, message.as_bytes(), &signature).unwrap())
            }
            _ => {
                let key = match decoding.kind() {
                    jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, e } => {
                        aws::RsaPublicKeyComponents { n, e }
                            .to_parsed_public_key(&aws::RSA_PKCS1_2048_8192_SHA256)
                            .unwrap()
                    }
                    jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) if bytes.len() == 32 => {
                        public(&aws::ED25519, bytes)
                    }
                    jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => {
                        public(&aws::ECDSA_P256_SHA256_FIXED, bytes)
                    }
                };
                let message = message.to_owned();
                Box::new(move || key.verify_sig(message.as_bytes(), &signature).unwrap())
            }
        };
        group.bench_function("the bare primitive", |bencher| bencher.iter(&primitive));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .sample_size(30);
    targets = bench
}
criterion_main!(benches);
