//! The built policy, and how it is put on an answer.

use std::{fmt, mem, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY_REPORT_ONLY, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY,
    },
};

use super::{
    csp::{Csp, Template},
    nonce::CspNonce,
    profile::Profile,
};
use crate::{client::Client, head::Head};

/// A built policy: one or two [`Profile`]s, rendered. Cheap to clone.
///
/// ```
/// use portcullis::headers::{Profile, SecurityHeaders};
///
/// let both = SecurityHeaders::new();                       // by the answer's content type
/// let api = SecurityHeaders::pinned(Profile::api());       // the same for every answer
/// let logged_in = both.clone().no_store_when(|head| head.headers.contains_key("cookie"));
/// # drop((api, logged_in));
/// ```
#[derive(Clone)]
#[must_use]
pub struct SecurityHeaders {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    html: Arc<Rendered>,
    api: Arc<Rendered>,
    /// What stands in both: for an answer whose kind only the browser's cache knows.
    common: Arc<Rendered>,
    no_store_when: fn(Head<'_>) -> bool,
    gives_nonce: bool,
}

impl SecurityHeaders {
    /// [`Profile::html`] for pages and [`Profile::api`] for all else.
    pub fn new() -> Self {
        Self::by_content_type(Profile::html(), Profile::api())
    }

    /// [`Profile::html`] for every answer.
    pub fn html() -> Self {
        Self::pinned(Profile::html())
    }

    /// [`Profile::api`] for every answer.
    pub fn api() -> Self {
        Self::pinned(Profile::api())
    }

    /// [`Profile::helmet`] for every answer, and nothing said about caches.
    pub fn helmet() -> Self {
        Self::pinned(Profile::helmet()).no_store_when(|_| false)
    }

    /// One profile for pages (`text/html`, `application/xhtml+xml`, `image/svg+xml`) and one for
    /// all else.
    pub fn by_content_type(html: Profile, api: Profile) -> Self {
        let common = common(&html, &api);
        let gives_nonce = gives_nonce(&html) || gives_nonce(&api);
        Self::build(
            Arc::new(Rendered::new(html)),
            Arc::new(Rendered::new(api)),
            Arc::new(Rendered::new(common)),
            gives_nonce,
        )
    }

    /// One profile for every answer.
    pub fn pinned(profile: Profile) -> Self {
        let gives_nonce = gives_nonce(&profile);
        let rendered = Arc::new(Rendered::new(profile));
        Self::build(
            Arc::clone(&rendered),
            Arc::clone(&rendered),
            rendered,
            gives_nonce,
        )
    }

    /// Puts `Cache-Control: no-store` on the answers to these requests, where the handler set no
    /// `Cache-Control`. By default on those to requests with `Authorization`.
    pub fn no_store_when(mut self, when: fn(Head<'_>) -> bool) -> Self {
        Arc::make_mut(&mut self.inner).no_store_when = when;
        self
    }

    /// Takes note of the request, and leaves a nonce with it where a profile has one.
    pub(crate) fn begin<A>(&self, request: &mut Request<A>) -> Pending {
        let head = Head::of(request);
        let secure = Client::of(head).is_some_and(Client::is_secure);
        let no_store = (self.inner.no_store_when)(head);
        let nested = request.extensions_mut().insert(Guarded).is_some();
        let nonce = self.inner.gives_nonce.then(|| {
            let outer = request.extensions().get::<CspNonce>().filter(|_| nested);
            outer.cloned().unwrap_or_else(|| {
                let nonce = CspNonce::new();
                request.extensions_mut().insert(nonce.clone());
                nonce
            })
        });
        Pending {
            headers: self.clone(),
            nonce,
            secure,
            no_store,
            nested,
        }
    }

    fn build(
        html: Arc<Rendered>,
        api: Arc<Rendered>,
        common: Arc<Rendered>,
        gives_nonce: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                html,
                api,
                common,
                no_store_when: |head| head.headers.contains_key(AUTHORIZATION),
                gives_nonce,
            }),
        }
    }

    fn rendered(&self, status: StatusCode, headers: &HeaderMap) -> &Rendered {
        if Arc::ptr_eq(&self.inner.html, &self.inner.api) {
            return &self.inner.api;
        }
        match headers.get(CONTENT_TYPE) {
            Some(value) if is_page(value.as_bytes()) => &self.inner.html,
            None if status == StatusCode::NOT_MODIFIED => &self.inner.common,
            _ => &self.inner.api,
        }
    }
}

impl Default for SecurityHeaders {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SecurityHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityHeaders")
            .field("html", &self.inner.html)
            .field("api", &self.inner.api)
            .finish_non_exhaustive()
    }
}

/// What a handler leaves in its response's extensions to be treated otherwise than the rest.
///
/// A value of one's own needs none of this: a header that the handler sets stays.
///
/// ```
/// use http::{Response, header::X_FRAME_OPTIONS};
/// use portcullis::headers::HeadersOverride;
///
/// let mut response = Response::new("an embeddable widget");
/// response.extensions_mut().insert(HeadersOverride::new().without(X_FRAME_OPTIONS));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct HeadersOverride {
    headers: Option<SecurityHeaders>,
    without: Vec<HeaderName>,
    no_store: Option<bool>,
}

impl HeadersOverride {
    /// Nothing is different.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses another policy for this answer. Build it once: building renders it. Its nonce is known
    /// only if the layer's own policy gives one.
    pub fn policy(self, headers: SecurityHeaders) -> Self {
        Self {
            headers: Some(headers),
            ..self
        }
    }

    /// Sends the answer without this header, whoever set it.
    pub fn without(mut self, name: HeaderName) -> Self {
        self.without.push(name);
        self
    }

    /// Says whether the answer gets `Cache-Control: no-store`, whatever the policy says.
    pub fn no_store(self, on: bool) -> Self {
        Self {
            no_store: Some(on),
            ..self
        }
    }
}

/// A request under way, and what its answer will need.
#[derive(Debug)]
pub(crate) struct Pending {
    headers: SecurityHeaders,
    nonce: Option<CspNonce>,
    secure: bool,
    no_store: bool,
    nested: bool,
}

impl Pending {
    /// Puts the policy on the answer.
    pub(crate) fn finish<B>(self, response: &mut Response<B>) {
        let mut overrides = None;
        if !response.extensions().is_empty() {
            if response.extensions().get::<Applied>().is_some() {
                return;
            }
            overrides = response.extensions_mut().remove::<HeadersOverride>();
        }
        let overrides = overrides.as_ref();
        let policy = overrides
            .and_then(|overrides| overrides.headers.as_ref())
            .unwrap_or(&self.headers);
        let status = response.status();
        let rendered = policy.rendered(status, response.headers());
        let nonce = self.nonce.as_ref().and_then(CspNonce::used);
        let nonced = nonce.is_some() && rendered.csp.iter().any(Policies::has_nonce);
        let no_store = overrides
            .and_then(|overrides| overrides.no_store)
            .unwrap_or_else(|| {
                let error = status.is_client_error() || status.is_server_error();
                self.no_store || nonced || rendered.errors_not_stored && error
            });

        let given = mem::take(response.headers_mut());
        let maps = match given.is_empty() {
            true => &rendered.maps,
            false => &rendered.roomy,
        };
        let headers = response.headers_mut();
        *headers = maps[index(self.secure, no_store)].clone();
        if let Some(nonce) = nonce.filter(|_| nonced) {
            // A cache would put a 304's policy on the page that it holds, whose nonce is another.
            let nonce = (status != StatusCode::NOT_MODIFIED).then_some(nonce);
            rendered.csp[usize::from(self.secure)].write(nonce, headers);
        }
        if !given.is_empty() {
            rendered.add(given, headers);
        }

        if let Some(overrides) = overrides {
            for name in &overrides.without {
                response.headers_mut().remove(name);
            }
        }
        if self.nested {
            response.extensions_mut().insert(Applied);
        }
    }
}

/// In a request: a layer is around, whose answer must know what layers further in decided.
#[derive(Clone, Copy, Debug)]
struct Guarded;

/// In a response: a layer further in has decided.
#[derive(Clone, Copy, Debug)]
struct Applied;

/// A profile as finished maps: over plain HTTP or HTTPS, to be stored or not.
struct Rendered {
    maps: [HeaderMap; 4],
    /// The same behind the names of [`ROOM`]: a clone has room for so many headers of the handler,
    /// and need not grow, which would move all that is in it.
    roomy: [HeaderMap; 4],
    /// Over plain HTTP, over HTTPS.
    csp: [Policies; 2],
    overriding: Vec<HeaderName>,
    stripped: Vec<HeaderName>,
    errors_not_stored: bool,
}

impl Rendered {
    fn new(profile: Profile) -> Self {
        let csp = [false, true].map(|secure| Policies {
            enforced: profile.csp.as_ref().map(|csp| csp.template(secure)),
            report_only: profile.report_only.as_ref().map(|csp| csp.template(secure)),
        });
        let map = |secure: bool, no_store: bool| {
            let mut map = profile.fixed.clone();
            let policies = &csp[usize::from(secure)];
            if let Some(template) = &policies.enforced {
                map.insert(CONTENT_SECURITY_POLICY, template.bare().clone());
            }
            if let Some(template) = &policies.report_only {
                map.insert(CONTENT_SECURITY_POLICY_REPORT_ONLY, template.bare().clone());
            }
            if let Some(hsts) = profile.hsts.filter(|_| secure) {
                map.insert(STRICT_TRANSPORT_SECURITY, hsts.value());
            }
            if no_store {
                map.insert(CACHE_CONTROL, NO_STORE);
            }
            map
        };
        let roomy = |map: &HeaderMap| {
            let mut roomy = HeaderMap::with_capacity(map.len() + ROOM_LEN + SLOTS);
            roomy.extend(ROOM.map(|name| (name, HeaderValue::from_static(""))));
            roomy.extend(map.clone());
            roomy
        };
        let maps = [
            map(false, false),
            map(true, false),
            map(false, true),
            map(true, true),
        ];
        let mut overriding = profile.overriding;
        overriding.retain(|name| maps.iter().any(|map| map.contains_key(name)));
        Self {
            roomy: maps.each_ref().map(roomy),
            maps,
            csp,
            overriding,
            stripped: profile.stripped,
            errors_not_stored: profile.errors_not_stored,
        }
    }

    /// Adds what the handler had set: its values stand in place of the profile's. `headers` is a
    /// clone of a roomy map.
    fn add(&self, given: HeaderMap, headers: &mut HeaderMap) {
        let mut filled = [false; ROOM_LEN];
        let mut last = None;
        for (name, value) in given {
            // Further values of one name come without the name.
            let Some(name) = name else {
                if let Some(name) = &last {
                    headers.append(name, value);
                }
                continue;
            };
            last = None;
            if self.stripped.contains(&name) || self.overriding.contains(&name) {
                continue;
            }
            match ROOM.iter().position(|room| *room == name) {
                // To go to its place is cheaper than to hash the name.
                Some(place) => {
                    filled[place] = true;
                    if let Some(room) = headers.values_mut().nth(place) {
                        *room = value;
                    }
                    last = Some(name);
                }
                None => {
                    headers.insert(&name, value);
                    last = Some(name);
                }
            }
        }
        for (name, filled) in ROOM.iter().zip(filled) {
            if !filled {
                headers.remove(name);
            }
        }
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.maps[index(true, false)].fmt(f)
    }
}

struct Policies {
    enforced: Option<Template>,
    report_only: Option<Template>,
}

impl Policies {
    fn has_nonce(&self) -> bool {
        let has = |template: &Option<Template>| template.as_ref().is_some_and(Template::has_nonce);
        has(&self.enforced) || has(&self.report_only)
    }

    /// Writes the policies that have a nonce; without one to write they are left out.
    fn write(&self, nonce: Option<&str>, headers: &mut HeaderMap) {
        for (name, template) in [
            (CONTENT_SECURITY_POLICY, &self.enforced),
            (CONTENT_SECURITY_POLICY_REPORT_ONLY, &self.report_only),
        ] {
            let Some(template) = template.as_ref().filter(|template| template.has_nonce()) else {
                continue;
            };
            match nonce.and_then(|nonce| template.with_nonce(nonce)) {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
    }
}

const fn index(secure: bool, no_store: bool) -> usize {
    secure as usize + 2 * (no_store as usize)
}

fn gives_nonce(profile: &Profile) -> bool {
    [&profile.csp, &profile.report_only]
        .into_iter()
        .flatten()
        .any(Csp::has_nonce)
}

/// What both profiles say.
fn common(html: &Profile, api: &Profile) -> Profile {
    let mut common = html.clone();
    common.csp = html.csp.clone().filter(|csp| api.csp.as_ref() == Some(csp));
    common.report_only = html
        .report_only
        .clone()
        .filter(|csp| api.report_only.as_ref() == Some(csp));
    common.hsts = html.hsts.filter(|hsts| api.hsts == Some(*hsts));
    for (name, value) in &html.fixed {
        if api.fixed.get(name) != Some(value) {
            common.fixed.remove(name);
        }
    }
    common
        .overriding
        .retain(|name| api.overriding.contains(name));
    for name in &api.stripped {
        if !common.stripped.contains(name) {
            common.stripped.push(name.clone());
        }
    }
    common
}

fn is_page(content_type: &[u8]) -> bool {
    let end = content_type
        .iter()
        .position(|byte| *byte == b';')
        .unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    [
        &b"text/html"[..],
        b"application/xhtml+xml",
        b"image/svg+xml",
    ]
    .iter()
    .any(|page| essence.eq_ignore_ascii_case(page))
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What most handlers set, and no profile can.
const ROOM: [HeaderName; ROOM_LEN] = [CONTENT_LENGTH, CONTENT_TYPE];
const ROOM_LEN: usize = 2;
const SLOTS: usize = 8;
