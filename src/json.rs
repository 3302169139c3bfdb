//! JSON bodies of requests: their type, and what is told of one that cannot be read.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;

use crate::rejection::{Rejection, RejectionKind};

/// Refuses a body that is not named as JSON in UTF-8, once: 415.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    match (values.next().and_then(is_json), values.next()) {
        (Some(true), None) => Ok(()),
        _ => Err(
            Rejection::new(RejectionKind::UnsupportedMediaType, GATE, "not_json")
                .with_detail("Send Content-Type: application/json."),
        ),
    }
}

/// Reads a whole body: 400 for what is not JSON, 422 for JSON that is no `T`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser's message may quote the body, which may hold a password.
        if error.is_data() {
            Rejection::new(RejectionKind::Unprocessable, GATE, "wrong_shape")
                .with_detail("The JSON has not the members that are expected here.")
        } else {
            Rejection::new(RejectionKind::BadRequest, GATE, "malformed_json")
                .with_detail("The body is not valid JSON.")
        }
    })
}

/// 413.
pub(crate) fn too_large() -> Rejection {
    Rejection::new(RejectionKind::PayloadTooLarge, GATE, "body_too_large")
}

/// 400: the body did not arrive whole.
pub(crate) fn incomplete() -> Rejection {
    Rejection::new(RejectionKind::BadRequest, GATE, "body_incomplete")
}

fn is_json(value: &HeaderValue) -> Option<bool> {
    let (essence, parameters) = match value.to_str().ok()?.split_once(';') {
        Some((essence, parameters)) => (essence, Some(parameters)),
        None => (value.to_str().ok()?, None),
    };
    let utf8 = parameters.is_none_or(|parameters| {
        parameters.split_once('=').is_some_and(|(name, charset)| {
            name.trim().eq_ignore_ascii_case("charset")
                && charset
                    .trim()
                    .trim_matches('"')
                    .eq_ignore_ascii_case("utf-8")
        })
    });
    Some(essence.trim().eq_ignore_ascii_case("application/json") && utf8)
}

const GATE: &str = "json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_named_once_and_in_utf_8() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("application/problem+json", false),
            ("text/plain", false),
            ("application/json, text/plain", false),
            ("application/json;", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(check_type(&headers).is_ok(), json, "{value}");
            headers.append(CONTENT_TYPE, "application/json".parse().unwrap());
            assert!(check_type(&headers).is_err(), "twice: {value}");
        }
        assert!(check_type(&HeaderMap::new()).is_err());
    }
}
