//! `Permissions-Policy`: which powerful features a page, and what it frames, may use.

use std::borrow::Cow;

use http::HeaderValue;

use crate::error::ConfigError;

/// Which features a page may use; a feature that is not named keeps the browser's default.
///
/// Built of RFC 9651 structured fields, so each entry is checked as it is added.
///
/// ```
/// use portcullis::headers::{Feature, PermissionsPolicy};
///
/// let policy = PermissionsPolicy::deny_powerful()
///     .allow_self(Feature::CAMERA)
///     .allow(Feature::GEOLOCATION, ["https://maps.example.com"])?;
/// assert!(policy.allow(Feature::USB, ["maps.example.com"]).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct PermissionsPolicy {
    entries: Vec<(Feature, String)>,
}

impl PermissionsPolicy {
    /// A policy that names no feature.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Denies what reaches sensors, devices, other applications or money, as the built-in profiles
    /// do. Features that act on the page alone (fullscreen, clipboard writes, passkeys) keep the
    /// browser's default: the page itself, and what it delegates to.
    pub fn deny_powerful() -> Self {
        POWERFUL.into_iter().fold(Self::new(), Self::deny)
    }

    /// Denies a feature to the page and all that it frames.
    pub fn deny(self, feature: Feature) -> Self {
        self.set(feature, "()".to_owned())
    }

    /// Allows a feature to the page and to frames of its own origin.
    pub fn allow_self(self, feature: Feature) -> Self {
        self.set(feature, "(self)".to_owned())
    }

    /// Allows a feature to everyone whom the page frames.
    pub fn allow_any(self, feature: Feature) -> Self {
        self.set(feature, "*".to_owned())
    }

    /// Allows a feature to the page and to frames of these origins (`https://host`, with a port
    /// if it is not the usual one; `https://*.host` for subdomains).
    ///
    /// # Errors
    ///
    /// Where one of them is not an origin.
    pub fn allow<'a>(
        self,
        feature: Feature,
        origins: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let mut list = String::from("(self");
        for origin in origins {
            if !is_origin(origin) {
                return Err(ConfigError::new(
                    format!("permissions-policy {}", feature.name()),
                    "an origin is a scheme and a host, such as `https://maps.example.com`",
                ));
            }
            list.push_str(" \"");
            list.push_str(origin);
            list.push('"');
        }
        list.push(')');
        Ok(self.set(feature, list))
    }

    pub(super) fn value(&self) -> HeaderValue {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|(feature, list)| format!("{}={list}", feature.name()))
            .collect();
        super::value::from_checked(entries.join(", "))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn set(mut self, feature: Feature, list: String) -> Self {
        match self.entries.iter_mut().find(|entry| entry.0 == feature) {
            Some(entry) => entry.1 = list,
            None => self.entries.push((feature, list)),
        }
        self
    }
}

/// A feature that a browser can be told to withhold.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[must_use]
pub struct Feature {
    name: Cow<'static, str>,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl Feature {
            $($(#[$doc])* pub const $name: Self = Self { name: Cow::Borrowed($text) };)*
        }
    };
}

features! {
    /// The accelerometer.
    ACCELEROMETER = "accelerometer";
    /// Media that plays by itself.
    AUTOPLAY = "autoplay";
    /// Bluetooth devices.
    BLUETOOTH = "bluetooth";
    /// Interests as the browser sees them, told to advertisers.
    BROWSING_TOPICS = "browsing-topics";
    /// Cameras.
    CAMERA = "camera";
    /// Reading the clipboard.
    CLIPBOARD_READ = "clipboard-read";
    /// Writing the clipboard.
    CLIPBOARD_WRITE = "clipboard-write";
    /// Recording the screen.
    DISPLAY_CAPTURE = "display-capture";
    /// Protected media.
    ENCRYPTED_MEDIA = "encrypted-media";
    /// The whole screen.
    FULLSCREEN = "fullscreen";
    /// Where the user is.
    GEOLOCATION = "geolocation";
    /// The gyroscope.
    GYROSCOPE = "gyroscope";
    /// Input devices such as game pads and security keys.
    HID = "hid";
    /// Whether the user is away.
    IDLE_DETECTION = "idle-detection";
    /// Fonts that are installed.
    LOCAL_FONTS = "local-fonts";
    /// The magnetometer.
    MAGNETOMETER = "magnetometer";
    /// Microphones.
    MICROPHONE = "microphone";
    /// MIDI devices.
    MIDI = "midi";
    /// The payment request API.
    PAYMENT = "payment";
    /// A floating video window.
    PICTURE_IN_PICTURE = "picture-in-picture";
    /// Making passkeys.
    PUBLICKEY_CREDENTIALS_CREATE = "publickey-credentials-create";
    /// Using passkeys.
    PUBLICKEY_CREDENTIALS_GET = "publickey-credentials-get";
    /// Keeping the screen on.
    SCREEN_WAKE_LOCK = "screen-wake-lock";
    /// Serial ports.
    SERIAL = "serial";
    /// Choosing a loudspeaker.
    SPEAKER_SELECTION = "speaker-selection";
    /// Cookies as a third party.
    STORAGE_ACCESS = "storage-access";
    /// Requests that block the page.
    SYNC_XHR = "sync-xhr";
    /// USB devices.
    USB = "usb";
    /// Placing windows on several screens.
    WINDOW_MANAGEMENT = "window-management";
    /// Virtual and augmented reality.
    XR_SPATIAL_TRACKING = "xr-spatial-tracking";
}

impl Feature {
    /// A feature that has no constant here.
    ///
    /// # Errors
    ///
    /// Where the name is not lower-case letters, digits and hyphens.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Result<Self, ConfigError> {
        let name = name.into();
        let starts = name.starts_with(|first: char| first.is_ascii_lowercase());
        let stands = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if starts && stands {
            Ok(Self { name })
        } else {
            Err(ConfigError::new(
                "permissions-policy",
                "a feature's name is lower-case letters, digits and hyphens",
            ))
        }
    }

    /// The name as it stands in the header.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    matches!(scheme, "https" | "http" | "wss" | "ws")
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
}

const POWERFUL: [Feature; 20] = [
    Feature::ACCELEROMETER,
    Feature::AUTOPLAY,
    Feature::BROWSING_TOPICS,
    Feature::CAMERA,
    Feature::CLIPBOARD_READ,
    Feature::DISPLAY_CAPTURE,
    Feature::ENCRYPTED_MEDIA,
    Feature::GEOLOCATION,
    Feature::GYROSCOPE,
    Feature::HID,
    Feature::IDLE_DETECTION,
    Feature::LOCAL_FONTS,
    Feature::MAGNETOMETER,
    Feature::MICROPHONE,
    Feature::MIDI,
    Feature::PAYMENT,
    Feature::SERIAL,
    Feature::USB,
    Feature::WINDOW_MANAGEMENT,
    Feature::XR_SPATIAL_TRACKING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let policy = PermissionsPolicy::new()
            .deny(Feature::CAMERA)
            .allow_self(Feature::FULLSCREEN)
            .allow_any(Feature::AUTOPLAY)
            .allow(
                Feature::USB,
                ["https://a.example", "https://*.b.example:8443"],
            )
            .unwrap();
        assert_eq!(
            policy.value(),
            "camera=(), fullscreen=(self), autoplay=*, \
             usb=(self \"https://a.example\" \"https://*.b.example:8443\")"
        );
        assert_eq!(
            policy.allow_self(Feature::CAMERA).entries[0].1,
            "(self)",
            "a second word on a feature replaces the first"
        );
    }

    #[test]
    fn what_could_break_out_of_the_header_is_refused() {
        for origin in [
            "",
            "a.example",
            "https://a.example/",
            "https://a.example\"",
            "https://a.example, camera=*",
            "https://a.example\r\nx: y",
            "https://a.example:x",
            "javascript://a",
            "https://a..example",
            "https://*",
        ] {
            let policy = PermissionsPolicy::new().allow(Feature::USB, [origin]);
            assert!(policy.is_err(), "{origin}");
        }
        for name in ["", "Camera", "camera=*", "a b", "1st", "a,b"] {
            assert!(Feature::named(name).is_err(), "{name}");
        }
        assert!(Feature::named("attribution-reporting").is_ok());
    }
}
