//! Cookies of a request (RFC 6265 section 5.4).

use http::{HeaderMap, header::COOKIE};

/// Every value that a request carries under a cookie's name, over all of its `Cookie` fields.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .filter(move |(own, _)| own.trim() == name)
        .map(|(_, value)| value.trim())
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
        assert_eq!(sole(&headers, "a"), Some("1"));
        assert_eq!(sole(&headers, "c"), Some("4=5"));
        assert_eq!(sole(&headers, "b"), None);
        assert_eq!(sole(&headers, "d"), None);
        assert_eq!(values(&headers, "b").collect::<Vec<_>>(), ["2", "6"]);
    }
}
