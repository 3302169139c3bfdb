//! The cache of verified tokens, hazard by hazard.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;
mod support;

#[cfg(target_os = "linux")]
use std::{
    fs::{self, File},
    io::BufRead as _,
    os::unix::fs::FileExt as _,
};
use std::{sync::Arc, thread, time::Duration};

use portcullis::{
    jwt::{
        AccessToken, Algorithm, CacheLimits, Issuer, KeySet, TokenTypes, Verifier, VerifyError,
        VerifyingKey,
    },
    secret::Secret,
    time::UnixMillis,
};
use serde_json::json;
#[cfg(target_os = "linux")]
use zeroize::Zeroize as _;

use self::{
    jwt_support::{AUDIENCE, ISSUER, Setup, hs256, mint, signing_key},
    support::log::Log,
};

#[cfg(target_os = "linux")]
const MASK: u8 = 0x55;

fn cached(setup: &Setup) -> Verifier {
    setup.verifier.clone().with_cache(CacheLimits::new())
}

fn token(setup: &Setup, subject: &str) -> String {
    let claims = AccessToken::new(subject).with_session("s");
    setup
        .issuer
        .issue(&claims, setup.now())
        .unwrap()
        .into_string()
}

#[test]
fn a_token_that_comes_again_is_the_same_token() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    let first = verifier.verify(&token, setup.now()).unwrap();
    let again = verifier.verify(&token, setup.now()).unwrap();
    assert_eq!(verifier.cached(), 1);
    // The very same memory: nothing was read again.
    assert!(std::ptr::eq(first.json(), again.json()));
    assert!(!std::ptr::eq(
        setup.verifier.verify(&token, setup.now()).unwrap().json(),
        again.json()
    ));
}

#[test]
fn h01_time_is_asked_on_every_hit() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    setup.clock.advance(Duration::from_millis(899_999));
    assert!(verifier.verify(&token, setup.now()).is_ok());
    setup.clock.advance(Duration::from_millis(1));
    let refused = verifier.verify(&token, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::Expired);
    assert_eq!(verifier.cached(), 0);
}

#[test]
fn h01_the_greatest_age_is_asked_on_every_hit() {
    let setup = Setup::new();
    let verifier = setup
        .verifier
        .clone()
        .with_max_age(Duration::from_secs(60))
        .with_cache(CacheLimits::new());
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    setup.clock.advance(Duration::from_secs(61));
    let refused = verifier.verify(&token, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::TooOld);
}

#[test]
fn h02_a_key_that_is_gone_takes_its_tokens_with_it() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    let stays = VerifyingKey::secret(Algorithm::HS256, &setup.secret).unwrap();
    let fresh = || VerifyingKey::secret(Algorithm::HS256, &Secret::generate()).unwrap();
    setup.keys.replace([fresh(), stays.clone()]).unwrap();
    // The key still stands, so the token does; and it is still known.
    assert!(verifier.verify(&token, setup.now()).is_ok());
    assert_eq!(verifier.cached(), 1);
    setup.keys.replace([fresh()]).unwrap();
    let refused = verifier.verify(&token, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::UnknownKey);
    assert_eq!(verifier.cached(), 0);
    // The same bytes under another name are another key.
    setup.keys.replace([stays.with_id("other")]).unwrap();
    assert!(verifier.verify(&token, setup.now()).is_err());
}

/// H2: a key is its bytes, its name and its algorithm; that another of the same name came says
/// nothing for tokens of the one before.
#[test]
fn h02_a_key_is_its_thumbprint_and_its_algorithm() {
    let now = Setup::new().now();
    let key = |algorithm| signing_key(algorithm).with_id("k");
    let issue = |issuer: &Issuer| {
        issuer
            .issue(&AccessToken::new("u"), now)
            .unwrap()
            .into_string()
    };
    for (first, second) in [
        // The same bytes for another algorithm, and other bytes for the same.
        (Algorithm::RS256, Algorithm::PS256),
        (Algorithm::ES256, Algorithm::ES256),
    ] {
        let first = Issuer::new(key(first), ISSUER, AUDIENCE).unwrap();
        let second = Issuer::new(key(second), ISSUER, AUDIENCE).unwrap();
        let keys = KeySet::new([first.verifying_key()]).unwrap();
        let verifier = Verifier::new(keys.clone(), ISSUER, AUDIENCE)
            .unwrap()
            .with_cache(CacheLimits::new());
        let token = issue(&first);
        assert!(verifier.verify(&token, now).is_ok());
        keys.replace([second.verifying_key()]).unwrap();
        assert!(verifier.verify(&token, now).is_err());
        assert_eq!(verifier.cached(), 0);
        assert!(verifier.verify(&issue(&second), now).is_ok());
        // Nor does the one before come back with what was known of it.
        keys.replace([first.verifying_key()]).unwrap();
        assert!(verifier.verify(&issue(&second), now).is_err());
        assert!(verifier.verify(&token, now).is_ok());
    }
}

/// H2: a header that chose a key chooses anew when the set is another one.
#[test]
fn h02_what_a_header_chose_is_forgotten_with_the_set() {
    let setup = Setup::new();
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": "k"});
    let claims = jwt_support::claims(setup.now());
    let token = mint(&header, &claims, setup.secret.expose());
    let nameless = VerifyingKey::secret(Algorithm::HS256, &setup.secret)
        .unwrap()
        .without_id();
    setup.keys.replace([nameless.clone()]).unwrap();
    assert!(setup.verifier.verify(&token, setup.now()).is_ok());
    // Now the name is somebody else's.
    let named = VerifyingKey::secret(Algorithm::HS256, &Secret::generate())
        .unwrap()
        .with_id("k");
    setup.keys.replace([nameless, named]).unwrap();
    let refused = setup.verifier.verify(&token, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::BadSignature);
}

#[test]
fn h03_another_policy_knows_nothing() {
    let setup = Setup::new();
    let lax = setup
        .verifier
        .clone()
        .with_types(TokenTypes::AccessTokenOrJwt)
        .with_cache(CacheLimits::new());
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let token = mint(
        &header,
        &jwt_support::claims(setup.now()),
        setup.secret.expose(),
    );
    assert!(lax.verify(&token, setup.now()).is_ok());
    assert_eq!(lax.clone().cached(), 1);
    let strict = lax.clone().with_types(TokenTypes::AccessToken);
    assert_eq!(strict.cached(), 0);
    assert!(strict.verify(&token, setup.now()).is_err());
    let elsewhere = Verifier::new(setup.keys.clone(), ISSUER, "other")
        .unwrap()
        .with_types(TokenTypes::AccessTokenOrJwt)
        .with_cache(CacheLimits::new());
    assert!(elsewhere.verify(&token, setup.now()).is_err());
}

#[test]
fn h04_h10_every_byte_of_the_token_counts() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(verifier.verify(&changed, setup.now()).is_err(), "{index}");
    }
    // Another header and payload before the same signature.
    let (_, signature) = token.rsplit_once('.').unwrap();
    let other = hs256(&jwt_support::claims(setup.now()), &setup.secret);
    let (message, _) = other.rsplit_once('.').unwrap();
    assert!(
        verifier
            .verify(&format!("{message}.{signature}"), setup.now())
            .is_err()
    );
    assert_eq!(verifier.cached(), 1);
}

#[test]
fn h05_only_good_tokens_enter_and_the_limits_hold() {
    let setup = Setup::new();
    let limits = CacheLimits::new().with_entries(100).with_bytes(1 << 20);
    let verifier = setup.verifier.clone().with_cache(limits);
    for n in 0..300 {
        let token = token(&setup, &format!("u{n}"));
        assert!(verifier.verify(&token, setup.now()).is_ok());
        let bad = &token[..token.len() - 4];
        assert!(verifier.verify(bad, setup.now()).is_err());
        assert!(verifier.cached() <= 100);
    }
    assert_eq!(verifier.cached(), 100);
    let small = setup
        .verifier
        .clone()
        .with_cache(CacheLimits::new().with_bytes(16 * 4_000));
    for n in 0..300 {
        let token = token(&setup, &format!("u{n}"));
        assert!(small.verify(&token, setup.now()).is_ok());
    }
    // Sixteen parts of 4,000 bytes hold at most four tokens of at least 1,000 bytes each.
    assert!((16..=64).contains(&small.cached()), "{}", small.cached());
    let none = setup
        .verifier
        .clone()
        .with_cache(CacheLimits::new().with_entries(0));
    assert!(none.verify(&token(&setup, "u"), setup.now()).is_ok());
    assert_eq!(none.cached(), 0);
}

#[test]
fn h05_a_flood_of_bad_tokens_drives_nothing_out() {
    let setup = Setup::new();
    let limits = CacheLimits::new().with_entries(2);
    let verifier = setup.verifier.clone().with_cache(limits);
    let token = token(&setup, "u");
    let first = verifier.verify(&token, setup.now()).unwrap();
    for n in 0..1_000 {
        let claims = jwt_support::claims(setup.now());
        let forged = mint(&json!({"alg": "HS256", "n": n}), &claims, b"guess");
        assert!(verifier.verify(&forged, setup.now()).is_err());
    }
    let again = verifier.verify(&token, setup.now()).unwrap();
    assert!(std::ptr::eq(first.json(), again.json()));
    assert_eq!(verifier.cached(), 1);
}

/// H5: a token that would fill a cache alone does not enter, and the oldest goes first.
#[test]
fn h05_bytes_are_bounded_and_the_oldest_goes_first() {
    let setup = Setup::new();
    let limits = CacheLimits::new().with_entries(63).with_bytes(24 * 1_024);
    let verifier = setup.verifier.clone().with_cache(limits);
    let issue = |n: usize, bytes: usize| {
        let claims = AccessToken::new(format!("u{n}"))
            .with_claim("x", "x".repeat(bytes))
            .unwrap();
        setup
            .issuer
            .issue(&claims, setup.now())
            .unwrap()
            .into_string()
    };
    let tokens: Vec<_> = (0..20).map(|n| issue(n, 2_000)).collect();
    let verified: Vec<_> = tokens
        .iter()
        .map(|token| verifier.verify(token, setup.now()).unwrap())
        .collect();
    // Each takes its text of 3 KB, its claims of 2 KB, and some hundred bytes.
    assert_eq!(verifier.cached(), 4);
    let is_known = |index: usize| {
        let again = verifier.verify(&tokens[index], setup.now()).unwrap();
        std::ptr::eq(again.json(), verified[index].json())
    };
    assert!((16..20).all(is_known));
    assert!(!is_known(15));
    // What does not fit at all drives nothing out.
    let narrow = setup
        .verifier
        .clone()
        .with_cache(limits.with_bytes(12 * 1_024));
    let first = narrow.verify(&tokens[0], setup.now()).unwrap();
    assert!(narrow.verify(&issue(20, 5_500), setup.now()).is_ok());
    let again = narrow.verify(&tokens[0], setup.now()).unwrap();
    assert!(std::ptr::eq(first.json(), again.json()));
    let small = setup.verifier.clone().with_cache(limits.with_bytes(4_000));
    assert!(small.verify(&tokens[0], setup.now()).is_ok());
    assert_eq!(small.cached(), 0);
}

#[tokio::test]
async fn h06_the_deny_list_is_asked_on_every_hit() {
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use portcullis::{DenyList, jwt::JwtLayer};
    use tower::{Layer as _, ServiceExt as _, service_fn};

    let setup = Setup::new();
    let deny_list = DenyList::pending(&setup.context, Duration::from_secs(900));
    deny_list.set_ready();
    let layer = JwtLayer::new(cached(&setup))
        .with_context(setup.context.clone())
        .with_deny_list(deny_list.clone());
    let token = token(&setup, "u");
    let status = async || {
        let request = Request::get("/")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::<Bytes>::default())
            .unwrap();
        let inner = service_fn(|_: Request<Full<Bytes>>| async {
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
        });
        layer.layer(inner).oneshot(request).await.unwrap().status()
    };
    assert_eq!(status().await, 200);
    assert_eq!(status().await, 200);
    deny_list.deny_session("s");
    assert_eq!(status().await, 401);
}

/// H7: what is logged on every path of a token through the cache, at every level, and what any
/// value at hand prints.
#[test]
fn h07_nothing_that_is_printed_holds_a_token() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let setup = Setup::new();
    let verifier = cached(&setup);
    let layer = setup.layer();
    let token = token(&setup, "u");
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("the log is on");
        let verified = verifier.verify(&token, setup.now()).unwrap();
        let again = verifier.verify(&token, setup.now()).unwrap();
        let unfit = verifier.verify_as::<u8>(&token, setup.now()).unwrap_err();
        let changed = verifier.verify(&format!("{token}A"), setup.now());
        let changed = changed.unwrap_err();
        setup.clock.advance(Duration::from_secs(900));
        let late = verifier.verify(&token, setup.now()).unwrap_err();
        log.add(&format!("{verifier:?} {layer:?} {verified:?} {again:#?}"));
        log.add(&format!(
            "{unfit:?} {unfit} {changed:?} {changed} {late:?} {late}"
        ));
    });
    let said = log.text();
    assert!(said.contains("the log is on") && said.contains("claims do not fit"));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (_, payload) = message.split_once('.').unwrap();
    for part in [signature, payload] {
        assert!(!said.contains(&part[..16]), "{said}");
    }
}

/// H7: a token is kept while it may come again, and wiped from memory then.
#[cfg(target_os = "linux")]
#[test]
fn h07_a_token_that_is_forgotten_is_nowhere_in_memory() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let mut token = token(&setup, "u").into_bytes();
    // More than the signature, whose text stood alone before the token was put together.
    let masked: Vec<u8> = token[token.len() - 60..]
        .iter()
        .map(|byte| byte ^ MASK)
        .collect();
    let text = str::from_utf8(&token).unwrap();
    assert!(verifier.verify(text, setup.now()).is_ok());
    token.zeroize();
    assert_eq!(times_in_memory(&masked), 1);
    drop(verifier);
    assert_eq!(times_in_memory(&masked), 0);
}

/// How often a text stands in this process's writable memory. It is given masked, so that it is not
/// found where it is looked for.
#[cfg(target_os = "linux")]
fn times_in_memory(masked: &[u8]) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0; 1 << 16];
    let own = buffer.as_ptr_range();
    let own = own.start as u64..own.end as u64;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let [mut at, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        while at + masked.len() as u64 <= end {
            let length = buffer.len().min((end - at) as usize);
            if memory.read_exact_at(&mut buffer[..length], at).is_err() {
                break;
            }
            let mut rest = &buffer[..length];
            // By its first byte, so that it takes no second in a debug build.
            while rest.skip_until(masked[0] ^ MASK).unwrap() > 0 {
                let start = length - rest.len() - 1;
                let is_it = buffer[start..length]
                    .get(..masked.len())
                    .is_some_and(|text| {
                        text.iter()
                            .map(|byte| byte ^ MASK)
                            .eq(masked.iter().copied())
                    });
                found += usize::from(is_it && !own.contains(&(at + start as u64)));
            }
            at += (length - masked.len() + 1) as u64;
        }
    }
    buffer.fill(0);
    std::hint::black_box(&buffer);
    found
}

#[test]
fn h08_h12_many_threads_share_one_unchanging_token() {
    let setup = Arc::new(Setup::new());
    let verifier = cached(&setup);
    let tokens: Arc<Vec<_>> = Arc::new((0..50).map(|n| token(&setup, &format!("u{n}"))).collect());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (setup, verifier, tokens) = (setup.clone(), verifier.clone(), tokens.clone());
            thread::spawn(move || {
                for round in 0..2_000 {
                    let n = round % tokens.len();
                    let verified = verifier.verify(&tokens[n], setup.now()).unwrap();
                    assert_eq!(verified.identity().subject(), format!("u{n}"));
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(verifier.cached(), 50);
}

#[test]
fn h09_a_clock_that_steps_back_is_asked_too() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    setup
        .clock
        .set_wall(UnixMillis::from_secs(setup.now().as_secs() - 3_600));
    let refused = verifier.verify(&token, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::NotYetValid);
}

/// H11: what a look-up can tell by its time is whether a whole signature is known.
#[test]
fn h11_a_prefix_of_a_token_is_not_looked_up() {
    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    assert!(verifier.verify(&token, setup.now()).is_ok());
    for end in 1..token.len() {
        assert!(verifier.verify(&token[..end], setup.now()).is_err());
    }
}

#[test]
fn claims_of_another_type_are_read_anew() {
    #[derive(serde::Deserialize)]
    struct Sub {
        sub: String,
    }
    #[derive(serde::Deserialize)]
    struct Needs {
        #[allow(dead_code)]
        absent: String,
    }

    let setup = Setup::new();
    let verifier = cached(&setup);
    let token = token(&setup, "u");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let untyped = verifier.verify(&token, setup.now()).unwrap();
        let typed = verifier.verify_as::<Sub>(&token, setup.now()).unwrap();
        assert_eq!(typed.claims().sub, "u");
        let refused = verifier.verify_as::<Needs>(&token, setup.now());
        assert_eq!(refused.map(|_| ()).unwrap_err(), VerifyError::UnfitClaims);
        seen.push((untyped, typed));
    }
    // Neither drives the other out.
    assert!(std::ptr::eq(seen[0].0.json(), seen[1].0.json()));
    assert!(std::ptr::eq(seen[0].1.json(), seen[1].1.json()));
    assert_eq!(verifier.cached(), 2);
}

#[test]
fn a_key_of_another_issuer_does_not_keep_a_token_alive() {
    let make =
        |name: &'static str| Issuer::new(signing_key(Algorithm::EdDSA), name, AUDIENCE).unwrap();
    let setup = Setup::new();
    let (a, b) = (make("https://a"), make("https://b"));
    let set = |issuer: &Issuer| KeySet::new([issuer.verifying_key()]).unwrap();
    let (keys_a, keys_b) = (set(&a), set(&b));
    let verifier = Verifier::new(keys_a.clone(), "https://a", AUDIENCE)
        .unwrap()
        .with_issuer("https://b", keys_b.clone())
        .unwrap()
        .with_cache(CacheLimits::new());
    let token = a.issue(&AccessToken::new("u"), setup.now()).unwrap();
    assert!(verifier.verify(token.as_str(), setup.now()).is_ok());
    // The key moves to the other issuer.
    keys_b.replace([a.verifying_key()]).unwrap();
    keys_a.replace([b.verifying_key()]).unwrap();
    assert!(verifier.verify(token.as_str(), setup.now()).is_err());
}
