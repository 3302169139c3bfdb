//! The claims that this crate checks.

use std::time::Duration;

use super::{
    error::VerifyError,
    json::Json,
    verifier::{Config, Trust},
};
use crate::{
    identity::{IdentityKind, Parts, Span, Spans},
    time::UnixMillis,
};

/// The registered claims of a token (RFC 7519 section 4.1, RFC 9068 section 2.2), each of its type.
pub(crate) struct Registered<'a> {
    pub(crate) issuer: Option<&'a str>,
    subject: &'a str,
    audience: Audience<'a>,
    pub(crate) expires_at: UnixMillis,
    pub(crate) not_before: Option<UnixMillis>,
    pub(crate) issued_at: Option<UnixMillis>,
    token: Option<&'a str>,
    session: Option<&'a str>,
    auth_time: Option<UnixMillis>,
    scopes: [Texts<'a>; 2],
    roles: Texts<'a>,
    bound: bool,
}

/// `aud`: one text or several.
enum Audience<'a> {
    Nobody,
    One(&'a str),
    Several(&'a [Json<'a>]),
}

/// A claim of one text or several; each is one.
enum Texts<'a> {
    None,
    One(&'a str),
    Several(&'a [Json<'a>]),
}

impl<'a> Registered<'a> {
    /// Reads the claims. One of a wrong type is refused and never passed over.
    pub(crate) fn read(json: &'a Json<'a>) -> Result<Self, VerifyError> {
        let mut issuer = None;
        let mut subject = None;
        let mut audience = Audience::Nobody;
        let mut expires_at = None;
        let mut not_before = None;
        let mut issued_at = None;
        let mut token = None;
        let mut session = None;
        let mut auth_time = None;
        let mut scopes = [Texts::None, Texts::None];
        let mut roles = Texts::None;
        let mut bound = false;
        for (name, value) in json.members() {
            match name.as_bytes() {
                b"iss" => issuer = Some(text(value, "iss")?),
                b"sub" => subject = Some(text(value, "sub")?),
                b"aud" => {
                    audience = match texts(value, "aud")? {
                        Texts::None => Audience::Nobody,
                        Texts::One(one) => Audience::One(one),
                        Texts::Several(several) => Audience::Several(several),
                    }
                }
                b"exp" => expires_at = Some(numeric_date(value, "exp", Rounding::Down)?),
                b"nbf" => not_before = Some(numeric_date(value, "nbf", Rounding::Up)?),
                b"iat" => issued_at = Some(numeric_date(value, "iat", Rounding::Down)?),
                b"jti" => token = Some(text(value, "jti")?),
                b"sid" => session = Some(text(value, "sid")?),
                b"auth_time" => {
                    auth_time = Some(numeric_date(value, "auth_time", Rounding::Down)?);
                }
                b"scope" => scopes[0] = Texts::One(text(value, "scope")?),
                b"scp" => scopes[1] = texts(value, "scp")?,
                b"roles" => roles = texts(value, "roles")?,
                b"cnf" => bound = true,
                _ => {}
            }
        }
        Ok(Self {
            issuer,
            subject: subject.ok_or(VerifyError::MissingClaim("sub"))?,
            audience,
            expires_at: expires_at.ok_or(VerifyError::MissingClaim("exp"))?,
            not_before,
            issued_at,
            token,
            session,
            auth_time,
            scopes,
            roles,
            bound,
        })
    }

    /// Holds the claims against a policy.
    pub(crate) fn check(
        &self,
        config: &Config,
        trust: &Trust,
        now: UnixMillis,
    ) -> Result<(), VerifyError> {
        check_time(
            config,
            now,
            self.expires_at,
            self.not_before,
            self.issued_at,
        )?;
        match self.issuer {
            Some(issuer) if trust.issuer.accepts(issuer) => {}
            Some(_) => return Err(VerifyError::WrongIssuer),
            None if trust.issuer.is_anything() => {}
            None => return Err(VerifyError::MissingClaim("iss")),
        }
        let meant = match &self.audience {
            Audience::Nobody if config.audience.is_anything() => true,
            Audience::Nobody => return Err(VerifyError::MissingClaim("aud")),
            Audience::One(one) => config.audience.accepts(one),
            Audience::Several(several) => {
                config.audience.is_anything()
                    || several
                        .iter()
                        .filter_map(Json::as_text)
                        .any(|one| config.audience.accepts(one))
            }
        };
        if !meant {
            return Err(VerifyError::WrongAudience);
        }
        if self.bound {
            return Err(VerifyError::Bound);
        }
        if self.subject.is_empty() {
            return Err(VerifyError::InvalidClaim("sub"));
        }
        Ok(())
    }

    /// The identity that the claims tell, whose texts point into `json`. What stands there in
    /// escapes is to be appended to it: that is the parts' text.
    pub(crate) fn identity_parts(&self, json: &str) -> Parts {
        let mut behind = String::new();
        let mut place = |part: &str| {
            Span::within(json, part).unwrap_or_else(|| {
                let start = json.len() + behind.len();
                behind.push_str(part);
                Span::new(start, json.len() + behind.len())
            })
        };
        let mut scopes = Spans::default();
        for texts in &self.scopes {
            texts.iter().for_each(|scope| scopes.push(place(scope)));
        }
        let mut roles = Spans::default();
        self.roles.iter().for_each(|role| roles.push(place(role)));
        Parts {
            kind: IdentityKind::AccessToken,
            subject: place(self.subject),
            issuer: self.issuer.map(&mut place),
            session: self.session.map(&mut place),
            token: self.token.map(&mut place),
            scopes,
            roles,
            auth_time: self.auth_time,
            expires_at: Some(self.expires_at),
            text: behind,
        }
    }
}

/// Whether claims that a policy asks for are there.
pub(crate) fn check_presence(
    json: &Json<'_>,
    required: &[&'static str],
) -> Result<(), VerifyError> {
    let is_there = |required: &str| {
        json.members()
            .any(|(name, value)| name == required && *value != Json::Null)
    };
    match required.iter().find(|name| !is_there(name)) {
        Some(name) => Err(VerifyError::MissingClaim(name)),
        None => Ok(()),
    }
}

/// Whether a token with these times counts at `now`. Asked again on every use of a cached token.
pub(crate) fn check_time(
    config: &Config,
    now: UnixMillis,
    expires_at: UnixMillis,
    not_before: Option<UnixMillis>,
    issued_at: Option<UnixMillis>,
) -> Result<(), VerifyError> {
    if now >= expires_at.saturating_add(config.leeway) {
        return Err(VerifyError::Expired);
    }
    let soon = now.saturating_add(CLOCK_SKEW);
    if not_before.is_some_and(|at| at > soon) {
        return Err(VerifyError::NotYetValid);
    }
    if issued_at.is_some_and(|at| at > soon) {
        return Err(VerifyError::IssuedInFuture);
    }
    if let Some(max_age) = config.max_age {
        let issued_at = issued_at.ok_or(VerifyError::MissingClaim("iat"))?;
        if now > issued_at.saturating_add(max_age) {
            return Err(VerifyError::TooOld);
        }
    }
    Ok(())
}

impl<'a> Texts<'a> {
    fn iter(&self) -> impl Iterator<Item = &'a str> {
        let (one, several) = match self {
            Self::None => (None, &[][..]),
            Self::One(one) => (Some(*one), &[][..]),
            Self::Several(several) => (None, *several),
        };
        one.into_iter()
            .chain(several.iter().filter_map(Json::as_text))
    }
}

fn text<'a>(value: &'a Json<'a>, claim: &'static str) -> Result<&'a str, VerifyError> {
    value.as_text().ok_or(VerifyError::InvalidClaim(claim))
}

fn texts<'a>(value: &'a Json<'a>, claim: &'static str) -> Result<Texts<'a>, VerifyError> {
    match value {
        Json::Text(one) => Ok(Texts::One(one)),
        Json::List(several) if several.iter().all(|item| item.as_text().is_some()) => {
            Ok(Texts::Several(several))
        }
        _ => Err(VerifyError::InvalidClaim(claim)),
    }
}

#[derive(Clone, Copy)]
enum Rounding {
    Down,
    Up,
}

/// A NumericDate: seconds, perhaps with a fraction. Rounded so that the token lives no longer.
fn numeric_date(
    value: &Json<'_>,
    claim: &'static str,
    rounding: Rounding,
) -> Result<UnixMillis, VerifyError> {
    match *value {
        Json::Unsigned(seconds) => Ok(UnixMillis::from_secs(
            i64::try_from(seconds).unwrap_or(i64::MAX),
        )),
        Json::Signed(seconds) => Ok(UnixMillis::from_secs(seconds)),
        Json::Float(seconds) if seconds.is_finite() => {
            let millis = seconds * 1_000.0;
            // A cast of a float stops at the ends of the integer's range.
            Ok(UnixMillis::new(match rounding {
                Rounding::Down => millis.floor() as i64,
                Rounding::Up => millis.ceil() as i64,
            }))
        }
        _ => Err(VerifyError::InvalidClaim(claim)),
    }
}

/// How far in the future another host's clock may write `nbf` and `iat`.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
