//! `Clear-Site-Data`: what a browser forgets of the site when it reads an answer.

use http::{HeaderName, HeaderValue};

/// What a browser is told to forget. It belongs on the answer to a logout, over HTTPS.
///
/// Deployment caveat: `cache` can take a browser seconds; a logout that must be quick takes
/// [`COOKIES_AND_STORAGE`](Self::COOKIES_AND_STORAGE).
///
/// ```
/// use http::Response;
/// use portcullis::headers::ClearSiteData;
///
/// let mut response = Response::new("Good bye.");
/// ClearSiteData::ALL.put_on(response.headers_mut());
/// assert_eq!(
///     response.headers()["clear-site-data"],
///     "\"cache\", \"cookies\", \"storage\""
/// );
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct ClearSiteData {
    value: &'static str,
}

impl ClearSiteData {
    /// Caches, cookies and everything that scripts stored.
    pub const ALL: Self = Self {
        value: "\"cache\", \"cookies\", \"storage\"",
    };
    /// Cookies and everything that scripts stored; open pages of the site may reload.
    pub const COOKIES_AND_STORAGE: Self = Self {
        value: "\"cookies\", \"storage\"",
    };
    /// Caches alone.
    pub const CACHE: Self = Self { value: "\"cache\"" };
    /// Cookies alone, those of the whole registrable domain.
    pub const COOKIES: Self = Self {
        value: "\"cookies\"",
    };
    /// What scripts stored.
    pub const STORAGE: Self = Self {
        value: "\"storage\"",
    };

    /// The header's value.
    #[must_use]
    pub const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.value)
    }

    /// Sets the header.
    pub fn put_on(self, headers: &mut http::HeaderMap) {
        headers.insert(CLEAR_SITE_DATA, self.value());
    }
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
