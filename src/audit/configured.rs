//! Lines that settings decide, and lines that no machine can.

use std::time::Duration;

use super::line::{Line, Verdict};
use crate::stack::Settings;

/// How the limits of a service's instances are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Counting {
    /// Each instance counts in its own memory, and nobody has said how many there are.
    Unstated,
    /// In memory, of the one instance that there is.
    OneInstance,
    /// In the memory of each of several instances.
    ByEach,
    /// All together.
    Shared,
}

/// What settings say of the policy, and what is left to the operator.
#[must_use]
pub fn of_settings(settings: &Settings, counting: Counting) -> Vec<Line> {
    let secrets = [&settings.jwt_secrets, &settings.jwt_refresh_secrets];
    let lines = [
        configured(
            "secrets",
            "secrets of at least 32 strong bytes, none by default",
            secrets.iter().all(|secrets| secrets.is_some()),
            "both secrets are set, long, and not each other",
            "a random secret is made at each start, which ends every session",
        )
        .set_by(match settings.jwt_secrets {
            None => "JWT_SECRET",
            Some(_) => "JWT_REFRESH_SECRET",
        })
        .to_do("set JWT_SECRET and JWT_REFRESH_SECRET to 32 random bytes each"),
        configured(
            "environment",
            "production says that it is production",
            settings.is_production(),
            "nothing is generated or assumed",
            "the service runs as on a developer's machine",
        )
        .set_by("APP_ENV")
        .to_do("set it to production"),
        configured(
            "access_tokens",
            "access tokens live 15 minutes",
            settings.jwt_access_ttl <= ACCESS,
            "they live no longer",
            "they live longer",
        )
        .set_by("JWT_ACCESS_TTL_SECS")
        .to_do("set it to 900 or less"),
        configured(
            "refresh_tokens",
            "refresh tokens live 7 days and are used once",
            settings.jwt_refresh_ttl <= REFRESH,
            "they live no longer",
            "they live longer",
        )
        .set_by("JWT_REFRESH_TTL_SECS")
        .to_do("set it to 604800 or less"),
        configured(
            "passwords",
            "passwords are hashed with bcrypt of cost 10 or more",
            settings.bcrypt_cost >= 10,
            "the cost is at least 10",
            "the cost is for tests alone",
        )
        .set_by("BCRYPT_COST")
        .to_do("set it to 12"),
        configured(
            "account_guessing",
            "failed logins are limited for each account",
            settings.auth_account_failures_max <= FAILURES,
            "at most 10 in the window",
            "more than 10 in the window",
        )
        .set_by("AUTH_ACCOUNT_FAILURES_MAX")
        .to_do("set it to 10 or less"),
        configured(
            "api_keys",
            "API keys are of one environment each",
            settings.api_keys_env != "dev",
            "keys of other environments are refused",
            "keys of developers are taken",
        )
        .set_by("API_KEYS_ENV")
        .to_do("set it to a name of this environment, such as live"),
        fleet(counting),
    ];
    lines.into_iter().chain(operators()).collect()
}

/// Limits in memory are each instance's own.
fn fleet(counting: Counting) -> Line {
    let line = |verdict, how| {
        Line::new(
            "limits_fleet",
            "limits hold for all instances together",
            verdict,
            how,
        )
        .set_by("REDIS_URL")
    };
    let line = match counting {
        Counting::Shared => line(Verdict::Configured, "they are counted together"),
        Counting::OneInstance => line(Verdict::Configured, "one instance is declared"),
        Counting::ByEach => line(
            Verdict::Fails,
            "several instances are declared, and each counts for itself",
        ),
        Counting::Unstated => line(
            Verdict::Operators,
            "limits are in memory, and nobody has said how many instances there are",
        ),
    };
    line.to_do("run one instance, or share the limits through Redis")
}

/// What nothing inside a process can see.
fn operators() -> [Line; 4] {
    let line = |id, text, to_do: &'static str| {
        Line::new(id, text, Verdict::Operators, "not visible from here").to_do(to_do)
    };
    [
        line(
            "proxies",
            "forwarding headers are believed from one's own proxies alone",
            "it must hold the proxies' addresses and nobody else's, and they must set the headers, \
             not pass them on",
        )
        .set_by("TRUSTED_PROXIES"),
        line(
            "secret_rotation",
            "secrets are rotated and kept out of the repository",
            "keep them in files or a vault, and rotate them by the _PREVIOUS variables",
        ),
        line(
            "alerts",
            "security events are watched, and somebody is called",
            "scrape /metrics, load alerts.yml, and see one alert arrive",
        ),
        line(
            "dependencies",
            "dependencies are updated and checked for advisories",
            "run cargo audit or cargo deny regularly, and ship what they ask for",
        ),
    ]
}

fn configured(
    id: &'static str,
    text: &'static str,
    holds: bool,
    yes: &'static str,
    no: &'static str,
) -> Line {
    match holds {
        true => Line::new(id, text, Verdict::Configured, yes),
        false => Line::new(id, text, Verdict::Fails, no),
    }
}

const ACCESS: Duration = Duration::from_secs(900);
const REFRESH: Duration = Duration::from_secs(604_800);
const FAILURES: u32 = 10;
