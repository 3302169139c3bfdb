//! What is allowed.

use std::{sync::Arc, time::Duration};

use super::{
    ending::Ending,
    file_name::PROGRAMS,
    media::{Known, SVG, Signatures, TypeDetector, TypeTest},
    scan::{AnyScanner, Scanner},
    spool::Spool,
};
use crate::error::ConfigError;

/// 1024 bytes.
pub const KIB: u64 = 1_024;
/// 1024 [`KIB`].
pub const MIB: u64 = 1_024 * KIB;

/// What may be uploaded: the types of files, and the sizes and counts of everything.
///
/// | | where it is not set | answered |
/// |---|---|---|
/// | [`max_file`](Self::max_file) | 5 MiB | 413 |
/// | [`max_files`](Self::max_files) | 8 | 413 |
/// | [`max_body`](Self::max_body) | all files at their largest, and 1 MiB | 413 |
/// | [`max_field`](Self::max_field) | 64 KiB | 413 |
/// | [`max_parts`](Self::max_parts) | 64 | 413 |
/// | [`max_part_head`](Self::max_part_head) | 4 KiB | 413 |
/// | [`max_part_headers`](Self::max_part_headers) | 8 | 413 |
/// | [`max_name`](Self::max_name) | 128 bytes | 413 |
/// | [`max_file_name`](Self::max_file_name) | 255 bytes | 413 |
/// | [`max_boundary`](Self::max_boundary) | 70 bytes | 400 |
/// | [`idle`](Self::idle) | 20 s | 408 |
/// | [`min_rate`](Self::min_rate) | 240 bytes/s | 408 |
/// | [`deadline`](Self::deadline) | 10 minutes | 408 |
/// | [`scan_timeout`](Self::scan_timeout) | 10 s | 503 |
///
/// ```
/// use portcullis::upload::{MIB, UploadPolicy};
///
/// let avatars = UploadPolicy::images().max_file(5 * MIB).max_files(1);
/// let documents = UploadPolicy::new(["application/pdf", "image/png"])?.max_file(20 * MIB);
/// // A type that nothing can tell by content is a fault of the setup.
/// assert!(UploadPolicy::new(["application/x-unheard-of"]).is_err());
/// # drop((avatars, documents));
/// # Ok::<_, portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct UploadPolicy {
    pub(super) types: Vec<AllowedType>,
    pub(super) raw: bool,
    pub(super) max_body: Option<u64>,
    pub(super) max_file: u64,
    pub(super) max_files: usize,
    pub(super) max_field: u64,
    pub(super) max_parts: usize,
    pub(super) max_part_head: usize,
    pub(super) max_part_headers: usize,
    pub(super) max_name: usize,
    pub(super) max_file_name: usize,
    pub(super) max_boundary: usize,
    pub(super) idle: Duration,
    pub(super) min_rate: u64,
    pub(super) deadline: Duration,
    pub(super) scanner: Option<AnyScanner>,
    pub(super) scan_timeout: Duration,
    pub(super) spool: Option<Spool>,
    pub(super) compat: bool,
    pub(super) gzip_ratio: Option<u64>,
}

/// One allowed type.
#[derive(Clone, Debug)]
pub(super) struct AllowedType {
    pub(super) name: Arc<str>,
    extensions: Vec<Box<str>>,
    pub(super) test: TypeTest,
    pub(super) ending: fn() -> Ending,
}

impl AllowedType {
    fn new(name: &str, test: TypeTest) -> Self {
        let known = Known::of(name);
        let extensions = known.map_or(&[][..], |known| known.extensions);
        Self {
            name: name.into(),
            extensions: extensions.iter().map(|&name| name.into()).collect(),
            test,
            ending: known.map_or(Ending::none, |known| known.ending),
        }
    }

    /// The extension of a name to store a file of this type under.
    pub(super) fn extension(&self) -> Option<&str> {
        self.extensions.first().map(|extension| &**extension)
    }

    /// Whether files of this type are named like that.
    pub(super) fn is_named(&self, extension: &str) -> bool {
        if self.extensions.is_empty() {
            // Nothing is known but what it is not.
            let taken = Known::has_extension(extension) || PROGRAMS.contains(&extension);
            return !taken;
        }
        self.extensions.iter().any(|known| **known == *extension)
    }
}

impl UploadPolicy {
    /// Files of these media types, told by the default detector, [`Signatures`].
    ///
    /// # Errors
    ///
    /// When there is none, or one that the detector cannot tell by content.
    pub fn new<T: AsRef<str>>(types: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        Self::with_detector(types, &Signatures)
    }

    /// Files of these media types, told by `detector`.
    ///
    /// # Errors
    ///
    /// When there is none, or one that the detector cannot tell by content.
    pub fn with_detector<T: AsRef<str>>(
        types: impl IntoIterator<Item = T>,
        detector: &impl TypeDetector,
    ) -> Result<Self, ConfigError> {
        let mut allowed: Vec<AllowedType> = Vec::new();
        for name in types {
            let lower = name.as_ref().trim().to_ascii_lowercase();
            let name = Known::canonical(&lower);
            if allowed.iter().any(|known| *known.name == *name) {
                continue;
            }
            if name == SVG {
                return Err(ConfigError::new("upload types", "SVG by `allow_svg`"));
            }
            let test = detector.test_for(name).ok_or_else(|| {
                ConfigError::new("upload types", "a media type that can be told by content")
            })?;
            allowed.push(AllowedType::new(name, test));
        }
        if allowed.is_empty() {
            return Err(ConfigError::new("upload types", "at least one media type"));
        }
        // Much is text as well as what it is meant to be.
        allowed.sort_by_key(|known| Known::is_textual(&known.name));
        Ok(Self::of(allowed))
    }

    /// PNG, JPEG, WebP and GIF.
    pub fn images() -> Self {
        Self::new(["image/png", "image/jpeg", "image/webp", "image/gif"])
            .unwrap_or_else(|_| Self::of(Vec::new()))
    }

    /// Allows SVG too, which no list of types does: a browser that opens one as a page runs what is
    /// in it.
    ///
    /// Taken are pictures in UTF-8 without scripts, event handlers, embedded pages, entities and
    /// numeric character references; others are answered 422. The check is a net and no proof: serve
    /// such files to `<img>` only, or with `Content-Security-Policy: sandbox` or as an attachment,
    /// and not from the origin of the application.
    ///
    /// ```
    /// use portcullis::upload::UploadPolicy;
    ///
    /// let icons = UploadPolicy::new(["image/png"])?.allow_svg();
    /// assert!(UploadPolicy::new(["image/svg+xml"]).is_err());
    /// # drop(icons);
    /// # Ok::<_, portcullis::ConfigError>(())
    /// ```
    pub fn allow_svg(mut self) -> Self {
        let known = Known::of(SVG).filter(|_| self.allowed(SVG).is_none());
        self.types
            .extend(known.map(|known| AllowedType::new(SVG, known.type_test())));
        self
    }

    /// Takes a file as the whole body too (`PUT` of one file), its type as `Content-Type`.
    pub fn raw_bodies(self) -> Self {
        Self { raw: true, ..self }
    }

    /// Names the extensions of an allowed type; without any, a type that the crate does not know
    /// goes with every extension that belongs to no other type.
    pub fn extensions<T: AsRef<str>>(
        mut self,
        media_type: &str,
        extensions: impl IntoIterator<Item = T>,
    ) -> Self {
        if let Some(allowed) = self
            .types
            .iter_mut()
            .find(|known| *known.name == *media_type)
        {
            allowed.extensions = extensions
                .into_iter()
                .map(|extension| extension.as_ref().to_ascii_lowercase().into())
                .collect();
        }
        self
    }

    /// The most bytes of a whole body.
    pub fn max_body(self, bytes: u64) -> Self {
        Self {
            max_body: Some(bytes),
            ..self
        }
    }

    /// The most bytes of one file.
    pub fn max_file(self, bytes: u64) -> Self {
        Self {
            max_file: bytes,
            ..self
        }
    }

    /// The most files of one body.
    pub fn max_files(self, files: usize) -> Self {
        Self {
            max_files: files,
            ..self
        }
    }

    /// The most bytes of one text field.
    pub fn max_field(self, bytes: u64) -> Self {
        Self {
            max_field: bytes,
            ..self
        }
    }

    /// The most parts of one body, files and fields.
    pub fn max_parts(self, parts: usize) -> Self {
        Self {
            max_parts: parts,
            ..self
        }
    }

    /// The most bytes of one part's header lines.
    pub fn max_part_head(self, bytes: usize) -> Self {
        Self {
            max_part_head: bytes,
            ..self
        }
    }

    /// The most header lines of one part.
    pub fn max_part_headers(self, lines: usize) -> Self {
        Self {
            max_part_headers: lines,
            ..self
        }
    }

    /// The longest name of a part, in bytes.
    pub fn max_name(self, bytes: usize) -> Self {
        Self {
            max_name: bytes,
            ..self
        }
    }

    /// The longest name of a file, in bytes.
    pub fn max_file_name(self, bytes: usize) -> Self {
        Self {
            max_file_name: bytes,
            ..self
        }
    }

    /// The longest boundary, in bytes; RFC 2046 allows 70.
    pub fn max_boundary(self, bytes: usize) -> Self {
        Self {
            max_boundary: bytes,
            ..self
        }
    }

    /// The longest wait for the next bytes.
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// The fewest bytes a second, on average over the time in which the gate waited for the client;
    /// as much of it as [`idle`](Self::idle) is free. 0 sets no such bound.
    pub fn min_rate(self, bytes_per_second: u64) -> Self {
        Self {
            min_rate: bytes_per_second,
            ..self
        }
    }

    /// The longest time from the request's head to the body's end.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Feeds every file to `scanner` and waits for its verdict at the file's end. See
    /// [`scan`](super::scan) for what is answered.
    pub fn scan_with(self, scanner: impl Scanner) -> Self {
        Self {
            scanner: Some(AnyScanner::new(scanner)),
            ..self
        }
    }

    /// The longest wait for the scanner to take what it is fed, or to judge; 10 s where it is not
    /// set. 503 after it.
    pub fn scan_timeout(self, patience: Duration) -> Self {
        Self {
            scan_timeout: patience,
            ..self
        }
    }

    /// Holds the whole body until its verdict, so that nothing of a refused one reaches the handler.
    pub fn spool(self, spool: Spool) -> Self {
        Self {
            spool: Some(spool),
            ..self
        }
    }

    /// Takes what more clients send, and hands the handler a body in the one strict form.
    ///
    /// Taken too: part headers in any order and others beside the two (dropped), parameters in any
    /// case, unquoted, escaped or extended (`filename*`), white space after a boundary, an empty line
    /// before the first, parameters beside the boundary, and a file as `application/octet-stream`,
    /// which is then told by content and name. Still refused is what has no one meaning:
    /// the same parameter twice, two of a header, LF alone, transfer encodings, other charsets.
    ///
    /// Since the handler's reader sees what the gate writes, and not what the client sent, they
    /// cannot disagree. The request's `Content-Type` gets the new boundary, and its
    /// `Content-Length` is removed.
    pub fn compat(self) -> Self {
        Self {
            compat: true,
            ..self
        }
    }

    /// Takes bodies with `Content-Encoding: gzip` too, and hands the handler the decoded body, without
    /// that field and without `Content-Length`.
    ///
    /// All sizes are those of the decoded body; the encoded one may be as large as
    /// [`max_body`](Self::max_body) too. A body that decodes to more than `max_ratio` times its size
    /// (and more than 64 KiB) is answered 413, one that does not decode 400. Without this an encoded
    /// body is answered 415.
    pub fn accept_gzip(self, max_ratio: u32) -> Self {
        Self {
            gzip_ratio: Some(max_ratio.into()),
            ..self
        }
    }

    pub(super) fn body_limit(&self) -> u64 {
        self.max_body.unwrap_or_else(|| {
            let files = u64::try_from(self.max_files).unwrap_or(u64::MAX);
            self.max_file.saturating_mul(files).saturating_add(MIB)
        })
    }

    /// The allowed type of this name or alias.
    pub(super) fn allowed(&self, name: &str) -> Option<&AllowedType> {
        let name = Known::canonical(name);
        self.types.iter().find(|allowed| *allowed.name == *name)
    }

    fn of(types: Vec<AllowedType>) -> Self {
        Self {
            types,
            raw: false,
            max_body: None,
            max_file: 5 * MIB,
            max_files: 8,
            max_field: 64 * KIB,
            max_parts: 64,
            max_part_head: 4 * KIB as usize,
            max_part_headers: 8,
            max_name: 128,
            max_file_name: 255,
            max_boundary: 70,
            idle: Duration::from_secs(20),
            min_rate: 240,
            deadline: Duration::from_secs(600),
            scanner: None,
            scan_timeout: Duration::from_secs(10),
            spool: None,
            compat: false,
            gzip_ratio: None,
        }
    }
}
