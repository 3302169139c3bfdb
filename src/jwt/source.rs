//! Where a token stands in a request.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL},
};

use crate::{cookie, error::ConfigError, head::Head};

/// A place where a request may carry its token.
///
/// All places of a layer are looked at, and a request with a token in two of them is 400 (RFC 6750
/// section 2). There is none for the query: what stands in a URI is logged, kept and passed on.
#[derive(Clone)]
#[must_use]
pub struct TokenSource {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Bearer,
    Cookie(Arc<str>),
    WebSocketProtocol(Arc<str>),
    Custom(Arc<dyn Fn(Head<'_>) -> Option<String> + Send + Sync>),
}

/// Credentials that cannot be read as one token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CredentialError {
    Malformed,
    Several,
}

impl TokenSource {
    /// `Authorization: Bearer` (RFC 6750 section 2.1), the only place by default.
    pub const fn bearer() -> Self {
        Self {
            place: Place::Bearer,
        }
    }

    /// A cookie. An empty one is none.
    ///
    /// Deployment caveat: a browser sends a cookie with requests that other sites make, so a
    /// service that reads tokens from one needs protection from cross-site requests; the name
    /// should begin with `__Host-`.
    ///
    /// # Errors
    /// When the name is none of a cookie (RFC 6265 section 4.1.1).
    pub fn cookie(name: &str) -> Result<Self, ConfigError> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(ConfigError::new("cookie", "is no name of a cookie"));
        }
        Ok(Self {
            place: Place::Cookie(name.into()),
        })
    }

    /// An item of `Sec-WebSocket-Protocol`: `prefix` and the token, which is the only field that a
    /// page can set on a WebSocket. A browser also asks for the protocol that is really spoken, and
    /// the service answers with that one.
    ///
    /// # Errors
    /// When the prefix is empty or cannot stand there.
    pub fn web_socket_protocol(prefix: &str) -> Result<Self, ConfigError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if prefix.is_empty() || !prefix.bytes().all(fits) {
            return Err(ConfigError::new(
                "web socket protocol",
                "is a prefix of letters, digits, `-`, `.` and `_`",
            ));
        }
        Ok(Self {
            place: Place::WebSocketProtocol(prefix.into()),
        })
    }

    /// Wherever the application finds it.
    pub fn custom(find: impl Fn(Head<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            place: Place::Custom(Arc::new(find)),
        }
    }

    fn find<'a>(&self, head: Head<'a>) -> Result<Option<Cow<'a, [u8]>>, CredentialError> {
        match &self.place {
            Place::Bearer => Ok(bearer(head.headers)?.map(Cow::Borrowed)),
            Place::Cookie(name) => {
                only_one(cookie::values(head.headers, name).filter(|value| !value.is_empty()))
            }
            Place::WebSocketProtocol(prefix) => {
                let fields = head.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
                only_one(
                    fields
                        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
                        .filter_map(|item| item.trim_ascii().strip_prefix(prefix.as_bytes())),
                )
            }
            Place::Custom(find) => Ok(find(head).map(|token| Cow::Owned(token.into_bytes()))),
        }
    }

    /// Takes the token out of a request, so that nothing behind the gate can pass it on.
    pub(crate) fn remove(&self, headers: &mut HeaderMap) {
        match &self.place {
            Place::Bearer => {
                if matches!(bearer(headers), Ok(Some(_)) | Err(_)) {
                    headers.remove(AUTHORIZATION);
                }
            }
            Place::Cookie(name) => rebuild(headers, &COOKIE, b';', |pair| {
                cookie::value(pair, name).is_some()
            }),
            Place::WebSocketProtocol(prefix) => {
                rebuild(headers, &SEC_WEBSOCKET_PROTOCOL, b',', |item| {
                    item.starts_with(prefix.as_bytes())
                });
            }
            Place::Custom(_) => {}
        }
    }

    /// The cookie that is the place: browsers send it by themselves.
    pub(crate) fn as_cookie(&self) -> Option<&str> {
        match &self.place {
            Place::Cookie(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Bearer => f.write_str("Bearer"),
            Place::Cookie(name) => f.debug_tuple("Cookie").field(name).finish(),
            Place::WebSocketProtocol(prefix) => {
                f.debug_tuple("WebSocketProtocol").field(prefix).finish()
            }
            Place::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// The one token of a request, if it has one. What it is made of is not looked at: one that holds
/// is made of the right characters, and of one that does not hold [`is_b64token`] tells.
pub(crate) fn find<'a>(
    sources: &[TokenSource],
    head: Head<'a>,
) -> Result<Option<Cow<'a, [u8]>>, CredentialError> {
    let mut found = None;
    for source in sources {
        if let Some(token) = source.find(head)?
            && found.replace(token).is_some()
        {
            return Err(CredentialError::Several);
        }
    }
    Ok(found)
}

/// The token of an `Authorization: Bearer` field, if there is one. Fields of other schemes are not
/// ours.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, CredentialError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(CredentialError::Several);
    }
    let field = field.as_bytes();
    match field.split_at_checked(SCHEME.len()) {
        Some((scheme, mut token)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            while let [b' ', rest @ ..] = token {
                token = rest;
            }
            Ok(Some(token))
        }
        _ => match field.iter().position(|byte| *byte == b' ') {
            Some(end) if end > 0 && field[..end].is_ascii() => Ok(None),
            _ => Err(CredentialError::Malformed),
        },
    }
}

fn only_one<'a>(
    mut found: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Cow<'a, [u8]>>, CredentialError> {
    let Some(token) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(CredentialError::Several);
    }
    Ok(Some(Cow::Borrowed(token)))
}

/// Writes the fields of one name anew, without the items that are the token's.
fn rebuild(
    headers: &mut HeaderMap,
    name: &HeaderName,
    separator: u8,
    is_token: impl Fn(&[u8]) -> bool,
) {
    let fields: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for field in fields {
        let items = field.as_bytes().split(|byte| *byte == separator);
        let kept: Vec<_> = items
            .map(<[u8]>::trim_ascii)
            .filter(|item| !is_token(item))
            .collect();
        let kept = kept.join([separator, b' '].as_slice());
        if let Ok(kept) = HeaderValue::from_bytes(&kept)
            && !kept.is_empty()
        {
            headers.append(name.clone(), kept);
        }
    }
}

/// Whether it is a `b64token` (RFC 6750 section 2.1): base64 of any alphabet, then padding.
pub(crate) fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &token[..token.len() - padding];
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !body.is_empty() && body.iter().all(is_base64)
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(fields: &[(http::HeaderName, &[u8])]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            request.headers_mut().append(name, value);
        }
        request
    }

    fn read(
        sources: &[TokenSource],
        fields: &[(http::HeaderName, &[u8])],
    ) -> Result<Option<String>, CredentialError> {
        let request = request(fields);
        match find(sources, Head::of(&request))? {
            Some(token) if !is_b64token(&token) => Err(CredentialError::Malformed),
            token => Ok(token.map(|token| String::from_utf8(token.into_owned()).unwrap())),
        }
    }

    fn read_bearer(fields: &[&[u8]]) -> Result<Option<String>, CredentialError> {
        let fields: Vec<_> = fields.iter().map(|value| (AUTHORIZATION, *value)).collect();
        read(&[TokenSource::bearer()], &fields)
    }

    #[test]
    fn one_field_of_the_scheme_is_read() {
        for field in [
            "Bearer a.b-c_~+/d==",
            "bearer a.b-c_~+/d==",
            "BEARER   a.b-c_~+/d==",
        ] {
            let token = read_bearer(&[field.as_bytes()]);
            assert_eq!(token, Ok(Some("a.b-c_~+/d==".to_owned())), "{field}");
        }
        assert_eq!(read_bearer(&[]), Ok(None));
        assert_eq!(read_bearer(&[b"Basic dTpw"]), Ok(None));
        assert_eq!(read_bearer(&[b"DPoP a.b.c"]), Ok(None));
    }

    #[test]
    fn what_is_not_one_token_is_an_error() {
        for field in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer =",
            "Bearer a=b",
            "Bearer \"a\"",
            "Bearer a\t",
            "eyJ.eyJ.sig",
        ] {
            let read = read_bearer(&[field.as_bytes()]);
            assert_eq!(read, Err(CredentialError::Malformed), "{field}");
        }
        let latin = read_bearer(&[b"Bearer \xe9"]);
        assert_eq!(latin, Err(CredentialError::Malformed));
        for fields in [[b"Bearer a", b"Bearer a"], [b"Bearer a", b"Basic bb"]] {
            let read = read_bearer(&fields.map(|field| &field[..]));
            assert_eq!(read, Err(CredentialError::Several));
        }
    }

    #[test]
    fn a_cookie_is_read_by_its_whole_name() {
        let sources = [TokenSource::cookie("__Host-at").unwrap()];
        let cookies = |fields: &[&[u8]]| {
            let fields: Vec<_> = fields.iter().map(|value| (COOKIE, *value)).collect();
            read(&sources, &fields)
        };
        let token = Ok(Some("a.b.c".to_owned()));
        assert_eq!(cookies(&[b"x=1; __Host-at=a.b.c; y=2"]), token);
        assert_eq!(cookies(&[b"x=\xff", b"__Host-at=a.b.c"]), token);
        assert_eq!(
            cookies(&[b"x__Host-at=a; __Host-at2=b; __host-at=c"]),
            Ok(None)
        );
        assert_eq!(cookies(&[b"__Host-at="]), Ok(None));
        let twice: [&[&[u8]]; 2] = [
            &[b"__Host-at=a; __Host-at=a"],
            &[b"__Host-at=a", b"__Host-at=b"],
        ];
        for fields in twice {
            assert_eq!(cookies(fields), Err(CredentialError::Several));
        }
        assert_eq!(
            cookies(&[b"__Host-at=\"a\""]),
            Err(CredentialError::Malformed)
        );
        for name in ["", "a b", "a=b", "a;b"] {
            assert!(TokenSource::cookie(name).is_err());
        }
    }

    #[test]
    fn a_web_socket_carries_its_token_as_a_protocol() {
        let sources = [TokenSource::web_socket_protocol("bearer.").unwrap()];
        let protocols = |value: &[u8]| read(&sources, &[(SEC_WEBSOCKET_PROTOCOL, value)]);
        assert_eq!(
            protocols(b"chat, bearer.a.b.c"),
            Ok(Some("a.b.c".to_owned()))
        );
        assert_eq!(protocols(b"chat, xbearer.a"), Ok(None));
        assert_eq!(protocols(b"bearer."), Err(CredentialError::Malformed));
        assert_eq!(
            protocols(b"bearer.a,bearer.b"),
            Err(CredentialError::Several)
        );
        assert!(TokenSource::web_socket_protocol("a,").is_err());
    }

    #[test]
    fn a_token_in_two_places_is_refused() {
        let custom = TokenSource::custom(|head| {
            let field = head.headers.get("x-token")?;
            Some(field.to_str().ok()?.to_owned())
        });
        let sources = [
            TokenSource::bearer(),
            TokenSource::cookie("at").unwrap(),
            custom,
        ];
        let x = http::HeaderName::from_static("x-token");
        let (a, c, x): (_, _, (_, &[u8])) = (
            (AUTHORIZATION, &b"Bearer a"[..]),
            (COOKIE, &b"at=b"[..]),
            (x, b"c"),
        );
        for one in [&a, &c, &x] {
            assert!(matches!(
                read(&sources, std::slice::from_ref(one)),
                Ok(Some(_))
            ));
        }
        for two in [[&a, &c], [&c, &x], [&a, &x]] {
            let read = read(&sources, &two.map(Clone::clone));
            assert_eq!(read, Err(CredentialError::Several));
        }
    }

    #[test]
    fn a_removed_token_takes_nothing_else_with_it() {
        let mut request = request(&[
            (AUTHORIZATION, b"Bearer a"),
            (COOKIE, b"x=1; at=t; y=2"),
            (COOKIE, b"at=u"),
            (SEC_WEBSOCKET_PROTOCOL, b"bearer.t, chat,superchat"),
        ]);
        for source in [
            TokenSource::bearer(),
            TokenSource::cookie("at").unwrap(),
            TokenSource::web_socket_protocol("bearer.").unwrap(),
        ] {
            source.remove(request.headers_mut());
        }
        let headers = request.headers();
        assert!(!headers.contains_key(AUTHORIZATION));
        let cookies: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["x=1; y=2"]);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "chat, superchat");
        let mut basic = self::request(&[(AUTHORIZATION, b"Basic dTpw")]);
        TokenSource::bearer().remove(basic.headers_mut());
        assert!(basic.headers().contains_key(AUTHORIZATION));
    }
}
