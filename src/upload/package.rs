//! Office documents: a zip with an entry that says what the others are. In Office Open XML (ECMA-376)
//! that is `[Content_Types].xml`, in OpenDocument (ISO/IEC 26300) `META-INF/manifest.xml`.
//!
//! The first bytes of a document and of one with macros are alike, so the whole package is followed
//! while it streams: every entry, and what that list holds.

use std::{collections::HashMap, fmt};

use flate2::{Decompress, FlushDecompress, Status};

use super::fault::Fault;
use crate::keyed::{Domain, digest};

/// Follows one package.
pub(super) struct Package {
    kind: Kind,
    state: State,
    /// A header that is being collected.
    buffer: Vec<u8>,
    left: u64,
    entry: Entry,
    /// How much of the file was read.
    read: u64,
    /// Where the header that is being read begins.
    header_at: u64,
    /// Where the list of entries begins.
    list_at: Option<u64>,
    /// The entries that were read, by the digest of their name: digests, so that a long list of long
    /// names stays small.
    names: HashMap<u128, Place>,
    /// The entry of the list that is being read says this of itself.
    claimed: Place,
    /// The entry that is being read.
    last: u128,
    listed: usize,
    inflated: u64,
    /// What the list of types holds.
    types: Vec<u8>,
    has_types: bool,
    macros: bool,
}

/// What a package has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Office Open XML, by the content type of its main part.
    Office(&'static str),
    /// OpenDocument, by its media type.
    Open(&'static str),
}

impl Kind {
    /// The entry that lists the types, in lower case.
    fn list(self) -> &'static [u8] {
        match self {
            Self::Office(_) => b"[content_types].xml",
            Self::Open(_) => b"meta-inf/manifest.xml",
        }
    }

    /// The verdict on the list. No writer escapes what matters in it, and a second way to write it is
    /// a trick.
    fn judge(self, types: &str) -> Result<(), Fault> {
        match self {
            _ if types.contains("<!") => Err(Fault::Content),
            Self::Office(_) if types.contains('&') => Err(Fault::Content),
            Self::Office(main) => {
                let lower = types.to_ascii_lowercase();
                if lower.contains("macroenabled") || lower.contains("vbaproject") {
                    return Err(Fault::Macros);
                }
                // One main part, and of this kind: a document does not hold a template's too.
                let mains = lower.matches("main+xml").count();
                let same = mains > 0 && types.matches(main).count() == mains;
                same.then_some(()).ok_or(Fault::TypeMismatch)
            }
            // What is encrypted cannot be looked at.
            Self::Open(_) if types.contains("encryption-data") => Err(Fault::Content),
            Self::Open(_) if types.contains("&#") || types.contains("path='") => {
                Err(Fault::Content)
            }
            Self::Open(media_type) => {
                let mut roots = types
                    .split('<')
                    .filter(|tag| tag.contains("full-path=\"/\""));
                let (Some(root), None) = (roots.next(), roots.next()) else {
                    return Err(Fault::Content);
                };
                let same = root.contains(&format!("media-type=\"{media_type}\""));
                same.then_some(()).ok_or(Fault::TypeMismatch)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Signature,
    /// A local header, without its signature.
    Local,
    /// The name and the extra field of an entry.
    Name,
    /// Data of a known length.
    Data,
    /// Data that ends where its compression says.
    Inflate,
    /// The record behind such data; with its signature or without.
    Descriptor,
    Central,
    CentralName,
    End,
    Done,
    Broken,
}

/// Where an entry is and how it is packed, so that no reader finds another one by the list.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
struct Place {
    at: u64,
    compressed: u64,
    deflated: bool,
}

#[derive(Default)]
struct Entry {
    name: usize,
    extra: usize,
    compressed: u64,
    deflated: bool,
    described: bool,
    inflater: Option<Box<Decompress>>,
    is_types: bool,
}

impl Package {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: State::Signature,
            buffer: Vec::new(),
            left: 0,
            entry: Entry::default(),
            read: 0,
            header_at: 0,
            list_at: None,
            names: HashMap::new(),
            claimed: Place::default(),
            last: 0,
            listed: 0,
            inflated: 0,
            types: Vec::new(),
            has_types: false,
            macros: false,
        }
    }

    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        while !data.is_empty() && self.state != State::Broken {
            let before = data.len();
            if self.step(&mut data)?.is_none() {
                self.state = State::Broken;
            }
            self.read += (before - data.len()) as u64;
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.state != State::Done || self.listed != self.names.len() || !self.has_types {
            return Err(Fault::Content);
        }
        if self.macros {
            return Err(Fault::Macros);
        }
        let types = std::str::from_utf8(&self.types).map_err(|_| Fault::Content)?;
        self.kind.judge(types)
    }

    /// One step; `None` where the package makes no sense.
    fn step(&mut self, data: &mut &[u8]) -> Result<Option<()>, Fault> {
        Ok(match self.state {
            State::Signature => {
                if self.buffer.is_empty() {
                    self.header_at = self.read;
                }
                self.collect(4, data, Self::signature)
            }
            State::Local => self.collect(26, data, Self::local),
            State::Name => self.collect(self.entry.name + self.entry.extra, data, Self::name),
            State::Data => self.stored(data),
            State::Inflate => self.inflate(data),
            State::Descriptor => {
                let signed = self.buffer.len() >= 4 && self.buffer.starts_with(b"PK\x07\x08");
                let wanted = match self.buffer.len() {
                    0..4 => 4,
                    _ if signed => 16,
                    _ => 12,
                };
                self.collect(wanted, data, Self::descriptor)
            }
            State::Central => self.collect(42, data, Self::central),
            State::CentralName => {
                self.collect(self.entry.name + self.entry.extra, data, Self::central_name)
            }
            State::End => self.collect(18, data, Self::end),
            State::Done => return Err(Fault::TrailingData),
            State::Broken => None,
        })
    }

    /// Collects `wanted` bytes, then goes on with them.
    fn collect(
        &mut self,
        wanted: usize,
        data: &mut &[u8],
        then: fn(&mut Self) -> Option<()>,
    ) -> Option<()> {
        let taken = (wanted - self.buffer.len()).min(data.len());
        self.buffer.extend_from_slice(&data[..taken]);
        *data = &data[taken..];
        if self.buffer.len() == wanted {
            let before = self.state;
            then(self)?;
            // A descriptor is read in two steps.
            if self.state != before {
                self.buffer.clear();
            }
        }
        Some(())
    }

    fn signature(&mut self) -> Option<()> {
        self.state = match &self.buffer[..] {
            b"PK\x03\x04" if self.list_at.is_none() => State::Local,
            b"PK\x01\x02" => {
                self.list_at.get_or_insert(self.header_at);
                State::Central
            }
            b"PK\x05\x06" => State::End,
            _ => return None,
        };
        Some(())
    }

    /// The record that readers begin with says what was read: another list, or one behind a comment,
    /// would be another package.
    fn end(&mut self) -> Option<()> {
        let record = &self.buffer;
        let list_at = self.list_at?;
        let told = u32_at(record, 0) == 0
            && usize::from(u16_at(record, 4)) == self.listed
            && usize::from(u16_at(record, 6)) == self.listed
            && u64::from(u32_at(record, 8)) == self.header_at - list_at
            && u64::from(u32_at(record, 12)) == list_at
            && u16_at(record, 16) == 0;
        told.then_some(())?;
        self.state = State::Done;
        Some(())
    }

    fn local(&mut self) -> Option<()> {
        let header = &self.buffer;
        let flags = u16_at(header, 2);
        let method = u16_at(header, 4);
        let compressed = u32_at(header, 14);
        let described = flags & 8 != 0;
        // No encryption, no other compression, no sizes beyond 4 GiB, no stored data without a size.
        let known = flags & 1 == 0
            && matches!(method, 0 | 8)
            && compressed != u32::MAX
            && !(described && method == 0);
        self.entry = Entry {
            name: usize::from(u16_at(header, 22)),
            extra: usize::from(u16_at(header, 24)),
            compressed: u64::from(compressed),
            deflated: method == 8,
            described,
            inflater: None,
            is_types: false,
        };
        (known && (1..=MAX_NAME).contains(&self.entry.name)).then_some(())?;
        self.state = State::Name;
        Some(())
    }

    fn name(&mut self) -> Option<()> {
        let name = self.buffer.get(..self.entry.name)?.to_ascii_lowercase();
        let text = String::from_utf8_lossy(&name);
        self.macros |= match self.kind {
            Kind::Office(_) => text.contains("vbaproject") || text.contains("vbadata"),
            Kind::Open(_) => text.starts_with("basic/") || text.starts_with("scripts/"),
        };
        self.entry.is_types = name == self.kind.list();
        self.has_types |= self.entry.is_types;
        // A second entry of one name is one that some readers see and others do not.
        let place = Place {
            at: self.header_at,
            compressed: self.entry.compressed,
            deflated: self.entry.deflated,
        };
        self.last = digest(Domain::Custom, &name);
        let known = self.names.insert(self.last, place).is_some();
        let other_name = has_other_name(self.buffer.get(self.entry.name..)?);
        (!known && !other_name && self.names.len() <= MAX_ENTRIES).then_some(())?;
        self.left = self.entry.compressed;
        if self.entry.deflated && (self.entry.described || self.entry.is_types) {
            self.entry.inflater = Some(Box::new(Decompress::new(false)));
        }
        self.state = match (self.entry.described, self.left) {
            (true, _) => State::Inflate,
            (false, 0) => State::Signature,
            (false, _) => State::Data,
        };
        Some(())
    }

    fn stored(&mut self, data: &mut &[u8]) -> Option<()> {
        let taken = data
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (piece, rest) = data.split_at(taken);
        *data = rest;
        self.left -= taken as u64;
        if self.entry.is_types {
            match self.entry.deflated {
                true => {
                    let mut piece = piece;
                    while !piece.is_empty() && !self.expand(&mut piece)? {}
                }
                false => self.keep(piece)?,
            }
        }
        if self.left == 0 {
            self.state = State::Signature;
        }
        Some(())
    }

    fn inflate(&mut self, data: &mut &[u8]) -> Option<()> {
        if self.expand(data)? {
            self.state = State::Descriptor;
        }
        Some(())
    }

    /// Inflates a step of what is there; `true` at the end of the compressed data.
    fn expand(&mut self, data: &mut &[u8]) -> Option<bool> {
        let mut room = [0; 8_192];
        let inflater = self.entry.inflater.as_mut()?;
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let status = inflater
            .decompress(data, &mut room, FlushDecompress::None)
            .ok()?;
        let read = usize::try_from(inflater.total_in() - read).ok()?;
        let written = usize::try_from(inflater.total_out() - written).ok()?;
        *data = &data[read..];
        self.inflated += written as u64;
        (self.inflated <= MAX_INFLATED).then_some(())?;
        if self.entry.is_types {
            self.keep(&room[..written])?;
        }
        match status {
            Status::StreamEnd => Some(true),
            _ if read == 0 && written == 0 => None,
            _ => Some(false),
        }
    }

    fn keep(&mut self, types: &[u8]) -> Option<()> {
        (self.types.len() + types.len() <= MAX_TYPES).then(|| self.types.extend_from_slice(types))
    }

    fn descriptor(&mut self) -> Option<()> {
        // Four bytes were collected, and do not tell yet.
        if self.buffer.len() == 4 {
            return Some(());
        }
        let at = self.buffer.len() - 8;
        let read = self
            .entry
            .inflater
            .as_ref()
            .map(|inflater| inflater.total_in());
        (read == Some(u64::from(u32_at(&self.buffer, at)))).then_some(())?;
        self.names.get_mut(&self.last)?.compressed = read?;
        self.state = State::Signature;
        Some(())
    }

    fn central(&mut self) -> Option<()> {
        let header = &self.buffer;
        self.claimed = Place {
            at: u64::from(u32_at(header, 38)),
            compressed: u64::from(u32_at(header, 16)),
            deflated: u16_at(header, 6) == 8,
        };
        self.entry.name = usize::from(u16_at(header, 24));
        self.entry.extra = usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        (1..=MAX_NAME).contains(&self.entry.name).then_some(())?;
        self.state = State::CentralName;
        Some(())
    }

    fn central_name(&mut self) -> Option<()> {
        let name = self.buffer.get(..self.entry.name)?.to_ascii_lowercase();
        self.listed += 1;
        self.state = State::Signature;
        let found = self.names.get(&digest(Domain::Custom, &name)).copied();
        let other_name = has_other_name(self.buffer.get(self.entry.name..)?);
        (found == Some(self.claimed) && !other_name).then_some(())
    }
}

/// Whether extra fields give an entry a second name (Info-ZIP's Unicode path).
fn has_other_name(mut extra: &[u8]) -> bool {
    while extra.len() >= 4 {
        if extra.starts_with(b"up") {
            return true;
        }
        let size = usize::from(u16_at(extra, 2));
        extra = extra.get(4 + size..).unwrap_or_default();
    }
    false
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Package")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

const MAX_NAME: usize = 512;
const MAX_ENTRIES: usize = 10_000;
const MAX_TYPES: usize = 256 * 1_024;
const MAX_INFLATED: u64 = 64 * 1_024 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "wordprocessingml.document.main+xml";
    const KIND: Kind = Kind::Office(WORD);

    fn verdict(file: &[u8]) -> Result<(), Fault> {
        verdict_as(KIND, file)
    }

    fn verdict_as(kind: Kind, file: &[u8]) -> Result<(), Fault> {
        let verdicts = [file.len().max(1), 1, 3, 16, 100].map(|piece| {
            let mut package = Package::new(kind);
            for piece in file.chunks(piece) {
                package.feed(piece)?;
            }
            package.finish()
        });
        assert!(
            verdicts.iter().all(|verdict| *verdict == verdicts[0]),
            "{verdicts:?}"
        );
        verdicts[0]
    }

    /// A zip of these entries: with sizes in front, or behind; deflated or stored.
    fn zip(entries: &[(&str, &str)], described: bool, deflated: bool) -> Vec<u8> {
        use std::io::Write as _;
        let (mut file, mut central) = (Vec::new(), Vec::new());
        for (name, text) in entries {
            let at = (file.len() as u32).to_le_bytes();
            let mut data = text.as_bytes().to_vec();
            if deflated {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(&data).unwrap();
                data = encoder.finish().unwrap();
            }
            let flags = [if described { 8 } else { 0 }, 0];
            let method = [if deflated { 8 } else { 0 }, 0];
            let size = (data.len() as u32).to_le_bytes();
            let front = if described { [0; 4] } else { size };
            let length = (name.len() as u16).to_le_bytes();
            let common = [
                &[20, 0][..],
                &flags,
                &method,
                &[0; 8],
                &front,
                &[0; 4],
                &length,
                &[0, 0],
            ];
            file.extend(b"PK\x03\x04");
            file.extend(common.concat());
            file.extend(name.bytes());
            file.extend(&data);
            if described {
                file.extend(b"PK\x07\x08\0\0\0\0");
                file.extend(size);
                file.extend([0; 4]);
            }
            central.extend(b"PK\x01\x02\x14\0");
            let mut common = common;
            common[4] = &size;
            central.extend(common.concat());
            central.extend([0; 10]);
            central.extend(at);
            central.extend(name.bytes());
        }
        let (list_at, list) = (file.len() as u32, central.len() as u32);
        file.extend(&central);
        file.extend(b"PK\x05\x06\0\0\0\0");
        file.extend([entries.len() as u8, 0, entries.len() as u8, 0]);
        file.extend(list.to_le_bytes());
        file.extend(list_at.to_le_bytes());
        file.extend([0, 0]);
        file
    }

    /// Every way to point a reader that begins at the end to another package.
    #[test]
    fn a_list_that_says_something_else_is_refused() {
        let types = types(WORD);
        let hidden = zip(
            &[("[Content_Types].xml", "x"), ("vbaProject.bin", "x")],
            false,
            false,
        );
        let hidden = as_text(&hidden);
        let entries = [("[Content_Types].xml", &*types), ("a.bin", &*hidden)];
        let file = zip(&entries, false, false);
        assert_eq!(verdict(&file), Ok(()));
        let end = file.len() - 22;
        let list = u32_at(&file, end + 16) as usize;
        let at = |at: usize, bytes: &[u8]| {
            let mut changed = file.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        let inner = memchr::memmem::find(&file, hidden.as_bytes()).unwrap() as u32;
        for (name, changed) in [
            ("another list", at(end + 16, &inner.to_le_bytes())),
            ("a shorter list", at(end + 12, &[1, 0, 0, 0])),
            ("fewer entries", at(end + 10, &[1, 0])),
            ("fewer entries of this disk", at(end + 8, &[1, 0])),
            ("another disk", at(end + 4, &[1, 0])),
            ("encrypted", at(6, &[1, 0])),
            ("packed otherwise", at(8, &[12, 0])),
            (
                "another place of an entry",
                at(list + 42, &inner.to_le_bytes()),
            ),
            ("another size", at(list + 20, &[1, 0, 0, 0])),
            ("another method", at(list + 10, &[8, 0])),
            ("a comment", [&at(end + 20, &[2, 0])[..], b"ok"].concat()),
        ] {
            assert_eq!(verdict(&changed), Err(Fault::Content), "{name}");
        }
        assert!(has_other_name(b"\x01\0\x01\0xup\x02\0ab"));
        assert!(!has_other_name(b"\x01\0\x02\0up"));
    }

    /// The zip as text, which the builder takes.
    fn as_text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("small sizes are ASCII")
    }

    fn types(main: &str) -> String {
        format!("<Types><Override ContentType=\"application/vnd.x.{main}\"/></Types>")
    }

    #[test]
    fn a_document_is_one_however_it_was_zipped() {
        let types = types(WORD);
        let text = "text ".repeat(1_000);
        let first = [
            ("[Content_Types].xml", &*types),
            ("word/document.xml", &*text),
        ];
        let last = [
            ("word/document.xml", &*text),
            ("a/", ""),
            ("[Content_Types].xml", &*types),
        ];
        for entries in [&first[..], &last] {
            for (described, deflated) in [(false, false), (false, true), (true, true)] {
                let file = zip(entries, described, deflated);
                assert_eq!(verdict(&file), Ok(()), "{described} {deflated}");
                let behind = [&file[..], b"x"].concat();
                assert_eq!(verdict(&behind), Err(Fault::TrailingData));
                for cut in (0..file.len()).step_by(7) {
                    assert_eq!(verdict(&file[..cut]), Err(Fault::Content));
                }
            }
        }
    }

    #[test]
    fn macros_and_templates_are_told_apart() {
        let of = |main: &str, more: &str| {
            let types = types(main);
            zip(&[("[Content_Types].xml", &types), (more, "x")], true, true)
        };
        for (file, expected) in [
            (
                of("document.macroEnabled.main+xml", "word/document.xml"),
                Fault::Macros,
            ),
            (of(WORD, "word/vbaProject.bin"), Fault::Macros),
            (of(WORD, "word/VBADATA.xml"), Fault::Macros),
            (of("ms-office.vbaProject", "word/x.bin"), Fault::Macros),
            (
                of("wordprocessingml.template.main+xml", "word/x"),
                Fault::TypeMismatch,
            ),
            (
                of(
                    "wordprocessingml.template.main+xml x.wordprocessingml.document.main+xml",
                    "word/x",
                ),
                Fault::TypeMismatch,
            ),
            (
                of("x\"/><!-- wordprocessingml.document.main+xml", "word/x"),
                Fault::Content,
            ),
            (
                of("spreadsheetml.sheet.main+xml", "xl/workbook.xml"),
                Fault::TypeMismatch,
            ),
            (
                of("document.&#109;acroEnabled.main+xml", "word/x"),
                Fault::Content,
            ),
            (of("nothing", "word/document.xml"), Fault::TypeMismatch),
            (zip(&[("a.txt", "x")], true, true), Fault::Content),
        ] {
            assert_eq!(verdict(&file), Err(expected));
        }
    }

    #[test]
    fn open_documents_are_what_their_manifest_says() {
        const TEXT: &str = "application/vnd.oasis.opendocument.text";
        let root = |media_type: &str| {
            format!("<m:file-entry m:full-path=\"/\" m:media-type=\"{media_type}\"/>")
        };
        let of = |manifest: &str, more: &str| {
            let entries = [("META-INF/manifest.xml", manifest), (more, "x")];
            verdict_as(Kind::Open(TEXT), &zip(&entries, false, true))
        };
        let plain = root(TEXT);
        assert_eq!(of(&plain, "content.xml"), Ok(()));
        for (manifest, more, expected) in [
            (
                root("application/vnd.oasis.opendocument.text-template"),
                "a",
                Fault::TypeMismatch,
            ),
            (
                root("application/vnd.oasis.opendocument.spreadsheet"),
                "a",
                Fault::TypeMismatch,
            ),
            (format!("{plain}{}", root("x/y")), "a", Fault::Content),
            (String::new(), "a", Fault::Content),
            (format!("{plain}<m:encryption-data/>"), "a", Fault::Content),
            (
                format!("{plain}<m:file-entry m:full-path=\"&#47;\"/>"),
                "a",
                Fault::Content,
            ),
            (
                format!("{plain}<m:file-entry m:full-path='/'/>"),
                "a",
                Fault::Content,
            ),
            (format!("<!-- -->{plain}"), "a", Fault::Content),
            (plain.clone(), "Basic/Standard/Module1.xml", Fault::Macros),
            (plain.clone(), "Scripts/python/a.py", Fault::Macros),
        ] {
            assert_eq!(of(&manifest, more), Err(expected), "{manifest} {more}");
        }
    }

    /// A zip whose end was made true again after its list was changed.
    fn relisted(file: &[u8], list_at: usize, list: &[u8], entries: u8) -> Vec<u8> {
        let mut changed = [&file[..list_at], list, b"PK\x05\x06\0\0\0\0"].concat();
        changed.extend([entries, 0, entries, 0]);
        changed.extend((list.len() as u32).to_le_bytes());
        changed.extend((list_at as u32).to_le_bytes());
        changed.extend([0, 0]);
        changed
    }

    #[test]
    fn a_true_end_does_not_hide_what_readers_split_on() {
        let types = types(WORD);
        let name = "[Content_Types].xml";
        for second in [name, "hidden"] {
            let file = zip(&[(name, &types), (second, &types)], false, false);
            let list_at = memchr::memmem::find(&file, b"PK\x01\x02").unwrap();
            let next = memchr::memmem::rfind(&file, b"PK\x01\x02").unwrap();
            let end = file.len() - 22;
            let whole = relisted(&file, list_at, &file[list_at..end], 2);
            assert_eq!(whole, file);
            // The list names one of two.
            for list in [&file[list_at..next], &file[next..end]] {
                let one = relisted(&file, list_at, list, 1);
                assert_eq!(verdict(&one), Err(Fault::Content), "{second}");
            }
        }
        // A second name, in the entry alone.
        let file = zip(&[(name, &types)], false, false);
        let list_at = memchr::memmem::find(&file, b"PK\x01\x02").unwrap();
        let list = file[list_at..file.len() - 22].to_vec();
        for (extra, expected) in [(b"zz\x01\0a", Ok(())), (b"up\x01\0a", Err(Fault::Content))] {
            let mut entry = file[..list_at].to_vec();
            entry[28] = 5;
            entry.splice(30 + name.len()..30 + name.len(), extra.iter().copied());
            let changed = relisted(&entry, entry.len(), &list, 1);
            assert_eq!(verdict(&changed), expected);
        }
        // A size behind the data that is not the data's.
        let mut file = zip(&[(name, &types)], true, true);
        assert_eq!(verdict(&file), Ok(()));
        let behind = memchr::memmem::find(&file, b"PK\x07\x08").unwrap();
        file[behind + 8] ^= 1;
        assert_eq!(verdict(&file), Err(Fault::Content));
    }

    #[test]
    fn packages_that_readers_split_on() {
        let types = types(WORD);
        let twice = [
            ("[Content_Types].xml", &*types),
            ("[content_types].xml", "x"),
        ];
        assert_eq!(verdict(&zip(&twice, true, true)), Err(Fault::Content));
        // An entry that the directory does not list, and one that only the directory lists.
        let whole = [("[Content_Types].xml", &*types), ("hidden", "x")];
        let file = zip(&whole, false, false);
        let central = memchr::memmem::rfind(&file, b"PK\x01\x02").unwrap();
        let end = memchr::memmem::rfind(&file, b"PK\x05\x06").unwrap();
        let unlisted = [&file[..central], &file[end..]].concat();
        assert_eq!(verdict(&unlisted), Err(Fault::Content));
        let local = memchr::memmem::rfind(&file, b"PK\x03\x04").unwrap();
        let first = memchr::memmem::find(&file, b"PK\x01\x02").unwrap();
        let unfound = [&file[..local], &file[first..]].concat();
        assert_eq!(verdict(&unfound), Err(Fault::Content));
    }

    #[test]
    fn a_bomb_is_let_down() {
        let types = types(WORD);
        let bomb = "0".repeat(MAX_INFLATED as usize + 1);
        let file = zip(
            &[("[Content_Types].xml", &types), ("bomb", &bomb)],
            true,
            true,
        );
        let mut package = Package::new(KIND);
        package.feed(&file).unwrap();
        assert_eq!(package.finish(), Err(Fault::Content));
        let file = zip(
            &[("[Content_Types].xml", &bomb[..MAX_TYPES + 1])],
            true,
            true,
        );
        assert_eq!(verdict(&file), Err(Fault::Content));
    }
}
