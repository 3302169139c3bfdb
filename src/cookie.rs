//! Cookies of a request (RFC 6265 section 5.4).

use http::{HeaderMap, header::COOKIE};

/// Every value that a request carries under a cookie's name, over all of its `Cookie` fields.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| value(pair, name))
}

/// The value of one pair of a `Cookie` field, if that is its name.
pub(crate) fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (own, value) = pair.split_at(at);
    (own.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
}

/// The value of a cookie; none where two claim the name.
#[cfg(any(feature = "csrf", feature = "login-throttle"))]
pub(crate) fn sole<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (Some(value), None) => str::from_utf8(value).ok(),
        _ => None,
    }
}

#[cfg(all(test, feature = "csrf"))]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cookie_is_told_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xa=0; a=1;b=2 ; a2=3"));
        headers.append(COOKIE, HeaderValue::from_static("c=4=5; b=6"));
        assert_eq!(sole(&headers, "a"), Some("1"));
        assert_eq!(sole(&headers, "c"), Some("4=5"));
        assert_eq!(sole(&headers, "b"), None);
        assert_eq!(sole(&headers, "d"), None);
        assert_eq!(values(&headers, "b").collect::<Vec<_>>(), [b"2", b"6"]);
        // A neighbour of any bytes hides nothing.
        headers.append(
            COOKIE,
            HeaderValue::from_bytes(b"x=\xff; d=7; a=\xe9").unwrap(),
        );
        assert_eq!(sole(&headers, "d"), Some("7"));
        assert_eq!(sole(&headers, "a"), None);
    }
}
