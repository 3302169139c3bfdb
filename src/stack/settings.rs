//! What an operator sets, read from the environment.

use std::{
    collections::HashMap,
    env::{self, VarError},
    error, fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use crate::{
    client::TrustedProxies,
    error::ConfigError,
    origin::Origin,
    secret::{Secret, Secrets},
};

/// The settings of a service, each under the environment variable that it is read from.
///
/// [`Settings::from_env`] reads all of them and reports every fault at once;
/// [`Settings::default`] is what an empty environment gives, and fields can be set in code. A
/// secret or URL may also be given as a file's path in the variable with `_FILE` behind its name.
///
/// ```
/// use portcullis::stack::Settings;
///
/// let settings = Settings::from_vars(|name| match name {
///     "AUTH_RATE_LIMIT_MAX" => Some("3".into()),
///     _ => None,
/// })?;
/// assert_eq!(settings.auth_rate_limit_max, 3);
///
/// let faults = Settings::from_vars(|name| (name == "BCRYPT_COST").then(|| "40".into())).unwrap_err();
/// assert!(faults.to_string().starts_with("BCRYPT_COST: "));
/// # Ok::<(), portcullis::stack::SettingsError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// `APP_ENV`: `development` or `production`; default `development`, must be set where
    /// `BIND_ADDR` is not loopback. Policy: secrets, none by default.
    pub app_env: AppEnv,
    /// `BIND_ADDR`: the address and port to listen on; default `127.0.0.1:3000`, port 0 picks a
    /// free one. Policy: none.
    pub bind_addr: SocketAddr,
    /// `PUBLIC_ORIGIN`: the origin that clients see; default none, must be set, and HTTPS, in
    /// production. Policy: always HTTPS.
    pub public_origin: Option<Origin>,
    /// `DATABASE_URL` (or `_FILE`): where users and sessions are; `sqlite://PATH`,
    /// `sqlite::memory:`, `postgres://…` or `memory:`, default `sqlite://secure_api.db`. Policy:
    /// refresh tokens stored securely in a database.
    pub database_url: String,
    /// `REDIS_URL` (or `_FILE`): the Redis or Valkey through which instances share rate limits and
    /// tell one another of ends; `redis://…`, `rediss://…` (TLS) or `redis+unix://…`, default none.
    /// Policy: rate limits; logout invalidates tokens.
    pub redis_url: Option<String>,
    /// `JWT_SECRET` and `JWT_SECRET_PREVIOUS` (or `_FILE`): bytes, each at least 32; default none,
    /// must be set in production. Policy: secrets.
    pub jwt_secrets: Option<Secrets>,
    /// `JWT_REFRESH_SECRET` and `JWT_REFRESH_SECRET_PREVIOUS` (or `_FILE`): bytes, each at least
    /// 32, none of them one of `JWT_SECRET`; default none, must be set in production. Policy:
    /// secrets.
    pub jwt_refresh_secrets: Option<Secrets>,
    /// `JWT_ISSUER`: 1 to 256 characters on one line; default `secure_api`. Policy: access tokens.
    pub jwt_issuer: String,
    /// `JWT_AUDIENCE`: 1 to 256 characters on one line; default `secure_api`. Policy: access tokens.
    pub jwt_audience: String,
    /// `JWT_ACCESS_TTL_SECS`: seconds; default 900, 1 to 3600. Policy: access tokens, 15 minutes.
    pub jwt_access_ttl: Duration,
    /// `JWT_LEEWAY_SECS`: seconds after its end that a token still counts; default 0, 0 to 300.
    /// Policy: access tokens.
    pub jwt_leeway: Duration,
    /// `JWT_REFRESH_TTL_SECS`: seconds that a session lives without a refresh; default 604800, 1 to
    /// 2592000. Policy: refresh tokens, 7 days.
    pub jwt_refresh_ttl: Duration,
    /// `REFRESH_GRACE_SECS`: seconds for which a used refresh token still gives the same successor;
    /// default 30, 0 (strict single use) to 300. Policy: refresh tokens.
    pub refresh_grace: Duration,
    /// `MAX_SESSIONS_PER_USER`: sessions, the oldest ends; default 50, 1 to 10000. Policy: refresh
    /// tokens.
    pub max_sessions_per_user: u32,
    /// `BCRYPT_COST`: base-2 logarithm of the rounds; default 12, 10 to 16, and 4 to 9 in
    /// development alone. Policy: bcrypt with salt rounds.
    pub bcrypt_cost: u32,
    /// `RATE_LIMIT_WINDOW_MS`: milliseconds, of the general and auth limits; default 900000, 1000
    /// to 2592000000. Policy: rate limits.
    pub rate_limit_window: Duration,
    /// `RATE_LIMIT_MAX_REQUESTS`: requests of a client in the window; default 100, 1 to 1000000.
    /// Policy: rate limits, general.
    pub rate_limit_max_requests: u32,
    /// `AUTH_RATE_LIMIT_MAX`: requests of a client to register, login and password in the window;
    /// default 5, 1 to 1000000. Policy: rate limits, auth.
    pub auth_rate_limit_max: u32,
    /// `AUTH_ACCOUNT_FAILURES_MAX`: failed logins of an account in the window; default 10, 1 to
    /// 1000000. A device that logged in before has as many of its own. Policy: rate limits, auth.
    pub auth_account_failures_max: u32,
    /// `MODEL_RATE_LIMIT_MAX`: calls of a client in a minute; default 20, 1 to 1000000. Policy:
    /// rate limits, model.
    pub model_rate_limit_max: u32,
    /// `UPLOAD_RATE_LIMIT_MAX`: uploads of a client in an hour; default 10, 1 to 1000000. Policy:
    /// rate limits, uploads.
    pub upload_rate_limit_max: u32,
    /// `TRUSTED_PROXIES`: networks whose forwarding headers are believed, comma-separated, or
    /// `none`; default none, must be set in production. Policy: rate limits per IP.
    pub trusted_proxies: TrustedProxies,
    /// `CORS_ALLOWED_ORIGINS`: the other origins whose pages may call with their visitors' cookies;
    /// exact, comma-separated, default none. Policy: CORS for trusted domains only.
    pub cors_allowed_origins: Vec<Origin>,
    /// `UPLOAD_MAX_FILE_BYTES`: bytes of a file; default 5242880, 1 to 2^40. Policy: uploads, size.
    pub upload_max_file_bytes: u64,
    /// `UPLOAD_ALLOWED_TYPES`: media types, comma-separated; default PNG, JPEG, WebP and PDF.
    /// Policy: uploads, type.
    pub upload_allowed_types: Vec<String>,
    /// `CLAMD_ADDR`: `host:port` or the path of a socket; default none, set: every file is scanned
    /// by ClamAV. Policy: uploads, virus scan.
    pub clamd_addr: Option<String>,
    /// `API_KEYS_ENV`: the environment part of the API keys accepted here, 1 to 16 of `a-z` and
    /// `0-9`; default `dev`, which production refuses. Policy: API keys, one per environment.
    pub api_keys_env: String,
    /// `METRICS_TOKEN` (or `_FILE`): the bearer token that `/metrics` takes in production from
    /// others than loopback; at least 32 visible ASCII characters, default none. Policy: logging
    /// and monitoring.
    pub metrics_token: Option<Secret>,
}

/// Where a service runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum AppEnv {
    /// On a developer's machine.
    #[default]
    Development,
    /// For users: nothing is generated or assumed.
    Production,
}

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::read(&|name| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err("is not UTF-8"),
        })
    }

    /// Reads from `var` instead of the process's environment.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        Self::read(&|name| Ok(var(name)))
    }

    /// Reads from pairs of names and values; of a name that comes twice the last counts.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn from_map<N, V>(vars: impl IntoIterator<Item = (N, V)>) -> Result<Self, SettingsError>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let pairs = vars.into_iter();
        let vars: HashMap<String, String> = pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self::from_vars(|name| vars.get(name).cloned())
    }

    /// Whether the service runs for users.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.app_env == AppEnv::Production
    }

    fn read(var: &Var<'_>) -> Result<Self, SettingsError> {
        let mut reader = Reader {
            var,
            faults: Vec::new(),
        };
        let settings = reader.settings();
        if reader.faults.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError {
                faults: reader.faults,
            })
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            app_env: AppEnv::Development,
            bind_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000),
            public_origin: None,
            database_url: "sqlite://secure_api.db".into(),
            redis_url: None,
            jwt_secrets: None,
            jwt_refresh_secrets: None,
            jwt_issuer: "secure_api".into(),
            jwt_audience: "secure_api".into(),
            jwt_access_ttl: Duration::from_secs(900),
            jwt_leeway: Duration::ZERO,
            jwt_refresh_ttl: Duration::from_secs(604_800),
            refresh_grace: Duration::from_secs(30),
            max_sessions_per_user: 50,
            bcrypt_cost: 12,
            rate_limit_window: Duration::from_secs(900),
            rate_limit_max_requests: 100,
            auth_rate_limit_max: 5,
            auth_account_failures_max: 10,
            model_rate_limit_max: 20,
            upload_rate_limit_max: 10,
            trusted_proxies: TrustedProxies::none(),
            cors_allowed_origins: Vec::new(),
            upload_max_file_bytes: 5 * 1024 * 1024,
            upload_allowed_types: UPLOAD_TYPES.map(Into::into).to_vec(),
            clamd_addr: None,
            api_keys_env: "dev".into(),
            metrics_token: None,
        }
    }
}

impl fmt::Display for AppEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Development => "development",
            Self::Production => "production",
        })
    }
}

/// Every setting that cannot be used, a line each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    faults: Vec<ConfigError>,
}

impl SettingsError {
    /// The faults, in the order of the variables.
    #[must_use]
    pub fn faults(&self) -> &[ConfigError] {
        &self.faults
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl error::Error for SettingsError {}

type Var<'a> = dyn Fn(&str) -> Result<Option<String>, &'static str> + 'a;

struct Reader<'a> {
    var: &'a Var<'a>,
    faults: Vec<ConfigError>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let default = Settings::default();
        let stated_env = self.app_env();
        let app_env = stated_env.unwrap_or_default();
        let production = app_env == AppEnv::Production;
        let bind_addr = self
            .parsed(
                "BIND_ADDR",
                "takes an address and port, such as 127.0.0.1:3000",
            )
            .unwrap_or(default.bind_addr);
        if stated_env.is_none() && !bind_addr.ip().to_canonical().is_loopback() {
            self.fault(
                "APP_ENV",
                "must be set, to development or production, when BIND_ADDR is not loopback",
            );
        }
        let public_origin = self.public_origin(production);
        let database_url = self.database_url().unwrap_or(default.database_url);
        let redis_url = self.redis_url();
        let jwt_secrets = self.secrets("JWT_SECRET", production);
        let jwt_refresh_secrets = self.secrets("JWT_REFRESH_SECRET", production);
        if let (Some(access), Some(refresh)) = (&jwt_secrets, &jwt_refresh_secrets)
            && access
                .iter()
                .any(|one| refresh.iter().any(|two| one == two))
        {
            self.fault(
                "JWT_REFRESH_SECRET",
                "must differ from JWT_SECRET, and so must the previous ones",
            );
        }
        let lowest_cost = if production { 10 } else { 4 };
        Settings {
            app_env,
            bind_addr,
            public_origin,
            database_url,
            redis_url,
            jwt_secrets,
            jwt_refresh_secrets,
            jwt_issuer: self.word("JWT_ISSUER").unwrap_or(default.jwt_issuer),
            jwt_audience: self.word("JWT_AUDIENCE").unwrap_or(default.jwt_audience),
            jwt_access_ttl: self.seconds("JWT_ACCESS_TTL_SECS", 1, 3_600, default.jwt_access_ttl),
            jwt_leeway: self.seconds("JWT_LEEWAY_SECS", 0, 300, default.jwt_leeway),
            jwt_refresh_ttl: self.seconds(
                "JWT_REFRESH_TTL_SECS",
                1,
                SESSION_END_SECS,
                default.jwt_refresh_ttl,
            ),
            refresh_grace: self.seconds("REFRESH_GRACE_SECS", 0, 300, default.refresh_grace),
            max_sessions_per_user: self.number(
                "MAX_SESSIONS_PER_USER",
                1,
                10_000,
                default.max_sessions_per_user,
            ),
            bcrypt_cost: self.number("BCRYPT_COST", lowest_cost, 16, default.bcrypt_cost),
            rate_limit_window: Duration::from_millis(self.number(
                "RATE_LIMIT_WINDOW_MS",
                1_000,
                30 * 86_400_000,
                900_000,
            )),
            rate_limit_max_requests: self
                .limit("RATE_LIMIT_MAX_REQUESTS", default.rate_limit_max_requests),
            auth_rate_limit_max: self.limit("AUTH_RATE_LIMIT_MAX", default.auth_rate_limit_max),
            auth_account_failures_max: self.limit(
                "AUTH_ACCOUNT_FAILURES_MAX",
                default.auth_account_failures_max,
            ),
            model_rate_limit_max: self.limit("MODEL_RATE_LIMIT_MAX", default.model_rate_limit_max),
            upload_rate_limit_max: self
                .limit("UPLOAD_RATE_LIMIT_MAX", default.upload_rate_limit_max),
            trusted_proxies: self.trusted_proxies(production),
            cors_allowed_origins: self.origins("CORS_ALLOWED_ORIGINS"),
            upload_max_file_bytes: self.number(
                "UPLOAD_MAX_FILE_BYTES",
                1,
                1 << 40,
                default.upload_max_file_bytes,
            ),
            upload_allowed_types: self.upload_types().unwrap_or(default.upload_allowed_types),
            clamd_addr: self.clamd_addr(),
            api_keys_env: self
                .api_keys_env(production)
                .unwrap_or(default.api_keys_env),
            metrics_token: self.metrics_token(),
        }
    }

    fn app_env(&mut self) -> Option<AppEnv> {
        match self.text("APP_ENV")?.as_str() {
            "development" => Some(AppEnv::Development),
            "production" => Some(AppEnv::Production),
            _ => {
                self.fault("APP_ENV", "takes development or production");
                // The stricter reading, so that its faults are told too.
                Some(AppEnv::Production)
            }
        }
    }

    fn public_origin(&mut self, production: bool) -> Option<Origin> {
        let Some(text) = self.text("PUBLIC_ORIGIN") else {
            if production {
                self.fault(
                    "PUBLIC_ORIGIN",
                    "must be set in production, such as https://example.org",
                );
            }
            return None;
        };
        let origin = self.origin("PUBLIC_ORIGIN", &text)?;
        if production && !origin.is_https() {
            self.fault(
                "PUBLIC_ORIGIN",
                "takes an HTTPS origin in production, such as https://example.org",
            );
        }
        Some(origin)
    }

    fn origins(&mut self, name: &'static str) -> Vec<Origin> {
        let text = self.text(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
            .filter_map(|origin| self.origin(name, origin))
            .collect()
    }

    fn origin(&mut self, name: &'static str, text: &str) -> Option<Origin> {
        Origin::new(text)
            .map_err(|error| self.faults.push(error.named(name)))
            .ok()
    }

    fn database_url(&mut self) -> Option<String> {
        let url = self.text_or_file("DATABASE_URL")?;
        let known = url == "memory:"
            || url == "sqlite::memory:"
            || url
                .strip_prefix("sqlite://")
                .or_else(|| url.strip_prefix("postgres://"))
                .or_else(|| url.strip_prefix("postgresql://"))
                .is_some_and(|rest| !rest.is_empty());
        if !known {
            self.fault(
                "DATABASE_URL",
                "takes sqlite://PATH, sqlite::memory:, postgres://… or memory:",
            );
        }
        Some(url)
    }

    fn redis_url(&mut self) -> Option<String> {
        let url = self.text_or_file("REDIS_URL")?;
        let known = ["redis://", "rediss://", "redis+unix://"]
            .iter()
            .filter_map(|scheme| url.strip_prefix(scheme))
            .any(|rest| !rest.is_empty());
        if !known {
            self.fault(
                "REDIS_URL",
                "takes redis://…, rediss://… (TLS) or redis+unix://…",
            );
        }
        Some(url)
    }

    fn secrets(&mut self, name: &'static str, required: bool) -> Option<Secrets> {
        let current = match self.text_or_file(name) {
            Some(text) => self.secret(name.into(), &text),
            None => {
                if required {
                    self.fault(
                        name,
                        "must be set in production, to at least 32 random bytes",
                    );
                }
                None
            }
        };
        let previous_name = format!("{name}_PREVIOUS");
        let previous: Vec<Secret> = self
            .text_or_file(&previous_name)
            .iter()
            .flat_map(|list| list.split(','))
            .filter_map(|text| self.secret(previous_name.clone(), text.trim()))
            .collect();
        if current.is_none() && !previous.is_empty() {
            self.fault(previous_name, format!("needs {name} beside it"));
        }
        Some(Secrets::new(current?).with_previous(previous))
    }

    fn secret(&mut self, name: String, text: &str) -> Option<Secret> {
        Secret::from_text(text)
            .map_err(|error| self.faults.push(error.named(name)))
            .ok()
    }

    fn trusted_proxies(&mut self, production: bool) -> TrustedProxies {
        match self.text("TRUSTED_PROXIES") {
            None => {
                if production {
                    self.fault(
                        "TRUSTED_PROXIES",
                        "must be set in production: networks, comma-separated, or none",
                    );
                }
                TrustedProxies::none()
            }
            Some(text) if text == "none" => TrustedProxies::none(),
            Some(text) => TrustedProxies::new(text.split(',')).unwrap_or_else(|error| {
                self.faults.push(error.named("TRUSTED_PROXIES"));
                TrustedProxies::none()
            }),
        }
    }

    fn clamd_addr(&mut self) -> Option<String> {
        let addr = self.text("CLAMD_ADDR")?;
        let tcp = addr.rsplit_once(':').is_some_and(|(host, port)| {
            let port = port.parse::<u16>().is_ok_and(|port| port > 0);
            port && !host.is_empty() && !host.contains(['/', ' '])
        });
        if tcp || addr.starts_with('/') {
            return Some(addr);
        }
        self.fault("CLAMD_ADDR", "takes host:port, or the path of a socket");
        None
    }

    fn api_keys_env(&mut self, production: bool) -> Option<String> {
        let env = self.text("API_KEYS_ENV");
        let is_env = |env: &String| {
            (1..=16).contains(&env.len())
                && env
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
        };
        if !env.as_ref().is_none_or(is_env) {
            self.fault("API_KEYS_ENV", "takes 1 to 16 of a-z and 0-9");
        } else if production && env.as_ref().is_none_or(|env| env == "dev") {
            self.fault(
                "API_KEYS_ENV",
                "must be set in production, such as live, and not to dev",
            );
        }
        env
    }

    fn metrics_token(&mut self) -> Option<Secret> {
        let text = self.text_or_file("METRICS_TOKEN")?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.fault("METRICS_TOKEN", "takes visible ASCII characters");
            return None;
        }
        Secret::new(text)
            .map_err(|error| self.faults.push(error.named("METRICS_TOKEN")))
            .ok()
    }

    fn upload_types(&mut self) -> Option<Vec<String>> {
        let text = self.text("UPLOAD_ALLOWED_TYPES")?;
        let types: Vec<String> = text
            .split(',')
            .map(|media_type| media_type.trim().to_ascii_lowercase())
            .collect();
        let is_token = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let is_type = |text: &String| {
            text.split_once('/')
                .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        };
        if !types.iter().all(is_type) {
            self.fault(
                "UPLOAD_ALLOWED_TYPES",
                "takes media types such as image/png, comma-separated",
            );
        }
        Some(types)
    }

    fn word(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        if text.chars().count() > 256 || text.chars().any(char::is_control) {
            self.fault(name, "takes up to 256 characters on one line");
        }
        Some(text)
    }

    fn limit(&mut self, name: &'static str, default: u32) -> u32 {
        self.number(name, 1, 1_000_000, default)
    }

    fn seconds(&mut self, name: &'static str, low: u64, high: u64, default: Duration) -> Duration {
        Duration::from_secs(self.number(name, low, high, default.as_secs()))
    }

    fn number<N>(&mut self, name: &'static str, low: N, high: N, default: N) -> N
    where
        N: Copy + FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.text(name) else {
            return default;
        };
        match text.parse::<N>() {
            Ok(number) if low <= number && number <= high => number,
            _ => {
                self.fault(name, format!("takes a whole number from {low} to {high}"));
                default
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, name: &'static str, takes: &'static str) -> Option<T> {
        let parsed = self.text(name)?.parse().ok();
        if parsed.is_none() {
            self.fault(name, takes);
        }
        parsed
    }

    /// The variable, or the contents of the file that its `_FILE` variant names.
    fn text_or_file(&mut self, name: &str) -> Option<String> {
        let text = self.text(name);
        let file_name = format!("{name}_FILE");
        let Some(path) = self.text(&file_name) else {
            return text;
        };
        if text.is_some() {
            self.fault(
                file_name,
                format!("stands beside {name}; set one of the two"),
            );
            return text;
        }
        match fs::read_to_string(path) {
            Ok(contents) => Some(contents.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.fault(file_name, format!("cannot be read ({})", error.kind()));
                None
            }
        }
    }

    /// The variable, where it is set and not empty.
    fn text(&mut self, name: &str) -> Option<String> {
        match (self.var)(name) {
            Ok(text) => text.filter(|text| !text.is_empty()),
            Err(problem) => {
                self.fault(name.to_owned(), problem);
                None
            }
        }
    }

    fn fault(
        &mut self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        problem: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        self.faults.push(ConfigError::new(name, problem));
    }
}

const SESSION_END_SECS: u64 = 30 * 86_400;
const UPLOAD_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "application/pdf"];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OTHER: &str = "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

    fn read(vars: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        Settings::from_vars(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .map_err(|error| {
            let names = error.faults().iter();
            names.map(|fault| fault.setting().to_owned()).collect()
        })
    }

    #[test]
    fn every_fault_is_told_at_once_and_no_value_is_shown() {
        let vars = [
            ("BIND_ADDR", "localhost"),
            ("DATABASE_URL", "mysql://root:hunter2@db"),
            ("JWT_SECRET", "hunter2"),
            ("JWT_ACCESS_TTL_SECS", "3601"),
            ("BCRYPT_COST", "-1"),
            ("RATE_LIMIT_MAX_REQUESTS", "0"),
            ("TRUSTED_PROXIES", "0.0.0.0/0"),
            ("API_KEYS_ENV", "Live"),
        ];
        assert_eq!(
            read(&vars).unwrap_err(),
            vars.map(|(name, _)| name.to_owned())
        );
        let shown = Settings::from_vars(|name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        assert!(!shown.unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn production_assumes_nothing() {
        assert_eq!(
            read(&[("APP_ENV", "production"), ("BCRYPT_COST", "9")]).unwrap_err(),
            [
                "PUBLIC_ORIGIN",
                "JWT_SECRET",
                "JWT_REFRESH_SECRET",
                "BCRYPT_COST",
                "TRUSTED_PROXIES",
                "API_KEYS_ENV"
            ]
        );
        let settings = read(&[
            ("APP_ENV", "production"),
            ("PUBLIC_ORIGIN", "https://api.example.org"),
            ("JWT_SECRET", GOOD),
            ("JWT_REFRESH_SECRET", OTHER),
            ("TRUSTED_PROXIES", "none"),
            ("API_KEYS_ENV", "live"),
        ]);
        assert!(settings.unwrap().is_production());
    }

    #[test]
    fn secrets_rotate_and_the_two_never_meet() {
        let settings = read(&[("JWT_SECRET", GOOD), ("JWT_SECRET_PREVIOUS", OTHER)]).unwrap();
        assert_eq!(settings.jwt_secrets.unwrap().previous().len(), 1);
        for vars in [
            [("JWT_SECRET", GOOD), ("JWT_REFRESH_SECRET", GOOD)].as_slice(),
            &[
                ("JWT_SECRET", GOOD),
                ("JWT_REFRESH_SECRET", OTHER),
                ("JWT_REFRESH_SECRET_PREVIOUS", GOOD),
            ],
        ] {
            assert_eq!(read(vars).unwrap_err(), ["JWT_REFRESH_SECRET"]);
        }
        assert_eq!(
            read(&[("JWT_SECRET_PREVIOUS", GOOD)]).unwrap_err(),
            ["JWT_SECRET_PREVIOUS"]
        );
    }

    #[test]
    fn an_open_address_needs_a_stated_environment() {
        assert_eq!(
            read(&[("BIND_ADDR", "0.0.0.0:80")]).unwrap_err(),
            ["APP_ENV"]
        );
        assert!(read(&[("BIND_ADDR", "[::1]:0")]).is_ok());
        assert!(read(&[("BIND_ADDR", "0.0.0.0:80"), ("APP_ENV", "development")]).is_ok());
    }

    #[test]
    fn a_secret_can_stand_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt");
        fs::write(&path, format!("{GOOD}\n")).unwrap();
        let path = path.to_str().unwrap();
        let settings = read(&[("JWT_SECRET_FILE", path)]).unwrap();
        assert_eq!(settings.jwt_secrets.unwrap().current().len(), 32);
        assert_eq!(
            read(&[("JWT_SECRET_FILE", "/nonexistent")]).unwrap_err(),
            ["JWT_SECRET_FILE"]
        );
        assert_eq!(
            read(&[("JWT_SECRET_FILE", path), ("JWT_SECRET", OTHER)]).unwrap_err(),
            ["JWT_SECRET_FILE"]
        );
    }

    #[test]
    fn redis_is_somewhere() {
        for url in [
            "redis://cache",
            "rediss://user:word@cache:6380/1",
            "redis://:word@cache",
            "redis+unix:///run/redis.sock",
        ] {
            let settings = read(&[("REDIS_URL", url)]).unwrap();
            assert_eq!(settings.redis_url.as_deref(), Some(url));
        }
        for bad in ["cache:6379", "redis://", "http://cache", "redis:cache"] {
            assert_eq!(read(&[("REDIS_URL", bad)]).unwrap_err(), ["REDIS_URL"]);
        }
    }

    #[test]
    fn a_scanner_is_somewhere() {
        for addr in [
            "127.0.0.1:3310",
            "clamav:3310",
            "[::1]:3310",
            "/run/clamd.sock",
        ] {
            let settings = read(&[("CLAMD_ADDR", addr)]).unwrap();
            assert_eq!(settings.clamd_addr.as_deref(), Some(addr));
        }
        for bad in [
            "clamav",
            "clamav:",
            ":3310",
            "clamav:0",
            "clamav:port",
            "run/clamd.sock",
            "a b:1",
        ] {
            assert_eq!(read(&[("CLAMD_ADDR", bad)]).unwrap_err(), ["CLAMD_ADDR"]);
        }
    }

    #[test]
    fn an_origin_is_an_origin() {
        for bad in [
            "example.org",
            "https://",
            "https://example.org/",
            "https://user@example.org",
            "https://EXAMPLE.org",
            "ftp://example.org",
        ] {
            assert_eq!(
                read(&[("PUBLIC_ORIGIN", bad)]).unwrap_err(),
                ["PUBLIC_ORIGIN"],
                "{bad}"
            );
        }
        assert!(read(&[("PUBLIC_ORIGIN", "http://localhost:3000")]).is_ok());
    }

    #[test]
    fn other_origins_are_exact() {
        let read = |list: &str| read(&[("CORS_ALLOWED_ORIGINS", list)]);
        let origins = read("https://a.example, http://localhost:8080").unwrap();
        let origins = origins.cors_allowed_origins;
        assert_eq!(
            origins.iter().map(Origin::as_str).collect::<Vec<_>>(),
            ["https://a.example", "http://localhost:8080"]
        );
        assert!(read("").unwrap().cors_allowed_origins.is_empty());
        for bad in [
            "*",
            "null",
            "https://*.example",
            "https://A.example",
            "https://a.example/",
            "https://a.example b.example",
        ] {
            let list = format!("https://good.example,{bad}");
            assert_eq!(read(&list).unwrap_err(), ["CORS_ALLOWED_ORIGINS"], "{bad}");
        }
    }
}
