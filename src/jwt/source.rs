//! Where a token stands in a request.

use http::{HeaderMap, header::AUTHORIZATION};

/// Credentials that cannot be read as one token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CredentialError {
    Malformed,
    Several,
}

/// The token of an `Authorization: Bearer` field (RFC 6750 section 2.1), if there is one. Fields of
/// other schemes are not ours.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, CredentialError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(CredentialError::Several);
    }
    let field = field.to_str().map_err(|_| CredentialError::Malformed)?;
    let (scheme, credentials) = field.split_once(' ').ok_or(CredentialError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = credentials.trim_start_matches(' ');
    if !is_token68(token) {
        return Err(CredentialError::Malformed);
    }
    Ok(Some(token))
}

/// `b64token` of RFC 6750 section 2.1: base64 of any alphabet, then padding.
fn is_token68(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty()
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(fields: &[&[u8]]) -> Result<Option<String>, CredentialError> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        }
        bearer(&headers).map(|token| token.map(str::to_owned))
    }

    #[test]
    fn one_field_of_the_scheme_is_read() {
        for field in [
            "Bearer a.b-c_~+/d==",
            "bearer a.b-c_~+/d==",
            "BEARER   a.b-c_~+/d==",
        ] {
            let token = read(&[field.as_bytes()]);
            assert_eq!(token, Ok(Some("a.b-c_~+/d==".to_owned())), "{field}");
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"Basic dTpw"]), Ok(None));
        assert_eq!(read(&[b"DPoP a.b.c"]), Ok(None));
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
            assert_eq!(
                read(&[field.as_bytes()]),
                Err(CredentialError::Malformed),
                "{field}"
            );
        }
        assert_eq!(read(&[b"Bearer \xe9"]), Err(CredentialError::Malformed));
        for fields in [[b"Bearer a", b"Bearer a"], [b"Bearer a", b"Basic bb"]] {
            assert_eq!(read(&fields.map(|f| &f[..])), Err(CredentialError::Several));
        }
    }
}
