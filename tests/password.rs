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
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
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
    assert!(format!("{:?}", PasswordHasher::new()).contains("Some(12)"));
}

#[cfg(feature = "argon2")]
mod argon2id {
    use portcullis::password::Argon2id;

    use super::*;

    fn params() -> Argon2id {
        Argon2id::new(7 * 1024, 5, 1).unwrap()
    }

    #[tokio::test]
    async fn users_move_over_from_bcrypt_at_their_next_login() {
        let bcrypt = hasher();
        let old = bcrypt.hash("correct horse").await.unwrap();
        let moving = hasher().with_argon2id(params());
        let wrong = moving.verify("battery staple", Some(&old)).await.unwrap();
        assert_eq!(wrong, Verification::Wrong);
        let right = moving.verify("correct horse", Some(&old)).await.unwrap();
        assert_eq!(right, Verification::Correct { rehash_due: true });
        let new = moving.hash("correct horse").await.unwrap();
        assert!(new.starts_with("$argon2id$v=19$m=7168,t=5,p=1$") && new.len() <= 128);

        let alone = PasswordHasher::argon2id(params());
        for hasher in [&moving, &alone] {
            let right = hasher.verify("correct horse", Some(&new)).await.unwrap();
            assert_eq!(right, Verification::Correct { rehash_due: false });
            let wrong = hasher.verify("battery staple", Some(&new)).await.unwrap();
            assert_eq!(wrong, Verification::Wrong);
        }
        let over = alone.verify("correct horse", Some(&old)).await.unwrap();
        assert_eq!(over, Verification::Wrong);
        let unknown = bcrypt.verify("correct horse", Some(&new)).await.unwrap();
        assert_eq!(unknown, Verification::Wrong);
    }

    #[tokio::test]
    async fn other_parameters_are_due_for_a_new_hash() {
        let old = PasswordHasher::argon2id(params());
        let old = old.hash("correct horse").await.unwrap();
        let strong = PasswordHasher::argon2id(Argon2id::new(9 * 1024, 5, 2).unwrap());
        let verified = strong.verify("correct horse", Some(&old)).await.unwrap();
        assert_eq!(verified, Verification::Correct { rehash_due: true });
        let new = strong.hash("correct horse").await.unwrap();
        let verified = strong.verify("correct horse", Some(&new)).await.unwrap();
        assert_eq!(verified, Verification::Correct { rehash_due: false });
        assert_ne!(new, strong.hash("correct horse").await.unwrap());
    }

    /// Made by the reference implementation, through `argon2-cffi`.
    #[tokio::test]
    async fn hashes_of_other_implementations_count() {
        const THEIRS: &str = "$argon2id$v=19$m=7168,t=5,p=2$Ivx5HxZ+NkjD7xPz\
                              $VF/abBxUHiDK1UBiEJzAWyZXvfYWObZF";
        let hasher = PasswordHasher::argon2id(params());
        let right = hasher.verify("correct horse", Some(THEIRS)).await.unwrap();
        assert_eq!(right, Verification::Correct { rehash_due: true });
        let wrong = hasher.verify("correct horsf", Some(THEIRS)).await.unwrap();
        assert_eq!(wrong, Verification::Wrong);
    }

    #[tokio::test]
    async fn hashes_that_are_not_plain_argon2id_within_bounds_count_for_nothing() {
        let hasher = PasswordHasher::argon2id(params());
        let good = hasher.hash("correct horse").await.unwrap();
        let (head, output) = good.rsplit_once('$').unwrap();
        for bad in [
            good.replace("argon2id", "argon2i"),
            good.replace("argon2id", "argon2d"),
            good.replace("v=19", "v=16"),
            good.replace("$v=19", ""),
            good.replace("m=7168", "m=4194304"),
            good.replace("t=5", "t=4294967295"),
            good.replace("t=5", "t=0"),
            good.replace("p=1", "p=17"),
            good.replace("p=1", "p=1,keyid=Y29ycmVjdA"),
            format!("{head}${}", &output[..20]),
            head.to_owned(),
        ] {
            let verified = hasher.verify("correct horse", Some(&bad)).await.unwrap();
            assert_eq!(verified, Verification::Wrong, "{bad}");
        }
    }

    #[test]
    fn less_than_owasp_asks_for_is_refused() {
        for (mib, iterations) in [(46, 1), (19, 2), (12, 3), (9, 4), (7, 5), (7, 32)] {
            assert!(Argon2id::new(mib * 1024, iterations, 1).is_ok());
            let less = Argon2id::new(mib * 1024 - 1, iterations, 1);
            assert!(less.is_err(), "{mib} {iterations}");
        }
        for (memory, iterations, lanes) in [
            (47_104, 0, 1),
            (47_104, 33, 1),
            (47_104, 1, 0),
            (47_104, 1, 17),
            (1024 * 1024 + 1, 1, 1),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert!(Argon2id::new(memory, iterations, lanes).is_err());
        }
        assert!(Argon2id::new(1024 * 1024, 32, 16).is_ok());
        assert_eq!(Argon2id::default(), Argon2id::new(19 * 1024, 2, 1).unwrap());
        assert!(PasswordHasher::argon2id(params()).with_cost(12).is_err());
        assert!(hasher().with_argon2id(params()).with_cost(5).is_ok());
    }

    #[tokio::test]
    async fn the_queue_bounds_argon2id_too() {
        let hasher = PasswordHasher::argon2id(params()).with_queue(1, 1);
        let calls = (0..8).map(|_| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify("correct horse", None).await })
        });
        let mut busy = 0;
        for call in calls.collect::<Vec<_>>() {
            busy += usize::from(matches!(
                call.await.unwrap(),
                Err(PasswordError::Busy { .. })
            ));
        }
        assert!((1..8).contains(&busy), "{busy}");
    }
}
