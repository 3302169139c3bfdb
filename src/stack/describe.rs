//! What a stack does and why, in lines for an operator.

use std::fmt::{self, Display};

use super::security_stack::{Parts, SecurityStack};

/// A line for each gate, outermost first: whether it is on, how it is set, and what for.
///
/// ```
/// use portcullis::{Context, Origin, https::HttpsPolicy, stack::SecurityStack};
///
/// let stack = SecurityStack::new(Context::new())
///     .with_https(HttpsPolicy::new(Origin::new("https://example.com")?));
/// let told = stack.to_string();
/// assert!(told.contains("redirect     on   plain HTTP goes to https://example.com"));
/// assert!(told.contains("limits       off  "));
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
impl Display for SecurityStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        for (gate, setting) in edge(parts).into_iter().chain(route(parts)) {
            let (state, text) = match &setting {
                Ok(on) => ("on", on),
                Err(off) => ("off", off),
            };
            writeln!(f, "{gate:<12} {state:<4} {text}")?;
        }
        Ok(())
    }
}

/// How a gate is set, or what its absence means.
type Setting = Result<String, String>;

fn edge(parts: &Parts) -> Vec<(&'static str, Setting)> {
    vec![
        ("client", Ok(parts.client.to_string())),
        ("headers", headers(parts)),
        (
            "panic catch",
            Ok("a panic is a 500 with the headers, and its connection lives".to_owned()),
        ),
        ("cors", cors(parts)),
        ("hosts", hosts(parts)),
        ("redirect", redirect(parts)),
        ("cross-site", cross_site(parts)),
    ]
}

fn route(parts: &Parts) -> Vec<(&'static str, Setting)> {
    vec![
        ("limits", limits(parts)),
        (
            "body",
            Ok(
                "each guard bounds size and time; 16 KiB within 10 s unless it says otherwise"
                    .to_owned(),
            ),
        ),
        ("identity", identity(parts)),
        ("csrf token", csrf_token(parts)),
    ]
}

#[cfg(feature = "headers")]
fn headers(parts: &Parts) -> Setting {
    match parts.headers {
        Some(_) => Ok("every answer tells browsers what they must not do with it".to_owned()),
        None => off("browsers do what they like with answers"),
    }
}

#[cfg(not(feature = "headers"))]
fn headers(_: &Parts) -> Setting {
    off("the feature `headers` is")
}

#[cfg(feature = "cors")]
fn cors(parts: &Parts) -> Setting {
    let Some(cors) = &parts.cors else {
        return off("no other origin reads an answer");
    };
    let cookies = match cors.policy.allows_credentials() {
        true => "with",
        false => "without",
    };
    Ok(format!(
        "answers preflights; {} may read answers, {cookies} cookies",
        list(cors.policy.patterns(), "nobody")
    ))
}

#[cfg(not(feature = "cors"))]
fn cors(_: &Parts) -> Setting {
    off("the feature `cors` is; no other origin reads an answer")
}

fn hosts(parts: &Parts) -> Setting {
    match parts.https.as_ref().and_then(|https| https.hosts()) {
        Some(hosts) => Ok(format!(
            "{} alone, so that no foreign name gets into links, caches or redirects",
            list(hosts, "none")
        )),
        None => off("any host is served"),
    }
}

fn redirect(parts: &Parts) -> Setting {
    let to = parts.https.as_ref().and_then(|https| https.redirects_to());
    match to {
        Some(origin) => Ok(format!(
            "plain HTTP goes to {origin}, and nothing unsafe is taken over it"
        )),
        None => off("plain HTTP is served"),
    }
}

#[cfg(feature = "csrf")]
fn cross_site(parts: &Parts) -> Setting {
    let Some(csrf) = &parts.csrf else {
        return off("other sites act with their visitors' cookies");
    };
    let silent = match csrf.is_strict() {
        true => "none".to_owned(),
        false if csrf.cookies().is_empty() => "any".to_owned(),
        false => format!("any without {}", list(csrf.cookies(), "")),
    };
    Ok(format!(
        "unsafe requests come from {} alone; of those that do not say whence, {silent} is taken",
        list(csrf.origins(), "their own origin")
    ))
}

#[cfg(not(feature = "csrf"))]
fn cross_site(_: &Parts) -> Setting {
    off("the feature `csrf` is; other sites act with their visitors' cookies")
}

#[cfg(feature = "rate-limit")]
fn limits(parts: &Parts) -> Setting {
    let Some(limits) = &parts.limits else {
        return off("nothing bounds how often a client asks");
    };
    let each = limits.policies().map(|policy| {
        let who = match policy.needs_identity() {
            true => "identity",
            false => "client",
        };
        let (name, limit) = (policy.name(), policy.limit());
        format!("{name} {limit} in {:?} by {who}", policy.window())
    });
    Ok(format!("where a guard asks: {}", list(each, "none")))
}

#[cfg(not(feature = "rate-limit"))]
fn limits(_: &Parts) -> Setting {
    off("the feature `rate-limit` is; nothing bounds how often a client asks")
}

#[cfg(feature = "jwt")]
fn identity(parts: &Parts) -> Setting {
    let Some(authentication) = &parts.authentication else {
        return off("no guard can authenticate");
    };
    let cookies = authentication.cookies();
    Ok(match cookies.is_empty() {
        true => "where a guard asks: JWT access tokens".to_owned(),
        false => format!(
            "where a guard asks: JWT access tokens, also from the cookie {}",
            cookies.join(", ")
        ),
    })
}

#[cfg(not(feature = "jwt"))]
fn identity(_: &Parts) -> Setting {
    off("the feature `jwt` is; no guard can authenticate")
}

#[cfg(feature = "csrf")]
fn csrf_token(parts: &Parts) -> Setting {
    match parts.csrf_tokens {
        Some(_) => Ok("where a guard asks: X-CSRF-Token, signed for the session".to_owned()),
        None => off("no guard can ask for one"),
    }
}

#[cfg(not(feature = "csrf"))]
fn csrf_token(_: &Parts) -> Setting {
    off("the feature `csrf` is; no guard can ask for one")
}

fn off(text: &str) -> Setting {
    Err(text.to_owned())
}

fn list<T: Display>(items: impl IntoIterator<Item = T>, none: &str) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    match items.is_empty() {
        true => none.to_owned(),
        false => items.join(", "),
    }
}
