//! The decision: too large at once, or to be counted.

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http_body::SizeHint;

use crate::{
    guarded::{Counter, Pace, Terms},
    head::Head,
    rejection::{Rejection, RejectionKind},
};

/// The largest body and its times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) max: u64,
    pub(crate) idle: Duration,
    pub(crate) total: Duration,
}

impl Limit {
    pub(crate) const fn new(max: u64) -> Self {
        Self {
            max,
            idle: IDLE,
            total: TOTAL,
        }
    }

    /// Refuses a body that says it is too large; else the check that counts it.
    pub(crate) fn decide(&self, head: Head<'_>, hint: &SizeHint) -> Result<Counter, Rejection> {
        let stated = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        if hint.lower().max(stated) > self.max {
            return Err(too_large());
        }
        Ok(self.counter())
    }

    /// The check that counts a body down.
    pub(crate) fn counter(&self) -> Counter {
        Counter::new(self.max, too_large)
    }

    /// A streamed answer may need the body that it answers, so no answer waits for the body's end.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            pace: Pace {
                gate: GATE,
                idle: self.idle,
                min_rate: 0,
                total: self.total,
            },
            hold: false,
        }
    }
}

#[cold]
fn too_large() -> Rejection {
    Rejection::new(RejectionKind::PayloadTooLarge, GATE, "body_too_large")
        .with_detail("The body is too large.")
}

const GATE: &str = "body_limit";
const IDLE: Duration = Duration::from_secs(30);
const TOTAL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn decide(length: Option<&str>, hint: SizeHint) -> Option<u16> {
        let mut request = Request::post("/").body(()).unwrap();
        if let Some(length) = length {
            let value = length.parse().unwrap();
            request.headers_mut().insert(CONTENT_LENGTH, value);
        }
        let decided = Limit::new(10).decide(Head::of(&request), &hint);
        decided.err().map(|rejection| rejection.status().as_u16())
    }

    #[test]
    fn what_the_head_tells_is_refused_before_the_body() {
        let mut lower = SizeHint::new();
        lower.set_lower(11);
        assert_eq!(decide(None, SizeHint::with_exact(10)), None);
        assert_eq!(decide(None, SizeHint::with_exact(11)), Some(413));
        assert_eq!(decide(None, lower), Some(413));
        assert_eq!(decide(None, SizeHint::new()), None);
        assert_eq!(decide(Some("10"), SizeHint::new()), None);
        assert_eq!(decide(Some("11"), SizeHint::new()), Some(413));
        assert_eq!(
            decide(Some("18446744073709551615"), SizeHint::new()),
            Some(413)
        );
    }
}
