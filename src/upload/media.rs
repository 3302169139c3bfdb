//! Media types that files can be: their other names, their extensions, and how each is told.

use std::{fmt, sync::Arc};

use infer::{archive, audio, image, video};

use super::{ending::Ending, pairs::pairs, svg};

/// Tells files by their first bytes.
///
/// The policy asks for one test for each type that it allows, once, when it is built; the tests are
/// asked type by type for each file. The default, [`Signatures`], is backed by the `infer` crate.
///
/// ```
/// use portcullis::upload::{MIB, Signatures, TypeDetector, TypeTest, UploadPolicy};
///
/// #[derive(Debug)]
/// struct WithGlb;
///
/// impl TypeDetector for WithGlb {
///     fn test_for(&self, media_type: &str) -> Option<TypeTest> {
///         match media_type {
///             "model/gltf-binary" => Some(TypeTest::new(|head| head.starts_with(b"glTF"))),
///             other => Signatures.test_for(other),
///         }
///     }
/// }
///
/// let policy = UploadPolicy::with_detector(["model/gltf-binary"], &WithGlb)?;
/// # let _ = policy.max_file(20 * MIB);
/// # Ok::<_, portcullis::ConfigError>(())
/// ```
pub trait TypeDetector {
    /// The test for a media type (lower case, no parameters); `None` where it cannot tell.
    fn test_for(&self, media_type: &str) -> Option<TypeTest>;
}

/// Whether a file is of one type, judged by its head: its first 4 KiB, or all of a smaller file.
#[derive(Clone)]
pub struct TypeTest {
    test: Test,
}

#[derive(Clone)]
enum Test {
    Known(fn(&[u8]) -> bool),
    Own(Arc<OwnTest>),
}

type OwnTest = dyn Fn(&[u8]) -> bool + Send + Sync;

impl TypeTest {
    /// A test by `test`.
    #[must_use]
    pub fn new(test: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self {
            test: Test::Own(Arc::new(test)),
        }
    }

    /// Whether a file that begins with `head` is of the type.
    #[must_use]
    pub fn holds(&self, head: &[u8]) -> bool {
        match &self.test {
            Test::Known(test) => test(head),
            Test::Own(test) => test(head),
        }
    }

    fn known(test: fn(&[u8]) -> bool) -> Self {
        Self {
            test: Test::Known(test),
        }
    }
}

impl fmt::Debug for TypeTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypeTest").finish_non_exhaustive()
    }
}

/// The default detector: signatures at the start of a file, from the `infer` crate, and UTF-8 for
/// text.
///
/// Measured on 1722 files of 34 types, at most 150 of each: made by Pillow, ffmpeg, python-docx and
/// others, from the sources of packages that read such files, and from Debian's and Python's
/// (`types.py`, and `upload types`, in `benches/peers`).
///
/// | | right | wrong | unknown |
/// |---|---|---|---|
/// | the gate, asked for the declared type | 1707 taken | | 15 refused |
/// | the gate, of 1168 pictures, archives, PDFs, films, sounds | 1164 taken | | 4 refused |
/// | `infer` 0.22, the same | 1148 | 4 | 16 |
/// | `file-format` 0.29, the same | 1150 | 3 | 15 |
/// | `mimetype-detector` 0.3, the same | 1160 | 5 | 3 |
/// | `infer`, all | 1327 | 64 | 331 |
/// | `file-format`, all | 1700 | 7 | 15 |
/// | `mimetype-detector`, all | 1622 | 96 | 4 |
///
/// Refused were 11 texts that are not UTF-8 or hold a page's code, a sound with words in front of it,
/// one that was cut, a film without the box that tells it, and words called `.mp4`. Taken as another
/// type were the office documents, which are zips as well, films as sound, since one container holds
/// both, and that last film as QuickTime's. Beyond `infer`, tars of before POSIX are told by the sum of
/// their header, MPEG sound with a checksum and of version 2.5 by its frame, and MP4 by Apple's brand.
/// `infer` is asked for one type at a time, in nanoseconds and without memory; the others answer for
/// all types at once, in microseconds, `mimetype-detector` in up to 180 for a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signatures;

impl TypeDetector for Signatures {
    fn test_for(&self, media_type: &str) -> Option<TypeTest> {
        (media_type != SVG)
            .then(|| Known::of(media_type))?
            .map(Known::type_test)
    }
}

/// A media type that the crate knows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    aliases: &'static [&'static str],
    pub(super) extensions: &'static [&'static str],
    test: fn(&[u8]) -> bool,
    pub(super) ending: fn() -> Ending,
}

impl Known {
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    pub(super) fn type_test(&self) -> TypeTest {
        TypeTest::known(self.test)
    }

    pub(super) fn has_extension(extension: &str) -> bool {
        let mut known = KNOWN.iter();
        known.any(|known| known.extensions.contains(&extension))
    }

    /// Whether files of this type are told by being text.
    pub(super) fn is_textual(name: &str) -> bool {
        matches!(name, "text/plain" | "text/csv" | "application/json")
    }

    /// The one name for a type that is declared by this name.
    pub(super) fn canonical(name: &str) -> &str {
        KNOWN
            .iter()
            .find(|known| known.aliases.contains(&name))
            .map_or(name, |known| known.name)
    }
}

const fn known(
    name: &'static str,
    aliases: &'static [&'static str],
    extensions: &'static [&'static str],
    test: fn(&[u8]) -> bool,
    ending: fn() -> Ending,
) -> Known {
    Known {
        name,
        aliases,
        extensions,
        test,
        ending,
    }
}

fn is_png(head: &[u8]) -> bool {
    head.starts_with(b"\x89PNG\r\n\x1a\n")
}

fn is_gif(head: &[u8]) -> bool {
    head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a")
}

fn is_webp(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && image::is_webp(head)
}

/// At the first byte: a reader that looks further in would find it in a file of another type.
fn is_pdf(head: &[u8]) -> bool {
    head.starts_with(b"%PDF-")
}

fn is_zip(head: &[u8]) -> bool {
    archive::is_zip(head)
}

/// The beginning of a zip's first entry; the rest is told at the end.
fn is_package(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04")
}

/// With a checksum in its frames, and in MPEG 2.5, too.
fn is_mp3(head: &[u8]) -> bool {
    let frame = |rate: u8| !matches!(rate >> 4, 0 | 15) && rate & 0b1100 != 0b1100;
    audio::is_mp3(head) || matches!(head, [0xff, 0xfa | 0xe2 | 0xe3, rate, ..] if frame(*rate))
}

fn is_wav(head: &[u8]) -> bool {
    head.starts_with(b"RIFF") && audio::is_wav(head)
}

fn is_ico(head: &[u8]) -> bool {
    image::is_ico(head) && head.get(4..6).is_some_and(|count| count != [0, 0])
}

/// An OpenDocument tells its type in its first entry, which is neither compressed nor padded.
fn is_open_document(head: &[u8], media_type: &str) -> bool {
    let size = media_type.len().to_le_bytes();
    head.starts_with(b"PK\x03\x04")
        && head.get(8..10) == Some(&[0, 0])
        && head.get(18..20) == Some(&size[..2])
        && head.get(26..30) == Some(&[8, 0, 0, 0])
        && head.get(30..).is_some_and(|rest| {
            let rest = rest.strip_prefix(b"mimetype");
            rest.is_some_and(|rest| rest.starts_with(media_type.as_bytes()))
        })
}

fn is_svg(head: &[u8]) -> bool {
    utf8(head).is_some_and(svg::is_svg)
}

/// The characters of a head that may end amid one.
fn utf8(head: &[u8]) -> Option<&str> {
    match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// Text in which nothing is that a browser takes for a page. The rest of it is looked at as the
/// file's structure is.
fn is_text(head: &[u8]) -> bool {
    let start = text_start(head);
    let page = matches!(start, [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..]);
    // So much white space hides what follows it.
    let hidden = start.is_empty() && head.len() >= TEXT_WINDOW;
    let first = window(head);
    !page
        && !hidden
        && !start.starts_with(b"#!")
        && !has_controls(first)
        && (first.is_ascii() || utf8(first).is_some())
}

fn window(head: &[u8]) -> &[u8] {
    &head[..head.len().min(TEXT_WINDOW)]
}

/// Control characters, those of two bytes too.
fn has_controls(text: &[u8]) -> bool {
    let is = |first: u8, second: u8| {
        let space = (first == b'\t') | (first == b'\n') | (first == b'\r') | (first == b'\x0c');
        ((first < b' ') & !space) | (first == 0x7f) | ((first == 0xc2) & (second < 0xa0))
    };
    // The last byte has none behind it.
    let last = text.last().is_some_and(|last| is(*last, u8::MAX));
    last || pairs(text, is).next().is_some()
}

/// What stands behind a byte order mark and white space, in the window.
fn text_start(head: &[u8]) -> &[u8] {
    let first = window(head);
    let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
    first.trim_ascii_start()
}

/// Text that begins as a value of JSON does.
fn is_json(head: &[u8]) -> bool {
    let start = text_start(head).first();
    let begins = |byte: &u8| {
        matches!(
            byte,
            b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n'
        )
    };
    is_text(head) && start.is_some_and(begins)
}

/// Whether a file that is told by bytes further in begins like no other: its first box is small, so
/// that its length is no other file's signature.
fn is_boxed(head: &[u8]) -> bool {
    head.starts_with(&[0, 0]) && head.get(4..8).is_some_and(|name| name == b"ftyp")
}

fn is_avif(head: &[u8]) -> bool {
    is_boxed(head) && image::is_avif(head)
}

fn is_heif(head: &[u8]) -> bool {
    is_boxed(head) && image::is_heif(head)
}

/// An MP4 of sound alone begins like one of pictures, except where its writer says otherwise: not
/// every phone's does.
fn is_m4a(head: &[u8]) -> bool {
    is_mp4(head) || (is_boxed(head) && audio::is_m4a(head))
}

fn is_mp4(head: &[u8]) -> bool {
    is_boxed(head) && (video::is_mp4(head) || video::is_m4v(head))
}

/// The size of the first box comes before its name, and is not the first bytes of a program or a text.
fn is_quicktime(head: &[u8]) -> bool {
    head.first().is_some_and(|byte| *byte < b' ') && video::is_mov(head)
}

/// The name of the first entry is where other files have their signature. Before POSIX a header had no
/// mark; its sum tells it all the same.
fn is_tar(head: &[u8]) -> bool {
    let others: [&[u8]; 6] = [b"MZ", b"\x7fELF", b"%PDF-", b"#!", b"<", b"PK\x03\x04"];
    (archive::is_tar(head) || has_tar_sum(head))
        && !others.iter().any(|other| head.starts_with(other))
}

/// Whether the first entry's header is summed up in it, in octal digits.
fn has_tar_sum(head: &[u8]) -> bool {
    let Some((header, sum)) = head.get(..512).zip(head.get(148..156)) else {
        return false;
    };
    let digits = sum.trim_ascii_start();
    let end = digits.iter().position(|byte| !matches!(byte, b'0'..=b'7'));
    let (digits, behind) = digits.split_at(end.unwrap_or(digits.len()));
    if digits.is_empty() || !behind.iter().all(|byte| matches!(byte, b'\0' | b' ')) {
        return false;
    }
    let told = digits
        .iter()
        .fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // It is summed as if it were spaces itself.
    told == bytes(header) - bytes(sum) + 8 * u32::from(b' ')
}

/// How much of a head is asked to be text.
const TEXT_WINDOW: usize = 512;
const ODT: &str = "application/vnd.oasis.opendocument.text";
const ODS: &str = "application/vnd.oasis.opendocument.spreadsheet";
const ODP: &str = "application/vnd.oasis.opendocument.presentation";
/// Allowed by name only.
pub(super) const SVG: &str = "image/svg+xml";

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    known("image/png", &["image/x-png"], &["png"], is_png, Ending::png),
    known("image/jpeg", &["image/jpg", "image/pjpeg"], &["jpg", "jpeg", "jpe", "jfif"], image::is_jpeg, Ending::jpeg),
    known("image/webp", &[], &["webp"], is_webp, Ending::riff),
    known("image/gif", &[], &["gif"], is_gif, Ending::gif),
    known("image/tiff", &[], &["tif", "tiff"], image::is_tiff, Ending::picture),
    known("image/avif", &[], &["avif"], is_avif, Ending::picture),
    known("image/heif", &["image/heic"], &["heic", "heif"], is_heif, Ending::picture),
    known("image/x-icon", &["image/vnd.microsoft.icon"], &["ico"], is_ico, Ending::picture),
    known("application/pdf", &["application/x-pdf"], &["pdf"], is_pdf, Ending::pdf),
    known("application/zip", &["application/x-zip-compressed", "application/x-zip"], &["zip"], is_zip, Ending::none),
    known("application/vnd.openxmlformats-officedocument.wordprocessingml.document", &[], &["docx"], is_package, Ending::docx),
    known("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", &[], &["xlsx"], is_package, Ending::xlsx),
    known("application/vnd.openxmlformats-officedocument.presentationml.presentation", &[], &["pptx"], is_package, Ending::pptx),
    known(ODT, &[], &["odt"], |head| is_open_document(head, ODT), || Ending::open_document(ODT)),
    known(ODS, &[], &["ods"], |head| is_open_document(head, ODS), || Ending::open_document(ODS)),
    known(ODP, &[], &["odp"], |head| is_open_document(head, ODP), || Ending::open_document(ODP)),
    known(SVG, &["image/svg"], &["svg"], is_svg, Ending::svg),
    known("application/gzip", &["application/x-gzip"], &["gz", "tgz"], archive::is_gz, Ending::none),
    known("application/x-bzip2", &["application/bzip2"], &["bz2"], archive::is_bz2, Ending::none),
    known("application/x-xz", &[], &["xz"], archive::is_xz, Ending::none),
    known("application/zstd", &[], &["zst"], archive::is_zst, Ending::none),
    known("application/x-7z-compressed", &[], &["7z"], archive::is_7z, Ending::none),
    known("application/vnd.rar", &["application/x-rar-compressed", "application/x-rar"], &["rar"], archive::is_rar, Ending::none),
    known("application/x-tar", &[], &["tar"], is_tar, Ending::none),
    known("audio/mpeg", &["audio/mp3"], &["mp3"], is_mp3, Ending::media),
    known("audio/ogg", &["application/ogg"], &["ogg", "oga"], audio::is_ogg, Ending::media),
    known("audio/flac", &["audio/x-flac"], &["flac"], audio::is_flac, Ending::media),
    known("audio/wav", &["audio/x-wav", "audio/wave", "audio/vnd.wave"], &["wav"], is_wav, Ending::riff),
    known("audio/mp4", &["audio/m4a", "audio/x-m4a"], &["m4a"], is_m4a, Ending::media),
    known("video/mp4", &["video/x-m4v"], &["mp4", "m4v"], is_mp4, Ending::media),
    known("video/webm", &["audio/webm"], &["webm"], video::is_webm, Ending::media),
    known("video/x-matroska", &[], &["mkv"], video::is_mkv, Ending::media),
    known("video/quicktime", &[], &["mov", "qt"], is_quicktime, Ending::media),
    known("text/plain", &[], &["txt", "text", "log", "md"], is_text, Ending::text),
    known("text/csv", &["application/csv"], &["csv"], is_text, Ending::text),
    known("application/json", &["text/json"], &["json"], is_json, Ending::text),
];
