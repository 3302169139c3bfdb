//! Why a token is not accepted.

use std::{error, fmt};

/// Why a token was not accepted. It holds nothing of the token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is longer than is read at all.
    TooLarge,
    /// It is not three parts of unpadded base64url (RFC 7515 section 7.1), or a part is not a JSON
    /// object.
    Malformed,
    /// A member stands twice in its header or claims.
    DuplicateMember,
    /// Its algorithm is not known, or is `none`.
    UnsupportedAlgorithm,
    /// No key is bound to its algorithm.
    AlgorithmNotAllowed,
    /// Its header asks for something that is not understood: `crit`, `b64`, encryption,
    /// compression, a nested token.
    UnsupportedHeader,
    /// Its `typ` is not that of a token that is accepted here.
    WrongType,
    /// No key has its `kid`.
    UnknownKey,
    /// The keys have not been loaded yet.
    KeysUnavailable,
    /// Its signature is not that of any key that it may be signed with.
    BadSignature,
    /// A claim that must be there is not; its name.
    MissingClaim(&'static str),
    /// A claim is not of its type; its name.
    InvalidClaim(&'static str),
    /// Somebody else made it.
    WrongIssuer,
    /// It is for somebody else.
    WrongAudience,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It says that it was made in the future.
    IssuedInFuture,
    /// It was made too long ago.
    TooOld,
    /// It is bound to a key of its sender (`cnf`), which cannot be checked here.
    Bound,
    /// Its claims do not fit the application's type.
    UnfitClaims,
}

impl VerifyError {
    /// A short fixed name, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::DuplicateMember => "duplicate_member",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::UnsupportedHeader => "unsupported_header",
            Self::WrongType => "wrong_type",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::InvalidClaim(_) => "invalid_claim",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::TooOld => "too_old",
            Self::Bound => "bound",
            Self::UnfitClaims => "unfit_claims",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the token is too large",
            Self::Malformed => "the token is malformed",
            Self::DuplicateMember => "a member of the token stands twice",
            Self::UnsupportedAlgorithm => "the token's algorithm is not known",
            Self::AlgorithmNotAllowed => "no key is for the token's algorithm",
            Self::UnsupportedHeader => "the token's header is not understood",
            Self::WrongType => "the token is of another type",
            Self::UnknownKey => "no key has the token's id",
            Self::KeysUnavailable => "the keys are not there yet",
            Self::BadSignature => "the signature does not hold",
            Self::MissingClaim(claim) => return write!(f, "the claim `{claim}` is missing"),
            Self::InvalidClaim(claim) => return write!(f, "the claim `{claim}` is unusable"),
            Self::WrongIssuer => "the token is of another issuer",
            Self::WrongAudience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::IssuedInFuture => "the token is from the future",
            Self::TooOld => "the token is too old",
            Self::Bound => "the token is bound to a key of its sender",
            Self::UnfitClaims => "the claims do not fit",
        })
    }
}

impl error::Error for VerifyError {}
