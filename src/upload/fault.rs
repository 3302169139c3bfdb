//! Every reason for which an upload is refused.

use std::time::Duration;

use crate::{
    event::EventKind,
    rejection::{Rejection, RejectionKind},
};

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $kind:ident, $reason:literal, $detail:literal;)*) => {
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl From<Fault> for Rejection {
            #[cold]
            fn from(fault: Fault) -> Self {
                let (kind, reason, detail) = match fault {
                    $(Fault::$variant => (RejectionKind::$kind, $reason, $detail),)*
                };
                let rejection = Self::new(kind, GATE, reason).with_detail(detail);
                match kind {
                    RejectionKind::Unavailable => rejection.with_retry_after(RETRY),
                    _ => rejection.with_event(EventKind::UploadValidation),
                }
            }
        }
    };
}

faults! {
    /// The media type of the request is none that the policy takes.
    Envelope = UnsupportedMediaType, "envelope_not_accepted",
        "The body's media type is not accepted here.";
    /// `Content-Type` of the request twice, or not of the strict form.
    ContentType = BadRequest, "content_type_malformed",
        "The Content-Type of the request is malformed.";
    /// The body is encoded.
    Encoded = UnsupportedMediaType, "content_encoding_not_accepted",
        "An encoded body is not accepted here.";
    /// It does not decode.
    Encoding = BadRequest, "content_encoding_malformed", "The encoding of the body is malformed.";
    /// It becomes too much when it is decoded.
    Ratio = PayloadTooLarge, "content_encoding_ratio", "The body is compressed too well.";
    BodySize = PayloadTooLarge, "body_too_large", "The body is too large.";
    FileSize = PayloadTooLarge, "file_too_large", "A file is too large.";
    FieldSize = PayloadTooLarge, "field_too_large", "A field is too large.";
    PartCount = PayloadTooLarge, "too_many_parts", "There are too many parts.";
    FileCount = PayloadTooLarge, "too_many_files", "There are too many files.";
    HeaderSize = PayloadTooLarge, "part_head_too_large", "The head of a part is too large.";
    HeaderCount = PayloadTooLarge, "too_many_part_headers",
        "The head of a part has too many lines.";
    NameSize = PayloadTooLarge, "name_too_long", "The name of a part is too long.";
    /// Bytes before the first boundary, or none of it.
    Preamble = BadRequest, "multipart_start", "The body does not begin with its boundary.";
    /// A boundary that is not a line of its own, or is followed by something else.
    Boundary = BadRequest, "multipart_boundary",
        "A boundary does not stand alone on its line.";
    /// Something after the last boundary.
    Epilogue = BadRequest, "multipart_epilogue", "Data follows the last boundary.";
    /// The body ends before the last boundary.
    Incomplete = BadRequest, "multipart_incomplete", "The body ends before its last boundary.";
    /// A head of a part that two readers could read differently.
    PartHead = BadRequest, "part_head_malformed", "The head of a part is malformed.";
    /// The same, in its `Content-Disposition`.
    Disposition = BadRequest, "disposition_malformed",
        "The Content-Disposition of a part is malformed.";
    /// A transfer encoding or a charset that changes what the bytes mean.
    PartEncoding = BadRequest, "part_encoding", "A part is encoded in a way that is not accepted.";
    FileName = Unprocessable, "file_name_unsafe", "The name of a file is unsafe.";
    TypeNotAllowed = UnsupportedMediaType, "type_not_allowed",
        "A file is of a type that is not allowed.";
    /// Content, declared type and extension do not agree.
    TypeMismatch = Unprocessable, "type_mismatch",
        "A file's content, declared type and extension do not agree.";
    /// The content is broken, or ends too soon.
    Content = Unprocessable, "content_malformed", "A file is malformed or incomplete.";
    TrailingData = Unprocessable, "trailing_data", "Data stands behind the end of a file.";
    /// Text that a browser or an interpreter might run.
    ActiveText = Unprocessable, "active_content", "A text holds active content.";
    /// A second file in a file.
    Stacked = Unprocessable, "stacked_types", "A file is of two types at once.";
    Macros = Unprocessable, "macros", "A document holds macros.";
    Infected = Unprocessable, "malware_found", "A file was refused by a scanner.";
    ScanSize = PayloadTooLarge, "too_large_to_scan", "A file is too large to be scanned.";
    ScannerAway = Unavailable, "scanner_unavailable", "Files cannot be scanned at the moment.";
    SpoolFull = Unavailable, "spool_full", "There is no room for the upload at the moment.";
    SpoolFailed = Unavailable, "spool_failed", "The upload cannot be kept at the moment.";
}

pub(super) const GATE: &str = "upload";
const RETRY: Duration = Duration::from_secs(10);
