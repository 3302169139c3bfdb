//! The scanner, given a file that every scanner must find.

use std::time::Duration;

use bytes::Bytes;

use super::line::{Line, Verdict};
use crate::upload::scan::{FileStream, ScanVerdict, Scanner};

/// Plants the EICAR test file: the line is observed only if `scanner` finds it and finds nothing in
/// a harmless one. Without a scanner it is the operator's.
pub async fn scanner(scanner: Option<&impl Scanner>) -> Line {
    let Some(scanner) = scanner else {
        return line(Verdict::Operators, "no scanner is set");
    };
    // Put together here, so that no scanner finds this program.
    let planted = [
        "X5O!P%@AP[4\\PZX54(P^)7CC)7}$",
        "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
    ];
    let look = async |bytes: Bytes| {
        let scan = scanner.scan(FileStream::from(bytes));
        let verdict = tokio::time::timeout(PATIENCE, scan).await;
        verdict.ok().and_then(Result::ok)
    };
    let planted = look(planted.concat().into()).await;
    let harmless = look(Bytes::from_static(b"nothing to find here")).await;
    match (planted, harmless) {
        (Some(ScanVerdict::Infected { .. }), Some(ScanVerdict::Clean)) => line(
            Verdict::Observed,
            "the EICAR test file was found, and nothing in a harmless file",
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

fn line(verdict: Verdict, how: &'static str) -> Line {
    Line::new("scanner", "uploads are scanned for viruses", verdict, how)
        .set_by("CLAMD_ADDR")
        .to_do("run clamd with current signatures and set its address")
}

const PATIENCE: Duration = Duration::from_secs(10);
