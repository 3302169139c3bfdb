//! Where a file ends, by its own structure: what stands behind the end is another file in disguise.

use super::{
    fault::Fault,
    package::{Kind, Package},
    parasite::Parasites,
    svg::Activity,
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

/// The structure ends here and more data follows, or it makes no sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    Behind,
    Broken,
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
            Format::Png(png) => png.state == PngState::End,
            Format::Jpeg(jpeg) => jpeg.state == JpegState::End,
            Format::Gif(gif) => gif.state == GifState::End,
            Format::Riff(riff) => riff.left == Some(0) || riff.left == Some(riff.padding),
            Format::Pdf(tail) => {
                tail.finish()?;
                true
            }
            Format::Text(text) => text.encoding.is_whole(),
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

/// Collects a few bytes that may come in pieces.
#[derive(Debug, Default)]
struct Few {
    bytes: [u8; 13],
    len: usize,
}

impl Few {
    /// Moves bytes from `data`; true once there are `wanted`.
    fn fill(&mut self, wanted: usize, data: &mut &[u8]) -> bool {
        let taken = (wanted - self.len).min(data.len());
        let (head, rest) = data.split_at(taken);
        self.bytes[self.len..self.len + taken].copy_from_slice(head);
        self.len += taken;
        *data = rest;
        self.len == wanted
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// Skips `left` bytes; true once they are gone.
fn skip(left: &mut u64, data: &mut &[u8]) -> bool {
    let skipped = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
    *data = &data[skipped..];
    *left -= skipped as u64;
    *left == 0
}

/// Chunks (PNG, third edition, section 5.3) up to IEND.
#[derive(Debug, Default)]
struct Png {
    state: PngState,
    few: Few,
    left: u64,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum PngState {
    #[default]
    Signature,
    Chunk,
    Body {
        last: bool,
    },
    End,
}

impl Png {
    fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while !data.is_empty() {
            match self.state {
                PngState::Signature => {
                    if self.few.fill(8, &mut data) {
                        self.few.clear();
                        self.state = PngState::Chunk;
                    }
                }
                PngState::Chunk => {
                    if self.few.fill(8, &mut data) {
                        self.few.clear();
                        let [a, b, c, d, name @ ..] = self.few.bytes;
                        let length = u32::from_be_bytes([a, b, c, d]);
                        let name = &name[..4];
                        let last = name == b"IEND";
                        if !name.iter().all(u8::is_ascii_alphabetic)
                            || length > i32::MAX as u32
                            || (last && length != 0)
                        {
                            return Err(Stop::Broken);
                        }
                        self.left = u64::from(length) + 4;
                        self.state = PngState::Body { last };
                    }
                }
                PngState::Body { last } => {
                    if skip(&mut self.left, &mut data) {
                        self.state = if last { PngState::End } else { PngState::Chunk };
                    }
                }
                PngState::End => return Err(Stop::Behind),
            }
        }
        Ok(())
    }
}

/// Segments (ITU-T T.81, annex B) up to EOI. Where an index of further pictures was announced
/// (MPF, as phones write), whole JPEGs may follow; nothing else.
#[derive(Debug, Default)]
struct Jpeg {
    state: JpegState,
    few: Few,
    left: u64,
    several: bool,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum JpegState {
    #[default]
    Start,
    Marker,
    Length {
        marker: u8,
    },
    /// The name of what APP2 holds.
    Application,
    Segment {
        scan: bool,
    },
    /// Entropy-coded data.
    Scan,
    /// An FF in entropy-coded data.
    ScanMarker,
    End,
}

impl Jpeg {
    fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while let [first, rest @ ..] = data {
            match self.state {
                JpegState::Start => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        if self.few.bytes[..2] != [0xff, 0xd8] {
                            return Err(if self.several {
                                Stop::Behind
                            } else {
                                Stop::Broken
                            });
                        }
                        self.state = JpegState::Marker;
                    }
                }
                JpegState::Marker => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        self.marker()?;
                    }
                }
                JpegState::Length { marker } => {
                    if self.few.fill(2, &mut data) {
                        self.few.clear();
                        let [high, low, ..] = self.few.bytes;
                        let length = u64::from(u16::from_be_bytes([high, low]));
                        self.left = length.checked_sub(2).ok_or(Stop::Broken)?;
                        self.state = match (marker, self.left) {
                            (0xe2, 4..) => JpegState::Application,
                            (0xda, 0) => JpegState::Scan,
                            (_, 0) => JpegState::Marker,
                            _ => JpegState::Segment {
                                scan: marker == 0xda,
                            },
                        };
                    }
                }
                JpegState::Application => {
                    if self.few.fill(4, &mut data) {
                        self.few.clear();
                        self.several |= self.few.bytes.starts_with(b"MPF\0");
                        self.left -= 4;
                        self.state = match self.left {
                            0 => JpegState::Marker,
                            _ => JpegState::Segment { scan: false },
                        };
                    }
                }
                JpegState::Segment { scan } => {
                    if skip(&mut self.left, &mut data) {
                        self.state = if scan {
                            JpegState::Scan
                        } else {
                            JpegState::Marker
                        };
                    }
                }
                JpegState::Scan => match memchr::memchr(0xff, data) {
                    Some(at) => {
                        data = &data[at + 1..];
                        self.state = JpegState::ScanMarker;
                    }
                    None => return Ok(()),
                },
                JpegState::ScanMarker => {
                    let marker = *first;
                    data = rest;
                    match marker {
                        // A stuffed byte, or a restart.
                        0x00 | 0xd0..=0xd7 => self.state = JpegState::Scan,
                        // A fill byte.
                        0xff => {}
                        _ => {
                            self.few.bytes[..2].copy_from_slice(&[0xff, marker]);
                            self.marker()?;
                        }
                    }
                }
                JpegState::End if self.several => self.state = JpegState::Start,
                JpegState::End => return Err(Stop::Behind),
            }
        }
        Ok(())
    }

    fn marker(&mut self) -> Result<(), Stop> {
        self.state = match self.few.bytes[..2] {
            [0xff, 0xd9] => JpegState::End,
            // A fill byte before the marker.
            [0xff, 0xff] => {
                self.few.len = 1;
                JpegState::Marker
            }
            [0xff, marker @ (0xc0..=0xcf | 0xda..=0xfe)] => JpegState::Length { marker },
            _ => return Err(Stop::Broken),
        };
        Ok(())
    }
}

/// Blocks (GIF89a) up to the trailer.
#[derive(Debug, Default)]
struct Gif {
    state: GifState,
    few: Few,
    left: u64,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum GifState {
    #[default]
    Header,
    Table,
    Block,
    /// The label of an extension.
    Label,
    Image,
    ImageTable,
    CodeSize,
    SubBlock,
    SubBlockData,
    End,
}

impl Gif {
    fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        while let [first, rest @ ..] = data {
            match self.state {
                GifState::Header => {
                    if self.few.fill(13, &mut data) {
                        self.few.clear();
                        self.table(self.few.bytes[10], GifState::Table, GifState::Block);
                    }
                }
                GifState::Table => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::Block;
                    }
                }
                GifState::Block => {
                    data = rest;
                    self.state = match first {
                        0x21 => GifState::Label,
                        0x2c => GifState::Image,
                        0x3b => GifState::End,
                        _ => return Err(Stop::Broken),
                    };
                }
                GifState::Label => {
                    data = rest;
                    self.state = GifState::SubBlock;
                }
                GifState::Image => {
                    if self.few.fill(9, &mut data) {
                        self.few.clear();
                        self.table(self.few.bytes[8], GifState::ImageTable, GifState::CodeSize);
                    }
                }
                GifState::ImageTable => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::CodeSize;
                    }
                }
                GifState::CodeSize => {
                    data = rest;
                    self.state = GifState::SubBlock;
                }
                GifState::SubBlock => {
                    data = rest;
                    self.left = u64::from(*first);
                    self.state = match first {
                        0 => GifState::Block,
                        _ => GifState::SubBlockData,
                    };
                }
                GifState::SubBlockData => {
                    if skip(&mut self.left, &mut data) {
                        self.state = GifState::SubBlock;
                    }
                }
                GifState::End => return Err(Stop::Behind),
            }
        }
        Ok(())
    }

    /// A colour table of the size that `flags` give, where they announce one.
    fn table(&mut self, flags: u8, with: GifState, without: GifState) {
        if flags & 0x80 != 0 {
            self.left = 3 << ((flags & 7) + 1);
            self.state = with;
        } else {
            self.state = without;
        }
    }
}

/// A RIFF file says its length. An odd one is padded, though not by everyone.
#[derive(Debug, Default)]
struct Riff {
    few: Few,
    /// What is left, the padding too, once the length was read.
    left: Option<u64>,
    padding: u64,
}

impl Riff {
    fn feed(&mut self, mut data: &[u8]) -> Result<(), Stop> {
        if self.left.is_none() && self.few.fill(8, &mut data) {
            let [_, _, _, _, a, b, c, d, ..] = self.few.bytes;
            let length = u64::from(u32::from_le_bytes([a, b, c, d]));
            self.padding = length % 2;
            self.left = Some(length + self.padding);
        }
        if let Some(left) = &mut self.left {
            skip(left, &mut data);
            if !data.is_empty() {
                return Err(Stop::Behind);
            }
        }
        Ok(())
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

/// UTF-8 without control characters.
#[derive(Debug, Default)]
struct Utf8 {
    /// A character that a piece cut.
    cut: Vec<u8>,
}

impl Utf8 {
    fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    fn feed(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        while !self.cut.is_empty() {
            let [first, rest @ ..] = data else {
                return Ok(());
            };
            self.cut.push(*first);
            data = rest;
            match std::str::from_utf8(&self.cut) {
                Ok(_) => self.cut.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Fault::Content),
            }
        }
        if let Err(error) = std::str::from_utf8(data) {
            if error.error_len().is_some() {
                return Err(Fault::Content);
            }
            self.cut.extend_from_slice(&data[error.valid_up_to()..]);
        }
        let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c');
        if data.iter().any(control) {
            return Err(Fault::Content);
        }
        Ok(())
    }
}

/// Text, and nothing in it that a browser or an interpreter runs.
#[derive(Debug, Default)]
struct Text {
    encoding: Utf8,
    /// The last bytes, which may begin a forbidden word.
    last: Vec<u8>,
}

impl Text {
    fn feed(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.encoding.feed(data)?;
        self.words(data)
    }

    /// Looks for what opens active content, across pieces too.
    fn words(&mut self, data: &[u8]) -> Result<(), Fault> {
        let longest = ACTIVE.iter().map(|word| word.len()).max().unwrap_or(0);
        let seam = data.len().min(longest - 1);
        self.last.extend_from_slice(&data[..seam]);
        if opens_active(&self.last) || opens_active(data) {
            return Err(Fault::ActiveText);
        }
        if data.len() > seam {
            self.last.clear();
            self.last
                .extend_from_slice(&data[data.len() - (longest - 1)..]);
        } else {
            let surplus = self.last.len().saturating_sub(longest - 1);
            self.last.drain(..surplus);
        }
        Ok(())
    }
}

fn opens_active(text: &[u8]) -> bool {
    memchr::memchr_iter(b'<', text).any(|at| {
        let rest = &text[at..];
        ACTIVE.iter().any(|word| {
            rest.get(..word.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        })
    })
}

/// What opens a page, a script or a program in text.
const ACTIVE: &[&[u8]] = &[
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<script",
    b"<iframe",
    b"<object",
    b"<embed",
    b"<svg",
    b"<?php",
    b"<?xml",
    b"<?=",
    b"<%",
];
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
        for behind in [&b"\0"[..], b"PK\x03\x04", b"<?php", whole] {
            let file = [whole, behind].concat();
            assert_eq!(verdict(make, &file), Err(Fault::TrailingData));
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
        let behind = verdict(Ending::riff, b"RIFF\x05\0\0\0WEBPx\0\0");
        assert_eq!(behind, Err(Fault::TrailingData));
    }

    #[test]
    fn further_pictures_follow_only_where_announced() {
        let announced = [jpeg(true), jpeg(false), jpeg(false)].concat();
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
            "<HtMl>",
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
