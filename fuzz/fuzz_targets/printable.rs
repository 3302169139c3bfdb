//! Text of clients in logs: one line, nothing that hides or turns it, bounded, and no two texts of
//! this length that read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::event::Printable;

fuzz_target!(|text: &str| {
    let shown = Printable(text).to_string();
    assert!(shown.chars().count() <= 256 * 10 + 1);
    for character in shown.chars() {
        assert!(!character.is_control());
        assert!(!('\u{200b}'..='\u{200f}').contains(&character));
        assert!(!('\u{2028}'..='\u{202e}').contains(&character));
        assert!(!('\u{2060}'..='\u{206f}').contains(&character));
    }
    let characters: Vec<_> = text.chars().collect();
    if characters.len() <= 256 {
        assert_eq!(unescaped(&shown).as_deref(), Some(text));
    }
});

fn unescaped(shown: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let code: String = characters
                        .by_ref()
                        .take_while(|next| *next != '}')
                        .collect();
                    char::from_u32(u32::from_str_radix(code.strip_prefix('{')?, 16).ok()?)?
                }
                same => same,
            },
            plain => plain,
        });
    }
    Some(text)
}
