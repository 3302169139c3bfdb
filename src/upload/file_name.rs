//! Names of files: what may be in one, and its extension.

use std::borrow::Cow;

use super::fault::Fault;

/// The extension of a safe name, in lower case; `None` where it has none.
///
/// A name is safe as it stands and after each round of percent-decoding that a careless reader
/// might add.
pub(super) fn extension(name: &str) -> Result<Option<String>, Fault> {
    let mut decoded = Cow::Borrowed(name);
    for _ in 0..ROUNDS {
        if !is_safe(&decoded) {
            return Err(Fault::FileName);
        }
        match percent_decoded(&decoded) {
            Some(next) => decoded = Cow::Owned(next?),
            None => {
                let extension = name.rsplit_once('.').map(|(_, extension)| extension);
                return Ok(extension.map(str::to_ascii_lowercase));
            }
        }
    }
    // Encoded over and over: nobody's honest name.
    Err(Fault::FileName)
}

fn is_safe(name: &str) -> bool {
    let first = name.chars().next();
    let last = name.chars().next_back();
    !matches!(first, None | Some('.' | '-' | '~' | ' '))
        && !matches!(last, Some('.' | ' '))
        && !name.contains("..")
        && !name.chars().any(is_unsafe_char)
        && !is_device(name)
        && !has_program_inside(name)
}

fn is_unsafe_char(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | ';'
            // What becomes a separator or a dot under compatibility normalisation.
            | '\u{ff0f}' | '\u{ff3c}' | '\u{ff0e}' | '\u{ff1a}' | '\u{2024}'..='\u{2026}'
            | '\u{fe52}' | '\u{fe68}' | '\u{2215}' | '\u{2044}' | '\u{29f5}' | '\u{29f8}'
            // Invisible characters and those that turn the direction of writing.
            | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A device of Windows, with whatever extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let upper = stem.to_ascii_uppercase();
    if matches!(
        upper.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$"
    ) {
        return true;
    }
    let port = upper
        .strip_prefix("COM")
        .or_else(|| upper.strip_prefix("LPT"));
    port.is_some_and(|number| {
        let mut digits = number.chars();
        matches!(digits.next(), Some('0'..='9' | '¹' | '²' | '³')) && digits.next().is_none()
    })
}

/// `shell.php.png`: a server that looks at every extension runs it.
fn has_program_inside(name: &str) -> bool {
    let mut segments = name.split('.');
    segments.next();
    segments.next_back();
    segments.any(|segment| {
        let segment = segment.trim().to_ascii_lowercase();
        PROGRAMS.contains(&segment.trim_end_matches(|c: char| c.is_ascii_digit()))
    })
}

/// One round of percent-decoding; `None` where there is nothing to decode.
pub(super) fn percent_decoded(name: &str) -> Option<Result<String, Fault>> {
    let bytes = name.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut any = false;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        match digits.and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?)) {
            Some(value) => {
                decoded.push(value);
                at += 3;
                any = true;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    any.then(|| String::from_utf8(decoded).map_err(|_| Fault::FileName))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Extensions that servers and desktops run.
pub(super) const PROGRAMS: &[&str] = &[
    "asa", "asax", "ascx", "ashx", "asis", "asmx", "asp", "aspx", "bash", "bat", "bin", "cdx",
    "cer", "cfc", "cfm", "cgi", "class", "cmd", "com", "config", "cpl", "dll", "elf", "exe",
    "fcgi", "hta", "htaccess", "htm", "html", "inc", "jar", "jhtml", "js", "jse", "jsf", "jsp",
    "jspx", "lnk", "mht", "mjs", "msc", "msi", "pht", "phar", "php", "phps", "phtml", "pif", "pl",
    "pm", "ps", "py", "pyc", "rb", "reg", "scr", "sh", "shtm", "shtml", "so", "svg", "swf", "vb",
    "vbe", "vbs", "war", "wasm", "wsf", "wsh", "xhtml", "xml", "xsl",
];
const ROUNDS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people() {
        for (name, expected) in [
            ("photo.png", Some("png")),
            ("Käse 2024.11.05 (final).PDF", Some("pdf")),
            ("John's report v1.2.docx", Some("docx")),
            ("100%.png", Some("png")),
            ("a%20b.jpeg", Some("jpeg")),
            ("写真.jpg", Some("jpg")),
            ("blob", None),
            ("console.txt", Some("txt")),
            ("COM10.txt", Some("txt")),
        ] {
            assert_eq!(extension(name), Ok(expected.map(String::from)), "{name}");
        }
    }

    #[test]
    fn names_of_others() {
        for name in [
            "",
            ".",
            "..",
            ".htaccess",
            "../evil.png",
            "..\\evil.png",
            "/etc/passwd",
            "C:\\boot.ini",
            "C:evil.png",
            "a/b.png",
            "file.txt::$DATA",
            "file.png:stream",
            "shell.php.png",
            "shell.PHP5.png",
            "shell.pHp .png",
            "shell.asp;.jpg",
            "shell.php%00.png",
            "shell.php\0.png",
            "%2e%2e%2fevil.png",
            "%252e%252e%252fevil.png",
            "%25252e%25252e%25252fevil.png",
            "a%0d%0aX: y.png",
            "a%22b.png",
            "a%ff.png",
            "a\nb.png",
            "a\u{7f}.png",
            "a\u{85}.png",
            "evil\u{202e}gnp.exe",
            "a\u{200b}.png",
            "a\u{feff}.png",
            "a\u{ff0f}b.png",
            "trailing.",
            "trailing.png.",
            "trailing.png ",
            " leading.png",
            "-rf.png",
            "~root.png",
            "a..png",
            "CON",
            "con.png",
            "NUL.tar.gz",
            "Lpt1.png",
            "COM¹.png",
            "aux .png",
            "<img src=x>.png",
            "a|b.png",
        ] {
            assert_eq!(extension(name), Err(Fault::FileName), "{name:?}");
        }
    }
}
