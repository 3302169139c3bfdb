//! The names of metrics. Their labels are closed sets: no label holds a user, token, key or address.

/// Counter of refusals, by `gate` and `reason`.
pub const REJECTIONS: &str = "portcullis_rejections_total";
/// Counter of logins, by `outcome`: `success`, `failure`, `limited`, `error`.
pub const LOGINS: &str = "portcullis_logins_total";
/// Counter of refreshes, by `outcome`.
pub const REFRESHES: &str = "portcullis_refreshes_total";
/// Counter of events, by `event`.
pub const EVENTS: &str = "portcullis_events_total";
/// Histogram of password hashing, in seconds.
pub const PASSWORD_HASH_SECONDS: &str = "portcullis_password_hash_seconds";
/// Histogram of store calls in seconds, by `store` and `op`.
pub const STORE_SECONDS: &str = "portcullis_store_seconds";
