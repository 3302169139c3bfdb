//! The headers whose value is one of a few words.

use bytes::Bytes;
use http::HeaderValue;

macro_rules! words {
    ($($(#[$type_doc:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* })*) => {
        $(
            $(#[$type_doc])*
            #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
            #[non_exhaustive]
            pub enum $name {
                $($(#[$doc])* $variant,)*
            }

            impl $name {
                /// Every word there is.
                pub const ALL: &'static [Self] = &[$(Self::$variant),*];

                /// The word as it stands in the header.
                #[must_use]
                pub const fn as_str(self) -> &'static str {
                    match self {
                        $(Self::$variant => $word,)*
                    }
                }
            }
        )*
    };
}
pub(super) use words;

words! {
    /// `Referrer-Policy`: what is told of the page that a request comes from.
    ReferrerPolicy {
        /// Nothing. The page's own form posts then carry `Origin: null`.
        NoReferrer = "no-referrer",
        /// The address, but nothing to a less secure place.
        NoReferrerWhenDowngrade = "no-referrer-when-downgrade",
        /// The origin.
        Origin = "origin",
        /// The address to the same origin, the origin to others.
        OriginWhenCrossOrigin = "origin-when-cross-origin",
        /// The address to the same origin, nothing to others.
        SameOrigin = "same-origin",
        /// The origin, but nothing to a less secure place.
        StrictOrigin = "strict-origin",
        /// What browsers do unasked: the address to the same origin, the origin to others, nothing
        /// to a less secure place.
        StrictOriginWhenCrossOrigin = "strict-origin-when-cross-origin",
    }

    /// `X-Frame-Options`, for browsers that do not know `frame-ancestors`.
    FrameOptions {
        /// No page may frame the answer.
        Deny = "DENY",
        /// Pages of the same origin may.
        SameOrigin = "SAMEORIGIN",
    }

    /// `Cross-Origin-Opener-Policy`: whether windows of other origins hold on to this one.
    OpenerPolicy {
        /// They do not.
        SameOrigin = "same-origin",
        /// Pop-ups that this page opens do.
        SameOriginAllowPopups = "same-origin-allow-popups",
        /// The page may be opened as a pop-up without its opener holding on to it.
        NoopenerAllowPopups = "noopener-allow-popups",
        /// They do.
        UnsafeNone = "unsafe-none",
    }

    /// `Cross-Origin-Resource-Policy`: who may embed the answer without asking by CORS.
    ResourcePolicy {
        /// Pages of the same origin.
        SameOrigin = "same-origin",
        /// Pages of the same site.
        SameSite = "same-site",
        /// Everyone.
        CrossOrigin = "cross-origin",
    }

    /// `Cross-Origin-Embedder-Policy`: what the page may embed.
    EmbedderPolicy {
        /// Only what agrees to be embedded.
        RequireCorp = "require-corp",
        /// What does not agree is asked for without credentials.
        Credentialless = "credentialless",
        /// Anything.
        UnsafeNone = "unsafe-none",
    }

    /// `X-Permitted-Cross-Domain-Policies`: which policy files of PDF readers count.
    CrossDomainPolicies {
        /// None.
        None = "none",
        /// The one at the root.
        MasterOnly = "master-only",
        /// Those of their own content type.
        ByContentType = "by-content-type",
        /// All.
        All = "all",
    }
}

/// A header value from text that was checked to be visible ASCII, ready to be cloned without an
/// allocation.
pub(super) fn from_checked(text: String) -> HeaderValue {
    match HeaderValue::from_maybe_shared(Bytes::from(text)) {
        // The first clone of owned bytes allocates the count that later clones share.
        Ok(value) => value.clone(),
        Err(_) => HeaderValue::from_static(""),
    }
}
