//! The cookie of a device that has logged in before.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    secret::{Secret, Secrets, random},
    time::UnixMillis,
};

/// What tells one device of an account from another.
pub(super) type DeviceId = [u8; ID_LEN];

/// The keys that entries are signed under, the current one first.
pub(super) struct DeviceKeys(Vec<Hmac<Sha256>>);

impl DeviceKeys {
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self(secrets.iter().map(subkey).collect())
    }

    /// The device of `account` that one of the entries in a cookie's value stands for.
    pub(super) fn known(&self, value: &str, account: &str, now: UnixMillis) -> Option<DeviceId> {
        entries(value)?
            .find(|entry| self.is_of(entry, account, now))
            .map(|entry| *entry.id())
    }

    /// A cookie's value in which `device` is known to `account`, made from the value that the
    /// request carried: a browser that several people use keeps what it knows of the others.
    pub(super) fn value(
        &self,
        device: DeviceId,
        account: &str,
        carried: Option<&str>,
        now: UnixMillis,
    ) -> String {
        let mut bytes = Vec::with_capacity(MAX_ENTRIES * ENTRY_LEN);
        let day = day(now);
        bytes.extend_from_slice(&device);
        bytes.extend_from_slice(&day.to_be_bytes());
        if let Some(key) = self.0.first() {
            bytes.extend_from_slice(&mac(key, account, &device, day).finalize().into_bytes());
        }
        let others = carried.and_then(entries).into_iter().flatten();
        let others = others.filter(|entry| !self.is_of(entry, account, now));
        for entry in others.take(MAX_ENTRIES - 1) {
            bytes.extend_from_slice(&entry.0);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn is_of(&self, entry: &Entry, account: &str, now: UnixMillis) -> bool {
        let age = day(now).saturating_sub(entry.day());
        age <= MAX_AGE_DAYS
            && self.0.iter().any(|key| {
                mac(key, account, entry.id(), entry.day())
                    .verify_slice(entry.tag())
                    .is_ok()
            })
    }
}

pub(super) fn new_device() -> DeviceId {
    random()
}

/// How long a device stays known after its last login, in seconds.
pub(super) const MAX_AGE_SECS: u64 = MAX_AGE_DAYS as u64 * 86_400;

struct Entry([u8; ENTRY_LEN]);

impl Entry {
    fn id(&self) -> &DeviceId {
        self.0.first_chunk().expect("an entry is longer")
    }

    fn day(&self) -> u32 {
        u32::from_be_bytes(*self.0[ID_LEN..].first_chunk().expect("an entry is longer"))
    }

    fn tag(&self) -> &[u8] {
        &self.0[ID_LEN + DAY_LEN..]
    }
}

/// Entries are of one length, so a value is all of them or none.
fn entries(value: &str) -> Option<impl Iterator<Item = Entry>> {
    let mut bytes = [0; MAX_ENTRIES * ENTRY_LEN];
    let len = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
    (len % ENTRY_LEN == 0).then(|| {
        (0..len / ENTRY_LEN).map(move |index| {
            let mut entry = [0; ENTRY_LEN];
            entry.copy_from_slice(&bytes[index * ENTRY_LEN..][..ENTRY_LEN]);
            Entry(entry)
        })
    })
}

/// A key of its own (RFC 5869), so that the secret may serve other uses too.
fn subkey(secret: &Secret) -> Hmac<Sha256> {
    let mut subkey = [0; 32];
    Hkdf::<Sha256>::new(Some(b"portcullis device cookie"), secret.expose())
        .expand(b"known device 1", &mut subkey)
        .expect("a subkey is shorter than 255 digests");
    Hmac::new_from_slice(&subkey).expect("HMAC takes keys of any length")
}

fn mac(key: &Hmac<Sha256>, account: &str, device: &DeviceId, day: u32) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(device);
    mac.update(&day.to_be_bytes());
    mac.update(account.as_bytes());
    mac
}

/// Days since 1970: finer would tell when somebody logged in.
fn day(now: UnixMillis) -> u32 {
    u32::try_from(now.as_millis() / 86_400_000).unwrap_or_default()
}

const ID_LEN: usize = 16;
const DAY_LEN: usize = 4;
const ENTRY_LEN: usize = ID_LEN + DAY_LEN + 32;
/// Accounts that a browser is known to at once.
const MAX_ENTRIES: usize = 4;
const MAX_AGE_DAYS: u32 = 180;
