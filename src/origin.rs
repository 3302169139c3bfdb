//! Web origins, written exactly as browsers send them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::error::ConfigError;

/// A web origin: scheme, host, and the port where it is not the scheme's own (RFC 6454).
///
/// It is compared byte for byte with what browsers send in `Origin`, so anything that no browser
/// sends is refused when it is made instead of never matching: upper case, a default port, a path,
/// a user, an international name outside its `xn--` form, `null` and `*`.
///
/// ```
/// use portcullis::Origin;
///
/// let origin = Origin::new("https://app.example.com:8443")?;
/// assert_eq!(origin.authority(), "app.example.com:8443");
/// for never_sent in ["https://example.com/", "https://example.com:443", "https://Example.com"] {
///     assert!(Origin::new(never_sent).is_err());
/// }
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[must_use]
pub struct Origin {
    text: Arc<str>,
}

impl Origin {
    /// The origin that `text` is.
    ///
    /// # Errors
    ///
    /// Where no browser would send the text as an origin.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        match problem(text) {
            None => Ok(Self { text: text.into() }),
            Some(problem) => Err(ConfigError::new("origin", problem)),
        }
    }

    /// The origin of a service that is reached over plain HTTP at an address.
    ///
    /// ```
    /// use portcullis::Origin;
    ///
    /// let origin = |addr: &str| Ok::<_, std::net::AddrParseError>(Origin::plain(addr.parse()?));
    /// assert_eq!(origin("127.0.0.1:3000")?.as_str(), "http://127.0.0.1:3000");
    /// assert_eq!(origin("[::1]:80")?.as_str(), "http://[::1]");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn plain(addr: SocketAddr) -> Self {
        let host = match addr.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{}]", canonical(address)),
        };
        let text = match addr.port() {
            80 => format!("http://{host}"),
            port => format!("http://{host}:{port}"),
        };
        Self { text: text.into() }
    }

    /// The origin as browsers send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// The host, and the port where it is not the scheme's own: what `Host` holds.
    #[must_use]
    pub fn authority(&self) -> &str {
        match self.text.split_once("://") {
            Some((_, authority)) => authority,
            None => &self.text,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.text).finish()
    }
}

/// Why no browser sends `text` as an origin.
pub(crate) fn problem(text: &str) -> Option<&'static str> {
    let (default_port, authority) = match text.split_once("://") {
        Some(("https", authority)) => ("443", authority),
        Some(("http", authority)) => ("80", authority),
        _ => return Some("takes `https://` or `http://` and a host"),
    };
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return Some("takes a host alone: no path, no query, no user, no slash at the end");
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons inside an IPv6 address are followed by its bracket.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if let Some(port) = port {
        if port == default_port {
            return Some("leaves out the port that is the scheme's own, as browsers do");
        }
        if port.starts_with(['0', '+']) || port.parse::<u16>().is_err() {
            return Some("takes a port between 1 and 65535");
        }
    }
    (!is_host(host)).then_some(
        "takes a host in lower case, an international name in its `xn--` form, or an address",
    )
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        return address
            .parse::<Ipv6Addr>()
            .is_ok_and(|parsed| canonical(parsed) == address);
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // A browser reads a host that ends in a number as an IPv4 address.
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}

/// An IPv6 address as URLs have it: an IPv4-mapped one in hexadecimal too.
fn canonical(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(_) => {
            let [.., high, low] = address.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_stands() {
        for (text, authority) in [
            ("https://example.com", "example.com"),
            ("http://localhost:3000", "localhost:3000"),
            ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://[2001:db8::1]", "[2001:db8::1]"),
            ("http://[::ffff:7f00:1]", "[::ffff:7f00:1]"),
            ("http://a_b.example", "a_b.example"),
            ("https://example.com:80", "example.com:80"),
        ] {
            let origin = Origin::new(text).unwrap();
            assert_eq!(origin.as_str(), text);
            assert_eq!(origin.authority(), authority);
            assert_eq!(origin.is_https(), text.starts_with("https"));
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "null",
            "*",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "HTTPS://example.com",
            "https://",
            "https://Example.com",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?x",
            "https://example.com#x",
            "https://user@example.com",
            "https://example.com\\@evil.example",
            "https://example.com:443",
            "http://example.com:80",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:0443",
            "https://example.com:+444",
            "https://example.com:65536",
            "https://*.example.com",
            "https://bücher.example",
            "https://example..com",
            "https://example.com.",
            "https://exa mple.com",
            "https://1.2.3",
            "https://1.2.3.400",
            "https://[::1",
            "https://::1",
            "https://[0:0::1]",
            "https://[::FFFF]",
            "https://example.com, https://b.example",
        ] {
            assert!(Origin::new(text).is_err(), "{text}");
        }
    }
}
