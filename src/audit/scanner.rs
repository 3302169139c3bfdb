//! The scanner, given a file that every scanner must find.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use super::line::{Line, Verdict};
use crate::upload::scan::{FileStream, ScanVerdict, Scanner};

/// A type of file that can carry the EICAR test file to a scanner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Carrier {
    /// `application/pdf`, with the test file attached.
    Pdf,
    /// `text/plain`: the test file as it stands.
    Text,
}

/// Asks the scanner itself: the line is configured if it finds the EICAR test file and nothing in a
/// harmless one. Whether the service asks it is seen by [`probe`](super::probe) alone, on a route
/// that is [`scanned`](super::Route::scanned): this is for services whose files can carry no test
/// file, such as pictures. Without a scanner the line is the operator's.
pub async fn scanner(scanner: Option<&impl Scanner>) -> Line {
    let Some(scanner) = scanner else {
        return line(Verdict::Operators, "no scanner is set");
    };
    let look = async |bytes: Bytes| {
        let scan = scanner.scan(FileStream::from(bytes));
        let verdict = tokio::time::timeout(PATIENCE, scan).await;
        verdict.ok().and_then(Result::ok)
    };
    let planted = look(Carrier::Text.planted().into()).await;
    let harmless = look(Bytes::from_static(b"nothing to find here")).await;
    match (planted, harmless) {
        (Some(ScanVerdict::Infected { .. }), Some(ScanVerdict::Clean)) => line(
            Verdict::Configured,
            "it finds the EICAR test file; no upload was sent through the service",
        ),
        (Some(ScanVerdict::Clean), _) => line(
            Verdict::Fails,
            "the EICAR test file was not found: the scanner has no signatures",
        ),
        (Some(ScanVerdict::Infected { .. }), Some(_)) => {
            line(Verdict::Fails, "it finds something in a harmless file")
        }
        _ => line(Verdict::Fails, "the scanner does not answer"),
    }
}

pub(super) fn line(verdict: Verdict, how: impl Into<Cow<'static, str>>) -> Line {
    Line::new("scanner", "uploads are scanned for viruses", verdict, how)
        .set_by("CLAMD_ADDR")
        .to_do("run clamd with current signatures and set its address")
}

impl Carrier {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Text => "text/plain",
        }
    }

    pub(super) const fn file_name(self) -> &'static str {
        match self {
            Self::Pdf => "portcullis-audit.pdf",
            Self::Text => "portcullis-audit.txt",
        }
    }

    /// A file of this type with the test file in it.
    pub(super) fn planted(self) -> Vec<u8> {
        // Put together here, so that no scanner finds this program.
        let eicar = [
            "X5O!P%@AP[4\\PZX54(P^)7CC)7}$",
            "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
        ]
        .concat();
        match self {
            Self::Text => eicar.into_bytes(),
            Self::Pdf => pdf(&eicar),
        }
    }
}

/// A document without pages, and an attachment.
fn pdf(attached: &str) -> Vec<u8> {
    let length = attached.len();
    let objects = [
        "<</Type/Catalog/Pages 2 0 R/Names<</EmbeddedFiles<</Names[(a)3 0 R]>>>>>>".to_owned(),
        "<</Type/Pages/Kids[]/Count 0>>".to_owned(),
        "<</Type/Filespec/F(a)/EF<</F 4 0 R>>>>".to_owned(),
        format!("<</Type/EmbeddedFile/Length {length}>>\nstream\n{attached}\nendstream"),
    ];
    let mut file = "%PDF-1.4\n".to_owned();
    let mut table = "xref\n0 5\n0000000000 65535 f \n".to_owned();
    for (number, object) in (1..).zip(objects) {
        table += &format!("{:010} 00000 n \n", file.len());
        file += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let start = file.len();
    file += &format!("{table}trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n");
    file.into_bytes()
}

const PATIENCE: Duration = Duration::from_secs(10);
