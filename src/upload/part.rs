//! The head of a part.

use bytes::BytesMut;

use super::{
    content_type::{is_token, part_type},
    fault::Fault,
};

/// What the head of a part says.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct PartHead {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
    /// The declared media type, in lower case, without parameters.
    pub(super) media_type: Option<String>,
    /// Its data has to be ASCII, since its charset is dropped where it is written anew.
    pub(super) ascii: bool,
}

impl PartHead {
    /// Reads the lines between a boundary and the empty line. They are CRLF-terminated, the last one
    /// too.
    ///
    /// The grammar is what browsers and curl send and all readers agree on: `Content-Disposition`
    /// once and first, `Content-Type` at most once, and a transfer encoding only where it is none.
    pub(super) fn parse(block: &[u8]) -> Result<Self, Fault> {
        let block = std::str::from_utf8(block).map_err(|_| Fault::PartHead)?;
        let mut lines = block
            .strip_suffix("\r\n")
            .ok_or(Fault::PartHead)?
            .split("\r\n");
        let disposition = field(lines.next().unwrap_or_default())?;
        if !disposition.0.eq_ignore_ascii_case("content-disposition") {
            return Err(Fault::PartHead);
        }
        let mut head = Self::parse_disposition(disposition.1)?;
        let mut encoded = false;
        for line in lines {
            let (name, value) = field(line)?;
            if name.eq_ignore_ascii_case("content-type") && head.media_type.is_none() {
                let part_type = part_type(value)?;
                if part_type.latin {
                    return Err(Fault::PartEncoding);
                }
                head.media_type = Some(part_type.essence);
            } else if name.eq_ignore_ascii_case("content-transfer-encoding") && !encoded {
                encoded = true;
                let plain = ["7bit", "8bit", "binary"];
                if !plain.iter().any(|plain| value.eq_ignore_ascii_case(plain)) {
                    return Err(Fault::PartEncoding);
                }
            } else {
                return Err(Fault::PartHead);
            }
        }
        Ok(head)
    }

    /// Reads what more clients send. What it reads is only ever written anew, by `write`.
    pub(super) fn parse_compat(block: &[u8]) -> Result<Self, Fault> {
        let block = std::str::from_utf8(block).map_err(|_| Fault::PartHead)?;
        let lines = block
            .strip_suffix("\r\n")
            .ok_or(Fault::PartHead)?
            .split("\r\n");
        let mut disposition = None;
        let mut media_type = None;
        let mut encoded = false;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Fault::PartHead)?;
            let value = value.trim_matches([' ', '\t']);
            if !is_token(name) || value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(Fault::PartHead);
            }
            if name.eq_ignore_ascii_case("content-disposition") {
                let first = disposition
                    .replace(Self::parse_parameters(value)?)
                    .is_none();
                first.then_some(()).ok_or(Fault::PartHead)?;
            } else if name.eq_ignore_ascii_case("content-type") {
                let first = media_type.replace(part_type(value)?).is_none();
                first.then_some(()).ok_or(Fault::PartHead)?;
            } else if name.eq_ignore_ascii_case("content-transfer-encoding") {
                let plain = ["7bit", "8bit", "binary"];
                if encoded || !plain.iter().any(|plain| value.eq_ignore_ascii_case(plain)) {
                    return Err(Fault::PartEncoding);
                }
                encoded = true;
            }
        }
        let (media_type, ascii) = match media_type {
            Some(part_type) => (Some(part_type.essence), part_type.latin),
            None => (None, false),
        };
        let head = disposition.ok_or(Fault::PartHead)?;
        // A client that does not know a file's type says this.
        let unknown = |media_type: &String| {
            head.file_name.is_some() && media_type == "application/octet-stream"
        };
        let head = Self {
            media_type: media_type.filter(|media_type| !unknown(media_type)),
            ..head
        };
        // What is written has to be read as it was meant by the strictest reader.
        let mut written = BytesMut::new();
        head.write(&mut written);
        match Self::parse(written.get(..written.len() - 2).unwrap_or_default()) {
            Ok(read) if read == head => Ok(Self { ascii, ..head }),
            _ => Err(Fault::Disposition),
        }
    }

    /// `form-data` and its parameters, quoted or not, in any case and order.
    fn parse_parameters(value: &str) -> Result<Self, Fault> {
        let end = value.find(';').unwrap_or(value.len());
        let (kind, mut rest) = value.split_at(end);
        if !kind.trim_end().eq_ignore_ascii_case("form-data") {
            return Err(Fault::Disposition);
        }
        let (mut name, mut file_name, mut extended) = (None, None, None);
        while let Some(text) = rest.strip_prefix(';') {
            let text = text.trim_start_matches([' ', '\t']);
            if text.is_empty() {
                break;
            }
            let (key, text) = text.split_once('=').ok_or(Fault::Disposition)?;
            let (value, text) = parameter_value(text.trim_start_matches([' ', '\t']))?;
            rest = text.trim_start_matches([' ', '\t']);
            let slot = match key
                .trim_end_matches([' ', '\t'])
                .to_ascii_lowercase()
                .as_str()
            {
                "name" => &mut name,
                "filename" => &mut file_name,
                "filename*" => &mut extended,
                // Continuations and an extended name: nobody's, or a trick.
                _ => return Err(Fault::Disposition),
            };
            if slot.replace(value).is_some() {
                return Err(Fault::Disposition);
            }
        }
        if !rest.trim_matches([' ', '\t', ';']).is_empty() {
            return Err(Fault::Disposition);
        }
        let file_name = match extended {
            Some(extended) => Some(extended_value(&extended)?),
            None => file_name,
        };
        Ok(Self {
            name: escaped(&name.ok_or(Fault::Disposition)?),
            file_name: file_name.map(|name| escaped(&name)),
            ..Self::default()
        })
    }

    /// Writes the head in the strict form, with the empty line after it.
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"Content-Disposition: form-data; name=\"");
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b"\"");
        if let Some(file_name) = &self.file_name {
            out.extend_from_slice(b"; filename=\"");
            out.extend_from_slice(file_name.as_bytes());
            out.extend_from_slice(b"\"");
        }
        if let Some(media_type) = &self.media_type {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(media_type.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// `form-data; name="…"`, and `; filename="…"` after it.
    fn parse_disposition(value: &str) -> Result<Self, Fault> {
        let rest = value
            .strip_prefix("form-data; name=\"")
            .ok_or(Fault::Disposition)?;
        let (name, rest) = quoted(rest)?;
        let escaped = name.chars().any(|c| c.is_control() || c == '\\');
        // After a word that only ends like it, multer looks on from the next byte, and takes that for
        // the beginning of one.
        let doubled = name.contains("filenamefilename");
        if name.is_empty() || escaped || doubled || holds_word(name, "filename") {
            return Err(Fault::Disposition);
        }
        let file_name = match rest.strip_prefix("; filename=\"") {
            Some(rest) => {
                let (file_name, rest) = quoted(rest)?;
                (rest.is_empty()).then_some(Some(file_name.to_owned()))
            }
            None => rest.is_empty().then_some(None),
        };
        Ok(Self {
            name: name.to_owned(),
            file_name: file_name.ok_or(Fault::Disposition)?,
            ..Self::default()
        })
    }
}

/// `Name: value`, the value without spaces at its ends.
fn field(line: &str) -> Result<(&str, &str), Fault> {
    let (name, value) = line.split_once(':').ok_or(Fault::PartHead)?;
    let value = value.strip_prefix(' ').unwrap_or(value);
    let bare = value.contains(['\r', '\n']) || value.trim() != value || value.is_empty();
    if bare || !is_token(name) {
        return Err(Fault::PartHead);
    }
    Ok((name, value))
}

/// The text up to the closing quote, and what follows. An escape is read by some and not by others.
fn quoted(text: &str) -> Result<(&str, &str), Fault> {
    let (inside, rest) = text.split_once('"').ok_or(Fault::Disposition)?;
    if inside.ends_with('\\') || holds_parameter(inside) {
        return Err(Fault::Disposition);
    }
    Ok((inside, rest))
}

/// A token, or a quoted string with its escapes undone, and what follows.
fn parameter_value(text: &str) -> Result<(String, &str), Fault> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        let plain = !value.is_empty() && !value.contains(['"', '\\', '=', ',']);
        return plain
            .then(|| (value.to_owned(), rest))
            .ok_or(Fault::Disposition);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &quoted[at + 1..])),
            // Only what has to be escaped is: a path of Windows is not.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(characters.next().map(|(_, escaped)| escaped));
            }
            other => value.push(other),
        }
    }
    Err(Fault::Disposition)
}

/// The value of an extended parameter (RFC 8187) in UTF-8.
fn extended_value(text: &str) -> Result<String, Fault> {
    let mut parts = text.splitn(3, '\'');
    let charset = parts.next().unwrap_or_default();
    let value = parts.nth(1).ok_or(Fault::Disposition)?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return Err(Fault::PartEncoding);
    }
    match super::file_name::percent_decoded(value) {
        Some(decoded) => decoded,
        None => Ok(value.to_owned()),
    }
}

/// A value as browsers write it between quotes.
fn escaped(value: &str) -> String {
    value
        .replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Whether `word` begins in here where a reader that does not heed quotes looks for a parameter.
fn holds_word(text: &str, word: &str) -> bool {
    text.match_indices(|c: char| c == ';' || c.is_ascii_whitespace())
        .any(|(at, _)| {
            let rest = text[at..].trim_start_matches(|c: char| c == ';' || c.is_ascii_whitespace());
            rest.get(..word.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        })
}

/// Whether a reader that does not heed quotes finds a `name=` or `filename=` in here.
fn holds_parameter(text: &str) -> bool {
    let mut parts = text.split('=');
    // What stands after the last `=` is nobody's name.
    parts.next_back();
    parts.any(|before| {
        let before = before.trim_end_matches([' ', '\t', '*']).as_bytes();
        before.len() >= 4 && before[before.len() - 4..].eq_ignore_ascii_case(b"name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<PartHead, Fault> {
        let block: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        PartHead::parse(block.as_bytes())
    }

    #[test]
    fn heads_of_real_clients() {
        let file = parse(&[
            "Content-Disposition: form-data; name=\"file\"; filename=\"käse 1.png\"",
            "Content-Type: image/png",
        ]);
        assert_eq!(
            file,
            Ok(PartHead {
                name: "file".into(),
                file_name: Some("käse 1.png".into()),
                media_type: Some("image/png".into()),
                ascii: false,
            })
        );
        let field = parse(&["content-disposition: form-data; name=\"note\""]).unwrap();
        assert_eq!((field.name.as_str(), field.file_name), ("note", None));
    }

    #[test]
    fn heads_that_readers_split_on() {
        let plain = "Content-Disposition: form-data; name=\"a\"";
        for lines in [
            &[] as &[&str],
            &["Content-Type: image/png"],
            &["Content-Type: image/png", plain],
            &[plain, plain],
            &[plain, "Content-Type: image/png", "Content-Type: text/html"],
            &[plain, "X-Other: 1"],
            &[plain, "Content-Length: 1"],
            &[plain, "Content-Transfer-Encoding: base64"],
            &[plain, "Content-Transfer-Encoding: quoted-printable"],
            &[plain, " folded"],
            &[plain, ""],
            &[plain, "Content-Type : image/png"],
            &[plain, "Content-Type: image/png "],
            &[plain, "Content-Type:  image/png"],
            &[plain, "Content-Type:"],
            &["Content-Disposition: attachment; name=\"a\""],
            &["Content-Disposition: Form-Data; name=\"a\""],
            &["Content-Disposition: form-data"],
            &["Content-Disposition: form-data; name=\"\""],
            &["Content-Disposition: form-data; name=\"a\\b\""],
            &["Content-Disposition: form-data; name=\"a\tb\""],
            &["Content-Disposition: form-data; name=a"],
            &["Content-Disposition: form-data; name='a'"],
            &["Content-Disposition: form-data; NAME=\"a\""],
            &["Content-Disposition: form-data; name =\"a\""],
            &["Content-Disposition: form-data;name=\"a\""],
            &["Content-Disposition: form-data name=\"a\""],
            &["Content-Disposition: form-data; name=\"a\"; FileName=\"x\""],
            &["Content-Disposition: form-data; name=\"a\"; filename*=utf-8''x"],
            &["Content-Disposition: form-data; name=\"a\"; filename*=utf-8''x; filename=\"x\""],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x\"; filename*=utf-8''x"],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x\"; filename=\"y\""],
            &["Content-Disposition: form-data; name=\"a\"; name=\"b\""],
            &["Content-Disposition: form-data; filename=\"x\"; name=\"a\""],
            &["Content-Disposition: form-data; name=\"a\"; filename=x"],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x"],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x\\\"y\""],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x\\\""],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"x; name=evil; .txt\""],
            &["Content-Disposition: form-data; name=\"x; filename=ok.png; \"; filename=\"x\""],
            &["Content-Disposition: form-data; name=\"x filename =ok.png\""],
            &["Content-Disposition: form-data; name=\"the filename here\"; filename=\"x.png\""],
            &["Content-Disposition: form-data; name=\"a\\b\""],
            &["Content-Disposition: form-data; name=\"a\tb\""],
            &["Content-Disposition: form-data; name=\"a\nb\""],
            &["Content-Disposition: form-data; name=\"a\"; filename=\"a\rb\""],
        ] {
            assert!(parse(lines).is_err(), "{lines:?}");
        }
        assert!(PartHead::parse(b"Content-Disposition: form-data; name=\"\xff\"\r\n").is_err());
        assert!(PartHead::parse(b"Content-Disposition: form-data; name=\"a\"").is_err());
    }
}
