//! Settings: a line for each fault, no value of a secret in any of them or in what is shown of the
//! settings, and what is read keeps the bounds that are written. Lines of `NAME=VALUE`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::stack::Settings;

const SECRET: [&str; 5] = [
    "JWT_SECRET",
    "JWT_SECRET_PREVIOUS",
    "JWT_REFRESH_SECRET",
    "JWT_REFRESH_SECRET_PREVIOUS",
    "METRICS_TOKEN",
];

fuzz_target!(|text: &str| {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    // Files are the operator's own.
    let pairs: Vec<_> = pairs.filter(|(name, _)| !name.ends_with("_FILE")).collect();
    let values = |secret: bool| {
        pairs
            .iter()
            .filter(move |(name, _)| SECRET.contains(name) == secret)
    };
    // What is no word of the faults, and stands in no other variable.
    let secrets: Vec<_> = values(true)
        .flat_map(|(_, value)| value.split(','))
        .filter(|secret| {
            let random = secret.bytes().any(|byte| byte.is_ascii_digit())
                && secret.bytes().any(|byte| byte.is_ascii_lowercase());
            random && secret.len() >= 12 && values(false).all(|(_, value)| !value.contains(secret))
        })
        .collect();
    match Settings::from_map(pairs.iter().copied()) {
        Err(error) => {
            let shown = error.to_string();
            assert_eq!(shown.lines().count(), error.faults().len(), "{shown}");
            assert!(
                !secrets.iter().any(|secret| shown.contains(*secret)),
                "{shown}"
            );
        }
        Ok(settings) => {
            let shown = settings.to_string();
            assert!(
                !secrets.iter().any(|secret| shown.contains(*secret)),
                "{shown}"
            );
            let line = shown
                .lines()
                .find(|line| line.contains("DATABASE_URL="))
                .unwrap();
            if let Some((host, password)) = credentials(&settings.database_url) {
                let begin = password.get(..8).unwrap_or_default();
                assert!(host.contains(begin) || !line.contains(begin), "{line}");
            }
            assert!((4..=16).contains(&settings.bcrypt_cost));
            assert!((1..=3_600).contains(&settings.jwt_access_ttl.as_secs()));
            assert!(settings.jwt_leeway.as_secs() <= 300);
            assert!((1..=1_000_000).contains(&settings.auth_rate_limit_max));
            assert!((1..=1 << 40).contains(&settings.upload_max_file_bytes));
            if let (Some(access), Some(refresh)) =
                (&settings.jwt_secrets, &settings.jwt_refresh_secrets)
            {
                assert!(
                    access
                        .iter()
                        .all(|one| refresh.iter().all(|two| one != two))
                );
            }
            if settings.is_production() {
                assert!(
                    settings
                        .public_origin
                        .is_some_and(|origin| origin.is_https())
                );
                assert!(settings.jwt_secrets.is_some() && settings.jwt_refresh_secrets.is_some());
                assert!(settings.bcrypt_cost >= 10 && settings.api_keys_env != "dev");
            }
        }
    }
});

/// What stands behind a URL's last `@` and before its scheme's end, and its password, encoded or not.
fn credentials(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (user, host) = rest.rsplit_once('@')?;
    let (name, password) = user.split_once(':')?;
    (!name.contains(['/', '?', '#'])).then(|| (format!("DATABASE_URL={scheme}://{host}"), password))
}
