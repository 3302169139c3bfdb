//! SVG: pictures that can hold programs. How one begins, and what in it would run.

use memchr::memmem;

use super::fault::Fault;

/// Whether a file that begins with this text is an SVG picture in UTF-8.
pub(super) fn is_svg(head: &str) -> bool {
    let mut rest = head.trim_start_matches('\u{feff}').trim_start();
    if let Some(declaration) = rest.strip_prefix("<?xml") {
        let Some((declaration, after)) = declaration.split_once("?>") else {
            return false;
        };
        let encoding = declaration.split_once("encoding").map(|(_, value)| value);
        let utf8 = encoding.is_none_or(|value| {
            let value = value.trim_start_matches([' ', '=', '"', '\'']);
            value
                .get(..5)
                .is_some_and(|name| name.eq_ignore_ascii_case("utf-8"))
        });
        if !utf8 {
            return false;
        }
        rest = after;
    }
    loop {
        rest = rest.trim_start();
        let skipped = if rest.starts_with("<!--") {
            rest.split_once("-->")
        } else if rest.starts_with("<!DOCTYPE") {
            // One with declarations of its own has a bracket first.
            rest.split_once('>')
                .filter(|(type_, _)| !type_.contains('['))
        } else {
            let name = ["<svg", "<svg:svg"].iter();
            let after = name.filter_map(|name| rest.strip_prefix(name));
            return after
                .into_iter()
                .any(|after| after.starts_with([' ', '\t', '\r', '\n', '>', '/']));
        };
        match skipped {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
}

/// Looks for what runs in a picture, while it streams.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// The last bytes, in lower case.
    seam: Vec<u8>,
    handler: Handler,
}

/// How much of an event handler's attribute (`onload =`) was read.
#[derive(Clone, Copy, Debug, Default)]
enum Handler {
    #[default]
    None,
    /// What may stand before an attribute.
    Gap,
    O,
    On,
    Name,
    /// White space behind the name.
    Behind,
}

impl Activity {
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), Fault> {
        for piece in data.chunks(PIECE) {
            self.seam.extend(piece.iter().map(u8::to_ascii_lowercase));
            if ACTIVE
                .iter()
                .any(|word| memmem::find(&self.seam, word).is_some())
            {
                return Err(Fault::ActiveText);
            }
            let surplus = self.seam.len().saturating_sub(LONGEST - 1);
            self.seam.drain(..surplus);
            for byte in piece {
                self.handler(byte.to_ascii_lowercase())?;
            }
        }
        Ok(())
    }

    fn handler(&mut self, byte: u8) -> Result<(), Fault> {
        let space = byte.is_ascii_whitespace();
        self.handler = match (self.handler, byte) {
            (Handler::Name | Handler::Behind, b'=') => return Err(Fault::ActiveText),
            (Handler::Name | Handler::Behind, _) if space => Handler::Behind,
            (Handler::Gap | Handler::Behind, b'o') => Handler::O,
            (Handler::O, b'n') => Handler::On,
            (Handler::On | Handler::Name, b'a'..=b'z') => Handler::Name,
            (_, b'"' | b'\'' | b'/') => Handler::Gap,
            _ if space => Handler::Gap,
            _ => Handler::None,
        };
        Ok(())
    }
}

/// Scripts, what embeds pages, addresses that run, declarations that change what text means, and
/// references by number, in which all of this can be hidden.
const ACTIVE: &[&[u8]] = &[
    b"<script",
    b":script",
    b"foreignobject",
    b"<handler",
    b"<listener",
    b"<iframe",
    b"<object",
    b"<embed",
    b"<html",
    b"javascript:",
    b"vbscript:",
    b"data:text/",
    b"data:image/svg",
    b"data:application/x",
    b"<?xml-stylesheet",
    b"<?php",
    b"<?=",
    b"<%",
    b"<!entity",
    b"<!attlist",
    b"&#",
];
/// The longest of them.
const LONGEST: usize = 18;
const PIECE: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings() {
        for head in [
            "<svg>",
            "<svg/>",
            "\u{feff} <svg xmlns=\"http://www.w3.org/2000/svg\">",
            "<?xml version=\"1.0\"?><svg >",
            "<?xml version='1.0' encoding = 'UTF-8' standalone='no'?>\n<!-- by hand -->\n<svg\n",
            "<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"http://x/svg11.dtd\">\n<svg:svg x",
        ] {
            assert!(is_svg(head), "{head}");
        }
        for head in [
            "",
            "words",
            "<html><svg>",
            "<svgx>",
            "<SVG>",
            "<!-- <svg>",
            "<?xml version=\"1.0\" encoding=\"UTF-7\"?><svg>",
            "<?xml version=\"1.0\"",
            "<!DOCTYPE svg [<!ENTITY a \"b\">]><svg>",
            "<!DOCTYPE svg [ ]><svg>",
            "<!DOCTYPE html><html>",
        ] {
            assert!(!is_svg(head), "{head}");
        }
    }

    #[test]
    fn what_runs_is_found_in_any_pieces() {
        assert_eq!(ACTIVE.iter().map(|word| word.len()).max(), Some(LONGEST));
        let verdict = |text: &str| {
            let verdicts = [1, 2, 7, 10_000].map(|piece| {
                let mut activity = Activity::default();
                let mut pieces = text.as_bytes().chunks(piece);
                pieces.try_for_each(|piece| activity.feed(piece))
            });
            assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
            verdicts[0]
        };
        let padding = "<path d='M0 0'/>".repeat(1_000);
        for active in ACTIVE {
            let active = std::str::from_utf8(active).unwrap();
            for text in [active.to_owned(), active.to_uppercase()] {
                let text = format!("{padding}{text}{padding}");
                assert_eq!(verdict(&text), Err(Fault::ActiveText), "{active}");
            }
        }
        for active in [
            "<g onload='x'",
            "<g a=''onClick\n = 'x'",
            "<g/onend=x",
            "a of onx=",
        ] {
            assert_eq!(verdict(active), Err(Fault::ActiveText), "{active}");
        }
        for passive in [
            "<g on='x'",
            "<g button='x'",
            "<g a='x' on0='y'>",
            "go on, on then or on",
            &padding,
        ] {
            assert_eq!(verdict(passive), Ok(()), "{passive}");
        }
    }
}
