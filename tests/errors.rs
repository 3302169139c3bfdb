//! Errors of every gate: they can be boxed and sent on, tell their cause, and are answers.

#![cfg(all(
    feature = "api-key",
    feature = "audit",
    feature = "axum",
    feature = "jwt",
    feature = "object-store",
    feature = "password",
    feature = "refresh-token",
    feature = "test-suite"
))]

use std::error::Error;

use axum::response::IntoResponse;
use portcullis::{
    ConfigError, Rejection,
    api_key::{ApiKeyError, NotAKey, NotAnApiKeyId},
    deny_list::Denied,
    jwt::{FetchError, IssueError, VerifyError, crypto::SignatureError},
    password::{PasswordError, Unusable},
    refresh_token::{
        NotASessionId, NotAToken, RefreshError, StoreError, StoreErrorKind,
        conformance::BrokenRules,
    },
    session::{PasswordChangeError, SessionError},
    stack::SettingsError,
    upload::{NotAccepted, object_store::HandOffError, scan::ScanError},
};

#[test]
fn every_error_can_be_boxed_and_sent() {
    fn is_an_error<E: Error + Send + Sync + 'static>() {}

    is_an_error::<ApiKeyError>();
    is_an_error::<BrokenRules>();
    is_an_error::<ConfigError>();
    is_an_error::<Denied>();
    is_an_error::<FetchError>();
    is_an_error::<HandOffError>();
    is_an_error::<IssueError>();
    is_an_error::<NotAKey>();
    is_an_error::<NotASessionId>();
    is_an_error::<NotAToken>();
    is_an_error::<NotAccepted>();
    is_an_error::<NotAnApiKeyId>();
    is_an_error::<PasswordChangeError<StoreError>>();
    is_an_error::<PasswordError>();
    is_an_error::<RefreshError>();
    is_an_error::<Rejection>();
    is_an_error::<ScanError>();
    is_an_error::<SessionError>();
    is_an_error::<SettingsError>();
    is_an_error::<SignatureError>();
    is_an_error::<StoreError>();
    is_an_error::<Unusable>();
    is_an_error::<VerifyError>();
}

#[test]
fn errors_tell_their_cause() {
    let store = || StoreError::from(StoreErrorKind::Unavailable);
    let unusable = Unusable::TooShort;
    let cases: [(&dyn Error, String); 6] = [
        (
            &ApiKeyError::NotAKey(NotAKey::Checksum),
            NotAKey::Checksum.to_string(),
        ),
        (&ApiKeyError::Store(store()), store().to_string()),
        (
            &RefreshError::NotAToken(NotAToken::Forged),
            NotAToken::Forged.to_string(),
        ),
        (
            &SessionError::from(store()),
            RefreshError::from(store()).to_string(),
        ),
        (
            &PasswordError::Unusable(unusable.clone()),
            unusable.to_string(),
        ),
        (
            &PasswordChangeError::<StoreError>::Password(PasswordError::Failed),
            PasswordError::Failed.to_string(),
        ),
    ];
    for (error, cause) in cases {
        assert_eq!(error.source().map(ToString::to_string), Some(cause));
    }
}

/// A handler of axum may return any of them, and each is the answer that its rejection is.
#[test]
fn errors_of_gates_are_answers() {
    fn assert_answers<E: IntoResponse + Into<Rejection> + Clone>(error: E, status: u16) {
        let rejection: Rejection = error.clone().into();
        let reason = rejection.reason().to_owned();
        let answer = error.into_response();
        assert_eq!(answer.status(), status, "{reason}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let kept = answer.extensions().get::<Rejection>().unwrap();
        assert_eq!(kept.reason(), reason);
    }

    assert_answers(ApiKeyError::TooMany, 409);
    assert_answers(RefreshError::LoginOutdated, 401);
    assert_answers(SessionError::Disabled, 403);
    assert_answers(PasswordError::Failed, 500);
    assert_answers(PasswordChangeError::<StoreError>::Wrong, 403);
    assert_answers(HandOffError::NotAccepted, 400);
}
