//! Settings: every one with values that nobody can mean.

use std::collections::BTreeSet;

use portcullis::{secret::Secret, stack::Settings};

#[test]
fn every_setting_refuses_what_cannot_be_meant() {
    let numbers = [
        "",
        "-1",
        "0x10",
        "1e3",
        " 5",
        "5 ",
        "1.5",
        "٣",
        "NaN",
        "soon",
        "1,000",
        "99999999999999999999999999",
        "5\n",
    ];
    let mut count = 0;
    let mut tried = BTreeSet::new();
    for name in [
        "JWT_ACCESS_TTL_SECS",
        "JWT_LEEWAY_SECS",
        "JWT_REFRESH_TTL_SECS",
        "REFRESH_GRACE_SECS",
        "MAX_SESSIONS_PER_USER",
        "BCRYPT_COST",
        "RATE_LIMIT_WINDOW_MS",
        "RATE_LIMIT_MAX_REQUESTS",
        "AUTH_RATE_LIMIT_MAX",
        "AUTH_ACCOUNT_FAILURES_MAX",
        "MODEL_RATE_LIMIT_MAX",
        "UPLOAD_RATE_LIMIT_MAX",
        "UPLOAD_MAX_FILE_BYTES",
    ] {
        // An empty variable is one that is not set.
        assert!(Settings::from_map([(name, "")]).is_ok());
        tried.insert(name);
        for value in &numbers[1..] {
            assert_refused(name, value);
            count += 1;
        }
    }
    for (name, values) in [
        (
            "APP_ENV",
            &["prod", "Production", "test", "production "][..],
        ),
        (
            "BIND_ADDR",
            &[
                "localhost",
                "127.0.0.1",
                ":3000",
                "127.0.0.1:99999",
                "[::1]",
            ],
        ),
        (
            "PUBLIC_ORIGIN",
            &[
                "example.com",
                "https://example.com/",
                "https://a b",
                "*",
                "null",
                "javascript:alert(1)",
            ],
        ),
        (
            "DATABASE_URL",
            &[
                "mysql://root:hunter2@db/x",
                "sqlite://",
                "secure_api.db",
                "file:x",
            ],
        ),
        (
            "REDIS_URL",
            &["redis://", "cache:6379", "http://:hunter2@cache", "redis"],
        ),
        ("JWT_SECRET", TOO_WEAK),
        ("JWT_SECRET_PREVIOUS", TOO_WEAK),
        ("JWT_REFRESH_SECRET", TOO_WEAK),
        ("JWT_REFRESH_SECRET_PREVIOUS", TOO_WEAK),
        (
            "METRICS_TOKEN",
            &[
                "hunter2",
                "a b c d e f g h i j k l m n o p q r s t",
                "ключключключключключключключключ",
            ],
        ),
        ("JWT_ISSUER", &["a\nb", "a\u{7}"]),
        ("JWT_AUDIENCE", &["a\nb", "a\u{7}"]),
        (
            "TRUSTED_PROXIES",
            &["0.0.0.0/0", "::/0", "everyone", "10.0.0.0/33", "10.0.0.1,,"],
        ),
        (
            "CORS_ALLOWED_ORIGINS",
            &["*", "null", "https://*.example.com", "example.com"],
        ),
        (
            "UPLOAD_ALLOWED_TYPES",
            &["png", "image/", "/png", "image/png;q=1", "image png"],
        ),
        (
            "CLAMD_ADDR",
            &["clamav", "clamav:", ":3310", "clamav:0", "run/clamd.sock"],
        ),
        (
            "API_KEYS_ENV",
            &["Live", "a-b", "a_b", "12345678901234567", "é"],
        ),
    ] {
        tried.insert(name);
        for value in values {
            assert_refused(name, value);
            count += 1;
        }
    }
    let shown = Settings::default().to_string();
    for line in shown.lines() {
        let name = line.split('=').next().unwrap();
        assert!(tried.contains(name), "{name} was not tried");
    }
    for name in ["JWT_ISSUER", "JWT_AUDIENCE"] {
        for character in ["x", "é"] {
            assert!(Settings::from_map([(name, character.repeat(256))]).is_ok());
            assert_refused(name, &character.repeat(257));
        }
    }
    for name in [
        "JWT_SECRET_FILE",
        "JWT_SECRET_PREVIOUS_FILE",
        "JWT_REFRESH_SECRET_FILE",
        "JWT_REFRESH_SECRET_PREVIOUS_FILE",
        "DATABASE_URL_FILE",
        "REDIS_URL_FILE",
        "METRICS_TOKEN_FILE",
    ] {
        for path in ["/nonexistent/hunter2", "/"] {
            assert_refused(name, path);
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

#[test]
fn production_is_reached_over_https() {
    let told = |origin: &str| {
        let read = Settings::from_map([("APP_ENV", "production"), ("PUBLIC_ORIGIN", origin)]);
        let told = read.unwrap_err().to_string();
        told.contains("PUBLIC_ORIGIN: takes an HTTPS origin in production")
    };
    assert!(told("http://example.com"));
    assert!(!told("https://example.com"));
}

#[test]
fn the_bounds_are_as_documented() {
    for (name, low, high) in [
        ("JWT_ACCESS_TTL_SECS", 1, 3_600),
        ("JWT_LEEWAY_SECS", 0, 300),
        ("JWT_REFRESH_TTL_SECS", 1, 2_592_000),
        ("REFRESH_GRACE_SECS", 0, 300),
        ("MAX_SESSIONS_PER_USER", 1, 10_000),
        ("BCRYPT_COST", 4, 16),
        ("RATE_LIMIT_WINDOW_MS", 1_000, 2_592_000_000),
        ("RATE_LIMIT_MAX_REQUESTS", 1, 1_000_000),
        ("AUTH_RATE_LIMIT_MAX", 1, 1_000_000),
        ("AUTH_ACCOUNT_FAILURES_MAX", 1, 1_000_000),
        ("MODEL_RATE_LIMIT_MAX", 1, 1_000_000),
        ("UPLOAD_RATE_LIMIT_MAX", 1, 1_000_000),
        ("UPLOAD_MAX_FILE_BYTES", 1, 1_099_511_627_776_i64),
    ] {
        for value in [low, high] {
            let read = Settings::from_map([(name, value.to_string())]);
            assert!(read.is_ok(), "{name}={value}");
        }
        for value in [low - 1, high + 1] {
            assert_refused(name, &value.to_string());
        }
    }
}

/// `?` and `#` end the authority of a URL, so a password that holds one is where readers see none.
#[test]
fn a_password_that_is_not_encoded_is_not_shown() {
    for url in [
        "postgres://ada:hunter2?x@db.example/app",
        "postgres://ada:hunter2#x@db.example/app",
        "postgres://ada:hunter2/x@db.example/app?y@z",
    ] {
        let settings = Settings::from_map([("DATABASE_URL", url), ("REDIS_URL", "redis://a")]);
        let shown = settings.unwrap().to_string();
        assert!(
            !shown.contains("hunter2") && !shown.contains("ada"),
            "{shown}"
        );
        assert!(shown.contains("DATABASE_URL=postgres://"), "{shown}");
    }
}

#[test]
fn shown_settings_tell_no_secret() {
    let secrets: Vec<String> = (0..5)
        .map(|n| format!("{n}kV4nT9xQ2mZ7rB1cW8yL5dH3sJ6fG0p"))
        .collect();
    let settings = Settings::from_map([
        ("JWT_SECRET", secrets[0].as_str()),
        ("JWT_SECRET_PREVIOUS", &secrets[1]),
        ("JWT_REFRESH_SECRET", &secrets[2]),
        ("JWT_REFRESH_SECRET_PREVIOUS", &secrets[3]),
        ("METRICS_TOKEN", &secrets[4]),
    ]);
    let mut settings = settings.unwrap();
    settings.database_url = "postgres://ada:hunter2@db.example/app?password=hunter2".into();
    settings.jwt_issuer = "one\nRATE_LIMIT_MAX_REQUESTS=1".into();
    for shown in [
        settings.to_string(),
        format!("{settings:?}"),
        format!("{settings:#?}"),
    ] {
        for secret in secrets.iter().map(String::as_str).chain(["hunter2", "ada"]) {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(
            shown.contains("JWT_SECRET=(32 bytes) and 1 previous"),
            "{shown}"
        );
        assert!(
            shown.contains("DATABASE_URL=postgres://db.example/app"),
            "{shown}"
        );
    }
    for (url, told) in [
        // Where the password ends cannot be told.
        ("postgres://ada:hunter2?#/@db.example/app", "…"),
        ("postgres://db.example/app?user=ada&password=hunter2@x", "…"),
        (
            "postgres://ada:x@hunter2@db.example/app#hunter2",
            "db.example/app",
        ),
        (
            "postgres://db.example/app?user=ada&password=hunter2",
            "db.example/app",
        ),
    ] {
        (settings.database_url, settings.redis_url) = (url.into(), Some(url.into()));
        let shown = settings.to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        for name in ["DATABASE_URL", "REDIS_URL"] {
            let line = format!("{name}=postgres://{told}\n");
            assert!(shown.contains(&line), "{shown}");
        }
    }
    let shown = settings.to_string();
    assert_eq!(
        shown.matches("\nRATE_LIMIT_MAX_REQUESTS=").count(),
        1,
        "{shown}"
    );
    let unset = Settings::default().to_string();
    assert!(unset.contains("JWT_SECRET=(unset)\n"), "{unset}");
    assert!(unset.lines().count() >= 25, "{unset}");
}

#[test]
fn the_three_ways_to_settings_agree() {
    let mut built = Settings::default();
    built.auth_rate_limit_max = 3;
    built.metrics_token = Some(Secret::new(*b"kV4nT9xQ2mZ7rB1cW8yL5dH3sJ6fG0pA").unwrap());
    let pairs = [
        ("AUTH_RATE_LIMIT_MAX", "3"),
        ("METRICS_TOKEN", "kV4nT9xQ2mZ7rB1cW8yL5dH3sJ6fG0pA"),
    ];
    let mapped = Settings::from_map(pairs).unwrap();
    let read = Settings::from_vars(|name| {
        let found = pairs.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    assert_eq!(built.to_string(), mapped.to_string());
    assert_eq!(built.to_string(), read.unwrap().to_string());
}

/// Refused, under this name alone, without the value of what may be a secret.
fn assert_refused(name: &str, value: &str) {
    let read = Settings::from_map([(name, value)]);
    let Err(error) = read else {
        panic!("{name}={value:?} was taken");
    };
    assert!(!error.faults().is_empty());
    let told = error.to_string();
    let named = told
        .lines()
        .filter(|line| line.starts_with(&format!("{name}: ")));
    assert!(named.count() >= 1, "{name}={value:?}: {told}");
    assert!(!told.contains("hunter2"), "{told}");
    let is_secret = name.contains("SECRET") || name.contains("TOKEN");
    assert!(!(is_secret && told.contains(value)), "{told}");
}

const TOO_WEAK: &[&str] = &[
    "hunter2",
    "changemechangemechangemechangeme",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "hex:00",
    "hex:zz",
    "base64:%%%",
    "0123456789012345678901234567890",
];
