//! Base64url as RFC 7515 section 2 has it: no padding, no bits behind the end, and no character
//! that is not of the alphabet.

use std::sync::LazyLock;

use base64::{DecodeSliceError, Engine, engine::general_purpose};

use super::error::VerifyError;

/// Decodes into a buffer, whose size is the most that is taken.
pub(crate) fn decode_into<'b>(text: &str, buffer: &'b mut [u8]) -> Result<&'b [u8], VerifyError> {
    match ENGINE.decode_slice(text, buffer) {
        Ok(length) => Ok(&buffer[..length]),
        Err(DecodeSliceError::OutputSliceTooSmall) => Err(VerifyError::TooLarge),
        Err(DecodeSliceError::DecodeError(_)) => Err(VerifyError::Malformed),
    }
}

pub(crate) fn decode(text: &str) -> Result<Vec<u8>, VerifyError> {
    ENGINE.decode(text).map_err(|_| VerifyError::Malformed)
}

/// A token is mostly base64url, and vectors read it many times as fast.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENGINE: LazyLock<base64::engine::Simd> =
    LazyLock::new(|| base64::engine::Simd::url_safe(general_purpose::NO_PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENGINE: LazyLock<general_purpose::GeneralPurpose> =
    LazyLock::new(|| general_purpose::URL_SAFE_NO_PAD);

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to decode give one verdict, on texts of every length and with every fault.
    #[test]
    fn vectors_and_table_agree() {
        let table = general_purpose::URL_SAFE_NO_PAD;
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..bytes.len() {
            let good = table.encode(&bytes[..length]);
            assert_eq!(decode(&good).unwrap(), bytes[..length]);
            for at in 0..good.len() {
                for wrong in ['=', '+', '/', ' ', '.', '\n', '\0', '~', 'A', '_', '\u{7f}'] {
                    if length % 16 != 0 && at + 4 < good.len() && at % 7 != 0 {
                        continue;
                    }
                    let mut text: Vec<char> = good.chars().collect();
                    text[at] = wrong;
                    let text: String = text.into_iter().collect();
                    let expected = table.decode(&text);
                    assert_eq!(decode(&text).ok(), expected.ok(), "{text}");
                }
            }
            assert!(decode(&format!("{good}=")).is_err());
        }
    }
}
