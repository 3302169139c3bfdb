//! Settings in lines for a log.

use std::fmt::{self, Debug, Display};

use super::settings::Settings;
use crate::{
    event::Printable,
    secret::{Secret, Secrets},
};

/// A line for each variable. Of a secret it says only that it is set and how long it is, and of a
/// URL neither user, password nor parameters.
///
/// ```
/// use portcullis::stack::Settings;
///
/// let settings = Settings::from_map([("JWT_SECRET", "kV4nT9xQ2mZ7rB1cW8yL5dH3sJ6fG0pA")])?;
/// let shown = settings.to_string();
/// assert!(shown.contains("JWT_SECRET=(32 bytes)"));
/// assert!(!shown.contains("kV4n"));
/// # Ok::<(), portcullis::stack::SettingsError>(())
/// ```
impl Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn Display| {
            writeln!(f, "{name}={}", Printable(&value.to_string()))
        };
        line("APP_ENV", &self.app_env)?;
        line("BIND_ADDR", &self.bind_addr)?;
        line("PUBLIC_ORIGIN", &or_unset(self.public_origin.as_ref()))?;
        line("DATABASE_URL", &without_credentials(&self.database_url))?;
        let redis = self.redis_url.as_deref().map(without_credentials);
        line("REDIS_URL", &or_unset(redis))?;
        line("JWT_SECRET", &held(self.jwt_secrets.as_ref()))?;
        line(
            "JWT_REFRESH_SECRET",
            &held(self.jwt_refresh_secrets.as_ref()),
        )?;
        line("JWT_ISSUER", &self.jwt_issuer)?;
        line("JWT_AUDIENCE", &self.jwt_audience)?;
        line("JWT_ACCESS_TTL_SECS", &self.jwt_access_ttl.as_secs())?;
        line("JWT_LEEWAY_SECS", &self.jwt_leeway.as_secs())?;
        line("JWT_REFRESH_TTL_SECS", &self.jwt_refresh_ttl.as_secs())?;
        line("REFRESH_GRACE_SECS", &self.refresh_grace.as_secs())?;
        line("MAX_SESSIONS_PER_USER", &self.max_sessions_per_user)?;
        line("BCRYPT_COST", &self.bcrypt_cost)?;
        line("RATE_LIMIT_WINDOW_MS", &self.rate_limit_window.as_millis())?;
        line("RATE_LIMIT_MAX_REQUESTS", &self.rate_limit_max_requests)?;
        line("AUTH_RATE_LIMIT_MAX", &self.auth_rate_limit_max)?;
        line("AUTH_ACCOUNT_FAILURES_MAX", &self.auth_account_failures_max)?;
        line("MODEL_RATE_LIMIT_MAX", &self.model_rate_limit_max)?;
        line("UPLOAD_RATE_LIMIT_MAX", &self.upload_rate_limit_max)?;
        line(
            "TRUSTED_PROXIES",
            match self.trusted_proxies.is_empty() {
                true => &"none",
                false => &"(networks)",
            },
        )?;
        let origins: Vec<_> = self
            .cors_allowed_origins
            .iter()
            .map(|o| o.as_str())
            .collect();
        line("CORS_ALLOWED_ORIGINS", &origins.join(","))?;
        line("UPLOAD_MAX_FILE_BYTES", &self.upload_max_file_bytes)?;
        line("UPLOAD_ALLOWED_TYPES", &self.upload_allowed_types.join(","))?;
        line("CLAMD_ADDR", &or_unset(self.clamd_addr.as_ref()))?;
        line("API_KEYS_ENV", &self.api_keys_env)?;
        line(
            "METRICS_TOKEN",
            &or_unset(self.metrics_token.as_ref().map(length)),
        )
    }
}

/// As [`Display`]: a field may hold a URL with a password.
impl Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        f.debug_list().entries(text.lines()).finish()
    }
}

fn or_unset<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "(unset)".to_owned(), |value| value.to_string())
}

fn held(secrets: Option<&Secrets>) -> String {
    or_unset(secrets.map(|secrets| {
        let current = length(secrets.current());
        match secrets.previous().len() {
            0 => current,
            previous => format!("{current} and {previous} previous"),
        }
    }))
}

fn length(secret: &Secret) -> String {
    format!("({} bytes)", secret.len())
}

/// A URL without what stands before `@` in its authority, and without its query. Where an `@` stands
/// further on, what is before it may be a password that is not encoded, and the scheme alone is shown.
fn without_credentials(url: &str) -> String {
    let (shown, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    match shown.split_once("://") {
        Some((scheme, _)) if query.contains('@') => format!("{scheme}://…"),
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => shown.to_owned(),
    }
}
