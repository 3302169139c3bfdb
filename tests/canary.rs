#![cfg(all(
    feature = "aws-lc-rs",
    feature = "csrf",
    feature = "jwt",
    feature = "password",
    feature = "sqlite"
))]
//! Nothing secret in logs, errors, `Debug` output or the database's files: everything that is said
//! over the life of some sessions is kept, and searched for every secret that was in use.

mod support;

use std::{
    convert::Infallible,
    error::Error,
    fmt::{self, Write as _},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::Full;
use portcullis::{
    Context, DenyList, Origin, Rejection,
    csrf::CsrfPolicy,
    jwt::{Algorithm, Issuer, SigningKey},
    password::PasswordHasher,
    refresh_token::{Device, EndReason, RefreshTokens, Seed, TokenDigest, sqlite::SqliteStore},
    secret::Secret,
    session::{PasswordChange, SessionEndpoints, Sessions, TokenPair},
    time::ManualClock,
};
use sqlx::Row as _;
use tower::ServiceExt as _;

use self::support::log::Log;

/// What was logged and printed.
#[derive(Default)]
struct Said(Log);

impl Said {
    fn show(&self, what: impl fmt::Debug) {
        self.0.add(&format!("{what:?} {what:#?}\n"));
    }

    fn error(&self, error: &(dyn Error + 'static)) {
        self.show(error);
        let mut next = Some(error);
        while let Some(error) = next {
            self.show(format_args!("{error}"));
            next = error.source();
        }
    }
}

/// What must not be found.
#[derive(Default)]
struct Canaries {
    texts: Vec<(&'static str, String)>,
    bytes: Vec<(&'static str, Vec<u8>)>,
}

impl Canaries {
    fn token(&mut self, token: &str) {
        // What stands before is the session's id and generation, which are no secret.
        let secret = &token[SECRET_DIGITS..];
        let decoded = URL_SAFE_NO_PAD.decode(&token["pcrt_".len()..]).unwrap();
        self.texts.push(("token", secret.to_owned()));
        self.bytes
            .push(("token's secret", decoded[SECRET].to_vec()));
    }

    fn pair(&mut self, pair: &TokenPair) {
        self.token(pair.refresh_token.expose());
        let signature = pair.access_token.as_str().rsplit('.').next().unwrap();
        self.texts.push(("access token", signature.to_owned()));
    }

    /// Every form that a text can show them in; parts of them count.
    fn forms(&self) -> Vec<(&'static str, String)> {
        let mut forms = Vec::new();
        for (name, text) in &self.texts {
            forms.extend(parts(text, 14).map(|part| (*name, part)));
        }
        for (name, bytes) in &self.bytes {
            let mut hex = String::new();
            bytes
                .iter()
                .for_each(|byte| write!(hex, "{byte:02x}").unwrap());
            let listed = format!("{bytes:?}");
            forms.extend(parts(&hex, 16).map(|part| (*name, part)));
            forms.extend(parts(&hex.to_uppercase(), 16).map(|part| (*name, part)));
            forms.extend(parts(&URL_SAFE_NO_PAD.encode(bytes), 14).map(|part| (*name, part)));
            forms.extend(parts(&STANDARD_NO_PAD.encode(bytes), 14).map(|part| (*name, part)));
            forms.extend(parts(listed.trim_matches(['[', ']']), 24).map(|part| (*name, part)));
        }
        forms
    }

    /// The first that a text holds.
    fn found_in(&self, text: &str) -> Option<&'static str> {
        let holds = |(name, form): (&'static str, String)| text.contains(&form).then_some(name);
        self.forms().into_iter().find_map(holds)
    }

    /// The first that raw bytes hold.
    fn found_raw(&self, file: &[u8]) -> Option<&'static str> {
        let texts = self
            .texts
            .iter()
            .map(|(name, text)| (*name, text.as_bytes()));
        let bytes = self.bytes.iter().map(|(name, bytes)| (*name, &bytes[..]));
        texts.chain(bytes).find_map(|(name, canary)| {
            let part = &canary[..canary.len().min(12)];
            holds(file, part).then_some(name)
        })
    }
}

fn parts(text: &str, length: usize) -> impl Iterator<Item = String> + '_ {
    let ends = text.len().saturating_sub(length);
    (0..=ends)
        .step_by(2)
        .map(move |at| text[at..(at + length).min(text.len())].to_owned())
}

fn holds(file: &[u8], part: &[u8]) -> bool {
    file.windows(part.len()).any(|window| window == part)
}

/// All files of the database, one after the other.
fn files(folder: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

#[tokio::test]
async fn nothing_secret_is_said_or_stored() {
    let said = Said::default();
    // Everything of everybody, sqlx and its threads included.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(said.0.clone())
        .with_ansi(false)
        .init();
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("sessions.db"))
        .await
        .unwrap();
    let (signing, refreshing) = (Secret::generate(), Secret::generate());
    let mut canaries = Canaries::default();
    for (name, secret) in [
        ("signing secret", &signing),
        ("refresh secret", &refreshing),
    ] {
        canaries.bytes.push((name, secret.expose().to_vec()));
        said.show(secret);
    }
    for password in [OLD, NEW, WRONG, SHORT] {
        canaries.texts.push(("password", password.to_owned()));
    }
    // What the store keeps, and must not be said either.
    let mut kept = Canaries::default();
    let keep = async |kept: &mut Canaries| {
        let rows = sqlx::query("SELECT current, previous, seed FROM portcullis_sessions");
        for row in rows.fetch_all(store.pool()).await.unwrap() {
            for (at, name) in ["digest", "digest before", "seed"].into_iter().enumerate() {
                let bytes: Option<Vec<u8>> = row.get(at);
                kept.bytes.extend(bytes.map(|bytes| (name, bytes)));
            }
        }
    };

    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let tokens = RefreshTokens::new(store.clone(), refreshing).with_context(context.clone());
    let key = SigningKey::secret(Algorithm::HS256, &signing).unwrap();
    let issuer = Issuer::new(key, "me", "api").unwrap();
    let deny_list = DenyList::since_start(&context, issuer.ttl());
    clock.advance(Duration::from_secs(1));
    let sessions = Sessions::new(issuer, tokens.clone(), deny_list);
    let hasher = PasswordHasher::new()
        .with_cost(4)
        .unwrap()
        .with_context(context.clone());
    let own = Origin::new("https://example.com").unwrap();
    let endpoints = SessionEndpoints::new(sessions.clone()).with_cookie(CsrfPolicy::new([own]));
    said.show((&store, &tokens, &sessions, &hasher, &endpoints));
    let ask = async |path: &str, cookie: bool, token: &str| {
        let endpoint = match path {
            "/refresh" => endpoints.refresh(),
            _ => endpoints.logout(),
        };
        let request = Request::post(path).header("origin", "https://example.com");
        let (request, body) = match cookie {
            true => {
                let request = request.header("cookie", format!("__Host-refresh={token}"));
                (request, String::new())
            }
            false => {
                let request = request.header(CONTENT_TYPE, "application/json");
                (request, format!("{{\"refresh_token\":\"{token}\"}}"))
            }
        };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let Ok(response) = endpoint.oneshot(request).await;
        // A good answer's body is the client's; a refusal shows nothing.
        if !response.status().is_success() {
            said.show(response.body());
        }
        said.show(response.headers());
        response.status().as_u16()
    };

    // Register, log in, refresh.
    let mut stored = hasher.hash(OLD).await.unwrap();
    for password in [OLD, WRONG, SHORT] {
        let verified = hasher.verify(password, Some(&stored)).await;
        said.show(&verified);
        if let Err(error) = verified {
            said.error(&error);
            said.show(Rejection::from(error));
        }
    }
    said.show(hasher.verify(OLD, None).await);
    said.show(hasher.verify(OLD, Some("no hash")).await);
    let away: Option<IpAddr> = "198.51.100.1".parse().ok();
    let device = Device::new().with_label("laptop").with_ip(away);
    let first = sessions.start("user-1", device).await.unwrap();
    let other = sessions.start("user-1", Device::new()).await.unwrap();
    let second = sessions
        .refresh(first.refresh_token.expose(), away)
        .await
        .unwrap();
    for pair in [&first, &other, &second] {
        canaries.pair(pair);
        said.show(pair);
        said.show(pair.refresh_token.clone());
    }
    keep(&mut kept).await;
    // A replay, from elsewhere too; by cookie and by body.
    for (cookie, status) in [(true, 200), (false, 200)] {
        assert_eq!(
            ask("/refresh", cookie, first.refresh_token.expose()).await,
            status
        );
    }
    let third = sessions
        .refresh(second.refresh_token.expose(), None)
        .await
        .unwrap();
    canaries.pair(&third);
    keep(&mut kept).await;
    // Late, forged, foreign, garbage.
    let forged = {
        let mut text = third.refresh_token.expose().to_owned();
        let last = if text.ends_with('A') { "E" } else { "A" };
        text.replace_range(text.len() - 1.., last);
        text
    };
    let strangers = RefreshTokens::new(SqliteStore::in_memory().await.unwrap(), Secret::generate());
    let login = strangers.begin("user-1").await.unwrap();
    let foreign = strangers.start(login, Device::new()).await.unwrap();
    said.show((&strangers, &foreign));
    canaries.token(foreign.token.expose());
    for token in [
        first.refresh_token.expose(),
        &forged,
        foreign.token.expose(),
        "pcrt_rubbish",
    ] {
        for cookie in [true, false] {
            assert_eq!(ask("/refresh", cookie, token).await, 401);
        }
        if let Err(error) = sessions.refresh(token, None).await {
            said.error(&error);
            said.show(Rejection::from(&error));
        }
    }

    // A change of the password: wrong, unusable, right.
    for (current, new) in [(WRONG, NEW), (OLD, SHORT), (OLD, NEW)] {
        let known = stored.clone();
        let change = PasswordChange::new("user-1", current, new, Some(&known));
        said.show(change);
        let keep = async |hash| {
            stored = hash;
            Ok::<_, Infallible>(true)
        };
        let change = change.keep(Some(third.session.id));
        match sessions.change_password(&hasher, change, keep).await {
            Ok(ended) => said.show(ended),
            Err(error) => {
                said.error(&error);
                said.show(Rejection::from(error));
            }
        }
    }
    assert_eq!(
        ask("/refresh", true, other.refresh_token.expose()).await,
        401
    );

    // Used again after the window; ended; logged out.
    clock.advance(Duration::from_secs(60));
    let reused = sessions.refresh(second.refresh_token.expose(), None).await;
    said.error(&reused.unwrap_err());
    for cookie in [true, false] {
        assert_eq!(
            ask("/refresh", cookie, third.refresh_token.expose()).await,
            401
        );
        assert_eq!(
            ask("/logout", cookie, third.refresh_token.expose()).await,
            204
        );
    }
    let last = sessions.start("user-1", Device::new()).await.unwrap();
    canaries.pair(&last);
    assert_eq!(ask("/logout", true, last.refresh_token.expose()).await, 204);
    let last = sessions.start("user-2", Device::new()).await.unwrap();
    canaries.pair(&last);
    keep(&mut kept).await;
    said.show(tokens.get(last.session.id).await.unwrap());
    said.show(tokens.revoked_since(Default::default()).await.unwrap());

    let file = files(folder.path());
    assert!(
        holds(&file, b"user-2") && kept.found_raw(&file).is_some(),
        "the file is not read"
    );
    assert_eq!(canaries.found_raw(&file), None, "in the database's files");

    // A row that cannot be, a store that lost its table, one that is away.
    for broken in [
        "UPDATE portcullis_sessions SET seed = NULL, current = x'00'",
        "DROP TABLE portcullis_sessions",
    ] {
        sqlx::query(broken).execute(store.pool()).await.unwrap();
        fail(&sessions, &last, &said).await;
        for cookie in [true, false] {
            assert_eq!(
                ask("/refresh", cookie, last.refresh_token.expose()).await,
                503
            );
        }
    }
    store.pool().close().await;
    fail(&sessions, &last, &said).await;
    assert_eq!(ask("/logout", true, last.refresh_token.expose()).await, 503);

    // As a store would that logs what it is given.
    for (_, bytes) in &kept.bytes {
        let bytes = <[u8; 32]>::try_from(&bytes[..]).unwrap();
        said.show((TokenDigest::from_bytes(bytes), Seed::from_bytes(bytes)));
    }

    let text = said.0.text();
    for known in [
        "authn_token_reuse",
        "session_logout",
        "session_created",
        "store_unavailable",
        "input_validation_fail",
        "authn_password_change_fail",
        "a call of the session store failed",
        "no such table",
        &last.session.id.to_string(),
    ] {
        assert!(text.contains(known), "{known} is not said");
    }
    assert!(kept.bytes.len() > 8 && canaries.texts.len() > 12);
    assert_eq!(canaries.found_in(&text), None, "said");
    assert_eq!(kept.found_in(&text), None, "said");
}

async fn fail(sessions: &Sessions, pair: &TokenPair, said: &Said) {
    let token = pair.refresh_token.expose();
    let id = pair.session.id;
    let results = [
        sessions.refresh(token, None).await.map(drop),
        sessions.end(token, None).await.map(drop),
        sessions.start("user-1", Device::new()).await.map(drop),
        sessions.list("user-1").await.map(drop),
        sessions
            .end_session(id, EndReason::Administrator)
            .await
            .map(drop),
        sessions.recover().await,
    ];
    for error in results.into_iter().filter_map(Result::err) {
        said.error(&error);
        said.show(Rejection::from(error));
    }
}

/// The search finds what is there, in each form.
#[test]
fn the_search_finds_what_is_there() {
    let mut canaries = Canaries::default();
    canaries.texts.push(("password", OLD.to_owned()));
    canaries.bytes.push(("seed", (100..132).collect()));
    let seed: Vec<u8> = (100..132).collect();
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    for (text, found) in [
        (format!("x{OLD}y"), Some("password")),
        (format!("x{hex}y"), Some("seed")),
        (hex.to_uppercase(), Some("seed")),
        (format!("{seed:?}"), Some("seed")),
        (URL_SAFE_NO_PAD.encode(&seed), Some("seed")),
        (STANDARD_NO_PAD.encode(&seed), Some("seed")),
        ("nothing".to_owned(), None),
    ] {
        assert_eq!(canaries.found_in(&text), found, "{text}");
    }
    assert_eq!(canaries.found_raw(&seed), Some("seed"));
    assert_eq!(canaries.found_raw(OLD.as_bytes()), Some("password"));
    assert_eq!(canaries.found_raw(b"nothing"), None);
}

const OLD: &str = "canary-old-Kx7#pQ";
const NEW: &str = "canary-new-Vb3!tR";
const WRONG: &str = "canary-wrong-Zm9";
const SHORT: &str = "cnry-7%";
/// The bytes of a token that are secret, and where their digits begin.
const SECRET: std::ops::Range<usize> = 29..61;
const SECRET_DIGITS: usize = "pcrt_".len() + 40;
