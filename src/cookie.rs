//! Cookies of a request (RFC 6265 section 5.4).

use http::{HeaderMap, header::COOKIE};

/// Every value that a request carries under a cookie's name, over all of its `Cookie` fields.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (own, value) = pair.split_at(equals);
            (own.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
        })
        // Scripts can set any bytes; what is no text matches nothing.
        .map(|value| std::str::from_utf8(value).unwrap_or_default())
}

/// The value of a cookie; none where two claim the name.
pub(crate) fn sole<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (value, None) => value,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cookie_is_told_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xa=0; a=1;b=2 ; a2=3"));
        headers.append(COOKIE, HeaderValue::from_static("c=4=5; b=6"));
        let bytes = b"name=Zo\xc3\xab; e=7; f=\xff; f2=\xff";
        headers.append(COOKIE, HeaderValue::from_bytes(bytes).unwrap());
        assert_eq!(sole(&headers, "a"), Some("1"));
        assert_eq!(sole(&headers, "c"), Some("4=5"));
        assert_eq!(sole(&headers, "b"), None);
        assert_eq!(sole(&headers, "d"), None);
        assert_eq!(sole(&headers, "e"), Some("7"));
        assert_eq!(sole(&headers, "f"), Some(""));
        assert_eq!(values(&headers, "b").collect::<Vec<_>>(), ["2", "6"]);
    }
}
