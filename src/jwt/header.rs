//! The header of a token, as far as it is looked at.

use super::{
    algorithm::Algorithm,
    error::VerifyError,
    json::{Json, JsonError},
};

/// What a header says. Everything that is not named here, such as `jku`, `jwk`, `x5u` and `x5c`, is
/// ignored: no key comes from a token.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kind: TokenKind,
    key_id: Option<&'a str>,
}

/// What a token says that it is (`typ`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenKind {
    Unstated,
    Jwt,
    AccessToken,
    Other,
}

/// Which tokens are accepted by their `typ` (RFC 8725 section 3.11).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenTypes {
    /// `at+jwt` and `application/at+jwt` (RFC 9068 section 4), in any case.
    #[default]
    AccessToken,
    /// Those, `JWT`, and none at all: for issuers that mark no access tokens. An ID token of the
    /// same issuer is then told apart by its audience alone.
    AccessTokenOrJwt,
}

impl TokenTypes {
    pub(crate) fn accept(self, kind: TokenKind) -> bool {
        match kind {
            TokenKind::AccessToken => true,
            TokenKind::Jwt | TokenKind::Unstated => self == Self::AccessTokenOrJwt,
            TokenKind::Other => false,
        }
    }
}

impl<'a> Header<'a> {
    /// Reads a header's members.
    pub(crate) fn of(json: &'a Json<'_>) -> Result<Self, VerifyError> {
        let mut algorithm = None;
        let mut key_id = None;
        let mut kind = TokenKind::Unstated;
        for (name, value) in json.members() {
            match name {
                "alg" => algorithm = Some(text(value)?),
                "kid" => key_id = Some(text(value)?),
                "typ" => kind = TokenKind::of(text(value)?),
                "cty" if !is_media_type(text(value)?, "jwt") => {}
                "crit" | "b64" | "enc" | "zip" | "cty" => {
                    return Err(VerifyError::UnsupportedHeader);
                }
                _ => {}
            }
        }
        if key_id.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return Err(VerifyError::Malformed);
        }
        let algorithm = algorithm.ok_or(VerifyError::Malformed)?;
        Ok(Self {
            algorithm: Algorithm::of_name(algorithm).ok_or(VerifyError::UnsupportedAlgorithm)?,
            kind,
            key_id,
        })
    }

    pub(crate) fn key_id(&self) -> Option<&'a str> {
        self.key_id
    }
}

impl TokenKind {
    fn of(typ: &str) -> Self {
        if is_media_type(typ, "at+jwt") {
            Self::AccessToken
        } else if is_media_type(typ, "jwt") {
            Self::Jwt
        } else {
            Self::Other
        }
    }
}

impl From<JsonError> for VerifyError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::NotAnObject => Self::Malformed,
            JsonError::DuplicateMember => Self::DuplicateMember,
        }
    }
}

fn text<'a>(value: &'a Json<'_>) -> Result<&'a str, VerifyError> {
    value.as_text().ok_or(VerifyError::Malformed)
}

/// Whether `value` names the media type `application/subtype`, with or without its first part
/// (RFC 7515 section 4.1.9).
fn is_media_type(value: &str, subtype: &str) -> bool {
    let start = value.len().saturating_sub(subtype.len());
    match (value.get(..start), value.get(start..)) {
        (Some(""), Some(rest)) => rest.eq_ignore_ascii_case(subtype),
        (Some(prefix), Some(rest)) => {
            prefix.eq_ignore_ascii_case("application/") && rest.eq_ignore_ascii_case(subtype)
        }
        _ => false,
    }
}

const MAX_KEY_ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Algorithm, TokenKind, Option<String>), VerifyError> {
        let json = Json::object(text)?;
        let header = Header::of(&json)?;
        Ok((
            header.algorithm,
            header.kind,
            header.key_id().map(str::to_owned),
        ))
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for header in [
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":null}"#,
            r#"{"alg":"HS256","b64":false}"#,
            r#"{"alg":"HS256","b64":true}"#,
            r#"{"alg":"HS256","enc":"A256GCM"}"#,
            r#"{"alg":"HS256","zip":"DEF"}"#,
            r#"{"alg":"HS256","cty":"JWT"}"#,
            r#"{"alg":"HS256","cty":"application/jwt"}"#,
        ] {
            assert_eq!(
                read(header),
                Err(VerifyError::UnsupportedHeader),
                "{header}"
            );
        }
        for header in [
            "{}",
            r#"{"alg":1}"#,
            r#"{"alg":null}"#,
            r#"{"alg":"HS256","kid":7}"#,
            r#"{"alg":"HS256","typ":["at+jwt"]}"#,
            r#"{"alg":"HS256","cty":1}"#,
        ] {
            assert_eq!(read(header), Err(VerifyError::Malformed), "{header}");
        }
        let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257));
        assert_eq!(read(&long), Err(VerifyError::Malformed));
        let keys_inside = r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"https://evil"}"#;
        assert!(read(keys_inside).is_ok());
    }

    #[test]
    fn types_are_compared_as_media_types() {
        for (typ, kind) in [
            ("at+jwt", TokenKind::AccessToken),
            ("AT+JWT", TokenKind::AccessToken),
            ("application/at+jwt", TokenKind::AccessToken),
            ("Application/At+Jwt", TokenKind::AccessToken),
            ("JWT", TokenKind::Jwt),
            ("xat+jwt", TokenKind::Other),
            ("logout+jwt", TokenKind::Other),
            ("dpop+jwt", TokenKind::Other),
            ("text/at+jwt", TokenKind::Other),
            ("", TokenKind::Other),
            ("ß+jwt", TokenKind::Other),
        ] {
            let header = format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#);
            assert_eq!(read(&header).unwrap().1, kind, "{typ}");
        }
    }
}
