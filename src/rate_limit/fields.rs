//! `RateLimit-Policy` and `RateLimit`, as structured fields (RFC 9651).

use std::{sync::Arc, time::Duration};

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
        value.extend_from_slice(b";q=");
        value.extend_from_slice(itoa::Buffer::new().format(limit.current()).as_bytes());
        value.extend_from_slice(b";w=");
        let window = seconds(limit.policy().window().as_nanos() as u64);
        value.extend_from_slice(itoa::Buffer::new().format(window).as_bytes());
    }
    header_value(value.into())
}

/// The value of `RateLimit`: what one policy leaves, and the seconds until it leaves more. `item` is
/// the policy's name as [`item`] writes it.
#[inline]
pub(super) fn limit_value(item: &[u8], units: u32, more_in: u64) -> HeaderValue {
    header_value(state(item, units, more_in, "").into())
}

/// The values of `RateLimit` and of `Retry-After` of a refusal that stands for `wait` nanoseconds.
pub(super) fn refused_values(
    item: &[u8],
    units: u32,
    more_in: u64,
    wait: u64,
) -> (HeaderValue, HeaderValue) {
    let mut digits = itoa::Buffer::new();
    let retry_after = digits.format(seconds(wait).max(1));
    // One allocation holds both.
    let mut state = Bytes::from(state(item, units, more_in, retry_after));
    let retry_after = state.split_off(state.len() - retry_after.len());
    (header_value(state), header_value(retry_after))
}

/// One policy's item in `RateLimit`, and what shares its allocation.
#[inline]
fn state(item: &[u8], units: u32, more_in: u64, behind: &str) -> Vec<u8> {
    let (mut units_digits, mut more_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let units = units_digits.format(units).as_bytes();
    let more_in = more_digits.format(seconds(more_in)).as_bytes();
    let parts = [item, b";r=", units, b";t=", more_in, behind.as_bytes()];
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| text.extend_from_slice(part));
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
            let millis = Duration::from_millis(more_in.div_ceil(NANOS_PER_MILLI));
            let at = now.saturating_add(millis);
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

#[inline]
fn header_value(value: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(value).expect("a field of printable ASCII")
}

pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
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
