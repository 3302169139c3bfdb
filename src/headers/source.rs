//! One expression of a CSP source list.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// From where something may be loaded, or which inline code may run: one source expression of
/// CSP Level 3 (section 2.3.1).
///
/// Whether it can be where it is put is checked when the policy is built.
///
/// ```
/// use portcullis::headers::Source;
///
/// let hash = Source::sha256("alert(1)");
/// assert_eq!(hash.as_str(), "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='");
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[must_use]
pub struct Source {
    text: Cow<'static, str>,
    kind: SourceKind,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum SourceKind {
    None,
    SelfOrigin,
    Any,
    Nonce,
    Hash,
    Scheme,
    Host,
    UnsafeInline,
    UnsafeEval,
    WasmUnsafeEval,
    UnsafeHashes,
    StrictDynamic,
    ReportSample,
    SpeculationRules,
}

impl Source {
    /// `'none'`: nothing. Stands alone.
    pub const NONE: Self = Self::keyword("'none'", SourceKind::None);
    /// `'self'`: the page's own origin.
    pub const SELF: Self = Self::keyword("'self'", SourceKind::SelfOrigin);
    /// The request's nonce: elements that carry [`CspNonce`](super::CspNonce). Left out of answers
    /// whose handler did not read it.
    pub const NONCE: Self = Self::keyword("'nonce'", SourceKind::Nonce);
    /// `'strict-dynamic'`: what a trusted script loads is trusted, and hosts are not asked.
    pub const STRICT_DYNAMIC: Self = Self::keyword("'strict-dynamic'", SourceKind::StrictDynamic);
    /// `'report-sample'`: reports hold the first 40 characters of what was refused.
    pub const REPORT_SAMPLE: Self = Self::keyword("'report-sample'", SourceKind::ReportSample);
    /// `'inline-speculation-rules'`: inline speculation rules.
    pub const INLINE_SPECULATION_RULES: Self =
        Self::keyword("'inline-speculation-rules'", SourceKind::SpeculationRules);
    /// `'wasm-unsafe-eval'`: WebAssembly may be compiled.
    pub const WASM_UNSAFE_EVAL: Self =
        Self::keyword("'wasm-unsafe-eval'", SourceKind::WasmUnsafeEval);
    /// `'unsafe-hashes'`: hashes count for inline handlers and `style` attributes too.
    pub const UNSAFE_HASHES: Self = Self::keyword("'unsafe-hashes'", SourceKind::UnsafeHashes);
    /// `'unsafe-inline'`: any inline code. In scripts it gives up most of what a policy is for.
    pub const UNSAFE_INLINE: Self = Self::keyword("'unsafe-inline'", SourceKind::UnsafeInline);
    /// `'unsafe-eval'`: text may become code.
    pub const UNSAFE_EVAL: Self = Self::keyword("'unsafe-eval'", SourceKind::UnsafeEval);
    /// `*`: any host over the network, but no `data:` or `blob:`.
    pub const ANY: Self = Self::keyword("*", SourceKind::Any);

    /// A host, optionally with scheme, port and path: `cdn.example.com`, `*.example.com`,
    /// `https://example.com:8443/static/`.
    pub fn host(host: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: host.into(),
            kind: SourceKind::Host,
        }
    }

    /// A scheme, with its colon: `data:`, `blob:`, `https:`.
    pub fn scheme(scheme: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: scheme.into(),
            kind: SourceKind::Scheme,
        }
    }

    /// The inline script or style whose text is exactly `inline`, by SHA-256.
    pub fn sha256(inline: &str) -> Self {
        Self::hash("sha256", Sha256::digest(inline))
    }

    /// The inline script or style whose text is exactly `inline`, by SHA-384.
    pub fn sha384(inline: &str) -> Self {
        Self::hash("sha384", Sha384::digest(inline))
    }

    /// The inline script or style whose text is exactly `inline`, by SHA-512.
    pub fn sha512(inline: &str) -> Self {
        Self::hash("sha512", Sha512::digest(inline))
    }

    /// The expression as it stands in a policy; of a nonce, the place where it goes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) const fn kind(&self) -> SourceKind {
        self.kind
    }

    /// What is wrong with the expression by itself.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self.kind {
            SourceKind::Host => host_problem(&self.text),
            SourceKind::Scheme if !is_scheme(&self.text) => {
                Some("a scheme is letters, digits, `+`, `-`, `.` and a colon: `data:`")
            }
            _ => None,
        }
    }

    const fn keyword(text: &'static str, kind: SourceKind) -> Self {
        Self {
            text: Cow::Borrowed(text),
            kind,
        }
    }

    fn hash(algorithm: &str, digest: impl AsRef<[u8]>) -> Self {
        Self {
            text: format!("'{algorithm}-{}'", STANDARD.encode(digest)).into(),
            kind: SourceKind::Hash,
        }
    }
}

fn is_scheme(text: &str) -> bool {
    let Some(name) = text.strip_suffix(':') else {
        return false;
    };
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn host_problem(text: &str) -> Option<&'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some("a host is visible ASCII; an international name goes in its `xn--` form");
    }
    if text.contains([';', ',', '?', '#']) {
        return Some(
            "`;`, `,`, `?` and `#` cannot stand in a host source; encode them in its path",
        );
    }
    if text.contains('\'') || is_keyword_without_quotes(text) {
        return Some(
            "it looks like a keyword, nonce or hash; those are constants and constructors",
        );
    }
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(&format!("{scheme}:")) => rest,
        Some(_) => return Some("what stands before `://` is not a scheme"),
        None => text,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| port != "*" && port.parse::<u16>().is_err()) {
        return Some("a port is a number up to 65535 or `*`");
    }
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host == "*" && rest != text || labels.split('.').all(is_label) {
        return None;
    }
    Some("a host is labels with dots, `*` only as its first label: `*.example.com`")
}

fn is_keyword_without_quotes(text: &str) -> bool {
    const KEYWORDS: [&str; 10] = [
        "none",
        "self",
        "strict-dynamic",
        "report-sample",
        "unsafe-inline",
        "unsafe-eval",
        "unsafe-hashes",
        "wasm-unsafe-eval",
        "inline-speculation-rules",
        "unsafe-allow-redirects",
    ];
    let text = text.to_ascii_lowercase();
    KEYWORDS.contains(&text.as_str())
        || ["nonce-", "sha256-", "sha384-", "sha512-"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_stand() {
        for host in [
            "example.com",
            "*.example.com",
            "https://example.com",
            "https://*.example.com:8443/static/app.js",
            "wss://example.com:*",
            "localhost:3000",
            "127.0.0.1",
            "https://*",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(Source::host(host).problem(), None, "{host}");
        }
    }

    #[test]
    fn hosts_that_do_not() {
        for host in [
            "",
            "self",
            "'self'",
            "None",
            "nonce-abc",
            "sha256-abc=",
            "exa mple.com",
            "example.com;script-src *",
            "a.com,b.com",
            "a.com\r\nx: y",
            "bücher.example",
            "exa*mple.com",
            "a.*.com",
            "example..com",
            "example.com:99999",
            "example.com:http",
            "1http://example.com",
            "https://",
            "example.com/?a=b",
            "*",
        ] {
            assert!(Source::host(host).problem().is_some(), "{host}");
        }
    }

    #[test]
    fn schemes() {
        for scheme in ["data:", "https:", "filesystem:", "web+app:"] {
            assert_eq!(Source::scheme(scheme).problem(), None, "{scheme}");
        }
        for scheme in ["data", ":", "1a:", "https://", "da ta:", "data:;"] {
            assert!(Source::scheme(scheme).problem().is_some(), "{scheme}");
        }
    }
}
