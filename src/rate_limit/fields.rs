//! `RateLimit-Policy` and `RateLimit`, as structured fields (RFC 9651).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{limits::Limit, policy::Policy};
use crate::time::UnixMillis;

/// The version of `draft-ietf-httpapi-ratelimit-headers` that the fields are written by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum FieldsVersion {
    /// Drafts 8 to 10: `RateLimit-Policy: "auth";q=5;w=900` and `RateLimit: "auth";r=4;t=180`.
    #[default]
    Draft10,
}

/// What `X-RateLimit-Reset` holds. There is no standard; ask your clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LegacyReset {
    /// Seconds from now.
    Delta,
    /// Seconds of Unix time.
    Epoch,
}

/// The value of `RateLimit-Policy`: every policy with its quota and its window in seconds.
pub(super) fn policy_value(limits: &[Arc<Limit>]) -> HeaderValue {
    let mut text = Text::default();
    let shown = limits.iter().filter(|limit| !limit.policy().is_shadow());
    for (index, limit) in shown.enumerate() {
        let policy = limit.policy();
        if index > 0 {
            text.push(b", ");
        }
        text.name(policy.name());
        text.push(b";q=");
        text.number(limit.current().into());
        text.push(b";w=");
        text.number(seconds(policy.window().as_nanos() as u64));
    }
    text.value()
}

/// The value of `RateLimit`: what one policy leaves, and the seconds until it leaves more.
pub(super) fn limit_value(policy: &Policy, units: u32, more_in: u64) -> HeaderValue {
    let mut text = Text::default();
    text.name(policy.name());
    text.push(b";r=");
    text.number(units.into());
    text.push(b";t=");
    text.number(seconds(more_in));
    text.value()
}

/// The fields that stood before there was a draft.
pub(super) fn legacy(
    reset: LegacyReset,
    limit: u32,
    units: u32,
    more_in: u64,
    now: UnixMillis,
) -> [(HeaderName, HeaderValue); 3] {
    let reset = match reset {
        LegacyReset::Delta => seconds(more_in),
        LegacyReset::Epoch => {
            let at = now.saturating_add(std::time::Duration::from_nanos(more_in));
            u64::try_from(at.as_millis()).unwrap_or(0).div_ceil(1_000)
        }
    };
    [
        (X_RATELIMIT_LIMIT, limit.into()),
        (X_RATELIMIT_REMAINING, units.into()),
        (X_RATELIMIT_RESET, reset.into()),
    ]
}

/// Whole seconds, rounded up.
pub(super) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(NANOS_PER_SECOND)
}

/// A field value in the making, on the stack as long as it fits.
struct Text {
    short: [u8; SHORT],
    len: usize,
    long: Vec<u8>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            short: [0; SHORT],
            len: 0,
            long: Vec::new(),
        }
    }
}

impl Text {
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        match self.short.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if self.long.is_empty() => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => {
                if self.long.is_empty() {
                    self.long.extend_from_slice(&self.short[..self.len]);
                }
                self.long.extend_from_slice(bytes);
            }
        }
    }

    /// A String of RFC 9651 section 3.3.3: printable ASCII, `"` and `\` escaped.
    #[inline]
    fn name(&mut self, name: &str) {
        self.push(b"\"");
        if name.bytes().any(|byte| matches!(byte, b'"' | b'\\')) {
            for byte in name.bytes() {
                if matches!(byte, b'"' | b'\\') {
                    self.push(b"\\");
                }
                self.push(&[byte]);
            }
        } else {
            self.push(name.as_bytes());
        }
        self.push(b"\"");
    }

    #[inline]
    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[start..]);
    }

    fn value(self) -> HeaderValue {
        let bytes = if self.long.is_empty() {
            Bytes::copy_from_slice(&self.short[..self.len])
        } else {
            self.long.into()
        };
        HeaderValue::from_maybe_shared(bytes).expect("a field of printable ASCII")
    }
}

pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SHORT: usize = 128;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_are_written_as_the_draft_shows_them() {
        let window = Duration::from_millis(1_500);
        let policy = Policy::strict(r#"a "b" \c"#, 100_000_000, window).unwrap();
        let limit = Arc::new(Limit::new(policy.clone()));
        let value = policy_value(&[Arc::clone(&limit), limit]);
        let one = r#""a \"b\" \\c";q=100000000;w=2"#;
        assert_eq!(value, format!("{one}, {one}"));
        assert_eq!(limit_value(&policy, 0, 1), r#""a \"b\" \\c";r=0;t=1"#);
    }

    #[test]
    fn a_long_list_leaves_the_stack() {
        let name = "\"".repeat(64);
        let policy = Policy::strict(name.as_str(), 1, Duration::from_secs(1)).unwrap();
        let value = policy_value(&[0; 3].map(|_| Arc::new(Limit::new(policy.clone()))));
        let one = format!("\"{}\";q=1;w=1", r#"\""#.repeat(64));
        assert_eq!(value, [&*one; 3].join(", "));
    }
}
