//! JWT layers beside `jwt-authorizer`, `tower-oauth2-resource-server`, `axum-jwt-auth` and the bare
//! primitive: the same token, read into the same claims, around the same inner service.
//!
//! `cargo run --release --bin jwt`; pin it to a core (`taskset -c 1`). The figures stand on standard
//! error, and a line for each budget on standard output: name, ours, the peer's, their ratio, the
//! budget, and `ok` or `over`, between tabs. Times are those of the quietest of many rounds of a
//! millisecond, in which the candidates take turns; on a shared host that is what repeats.
//!
//! Two rows are about our own code alone, and say so: what the layer allocates itself, without the
//! texts of the application's type (eight claims hold five of them, for whichever layer fills them),
//! and what it takes outside the primitive, by a backend that stops the time it spends.

#[path = "../../../../tests/jwt_support/mod.rs"]
mod jwt_support;

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    marker::PhantomData,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context as Waiting, Poll, Waker},
    time::Instant,
};

use aws_lc_rs::{hmac, signature as aws};
use axum::{body::Body, extract::FromRequestParts};
use axum_jwt_auth::{Decoder, LocalDecoder};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use jwt_authorizer::{JwtAuthorizer, layer::AuthorizationLayer};
use portcullis::{
    ConfigError, Context,
    jwt::{
        AccessToken, Algorithm, CacheLimits, Issuer, JwksEndpoint, JwtLayer, KeySet, SigningKey,
        Verifier, VerifyingKey,
        crypto::{self, AwsLc, CryptoProvider, PrivateKey, PublicKey, Signer},
    },
    secret::Secret,
};
use portcullis_peers::{Candidate, Counting, allocations, quietest};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Layer, Service};
use tower_oauth2_resource_server::{
    server::OAuth2ResourceServer, tenant::TenantConfiguration, validation::ClaimsValidationSpec,
};

use self::jwt_support::{AUDIENCE, ISSUER, signing_key};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Eight claims, which every candidate reads.
#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "reading them is the work")]
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

fn main() {
    jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER
        .install_default()
        .expect("nobody else chose");
    let mut lines = Vec::new();
    for algorithm in [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        measure(&Subject::new(algorithm), &mut lines);
    }
    lines.iter().for_each(|line| println!("{line}"));
}

/// A token, and what each candidate needs to verify it.
struct Subject {
    algorithm: Algorithm,
    token: String,
    jwks: Value,
    key: VerifyingKey,
}

impl Subject {
    fn new(algorithm: Algorithm) -> Self {
        let secret = Secret::generate();
        let key = match algorithm {
            Algorithm::HS256 => SigningKey::secret(algorithm, &secret),
            _ => Ok(signing_key(algorithm)),
        };
        let issuer = Issuer::new(key.expect("a good key").with_id("k1"), ISSUER, AUDIENCE)
            .expect("good names");
        let mut jwks: Value =
            serde_json::from_str(&JwksEndpoint::new(issuer.clone()).json()).expect("a set");
        if algorithm == Algorithm::HS256 {
            let k = URL_SAFE_NO_PAD.encode(secret.expose());
            jwks = json!({"keys": [{"kty": "oct", "kid": "k1", "alg": "HS256", "k": k}]});
        }
        let claims = AccessToken::new("5f1c9c52-6a1e-4b0e-8b1a-5b8f0c1c2d3e")
            .with_scopes(["model", "upload"]);
        let token = issuer
            .issue(&claims, Context::new().wall())
            .expect("it signs")
            .into_string();
        Self {
            algorithm,
            token,
            jwks,
            key: issuer.verifying_key(),
        }
    }

    fn verifier(&self) -> Verifier {
        self.verifier_by(&AwsLc)
    }

    fn verifier_by(&self, provider: &'static dyn CryptoProvider) -> Verifier {
        let keys = KeySet::with_provider(provider, [self.key.clone()]).expect("a good key");
        Verifier::new(keys, ISSUER, AUDIENCE).expect("good names")
    }

    fn jwt_authorizer(&self) -> AuthorizationLayer<Eight> {
        let validation = jwt_authorizer::Validation::new()
            .iss(&[ISSUER])
            .aud(&[AUDIENCE])
            .nbf(true);
        let built = JwtAuthorizer::<Eight>::from_jwks_text(&self.jwks.to_string())
            .validation(validation)
            .build();
        AuthorizationLayer::new(vec![Arc::new(now(built).expect("good keys"))])
    }

    fn oauth2(&self) -> OAuth2ResourceServer<Eight> {
        let spec = ClaimsValidationSpec::recommended(ISSUER, &vec![AUDIENCE.to_owned()]);
        let tenant = TenantConfiguration::static_builder(self.jwks.to_string())
            .claims_validation(spec)
            .allowed_algorithms(&[self.algorithm.as_str().parse().expect("a name")])
            .build()
            .expect("good keys");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let built = OAuth2ResourceServer::builder().add_tenant(tenant).build();
        runtime.block_on(built).expect("good keys")
    }

    fn axum_jwt_auth(&self) -> Decoder<Eight> {
        let jwk = serde_json::from_value(self.jwks["keys"][0].clone()).expect("a key");
        let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
        let mut validation =
            jsonwebtoken::Validation::new(self.algorithm.as_str().parse().expect("a name"));
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_nbf = true;
        Arc::new(LocalDecoder::new(vec![key], validation).expect("a good setup"))
    }

    /// The signature alone, by a key that is prepared.
    fn primitive(&self) -> Box<dyn Fn()> {
        let (message, signature) = self.token.rsplit_once('.').expect("three parts");
        let (message, signature) = (message.to_owned(), decode(signature));
        let jwk = &self.jwks["keys"][0];
        let member = |name: &str| decode(jwk[name].as_str().unwrap_or_default());
        let key = match self.algorithm {
            Algorithm::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &member("k"));
                return Box::new(move || {
                    hmac::verify(&key, message.as_bytes(), &signature).expect("it holds")
                });
            }
            Algorithm::RS256 => aws::RsaPublicKeyComponents {
                n: member("n"),
                e: member("e"),
            }
            .to_parsed_public_key(&aws::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::ES256 => {
                let point = [vec![4], member("x"), member("y")].concat();
                aws::ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_FIXED, point)
            }
            _ => aws::ParsedPublicKey::new(&aws::ED25519, member("x")),
        };
        let key = key.expect("a key");
        Box::new(move || {
            key.verify_sig(message.as_bytes(), &signature)
                .expect("it holds")
        })
    }
}

fn measure(subject: &Subject, lines: &mut Vec<String>) {
    let field = HeaderValue::try_from(format!("Bearer {}", subject.token)).expect("a field");
    let inner = Inner::<Body>::default();
    let mut bare = inner.clone();
    let mut authorizer = subject
        .jwt_authorizer()
        .layer(Inner::<axum_07::body::Body>::default());
    let mut oauth2 = subject.oauth2().into_layer::<Body>().layer(inner.clone());
    let mut extractor = Extract {
        inner: inner.clone(),
        decoder: subject.axum_jwt_auth(),
    };
    let mut untyped = JwtLayer::new(subject.verifier()).layer(inner.clone());
    let plain = JwtLayer::new(subject.verifier()).claims::<Eight>();
    let mut plain = plain.layer(inner.clone());
    let cached = JwtLayer::new(subject.verifier().with_cache(CacheLimits::new())).claims::<Eight>();
    let mut cached = cached.layer(inner);
    let primitive = subject.primitive();
    let allocated = [
        allocations_of(&mut bare, &field),
        allocations_of(&mut authorizer, &field),
        allocations_of(&mut oauth2, &field),
        allocations_of(&mut extractor, &field),
        allocations_of(&mut untyped, &field),
        allocations_of(&mut plain, &field),
        allocations_of(&mut cached, &field),
    ]
    .map(|count| count as f64);
    let outside = outside_the_primitive(subject, &field);
    let quiet = quietest(
        subject.algorithm.as_str(),
        1_500,
        vec![
            Candidate::new("inner alone", || call(&mut bare, &field)),
            Candidate::new("jwt-authorizer", || call(&mut authorizer, &field)),
            Candidate::new("tower-oauth2-resource-server", || call(&mut oauth2, &field)),
            Candidate::new("axum-jwt-auth", || call(&mut extractor, &field)),
            Candidate::new("portcullis, no type of claims", || {
                call(&mut untyped, &field)
            }),
            Candidate::new("portcullis", || call(&mut plain, &field)),
            Candidate::new("portcullis, cached", || call(&mut cached, &field)),
            Candidate::new("the bare primitive", primitive),
        ],
    );
    let [
        _,
        authorizer,
        oauth2,
        extractor,
        _,
        plain,
        cached,
        primitive,
    ] = quiet[..]
    else {
        unreachable!("as many times as candidates");
    };
    let [
        _,
        of_authorizer,
        of_oauth2,
        of_extractor,
        own,
        of_plain,
        of_cached,
    ] = allocated;
    eprintln!("  portcullis outside the primitive {outside:.0} ns");
    eprintln!(
        "  allocations of a fresh request: jwt-authorizer {of_authorizer}, \
         tower-oauth2-resource-server {of_oauth2}, axum-jwt-auth {of_extractor}, portcullis {of_plain} ({own} without the type's five texts), cached {of_cached}"
    );
    let fastest = authorizer.min(oauth2).min(extractor);
    let name = subject.algorithm.as_str();
    let kept = |is_kept: bool| if is_kept { "ok" } else { "over" };
    let mut line = |what: &str, ours: f64, peer: f64, budget: &str, verdict: &str| {
        let ratio = ours / peer;
        lines.push(format!(
            "jwt {name} {what}\t{ours:.1}\t{peer:.1}\t{ratio:.3}\t{budget}\t{verdict}"
        ));
    };
    match subject.algorithm {
        Algorithm::HS256 => {
            line(
                "layer, ns, to jwt-authorizer",
                plain,
                authorizer,
                "<= 0.45",
                kept(plain <= 0.45 * authorizer),
            );
            let what = format!(
                "layer, its own allocations ({of_plain} with the type's texts), to jwt-authorizer"
            );
            line(&what, own, of_authorizer, "<= 8 allocations", kept(own <= 8.0));
        }
        Algorithm::RS256 => {
            line(
                "layer, ns, to the fastest peer",
                plain,
                fastest,
                "<= 0.80",
                kept(plain <= 0.8 * fastest),
            );
            line(
                "the floor of that, the bare primitive",
                primitive,
                fastest,
                "<= 0.80",
                "floor",
            );
            let faster = fastest / cached;
            line(
                &format!("cached, ns, to the fastest peer ({faster:.0} x faster)"),
                cached,
                fastest,
                "<= 0.0125",
                kept(faster >= 80.0),
            );
        }
        _ => {
            line(
                "layer, ns, to the fastest peer",
                plain,
                fastest,
                "<= 1.00",
                kept(plain <= fastest),
            );
            line(
                "outside the primitive, ns, to the primitive",
                outside,
                primitive,
                "<= 1500 ns",
                kept(outside <= 1_500.0),
            );
        }
    }
    line(
        "cached, whole layer, ns, to jwt-authorizer",
        cached,
        authorizer,
        "<= 250 ns",
        kept(cached <= 250.0),
    );
}

/// What a layer without a type of claims takes beside its signature, the reading of two clocks for
/// that included.
fn outside_the_primitive(subject: &Subject, field: &HeaderValue) -> f64 {
    let mut service = JwtLayer::new(subject.verifier_by(&Timed)).layer(Inner::<Body>::default());
    let mut quietest = f64::INFINITY;
    for _ in 0..200 {
        let spent = SPENT.load(Relaxed);
        let start = Instant::now();
        for _ in 0..CALLS {
            call(&mut service, field);
        }
        let whole = start.elapsed().as_nanos() as f64;
        let spent = (SPENT.load(Relaxed) - spent) as f64;
        quietest = quietest.min((whole - spent) / f64::from(CALLS));
    }
    quietest
}

const CALLS: u32 = 50;
/// Nanoseconds in the primitive.
static SPENT: AtomicU64 = AtomicU64::new(0);

/// AWS-LC, with the time that its signatures take.
#[derive(Debug)]
struct Timed;

impl CryptoProvider for Timed {
    fn verifier(
        &self,
        algorithm: Algorithm,
        key: PublicKey<'_>,
    ) -> Result<Box<dyn crypto::Verifier>, ConfigError> {
        Ok(Box::new(TimedVerifier(AwsLc.verifier(algorithm, key)?)))
    }

    fn signer(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<Box<dyn Signer>, ConfigError> {
        AwsLc.signer(algorithm, key)
    }

    fn public_part(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), ConfigError> {
        AwsLc.public_part(algorithm, key)
    }
}

struct TimedVerifier(Box<dyn crypto::Verifier>);

impl crypto::Verifier for TimedVerifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let start = Instant::now();
        let holds = self.0.verify(message, signature);
        SPENT.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        holds
    }
}

/// Keeps the request to be used again, so that building it is in no figure.
struct Inner<B>(PhantomData<fn() -> B>);

impl<B> Default for Inner<B> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<B> Clone for Inner<B> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

std::thread_local! {
    static KEPT: std::cell::RefCell<Option<Request<Body>>> = const { std::cell::RefCell::new(None) };
}

impl<B: Default> Service<Request<Body>> for Inner<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Ready<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Waiting<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // A gate must have left something; the next request comes without it.
        black_box(request.extensions().len());
        request.extensions_mut().clear();
        KEPT.with(|kept| *kept.borrow_mut() = Some(request));
        ready(Ok(Response::new(B::default())))
    }
}

/// `axum-jwt-auth` is an extractor: around a service it costs what it costs before a handler.
struct Extract {
    inner: Inner<Body>,
    decoder: Decoder<Eight>,
}

impl Extract {
    async fn run(&mut self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (mut parts, body) = request.into_parts();
        match axum_jwt_auth::Claims::<Eight>::from_request_parts(&mut parts, &self.decoder).await {
            Ok(claims) => {
                parts.extensions.insert(claims.claims);
                self.inner.call(Request::from_parts(parts, body)).await
            }
            Err(_) => Ok(refused()),
        }
    }
}

/// What both ways to a candidate have in common. The answer is kept until it is dropped.
trait Serve {
    type Answer: HasStatus;

    fn serve(&mut self, request: Request<Body>) -> Self::Answer;
}

trait HasStatus {
    fn status_code(&self) -> u16;
}

impl<B> HasStatus for Response<B> {
    fn status_code(&self) -> u16 {
        self.status().as_u16()
    }
}

impl<S> Serve for S
where
    S: Service<Request<Body>, Error = Infallible>,
    S::Response: HasStatus,
{
    type Answer = S::Response;

    fn serve(&mut self, request: Request<Body>) -> S::Response {
        let mut waiting = Waiting::from_waker(Waker::noop());
        assert!(self.poll_ready(&mut waiting).is_ready());
        let Ok(response) = now(self.call(request));
        response
    }
}

impl Serve for Extract {
    type Answer = Response<Body>;

    fn serve(&mut self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = now(self.run(request));
        response
    }
}

fn call(candidate: &mut impl Serve, field: &HeaderValue) {
    let request = KEPT
        .with(|kept| kept.borrow_mut().take())
        .unwrap_or_else(|| fresh(field));
    let response = candidate.serve(request);
    assert_eq!(response.status_code(), 200);
    drop(black_box(response));
}

/// Allocations for a request that has no extensions yet, beyond building and keeping it.
fn allocations_of(candidate: &mut impl Serve, field: &HeaderValue) -> usize {
    for _ in 0..10 {
        call(candidate, field);
    }
    let request = fresh(field);
    let before = allocations();
    let response = candidate.serve(request);
    let count = allocations() - before;
    assert_eq!(response.status_code(), 200);
    count
}

fn fresh(field: &HeaderValue) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(AUTHORIZATION, field.clone());
    request
}

fn refused() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    response
}

fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future
        .as_mut()
        .poll(&mut Waiting::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing waits"),
    }
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
