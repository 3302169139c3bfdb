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
        value.extend_from_slice(b";q=");
        Number::of(limit.current().into()).write(&mut value);
        value.extend_from_slice(b";w=");
        Number::of(seconds(limit.policy().window().as_nanos() as u64)).write(&mut value);
    }
    header_value(value.into())
}

/// The value of `RateLimit`: what one policy leaves, and the seconds until it leaves more. `item` is
/// the policy's name as [`item`] writes it.
#[inline]
pub(super) fn limit_value(item: &[u8], units: u32, more_in: u64) -> HeaderValue {
    let state = State::of(item, units, more_in);
    let mut value = Vec::with_capacity(state.len());
    state.write(&mut value);
    header_value(value.into())
}

/// The values of `RateLimit` and of `Retry-After` of a refusal that stands for `wait` nanoseconds.
pub(super) fn refused_values(
    item: &[u8],
    units: u32,
    more_in: u64,
    wait: u64,
) -> (HeaderValue, HeaderValue) {
    let state = State::of(item, units, more_in);
    let retry_after = Number::of(seconds(wait).max(1));
    // One allocation holds both.
    let mut text = Vec::with_capacity(state.len() + retry_after.digits);
    state.write(&mut text);
    retry_after.write(&mut text);
    let text = Bytes::from(text);
    (
        header_value(text.slice(..state.len())),
        header_value(text.slice(state.len()..)),
    )
}

/// One policy's item in `RateLimit`.
struct State<'a> {
    item: &'a [u8],
    units: Number,
    more_in: Number,
}

impl<'a> State<'a> {
    #[inline]
    fn of(item: &'a [u8], units: u32, more_in: u64) -> Self {
        Self {
            item,
            units: Number::of(units.into()),
            more_in: Number::of(seconds(more_in)),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.item.len() + self.units.digits + self.more_in.digits + 6
    }

    #[inline]
    fn write(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(self.item);
        text.extend_from_slice(b";r=");
        self.units.write(text);
        text.extend_from_slice(b";t=");
        self.more_in.write(text);
    }
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

/// A number in decimal digits, without `fmt`, which costs more than all the rest of a field.
struct Number {
    number: u64,
    digits: usize,
}

impl Number {
    #[inline]
    fn of(number: u64) -> Self {
        let log = match u32::try_from(number) {
            Ok(number) => number.checked_ilog10(),
            Err(_) => number.checked_ilog10(),
        };
        Self {
            number,
            digits: log.unwrap_or(0) as usize + 1,
        }
    }

    #[inline]
    fn write(&self, text: &mut Vec<u8>) {
        let start = text.len();
        text.resize(start + self.digits, b'0');
        let mut rest = self.number;
        for digit in text[start..].iter_mut().rev() {
            // Most numbers are small, and those are divided faster.
            (*digit, rest) = match u32::try_from(rest) {
                Ok(small) => (b'0' + (small % 10) as u8, (small / 10).into()),
                Err(_) => (b'0' + (rest % 10) as u8, rest / 10),
            };
        }
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
