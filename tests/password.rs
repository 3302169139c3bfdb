#![cfg(feature = "password")]
//! Passwords through the public API.

use std::{net::IpAddr, time::Duration};

use portcullis::{
    Context, Rejection,
    event::{EventKind, SecurityEvent},
    password::{PasswordError, PasswordHasher, Unusable, Verification},
};

fn hasher() -> PasswordHasher {
    PasswordHasher::new().with_cost(4).unwrap()
}

#[tokio::test]
async fn a_hash_is_salted_and_verifies_its_own_password_alone() {
    let hasher = hasher();
    let first = hasher.hash("correct horse").await.unwrap();
    let second = hasher.hash("correct horse").await.unwrap();
    assert_ne!(first, second);
    assert!(first.starts_with("$2b$04$"));
    for stored in [&first, &second] {
        let right = hasher.verify("correct horse", Some(stored)).await.unwrap();
        assert_eq!(right, Verification::Correct { rehash_due: false });
        let wrong = hasher.verify("correct horsf", Some(stored)).await.unwrap();
        assert_eq!(wrong, Verification::Wrong);
    }
}

#[tokio::test]
async fn what_bcrypt_cannot_tell_apart_is_refused() {
    let hasher = hasher();
    let stored = hasher.hash(&"x".repeat(71)).await.unwrap();
    for (password, unusable) in [
        ("1234567".to_owned(), Unusable::TooShort),
        ("x".repeat(72), Unusable::TooLong),
        ("12345678\0".to_owned(), Unusable::Nul),
    ] {
        let expected = PasswordError::Unusable(unusable);
        assert_eq!(hasher.check(&password), Err(expected.clone()));
        assert_eq!(hasher.hash(&password).await, Err(expected.clone()));
        let verified = hasher.verify(&password, Some(&stored)).await;
        assert_eq!(verified, Err(expected.clone()));
        assert_eq!(Rejection::from(expected).status(), 422);
    }
    let other = format!("{}y", "x".repeat(70));
    assert!(
        !hasher
            .verify(&other, Some(&stored))
            .await
            .unwrap()
            .is_correct()
    );
}

#[tokio::test]
async fn an_older_cost_is_due_for_a_new_hash() {
    let old = hasher().hash("correct horse").await.unwrap();
    let newer = PasswordHasher::new().with_cost(5).unwrap();
    let verified = newer.verify("correct horse", Some(&old)).await.unwrap();
    assert!(verified.rehash_due());
    assert!(
        !newer
            .verify("battery staple", Some(&old))
            .await
            .unwrap()
            .rehash_due()
    );
}

#[tokio::test]
async fn the_services_own_check_is_asked_for_new_passwords_only() {
    let stored = hasher().hash("password1").await.unwrap();
    let strict = hasher().with_check(|password| match password {
        "password1" => Err("This password is known to attackers.".into()),
        _ => Ok(()),
    });
    let refused = strict.hash("password1").await.unwrap_err();
    assert_eq!(
        Rejection::from(refused).detail(),
        Some("This password is known to attackers.")
    );
    assert!(
        strict
            .verify("password1", Some(&stored))
            .await
            .unwrap()
            .is_correct()
    );
    assert!(strict.hash("battery staple").await.is_ok());
}

#[tokio::test]
async fn an_unreadable_hash_is_a_wrong_password_and_an_event() {
    let (sender, events) = std::sync::mpsc::channel();
    let context = Context::new().with_events(move |event: &SecurityEvent| {
        sender.send((event.kind(), event.reason())).unwrap();
    });
    let hasher = hasher().with_context(context);
    let verified = hasher
        .verify("correct horse", Some("plain text"))
        .await
        .unwrap();
    assert_eq!(verified, Verification::Wrong);
    let event = events.try_recv().unwrap();
    assert_eq!(event, (EventKind::Misconfigured, Some("unreadable_hash")));
}

#[tokio::test]
async fn a_flood_is_told_when_to_come_back() {
    let hasher = PasswordHasher::new().with_cost(8).unwrap().with_queue(1, 4);
    let ip = |site: u8| IpAddr::from([198, 51, site, 1]);
    let logins = (0..40).map(|turn| {
        let hasher = hasher.for_client(ip(turn % 2));
        tokio::spawn(async move { hasher.verify("correct horse", None).await })
    });
    let mut busy = 0;
    for login in logins.collect::<Vec<_>>() {
        match login.await.unwrap() {
            Ok(verification) => assert_eq!(verification, Verification::Wrong),
            Err(PasswordError::Busy { retry_after }) => {
                assert!(retry_after >= Duration::from_secs(1));
                busy += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    // One runs and one of each site waits, over and over; the others are told at once.
    assert!((30..40).contains(&busy), "{busy}");
    assert!(
        hasher
            .for_client(ip(0))
            .verify("correct horse", None)
            .await
            .is_ok()
    );
    let rejection = Rejection::from(PasswordError::Busy {
        retry_after: Duration::from_millis(1_200),
    });
    assert_eq!(rejection.status(), 503);
    assert!(
        rejection
            .headers()
            .any(|(name, value)| name == "retry-after" && value == "2")
    );
}

#[test]
fn costs_that_cannot_be_used_are_refused() {
    for cost in [0, 3, 17, 31, u32::MAX] {
        assert!(PasswordHasher::new().with_cost(cost).is_err(), "{cost}");
    }
    assert!(format!("{:?}", PasswordHasher::new()).contains("cost: 12"));
}
