//! The one DER structure that no dependency reads for us without its own global state.

/// Modulus and exponent of a PKCS #1 `RSAPublicKey`, without leading zeros.
pub(crate) fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (numbers, rest) = element(der, SEQUENCE)?;
    let (n, after) = element(numbers, INTEGER)?;
    let (e, end) = element(after, INTEGER)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    Some((positive(n)?, positive(e)?))
}

/// The content of the first element, which must be of `tag`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            // DER has one encoding for a length: the shortest.
            let shortest = if digits.len() == 1 { 0x80 } else { 0x100 };
            (length >= shortest).then_some((length, rest))?
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first > 0x7f) => Some(rest),
        [0x01..=0x7f, ..] => Some(integer),
        _ => None,
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_read() {
        let good = [0x30, 0x08, 0x02, 0x02, 0x00, 0x81, 0x02, 0x02, 0x01, 0x01];
        let (n, e) = rsa_public_key(&good).unwrap();
        assert_eq!((n, e), (&[0x81][..], &[1, 1][..]));
        for (index, wrong) in [
            (0, 0x31), // not a sequence
            (1, 0x07), // too short
            (1, 0x09), // too long
            (2, 0x03), // not an integer
            (5, 0x01), // a leading zero that is not needed
            (8, 0x81), // negative
        ] {
            let mut bad = good;
            bad[index] = wrong;
            assert!(rsa_public_key(&bad).is_none(), "{index}");
        }
        assert!(rsa_public_key(&[0x30, 0x81, 0x06, 2, 1, 3, 2, 1, 3]).is_none());
        assert!(rsa_public_key(&[]).is_none());
    }
}
