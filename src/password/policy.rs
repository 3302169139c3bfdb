//! Which passwords can be hashed at all.

use std::{borrow::Cow, error, fmt};

/// Why a password cannot be used. It does not show the password.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unusable {
    /// Fewer than 8 bytes.
    TooShort,
    /// More than 71 bytes: bcrypt would not look at the rest.
    TooLong,
    /// A NUL byte: bcrypt takes `"a"` and `"a\0a"` for the same password.
    Nul,
    /// The service's own check of new passwords refused it, with what to tell the user.
    Weak(Cow<'static, str>),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(f, "a password has at least {MIN_BYTES} bytes"),
            Self::TooLong => write!(f, "a password has at most {MAX_BYTES} bytes"),
            Self::Nul => f.write_str("a password has no NUL byte"),
            Self::Weak(advice) => f.write_str(advice),
        }
    }
}

impl error::Error for Unusable {}

/// The rules that hold for every password, new or presented.
pub(super) fn check(password: &str) -> Result<(), Unusable> {
    if password.len() < MIN_BYTES {
        Err(Unusable::TooShort)
    } else if password.len() > MAX_BYTES {
        Err(Unusable::TooLong)
    } else if password.contains('\0') {
        Err(Unusable::Nul)
    } else {
        Ok(())
    }
}

const MIN_BYTES: usize = 8;
/// bcrypt reads 72 bytes, of which the last is the NUL that ends the password.
const MAX_BYTES: usize = 71;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_in_bytes() {
        assert_eq!(check("1234567"), Err(Unusable::TooShort));
        assert_eq!(check("12345678"), Ok(()));
        assert_eq!(check("ééé1"), Err(Unusable::TooShort));
        assert_eq!(check("éééé"), Ok(()));
        assert_eq!(check(&"x".repeat(71)), Ok(()));
        assert_eq!(check(&"x".repeat(72)), Err(Unusable::TooLong));
        assert_eq!(check("12345678\0"), Err(Unusable::Nul));
    }
}
