//! `RateLimit-Policy` and `RateLimit`, as structured fields (RFC 9651).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::limits::Limit;
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
    let mut value = Vec::new();
    for limit in limits.iter().filter(|limit| !limit.policy().is_shadow()) {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(limit.item());
        let mut quota = Backwards::new();
        quota.number(seconds(limit.policy().window().as_nanos() as u64));
        quota.text(b";w=");
        quota.number(limit.current().into());
        quota.text(b";q=");
        value.extend_from_slice(quota.as_bytes());
    }
    header_value(value.into())
}

/// The value of `RateLimit`: what one policy leaves, and the seconds until it leaves more. `item` is
/// the policy's name as [`item`] writes it.
#[inline]
pub(super) fn limit_value(item: &[u8], units: u32, more_in: u64) -> HeaderValue {
    let state = state(units, more_in);
    let mut value = Vec::with_capacity(item.len() + state.as_bytes().len());
    value.extend_from_slice(item);
    value.extend_from_slice(state.as_bytes());
    header_value(value.into())
}

/// The values of `RateLimit` and of `Retry-After` of a refusal that stands for `wait` nanoseconds.
pub(super) fn refused_values(
    item: &[u8],
    units: u32,
    more_in: u64,
    wait: u64,
) -> (HeaderValue, HeaderValue) {
    let (state, mut retry_after) = (state(units, more_in), Backwards::new());
    retry_after.number(seconds(wait).max(1));
    let end = item.len() + state.as_bytes().len();
    // One allocation holds both.
    let mut text = Vec::with_capacity(end + retry_after.as_bytes().len());
    text.extend_from_slice(item);
    text.extend_from_slice(state.as_bytes());
    text.extend_from_slice(retry_after.as_bytes());
    let text = Bytes::from(text);
    (header_value(text.slice(..end)), header_value(text.slice(end..)))
}

/// The parameters of one policy's item in `RateLimit`.
#[inline]
fn state(units: u32, more_in: u64) -> Backwards {
    let mut text = Backwards::new();
    text.number(seconds(more_in));
    text.text(b";t=");
    text.number(units.into());
    text.text(b";r=");
    text
}

/// A policy's name as a String of RFC 9651 section 3.3.3: `"` and `\` escaped, in quotes.
pub(super) fn item(name: &str) -> Vec<u8> {
    let mut item = vec![b'"'];
    for byte in name.bytes() {
        if matches!(byte, b'"' | b'\\') {
            item.push(b'\\');
        }
        item.push(byte);
    }
    item.push(b'"');
    item
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

/// A short text, written from its end, as numbers are made, and without `fmt`, which costs more
/// than all the rest of a field.
struct Backwards {
    text: [u8; 48],
    start: usize,
}

impl Backwards {
    #[inline]
    fn new() -> Self {
        Self {
            text: [0; 48],
            start: 48,
        }
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        for byte in text.iter().rev() {
            self.push(*byte);
        }
    }

    /// Decimal digits.
    #[inline]
    fn number(&mut self, mut number: u64) {
        // Most numbers are small, and those are divided faster.
        while number > u64::from(u32::MAX) {
            self.push(b'0' + (number % 10) as u8);
            number /= 10;
        }
        let mut number = number as u32;
        while number > 9 {
            self.push(b'0' + (number % 10) as u8);
            number /= 10;
        }
        self.push(b'0' + number as u8);
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.start -= 1;
        self.text[self.start] = byte;
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[inline]
fn header_value(value: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(value).expect("a field of printable ASCII")
}

pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::policy::Policy, *};

    #[test]
    fn values_are_written_as_the_draft_shows_them() {
        let window = Duration::from_millis(1_500);
        let policy = Policy::strict(r#"a "b" \c"#, 100_000_000, window).unwrap();
        let limit = Arc::new(Limit::new(policy.clone()));
        let value = policy_value(&[Arc::clone(&limit), limit]);
        let one = r#""a \"b\" \\c";q=100000000;w=2"#;
        assert_eq!(value, format!("{one}, {one}"));
        assert_eq!(
            limit_value(&item(policy.name()), 0, 1),
            r#""a \"b\" \\c";r=0;t=1"#
        );
    }

    #[test]
    fn a_long_list_is_whole() {
        let name = "\"".repeat(64);
        let policy = Policy::strict(name.as_str(), 1, Duration::from_secs(1)).unwrap();
        let value = policy_value(&[0; 3].map(|_| Arc::new(Limit::new(policy.clone()))));
        let one = format!("\"{}\";q=1;w=1", r#"\""#.repeat(64));
        assert_eq!(value, [&*one; 3].join(", "));
    }
}
