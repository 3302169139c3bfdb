//! Files inside files: a second reader's file behind a head that the first one accepts.

use memchr::memmem;

use super::{fault::Fault, pairs::pairs};

/// Looks for a second file in one that passes as a picture or a document.
#[derive(Debug)]
pub(super) struct Parasites {
    /// Scripts and documents too, which have no place in a picture.
    picture: bool,
    /// How many bytes were seen.
    seen: u64,
    /// The last of them.
    seam: Vec<u8>,
    /// Where the last end record of a zip began.
    zip_at: Option<u64>,
}

impl Parasites {
    pub(super) fn in_picture() -> Self {
        Self {
            picture: true,
            ..Self::in_document()
        }
    }

    pub(super) fn in_document() -> Self {
        Self {
            picture: false,
            seen: 0,
            seam: Vec::new(),
            zip_at: None,
        }
    }

    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), Fault> {
        // What a piece cut is whole in the seam and the beginning of the next.
        let before = self.seam.len();
        self.seam.extend_from_slice(&data[..data.len().min(SEAM)]);
        let seam = std::mem::take(&mut self.seam);
        self.look(&seam, self.seen - before as u64)?;
        self.look(data, self.seen)?;
        self.seen += data.len() as u64;
        self.seam = seam;
        if data.len() > SEAM {
            self.seam.clear();
            self.seam.extend_from_slice(&data[data.len() - SEAM..]);
        } else {
            let surplus = self.seam.len().saturating_sub(SEAM);
            self.seam.drain(..surplus);
        }
        Ok(())
    }

    /// A zip is read from its end: one whose end record is near enough is a zip.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let reach = END_RECORD + u64::from(u16::MAX);
        match self.zip_at {
            Some(at) if self.seen - at <= reach => Err(Fault::Stacked),
            _ => Ok(()),
        }
    }

    fn look(&mut self, data: &[u8], from: u64) -> Result<(), Fault> {
        let begins = |text: &[u8], word: &[u8]| {
            let head = text.get(..word.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        };
        let (picture, near) = (self.picture, SNIFFED.saturating_sub(from));
        for at in pairs(data, begins_second) {
            let text = &data[at..];
            let stacked = match text[1] {
                b'K' => {
                    let record = text.get(..END_RECORD as usize);
                    if record.is_some_and(is_end_record) {
                        self.zip_at = Some(from + at as u64);
                    }
                    false
                }
                // An interpreter looks for it everywhere.
                b'?' => begins(text, b"<?php") && (picture || text.get(5).is_some_and(is_space)),
                // A browser looks for a page at the beginning.
                _ => (picture || (at as u64) < near) && PAGES.iter().any(|word| begins(text, word)),
            };
            if stacked {
                return Err(Fault::Stacked);
            }
        }
        if !picture {
            return Ok(());
        }
        // Readers of PDF look for its head this far in.
        let near = usize::try_from(PDF_REACH.saturating_sub(from)).unwrap_or(0);
        if memmem::find(&data[..near.min(data.len())], b"%PDF-").is_some() {
            return Err(Fault::Stacked);
        }
        Ok(())
    }
}

/// Whether a zip's record, a program or a page may begin with these.
fn begins_second(first: u8, second: u8) -> bool {
    let lower = second | 0x20;
    let tag = (second == b'?') | (second == b'!') | (lower == b's') | (lower == b'h');
    ((first == b'<') & tag) | ((first == b'P') & (second == b'K'))
}

/// An end record of one disk, with as many entries here as in all.
fn is_end_record(record: &[u8]) -> bool {
    record.starts_with(b"PK\x05\x06") && record[4..8] == [0; 4] && record[8..10] == record[10..12]
}

fn is_space(byte: &u8) -> bool {
    byte.is_ascii_whitespace()
}

const PAGES: &[&[u8]] = &[b"<!doctype html", b"<script", b"<html"];
const SNIFFED: u64 = 1_024;
const END_RECORD: u64 = 22;
const SEAM: usize = END_RECORD as usize - 1;
const PDF_REACH: u64 = 1_024 + 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(make: fn() -> Parasites, file: &[u8]) -> Result<(), Fault> {
        let verdicts = [file.len().max(1), 1, 5, 22, 1_000].map(|piece| {
            let mut parasites = make();
            for piece in file.chunks(piece) {
                parasites.feed(piece)?;
            }
            parasites.finish()
        });
        assert!(
            verdicts.iter().all(|verdict| *verdict == verdicts[0]),
            "{verdicts:?}"
        );
        verdicts[0]
    }

    fn end_record(entries: [u8; 4]) -> Vec<u8> {
        [&b"PK\x05\x06\0\0\0\0"[..], &entries, &[0; 10]].concat()
    }

    #[test]
    fn a_zip_in_reach_of_the_end_is_found() {
        let record = end_record([1, 0, 1, 0]);
        for behind in [0, 1, 100, 65_535] {
            let file = [&[7; 3_000][..], &record, &vec![7; behind]].concat();
            assert_eq!(verdict(Parasites::in_document, &file), Err(Fault::Stacked));
        }
        let far = [&record[..], &vec![7; 65_536]].concat();
        assert_eq!(verdict(Parasites::in_document, &far), Ok(()));
        // Noise that looks like it.
        let noise = [&b"PK\x05\x06abcdefgh"[..], &[7; 30]].concat();
        assert_eq!(verdict(Parasites::in_document, &noise), Ok(()));
        assert_eq!(verdict(Parasites::in_document, &record[..21]), Ok(()));
    }

    #[test]
    fn pictures_hold_no_scripts_and_no_documents() {
        for word in ["<?php ", "<?PhP\n", "<script", "<HTML", "<!DOCTYPE html"] {
            for before in [0, 20, 21, 22, 999] {
                let file = [&vec![7; before][..], word.as_bytes(), &[7; 50]].concat();
                for make in [Parasites::in_picture, Parasites::in_document] {
                    assert_eq!(verdict(make, &file), Err(Fault::Stacked), "{word}");
                }
                // Far behind, a document may speak of pages, and holds no program.
                let file = [&vec![7; 2_000 + before][..], word.as_bytes()].concat();
                let expected = match word.starts_with("<?") {
                    true => Err(Fault::Stacked),
                    false => Ok(()),
                };
                assert_eq!(verdict(Parasites::in_document, &file), expected, "{word}");
            }
        }
        for word in ["<?php", "%PDF-"] {
            for before in [0, 20, 21, 22, 999] {
                let file = [&vec![7; before][..], word.as_bytes(), &[7; 50]].concat();
                assert_eq!(
                    verdict(Parasites::in_picture, &file),
                    Err(Fault::Stacked),
                    "{word}"
                );
                assert_eq!(verdict(Parasites::in_document, &file), Ok(()));
            }
        }
        let file = [&[7; 2_000][..], b"%PDF- <?xpacket <x:xmpmeta <s"].concat();
        assert_eq!(verdict(Parasites::in_picture, &file), Ok(()));
    }
}
