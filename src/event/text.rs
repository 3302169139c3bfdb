//! Text that cannot forge a line.

use std::fmt::{self, Write as _};

/// Displays a text on one line: control, escape and bidirectional characters are escaped, and
/// what is past 256 characters is cut.
///
/// ```
/// use portcullis::event::Printable;
///
/// assert_eq!(Printable("a\nb\u{1b}[31m").to_string(), r"a\nb\u{1b}[31m");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(MAX_CHARACTERS) {
            if character.is_control() || is_invisible(character) || character == '\\' {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if characters.next().is_some() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

/// Characters that reorder, join or hide what stands around them.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

const MAX_CHARACTERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_forges_or_hides() {
        let shown = Printable("x\r\n2026 \u{202e}evil\u{2028}\u{9b}31m\0\\n").to_string();
        assert_eq!(shown, r"x\r\n2026 \u{202e}evil\u{2028}\u{9b}31m\u{0}\\n");
        let long = Printable(&"é".repeat(300)).to_string();
        assert_eq!(long.chars().count(), MAX_CHARACTERS + 1);
    }
}
