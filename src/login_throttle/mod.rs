//! Guesses at passwords are bounded for each account, and its owner is not locked out.
//!
//! A limit by address does not stop a botnet, and a lock on the account lets any stranger shut its
//! owner out. [`LoginThrottle`] counts *failed* logins for each account name, and gives each device
//! that logged in to it before a count of its own: the OWASP scheme of [device cookies].
//!
//! Admitted: up to the limit of failures in any window for strangers to an account, and as many for
//! each of its known devices. Answered otherwise: 429 with `Retry-After`, alike for every name, so
//! that nobody learns which accounts exist. Successful logins give their charge back.
//!
//! An instance counts for itself; with the feature `redis`, `LoginThrottle::shared` holds a fleet to
//! one limit.
//!
//! Deployment caveat: an owner on a *new* device shares the strangers' count, so while somebody
//! attacks his account he logs in from a device that he used before, or after the window. The limit
//! by address stands in front of this one and not in its place.
//!
//! ```
//! use portcullis::{Secret, login_throttle::LoginThrottle};
//! use http::{HeaderMap, header::COOKIE};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secrets = Secret::generate().into();
//! let throttle = LoginThrottle::new(2, Duration::from_secs(900), &secrets)?;
//!
//! // Ada logs in: her browser keeps the cookie.
//! let set_cookie = throttle.attempt("ada", &HeaderMap::new()).await?.succeed().await;
//! let cookie = set_cookie.to_str()?.split(';').next().unwrap_or_default().parse()?;
//! let adas = HeaderMap::from_iter([(COOKIE, cookie)]);
//!
//! // Strangers use up what strangers have; a dropped attempt is a failed one.
//! for _ in 0..2 {
//!     drop(throttle.attempt("ada", &HeaderMap::new()).await?);
//! }
//! let refused = throttle.attempt("ada", &HeaderMap::new()).await.unwrap_err();
//! assert_eq!(refused.status(), 429);
//! assert!(throttle.attempt("ada", &adas).await.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! [device cookies]: https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies

mod device;
mod failures;
mod throttle;

pub use throttle::{Attempt, LoginThrottle};
