//! What a gate may look at.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request::Parts};

/// The head of a request, borrowed: everything but the body.
///
/// Gates decide on this, so that no request is taken apart and put together again.
///
/// ```
/// use http::Request;
/// use portcullis::Head;
///
/// let request = Request::get("/healthz").body(()).unwrap();
/// let head = Head::of(&request);
/// assert_eq!(head.uri.path(), "/healthz");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The protocol's version.
    pub version: Version,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// What the server and outer layers left with the request.
    pub extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    /// The head of `request`.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// The head that `parts` hold.
    #[must_use]
    pub fn of_parts(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}
