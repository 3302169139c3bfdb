//! A ready fetch: JWK sets over HTTPS, with discovery.

use std::{fmt, time::Duration};

use http::{Uri, header::CACHE_CONTROL};
use reqwest::{Client, redirect::Policy};

use super::{
    json::Json,
    remote::{FetchError, Fetched},
};
use crate::error::ConfigError;

/// Fetches one issuer's JWK set.
///
/// It speaks `https` alone (`http` to a loopback address, for tests and for an agent beside the
/// service), follows no redirect, reads at most 256 KiB, and waits at most 10 s.
///
/// ```no_run
/// use portcullis::{Context, jwt::{JwksClient, RefreshPolicy, RemoteKeys, Verifier}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = JwksClient::discover("https://id.example").await?;
/// let remote = RemoteKeys::new(RefreshPolicy::new(), Context::new())?;
/// let verifier = Verifier::new(remote.key_set(), "https://id.example", "api")?;
/// tokio::spawn(remote.run(move || {
///     let client = client.clone();
///     async move { client.fetch().await }
/// }));
/// # drop(verifier);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct JwksClient {
    client: Client,
    url: String,
}

impl JwksClient {
    /// Fetches the set at `url`.
    ///
    /// # Errors
    /// When the URL is not one that is spoken to, or the host has no TLS that could be used.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let local = place(url)?;
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10))
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        // What stands beside the service is not reached through a proxy.
        let client = if local { client.no_proxy() } else { client };
        Ok(Self {
            client: client
                .build()
                .map_err(|_| ConfigError::new("jwks client", "TLS cannot be set up"))?,
            url: url.to_owned(),
        })
    }

    /// Asks `issuer` where its set is: by OpenID Connect Discovery, and then by RFC 8414.
    ///
    /// # Errors
    /// When neither answers with metadata of exactly this issuer, or the set is in a place that is
    /// not spoken to. Nothing is fetched from there yet.
    pub async fn discover(issuer: &str) -> Result<Self, FetchError> {
        for url in metadata_urls(issuer)? {
            let client = Self::new(&url).map_err(|_| FetchError::new())?;
            let Ok((body, _)) = client.get().await else {
                continue;
            };
            let url = jwks_uri(&body, issuer)?;
            return Self::new(&url).map_err(|_| FetchError::new());
        }
        Err(FetchError::new())
    }

    /// Fetches the set, once.
    ///
    /// # Errors
    /// When there is no answer in time, or it is not a 200 of a bearable size.
    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let (body, cache_control) = self.get().await?;
        Ok(match cache_control {
            Some(cache_control) => Fetched::new(body).with_cache_control(&cache_control),
            None => Fetched::new(body),
        })
    }

    /// Where the set is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn get(&self) -> Result<(Vec<u8>, Option<String>), FetchError> {
        let fails = |error: reqwest::Error| {
            let error = error.without_url();
            tracing::debug!(target: "portcullis::jwt", %error, "fetch failed");
            FetchError::new()
        };
        let mut response = self.client.get(&self.url).send().await.map_err(fails)?;
        if response.status() != 200 {
            return Err(FetchError::new());
        }
        let cache_control = response.headers().get(CACHE_CONTROL);
        let cache_control = cache_control
            .and_then(|field| field.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fails)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::new());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, cache_control))
    }
}

impl fmt::Debug for JwksClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksClient")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Whether a URL is on this host; one that is not spoken to is an error.
fn place(url: &str) -> Result<bool, ConfigError> {
    let refuse = || ConfigError::new("jwks url", "is `https`, or `http` to a loopback address");
    let uri: Uri = url.parse().map_err(|_| refuse())?;
    let authority = uri.authority().ok_or_else(refuse)?;
    if authority.as_str().contains('@') {
        return Err(refuse());
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    let local = address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(local),
        Some("http") if local => Ok(true),
        _ => Err(refuse()),
    }
}

/// OpenID Connect Discovery 1.0 section 4, and RFC 8414 section 3.1, which puts its name before the
/// issuer's path.
fn metadata_urls(issuer: &str) -> Result<[String; 2], FetchError> {
    let uri: Uri = issuer.parse().map_err(|_| FetchError::new())?;
    let (Some(scheme), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query())
    else {
        return Err(FetchError::new());
    };
    let path = uri.path().trim_end_matches('/');
    Ok([
        format!("{scheme}://{authority}{path}/.well-known/openid-configuration"),
        format!("{scheme}://{authority}/.well-known/oauth-authorization-server{path}"),
    ])
}

/// The place of the set in an issuer's metadata, which must be of exactly this issuer (RFC 8414
/// section 3.3).
fn jwks_uri(metadata: &[u8], issuer: &str) -> Result<String, FetchError> {
    let text = str::from_utf8(metadata).map_err(|_| FetchError::new())?;
    let metadata = Json::object(text).map_err(|_| FetchError::new())?;
    let member = |name: &str| {
        let found = metadata.members().find(|(member, _)| *member == name);
        found.and_then(|(_, value)| value.as_text())
    };
    if member("issuer") != Some(issuer) {
        return Err(FetchError::new());
    }
    member("jwks_uri")
        .map(str::to_owned)
        .ok_or_else(FetchError::new)
}

const MAX_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_host_are_spoken_to() {
        for url in [
            "https://id.example/jwks",
            "https://127.0.0.1:1/jwks",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]:8080/jwks",
        ] {
            assert!(JwksClient::new(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "/jwks",
            "http://id.example/jwks",
            "http://localhost.example/jwks",
            "http://169.254.169.254/latest",
            "http://127.0.0.1@evil.example/",
            "https://user:pass@id.example/",
            "file:///etc/passwd",
            "ftp://127.0.0.1/",
        ] {
            assert!(JwksClient::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn metadata_is_of_exactly_its_issuer() {
        let urls = metadata_urls("https://id.example/tenant/").unwrap();
        assert_eq!(
            urls,
            [
                "https://id.example/tenant/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server/tenant"
            ]
        );
        let metadata = br#"{"issuer":"https://a","jwks_uri":"https://a/keys"}"#;
        assert_eq!(jwks_uri(metadata, "https://a").unwrap(), "https://a/keys");
        for issuer in ["https://a/", "https://A", "https://b", ""] {
            assert!(jwks_uri(metadata, issuer).is_err(), "{issuer}");
        }
        for metadata in [&b"{}"[..], b"[]", b"", br#"{"issuer":"https://a"}"#] {
            assert!(jwks_uri(metadata, "https://a").is_err());
        }
    }
}
