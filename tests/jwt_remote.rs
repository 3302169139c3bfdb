//! Keys that come from elsewhere: against time that is moved by hand, and against a real server
//! that rotates, lies, stalls and dies.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, response::IntoResponse, routing::get};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use portcullis::{
    Context,
    jwt::{
        AccessToken, Algorithm, CacheLimits, FetchError, Fetched, Issuer, JwksEndpoint, JwtLayer,
        RefreshPolicy, RemoteKeys, Verifier, VerifyError,
    },
    time::{Clock, ManualClock, Monotonic, UnixMillis},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use self::jwt_support::{AUDIENCE, ISSUER, signing_key};

/// A clock that goes with tokio's, which a test may stop.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default().saturating_add(self.0.elapsed())
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis::from_secs(1_800_000_000).saturating_add(self.0.elapsed())
    }
}

fn issuer() -> Issuer {
    Issuer::new(signing_key(Algorithm::EdDSA), ISSUER, AUDIENCE).unwrap()
}

fn verdict(verifier: &Verifier, issuer: &Issuer, now: UnixMillis) -> Result<(), VerifyError> {
    let token = issuer.issue(&AccessToken::new("u"), now).unwrap();
    verifier.verify(token.as_str(), now).map(|_| ())
}

/// What a fake source answers, and how often it was asked.
#[derive(Clone, Default)]
struct Source {
    body: Arc<Mutex<Option<String>>>,
    cache_control: Arc<Mutex<Option<&'static str>>>,
    asked: Arc<AtomicUsize>,
    stalls: Arc<AtomicBool>,
}

impl Source {
    fn says(&self, body: impl Into<Option<String>>) {
        *self.body.lock().unwrap() = body.into();
    }

    async fn fetch(self) -> Result<Fetched, FetchError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.stalls.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let body = self.body.lock().unwrap().clone();
        let fetched = body.map(Fetched::new).ok_or_else(FetchError::new)?;
        Ok(match *self.cache_control.lock().unwrap() {
            Some(field) => fetched.with_cache_control(field),
            None => fetched,
        })
    }

    fn keep(&self, cache_control: &'static str) {
        *self.cache_control.lock().unwrap() = Some(cache_control);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn spawn(policy: RefreshPolicy) -> (Source, Verifier, Context) {
    let context = Context::new().with_clock(TokioClock(tokio::time::Instant::now()));
    let remote = RemoteKeys::new(policy, context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), ISSUER, AUDIENCE).unwrap();
    let source = Source::default();
    let fetch = source.clone();
    tokio::spawn(remote.run(move || fetch.clone().fetch()));
    (source, verifier, context)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn there_are_no_keys_before_the_first_fetch_and_old_ones_outlive_failures() {
    let issuer = issuer();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    let check = || verdict(&verifier, &issuer, context.wall());
    assert_eq!(check(), Err(VerifyError::KeysUnavailable));
    pass(4).await;
    // Tried at 0, 1 and 3 s.
    assert_eq!(source.asked(), 3);
    assert_eq!(check(), Err(VerifyError::KeysUnavailable));
    source.says(JwksEndpoint::new(issuer.clone()).json());
    pass(4).await;
    assert_eq!(check(), Ok(()));
    // The source lies or is away for hours: what is known stands.
    for lie in [
        "",
        "<html>",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","alg":"HS256","k":"AAAA"}]}"#,
    ] {
        source.says(lie.to_owned());
        let asked = source.asked();
        pass(3_600).await;
        assert!(source.asked() > asked);
        assert_eq!(check(), Ok(()));
    }
    source.says(None);
    pass(86_400).await;
    assert_eq!(check(), Err(VerifyError::KeysUnavailable));
    source.says(JwksEndpoint::new(issuer.clone()).json());
    pass(61).await;
    assert_eq!(check(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_when_it_is_time() {
    let issuer = issuer();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    source.says(JwksEndpoint::new(issuer.clone()).json());
    pass(1).await;
    assert_eq!(source.asked(), 1);
    pass(3_600).await;
    // Four or five times in an hour, each up to a tenth early.
    assert!((5..=6).contains(&source.asked()), "{}", source.asked());
    assert_eq!(verdict(&verifier, &issuer, context.wall()), Ok(()));
    // A key that is gone from the set is gone here within an interval.
    let other = self::issuer();
    source.says(JwksEndpoint::new(other.clone()).json());
    pass(901).await;
    assert_eq!(
        verdict(&verifier, &issuer, context.wall()),
        Err(VerifyError::UnknownKey)
    );
    assert_eq!(verdict(&verifier, &other, context.wall()), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_stalling_source_holds_up_no_token() {
    let issuer = issuer();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    source.says(JwksEndpoint::new(issuer.clone()).json());
    pass(60).await;
    source.stalls.store(true, Ordering::SeqCst);
    let asked = source.asked();
    // Strangers' tokens with unknown keys: one fetch at a time, and known keys do not wait.
    for _ in 0..100 {
        assert_eq!(
            verdict(&verifier, &self::issuer(), context.wall()),
            Err(VerifyError::UnknownKey)
        );
        assert_eq!(verdict(&verifier, &issuer, context.wall()), Ok(()));
    }
    pass(9).await;
    assert_eq!(source.asked(), asked + 1);
    assert_eq!(verdict(&verifier, &issuer, context.wall()), Ok(()));
    // It is given up, and tried again.
    pass(30).await;
    assert!(source.asked() > asked + 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_at_once_and_not_too_often() {
    let old = issuer();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    source.says(JwksEndpoint::new(old.clone()).json());
    pass(60).await;
    let new = issuer();
    source.says(JwksEndpoint::new(new.clone()).json());
    assert_eq!(
        verdict(&verifier, &new, context.wall()),
        Err(VerifyError::UnknownKey)
    );
    pass(1).await;
    assert_eq!(source.asked(), 2);
    assert_eq!(verdict(&verifier, &new, context.wall()), Ok(()));
    // A flood of unknown ids: one fetch in 30 s.
    for _ in 0..60 {
        for _ in 0..10 {
            assert!(verdict(&verifier, &issuer(), context.wall()).is_err());
        }
        pass(1).await;
    }
    assert!(source.asked() <= 5, "{}", source.asked());
}

/// An issuer turns to another algorithm: its key is looked for like any other, where the algorithm
/// is one of those that are taken.
#[tokio::test(start_paused = true)]
async fn a_key_of_another_algorithm_is_looked_for_too() {
    let make = |algorithm| Issuer::new(signing_key(algorithm), ISSUER, AUDIENCE).unwrap();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    source.says(JwksEndpoint::new(make(Algorithm::ES256)).json());
    pass(60).await;
    let next = make(Algorithm::EdDSA);
    source.says(JwksEndpoint::new(next.clone()).json());
    let unwanted = verdict(&verifier, &make(Algorithm::RS512), context.wall());
    assert_eq!(unwanted, Err(VerifyError::AlgorithmNotAllowed));
    pass(1).await;
    assert_eq!(source.asked(), 1);
    let unknown = verdict(&verifier, &next, context.wall());
    assert_eq!(unknown, Err(VerifyError::UnknownKey));
    pass(1).await;
    assert_eq!(source.asked(), 2);
    assert_eq!(verdict(&verifier, &next, context.wall()), Ok(()));
}

/// An id that a fetch did not bring is not looked for again, however often it is asked for.
#[tokio::test(start_paused = true)]
async fn an_absent_key_is_not_looked_for_again() {
    let known = issuer();
    let (source, verifier, context) = spawn(RefreshPolicy::new());
    source.says(JwksEndpoint::new(known.clone()).json());
    pass(60).await;
    let stranger = issuer();
    let mut refusals = 0;
    for _ in 0..600 {
        refusals += usize::from(verdict(&verifier, &stranger, context.wall()).is_err());
        pass(1).await;
    }
    assert_eq!((refusals, source.asked()), (600, 2));
}

/// A secret that everybody can fetch is none, whatever the application allows.
#[tokio::test(start_paused = true)]
async fn secrets_are_never_fetched() {
    let context = Context::new().with_clock(TokioClock(tokio::time::Instant::now()));
    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone())
        .unwrap()
        .with_algorithms([Algorithm::HS256, Algorithm::EdDSA]);
    let keys = remote.key_set();
    let k =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let source = Source::default();
    source.says(format!(
        "{{\"keys\":[{{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"{k}\"}}]}}"
    ));
    let fetch = source.clone();
    tokio::spawn(remote.run(move || fetch.clone().fetch()));
    pass(4).await;
    assert!(source.asked() > 1 && keys.is_empty());
}

/// `Cache-Control: max-age` decides how long a set is kept, within a minute and an hour.
#[tokio::test(start_paused = true)]
async fn cache_control_is_honoured() {
    for (field, seconds, least, most) in [
        ("max-age=3600", 3_000, 1, 1),
        ("public, max-age=120", 1_200, 10, 12),
        ("max-age=1", 600, 10, 12),
        ("max-age=999999999", 3_599, 1, 2),
        ("no-store", 800, 1, 1),
    ] {
        let (source, _verifier, _) = spawn(RefreshPolicy::new());
        source.keep(field);
        source.says(JwksEndpoint::new(issuer()).json());
        pass(seconds).await;
        let asked = source.asked();
        assert!((least..=most).contains(&asked), "{field}: {asked}");
    }
}

/// The last keys that are known stand for as long as the policy says, cached tokens with them.
#[tokio::test(start_paused = true)]
async fn the_last_known_keys_have_a_greatest_age() {
    let issuer = issuer();
    let policy = RefreshPolicy::new().with_max_age(Duration::from_secs(7_200));
    let (source, verifier, context) = spawn(policy);
    let verifier = verifier.with_cache(CacheLimits::new());
    source.says(JwksEndpoint::new(issuer.clone()).json());
    pass(1).await;
    source.says(None);
    pass(7_197).await;
    let token = issuer
        .issue(&AccessToken::new("u"), context.wall())
        .unwrap();
    let verdict = || verifier.verify(token.as_str(), context.wall()).map(|_| ());
    assert_eq!(verdict(), Ok(()));
    assert_eq!(verifier.cached(), 1);
    pass(3).await;
    assert_eq!(verdict(), Err(VerifyError::KeysUnavailable));
}

/// A real server whose answer a test decides.
async fn serve(source: Source) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route(
        "/jwks.json",
        get(move || {
            let source = source.clone();
            async move {
                source.asked.fetch_add(1, Ordering::SeqCst);
                if source.stalls.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let body = source.body.lock().unwrap().clone();
                match body {
                    Some(body) => Bytes::from(body).into_response(),
                    None => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
        }),
    );
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (format!("http://{address}/jwks.json"), server)
}

async fn get_keys(client: reqwest::Client, url: String) -> Result<Fetched, FetchError> {
    let fails = |_| FetchError::new();
    let response = client.get(url).send().await.map_err(fails)?;
    let response = response.error_for_status().map_err(fails)?;
    Ok(Fetched::new(response.bytes().await.map_err(fails)?))
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !what() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it happens in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_may_rotate_lie_and_die() {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let source = Source::default();
    let first = issuer();
    source.says(JwksEndpoint::new(first.clone()).json());
    let (url, server) = serve(source.clone()).await;
    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), ISSUER, AUDIENCE).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let driver = tokio::spawn(remote.run(move || get_keys(client.clone(), url.clone())));
    let check = |issuer: &Issuer| verdict(&verifier, issuer, clock.wall());
    until(|| {
        clock.advance(Duration::from_millis(100));
        check(&first).is_ok()
    })
    .await;

    // It rotates; the first token of the new key has it looked for.
    let second = issuer();
    source.says(JwksEndpoint::new(second.clone()).json());
    until(|| {
        clock.advance(Duration::from_secs(1));
        check(&second).is_ok()
    })
    .await;
    assert_eq!(check(&first), Err(VerifyError::UnknownKey));

    // It lies, fails, sends too much.
    for lie in [
        Some("<html>".to_owned()),
        Some(format!(
            "{} {}",
            JwksEndpoint::new(issuer()).json(),
            " ".repeat(300 * 1_024)
        )),
        None,
    ] {
        source.says(lie);
        let asked = source.asked();
        until(|| {
            clock.advance(Duration::from_secs(1));
            let _ = check(&issuer());
            // One that began after the lie did.
            source.asked() > asked + 1
        })
        .await;
        assert_eq!(check(&second), Ok(()));
    }
    // It dies.
    server.abort();
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(check(&second), Ok(()));
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(check(&second), Err(VerifyError::KeysUnavailable));
    driver.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_under_load_without_one_false_refusal() {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let issuer = issuer();
    let endpoint = JwksEndpoint::new(issuer.clone());
    let source = Source::default();
    source.says(endpoint.json());
    let (url, server) = serve(source.clone()).await;
    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), ISSUER, AUDIENCE).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let driver = tokio::spawn(remote.run(move || get_keys(client.clone(), url.clone())));
    until(|| verdict(&verifier, &issuer, clock.wall()).is_ok()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let good = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (stop, good, clock) = (stop.clone(), good.clone(), clock.clone());
            let issuer = issuer.clone();
            // Keys fetched from elsewhere, and those of the issuer itself; with a cache and without.
            let local = Verifier::new(issuer.key_set(), ISSUER, AUDIENCE).unwrap();
            let cached = verifier.clone().with_cache(CacheLimits::new());
            let gates = [&verifier, &cached, &local].map(|verifier| {
                let layer = JwtLayer::new(verifier.clone()).with_context(context.clone());
                layer.layer(service_fn(|_: Request<Full<Bytes>>| {
                    std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
                }))
            });
            std::thread::spawn(move || {
                let mut kept: VecDeque<HeaderValue> = VecDeque::new();
                while !stop.load(Ordering::SeqCst) {
                    let token = issuer.issue(&AccessToken::new("u"), clock.wall()).unwrap();
                    let field = format!("Bearer {}", token.as_str());
                    kept.push_back(HeaderValue::try_from(field).unwrap());
                    if kept.len() > 8 {
                        kept.pop_front();
                    }
                    // The newest token, and the oldest, which may be of a key before.
                    for field in [kept.back(), kept.front()].into_iter().flatten() {
                        for gate in &gates {
                            let mut request = Request::new(Full::default());
                            request.headers_mut().insert(AUTHORIZATION, field.clone());
                            let response = gate.clone().oneshot(request).now_or_never();
                            assert_eq!(response.unwrap().unwrap().status(), 200);
                        }
                    }
                    good.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let next = signing_key(Algorithm::EdDSA);
        // Announced first; it signs when verifiers elsewhere have had time to hear of it.
        issuer.announce(&next).unwrap();
        source.says(endpoint.json());
        let preview = Issuer::new(next.clone(), ISSUER, AUDIENCE).unwrap();
        until(|| {
            clock.advance(Duration::from_millis(100));
            verdict(&verifier, &preview, clock.wall()).is_ok()
        })
        .await;
        issuer.rotate(&next, clock.wall()).unwrap();
        let so_far = good.load(Ordering::SeqCst);
        until(|| good.load(Ordering::SeqCst) > so_far + 20).await;
    }
    stop.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    driver.abort();
    server.abort();
}
