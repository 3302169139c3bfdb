//! Where a file ends, by its own structure: what stands behind the end is another file in disguise.

use super::{
    fault::Fault,
    package::{Kind, Package},
    parasite::Parasites,
    picture::{Gif, Jpeg, Png, Riff, Stop},
    svg::Activity,
    text::{Text, Utf8},
};

/// Follows one file while it streams. Structure that cannot be followed is told at the file's end,
/// so that a limit on its size is answered first.
#[derive(Debug)]
pub(super) struct Ending {
    format: Format,
    broken: bool,
    parasites: Option<Parasites>,
}

#[derive(Debug)]
enum Format {
    None,
    Png(Png),
    Jpeg(Jpeg),
    Gif(Gif),
    Riff(Riff),
    Pdf(Tail),
    Text(Text),
    Svg(Utf8, Activity),
    Package(Box<Package>),
}

impl Ending {
    pub(super) fn none() -> Self {
        Self::of(Format::None)
    }

    /// A picture whose end is not followed: it holds no second file all the same.
    pub(super) fn picture() -> Self {
        Self::none().with(Parasites::in_picture())
    }

    /// Sound and film, likewise.
    pub(super) fn media() -> Self {
        Self::none().with(Parasites::in_document())
    }

    pub(super) fn png() -> Self {
        Self::of(Format::Png(Png::default())).with(Parasites::in_picture())
    }

    pub(super) fn jpeg() -> Self {
        Self::of(Format::Jpeg(Jpeg::default())).with(Parasites::in_picture())
    }

    pub(super) fn gif() -> Self {
        Self::of(Format::Gif(Gif::default())).with(Parasites::in_picture())
    }

    pub(super) fn riff() -> Self {
        Self::of(Format::Riff(Riff::default())).with(Parasites::in_picture())
    }

    pub(super) fn pdf() -> Self {
        Self::of(Format::Pdf(Tail::default())).with(Parasites::in_document())
    }

    pub(super) fn text() -> Self {
        Self::of(Format::Text(Text::default()))
    }

    pub(super) fn svg() -> Self {
        Self::of(Format::Svg(Utf8::default(), Activity::default()))
    }

    pub(super) fn docx() -> Self {
        Self::package(Kind::Office("wordprocessingml.document.main+xml"))
    }

    pub(super) fn xlsx() -> Self {
        Self::package(Kind::Office("spreadsheetml.sheet.main+xml"))
    }

    pub(super) fn pptx() -> Self {
        Self::package(Kind::Office("presentationml.presentation.main+xml"))
    }

    /// An OpenDocument of this media type.
    pub(super) fn open_document(media_type: &'static str) -> Self {
        Self::package(Kind::Open(media_type))
    }

    /// The next bytes of the file.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.follow(data)?;
        match &mut self.parasites {
            Some(parasites) => parasites.feed(data),
            None => Ok(()),
        }
    }

    fn follow(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.broken {
            return Ok(());
        }
        let followed = match &mut self.format {
            Format::None => Ok(()),
            Format::Png(png) => png.feed(data),
            Format::Jpeg(jpeg) => jpeg.feed(data),
            Format::Gif(gif) => gif.feed(data),
            Format::Riff(riff) => riff.feed(data),
            Format::Pdf(tail) => {
                tail.feed(data);
                Ok(())
            }
            Format::Text(text) => return text.feed(data),
            Format::Svg(encoding, activity) => {
                encoding.feed(data)?;
                return activity.feed(data);
            }
            Format::Package(package) => return package.feed(data),
        };
        match followed {
            Ok(()) => Ok(()),
            Err(Stop::Behind) => Err(Fault::TrailingData),
            Err(Stop::Broken) => {
                self.broken = true;
                Ok(())
            }
        }
    }

    /// The file has ended.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let whole = match &self.format {
            Format::None => true,
            Format::Png(png) => png.is_whole(),
            Format::Jpeg(jpeg) => jpeg.is_whole(),
            Format::Gif(gif) => gif.is_whole(),
            Format::Riff(riff) => riff.is_whole(),
            Format::Pdf(tail) => {
                tail.finish()?;
                true
            }
            Format::Text(text) => text.is_whole(),
            Format::Svg(encoding, _) => encoding.is_whole(),
            Format::Package(package) => return package.finish(),
        };
        if !whole || self.broken {
            return Err(Fault::Content);
        }
        self.parasites.as_ref().map_or(Ok(()), Parasites::finish)
    }

    fn package(kind: Kind) -> Self {
        Self::of(Format::Package(Box::new(Package::new(kind))))
    }

    fn with(self, parasites: Parasites) -> Self {
        Self {
            parasites: Some(parasites),
            ..self
        }
    }

    fn of(format: Format) -> Self {
        Self {
            format,
            broken: false,
            parasites: None,
        }
    }
}

/// The last bytes of a PDF: `%%EOF`, and white space after it.
#[derive(Debug, Default)]
struct Tail {
    last: Vec<u8>,
}

impl Tail {
    fn feed(&mut self, data: &[u8]) {
        let kept = &data[data.len().saturating_sub(TAIL)..];
        let surplus = (self.last.len() + kept.len()).saturating_sub(TAIL);
        self.last.drain(..surplus);
        self.last.extend_from_slice(kept);
    }

    fn finish(&self) -> Result<(), Fault> {
        let space = |byte: &u8| matches!(byte, b'\0' | b'\t' | b'\n' | b'\x0c' | b'\r' | b' ');
        let end = self.last.iter().rposition(|byte| !space(byte));
        let end = end.map_or(0, |at| at + 1);
        if self.last[..end].ends_with(b"%%EOF") {
            Ok(())
        } else if memchr::memmem::find(&self.last, b"%%EOF").is_some() {
            Err(Fault::TrailingData)
        } else {
            Err(Fault::Content)
        }
    }
}

const TAIL: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(make: fn() -> Ending, file: &[u8]) -> Result<(), Fault> {
        let verdicts = [file.len().max(1), 1, 2, 3, 7, 64].map(|piece| {
            let mut ending = make();
            for piece in file.chunks(piece) {
                ending.feed(piece)?;
            }
            ending.finish()
        });
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
        verdicts[0]
    }

    fn check(make: fn() -> Ending, whole: &[u8]) {
        assert_eq!(verdict(make, whole), Ok(()));
        for cut in 0..whole.len() {
            let cut = verdict(make, &whole[..cut]);
            assert_eq!(cut, Err(Fault::Content));
        }
        for behind in [&b"\x01"[..], b"PK\x03\x04", b"\0\0\0PK", b"<?php", whole] {
            let file = [whole, behind].concat();
            assert_eq!(verdict(make, &file), Err(Fault::TrailingData));
        }
        for zeros in [1, 2, 200] {
            let filled_up = [whole, &vec![0; zeros]].concat();
            assert_eq!(verdict(make, &filled_up), Ok(()));
        }
    }

    fn png() -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, body) in [(b"IHDR", &[0; 13][..]), (b"IDAT", b"IEND"), (b"IEND", b"")] {
            file.extend((body.len() as u32).to_be_bytes());
            file.extend(name);
            file.extend(body);
            file.extend([0; 4]);
        }
        file
    }

    fn jpeg(mpf: bool) -> Vec<u8> {
        let mut file = b"\xff\xd8\xff\xe0\0\x04JF".to_vec();
        if mpf {
            file.extend(b"\xff\xe2\0\x08MPF\0II");
        }
        // A thumbnail's end inside a segment, a restart and a stuffed byte inside the scan, and a
        // second scan after a table.
        file.extend(b"\xff\xff\xe1\0\x06\xff\xd8\xff\xd9\xff\xda\0\x03\x01abc\xff\0d\xff\xd0e");
        file.extend(b"\xff\xc4\0\x02\xff\xda\0\x02xyz\xff\xff\xd9");
        file
    }

    fn gif() -> Vec<u8> {
        let mut file = b"GIF89a\x01\0\x01\0\x80\0\0".to_vec();
        file.extend([7; 6]);
        file.extend(b"\x21\xfe\x03;;;\0");
        file.extend(b"\x2c\0\0\0\0\x01\0\x01\0\x81");
        file.extend([7; 12]);
        file.extend(b"\x02\x02\x4c\x01\0\x3b");
        file
    }

    #[test]
    fn images_end_where_they_end() {
        check(Ending::png, &png());
        check(Ending::jpeg, &jpeg(false));
        check(Ending::gif, &gif());
        let even = [&b"RIFF\x06\0\0\0WEBPxx"[..]].concat();
        check(Ending::riff, &even);
    }

    #[test]
    fn odd_riff_may_be_padded() {
        assert_eq!(verdict(Ending::riff, b"RIFF\x05\0\0\0WEBPx"), Ok(()));
        assert_eq!(verdict(Ending::riff, b"RIFF\x05\0\0\0WEBPx\0"), Ok(()));
        let behind = verdict(Ending::riff, b"RIFF\x05\0\0\0WEBPx\0\0a");
        assert_eq!(behind, Err(Fault::TrailingData));
    }

    #[test]
    fn further_pictures_follow_only_where_announced() {
        let announced = [jpeg(true), vec![0; 9], jpeg(false), jpeg(false), vec![0; 9]].concat();
        assert_eq!(verdict(Ending::jpeg, &announced), Ok(()));
        let other = [&jpeg(true)[..], b"PK\x03\x04"].concat();
        assert_eq!(verdict(Ending::jpeg, &other), Err(Fault::TrailingData));
    }

    #[test]
    fn structure_that_makes_no_sense_is_told_at_the_end() {
        for (make, file) in [
            (
                Ending::png as fn() -> Ending,
                &b"\x89PNG\r\n\x1a\n\0\0\0\0\0\0\0\0\0\0\0\0"[..],
            ),
            (Ending::png, b"\x89PNG\r\n\x1a\n\0\0\0\x01IEND\0\0\0\0\0"),
            (Ending::jpeg, b"\xff\xd8\xff\xe0\0\x01xx"),
            (Ending::jpeg, b"\xff\xd8abcd"),
            (Ending::gif, b"GIF89a\0\0\0\0\0\0\0/*"),
        ] {
            assert_eq!(verdict(make, file), Err(Fault::Content));
        }
    }

    #[test]
    fn a_pdf_ends_with_its_mark() {
        let pdf = b"%PDF-1.7\n1 0 obj\n%%EOF\n2 0 obj\n%%EOF\r\n";
        assert_eq!(verdict(Ending::pdf, pdf), Ok(()));
        let zip = [&pdf[..], b"PK\x03\x04"].concat();
        assert_eq!(verdict(Ending::pdf, &zip), Err(Fault::TrailingData));
        assert_eq!(verdict(Ending::pdf, b"%PDF-1.7\n"), Err(Fault::Content));
        let far = [&pdf[..], &[b' '; 4_096]].concat();
        assert_eq!(verdict(Ending::pdf, &far), Err(Fault::Content));
    }

    #[test]
    fn text_is_text() {
        for text in ["", "käse\r\n\t<b>", "a < b and b > c", "\u{1F600}"] {
            assert_eq!(verdict(Ending::text, text.as_bytes()), Ok(()), "{text}");
        }
        for text in [&b"\xff"[..], b"a\0b", b"\x1b[31m", b"\xc3", b"caf\xc3\x28"] {
            assert_eq!(verdict(Ending::text, text), Err(Fault::Content), "{text:?}");
        }
        let padding = "x".repeat(200);
        for active in [
            "<script>",
            "<?php x",
            "<!DOCTYPE html>",
            "<SVG/onload",
            "<%=",
            "<?=",
            "<?xml ",
            "<HtMl>",
            "<head>",
            "<Body ",
            "<iframe",
            "<OBJECT",
            "<embed ",
        ] {
            let text = format!("{padding}{active}{padding}");
            assert_eq!(
                verdict(Ending::text, text.as_bytes()),
                Err(Fault::ActiveText),
                "{active}"
            );
        }
    }
}
