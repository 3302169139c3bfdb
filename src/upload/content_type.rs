//! Media types and the boundary, as strictly as no two readers disagree on.

use super::fault::Fault;

/// What a request's `Content-Type` says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Envelope<'a> {
    /// `multipart/form-data` with its boundary.
    Form { boundary: &'a str },
    /// Anything else: the type in lower case, without parameters.
    Other(String),
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(value: &'a [u8], max_boundary: usize, compat: bool) -> Result<Self, Fault> {
        let value = std::str::from_utf8(value).map_err(|_| Fault::ContentType)?;
        let (essence, parameters) = split_essence(value).ok_or(Fault::ContentType)?;
        if !essence.eq_ignore_ascii_case("multipart/form-data") {
            return Ok(Self::Other(essence.to_ascii_lowercase()));
        }
        let boundary = match compat {
            true => boundary_among(parameters),
            false => boundary(parameters),
        };
        let boundary = boundary.ok_or(Fault::ContentType)?;
        if boundary.len() > max_boundary {
            return Err(Fault::ContentType);
        }
        Ok(Self::Form { boundary })
    }
}

/// The one parameter of a form: `; boundary=` and a token or a quoted string of boundary
/// characters (RFC 2046, section 5.1.1), without escapes.
fn boundary(parameters: &str) -> Option<&str> {
    let rest = parameters
        .strip_prefix(';')?
        .trim_start_matches([' ', '\t']);
    let value = rest.strip_prefix("boundary=")?;
    let (boundary, quoted) = match value.strip_prefix('"') {
        Some(value) => (value.strip_suffix('"')?, true),
        None => (value, false),
    };
    let accepted = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'\'' | b'+' | b'_' | b'-' | b'.' => true,
        // Not in a token; a space, also a boundary character, is trimmed by some readers.
        b'(' | b')' | b',' | b'/' | b':' | b'=' | b'?' => quoted,
        _ => false,
    };
    (!boundary.is_empty() && boundary.bytes().all(accepted)).then_some(boundary)
}

/// The one boundary among other parameters, for a body that is written anew.
fn boundary_among(mut parameters: &str) -> Option<&str> {
    let mut boundary = None;
    while !parameters.is_empty() {
        let (name, value, rest) = parameter(parameters)?;
        // An extended parameter is a second way to say it.
        if name.len() >= 8 && name[..8].eq_ignore_ascii_case("boundary") {
            if name.len() > 8 || boundary.is_some() {
                return None;
            }
            boundary = Some(value);
        }
        parameters = rest.trim_start_matches([' ', '\t']);
    }
    let printable = |byte: u8| matches!(byte, b' '..=b'~');
    boundary
        .filter(|value| !value.is_empty() && !value.ends_with(' ') && value.bytes().all(printable))
}

/// The media type of a part.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct PartType {
    /// In lower case, without parameters.
    pub(super) essence: String,
    /// The charset is one in which only ASCII is what it looks like.
    pub(super) latin: bool,
}

/// The media type of a part: its parameters are well-formed, and a charset is one in which ASCII is
/// what it looks like.
pub(super) fn part_type(value: &str) -> Result<PartType, Fault> {
    let mut charset = None;
    let (essence, mut parameters) = split_essence(value).ok_or(Fault::PartHead)?;
    while !parameters.is_empty() {
        let (name, value, rest) = parameter(parameters).ok_or(Fault::PartHead)?;
        if name.eq_ignore_ascii_case("charset") && charset.replace(value).is_some() {
            return Err(Fault::PartEncoding);
        }
        if name.eq_ignore_ascii_case("boundary") {
            return Err(Fault::PartHead);
        }
        parameters = rest;
    }
    let essence = essence.to_ascii_lowercase();
    if essence.starts_with("multipart/") || essence.starts_with("message/") {
        return Err(Fault::PartHead);
    }
    let latin = match charset {
        None => false,
        Some(charset) if is_utf8(charset) => false,
        Some(charset)
            if LATIN
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known)) =>
        {
            true
        }
        Some(_) => return Err(Fault::PartEncoding),
    };
    Ok(PartType { essence, latin })
}

/// Whether UTF-8 is what this charset is.
pub(super) fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
}

const LATIN: [&str; 3] = ["iso-8859-1", "iso-8859-15", "windows-1252"];

/// `type/subtype`, and the rest from its first `;` on.
fn split_essence(value: &str) -> Option<(&str, &str)> {
    let end = value.find(';').unwrap_or(value.len());
    let (essence, parameters) = value.split_at(end);
    let essence = essence.trim_end_matches([' ', '\t']);
    let (kind, subtype) = essence.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then_some((essence, parameters))
}

/// `; name=value` and what follows it.
fn parameter(text: &str) -> Option<(&str, &str, &str)> {
    let rest = text.strip_prefix(';')?.trim_start_matches([' ', '\t']);
    let (name, rest) = rest.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => {
            let (value, rest) = rest.split_once('"')?;
            let plain = value
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\');
            (plain.then_some(value)?, rest)
        }
        None => {
            let end = rest.find(';').unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            (is_token(value).then_some(value)?, rest)
        }
    };
    (is_token(name) && (rest.is_empty() || rest.starts_with(';'))).then_some((name, value, rest))
}

/// A token (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            matches!(byte,
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
                | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_boundary_is_taken() {
        for (value, boundary) in [
            ("multipart/form-data; boundary=B", "B"),
            (
                "Multipart/Form-Data;boundary=----WebKitFormBoundary7MA4",
                "----WebKitFormBoundary7MA4",
            ),
            ("multipart/form-data; boundary=\"a/b:c\"", "a/b:c"),
        ] {
            let envelope = Envelope::parse(value.as_bytes(), 70, false);
            assert_eq!(envelope, Ok(Envelope::Form { boundary }), "{value}");
        }
        let json = Envelope::parse(b"Application/JSON; charset=utf-8", 70, false);
        assert_eq!(json, Ok(Envelope::Other("application/json".into())));
        let other = Envelope::parse(b"multipart/form-data-x; boundary=B", 70, false);
        assert_eq!(other, Ok(Envelope::Other("multipart/form-data-x".into())));
    }

    #[test]
    fn what_two_readers_split_on_is_refused() {
        for value in [
            "multipart/form-data",
            "multipart/form-data;",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=A; boundary=B",
            "multipart/form-data; boundary=A;",
            "multipart/form-data; boundary=A, x",
            "multipart/form-data; boundary=A x",
            "multipart/form-data; boundary=A ",
            "multipart/form-data; boundary =A",
            "multipart/form-data; boundary= A",
            "multipart/form-data; BOUNDARY=A",
            "multipart/form-data; boundary*=utf-8''A",
            "multipart/form-data; boundary*0=A",
            "multipart/form-data; charset=utf-8; boundary=A",
            "multipart/form-data; boundary=A; charset=utf-8",
            "multipart/form-data; boundary=\"A",
            "multipart/form-data; boundary=A\"",
            "multipart/form-data; boundary=\"A\\\"B\"",
            "multipart/form-data; boundary=\"A B\"",
            "multipart/form-data; boundary='A;B'",
            "multipart/form-data boundary=A",
            "multipart/form-data; boundary=a/b",
            "multipart / form-data; boundary=A",
            "multipart; boundary=A",
            "",
        ] {
            let envelope = Envelope::parse(value.as_bytes(), 70, false);
            assert_eq!(envelope, Err(Fault::ContentType), "{value}");
        }
        assert!(Envelope::parse(b"multipart/form-data; boundary=\xff", 70, false).is_err());
        let long = format!("multipart/form-data; boundary={}", "a".repeat(71));
        assert!(Envelope::parse(long.as_bytes(), 70, false).is_err());
        assert!(Envelope::parse(&long.as_bytes()[..long.len() - 1], 70, false).is_ok());
    }

    #[test]
    fn part_types_keep_their_meaning() {
        for (value, expected) in [
            ("image/PNG", Ok(("image/png", false))),
            ("text/plain; charset=UTF-8", Ok(("text/plain", false))),
            ("text/plain;charset=\"us-ascii\"", Ok(("text/plain", false))),
            ("text/plain; charset=ISO-8859-1", Ok(("text/plain", true))),
            ("video/webm;codecs=\"vp8, opus\"", Ok(("video/webm", false))),
            ("text/plain; charset=utf-7", Err(Fault::PartEncoding)),
            (
                "text/plain; charset=utf-8; charset=utf-16",
                Err(Fault::PartEncoding),
            ),
            (
                "text/plain; charset=utf-16; charset=utf-8",
                Err(Fault::PartEncoding),
            ),
            ("multipart/mixed; boundary=x", Err(Fault::PartHead)),
            ("multipart/mixed", Err(Fault::PartHead)),
            ("message/rfc822", Err(Fault::PartHead)),
            ("image", Err(Fault::PartHead)),
            ("image/png,text/html", Err(Fault::PartHead)),
            ("image/png;", Err(Fault::PartHead)),
            ("image/png; x", Err(Fault::PartHead)),
            ("image/png; x=\"a\\\"b\"", Err(Fault::PartHead)),
            ("", Err(Fault::PartHead)),
        ] {
            let expected = expected.map(|(essence, latin): (&str, bool)| PartType {
                essence: essence.into(),
                latin,
            });
            assert_eq!(part_type(value), expected, "{value}");
        }
    }
}
