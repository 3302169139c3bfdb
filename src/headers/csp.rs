//! `Content-Security-Policy` (CSP Level 3), typed and checked when it is built.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;

use super::{
    nonce::TEXT_LEN,
    source::{Source, SourceKind},
    value::{from_checked, words},
};
use crate::error::ConfigError;

/// A built policy. Cheap to hold, since it is rendered once.
///
/// ```
/// use portcullis::headers::{Csp, Directive, Source};
///
/// let csp = Csp::builder()
///     .set(Directive::DefaultSrc, [Source::NONE])
///     .set(Directive::ScriptSrc, [Source::NONCE, Source::STRICT_DYNAMIC])
///     .set(Directive::ImgSrc, [Source::SELF, Source::scheme("data:")])
///     .build()?;
///
/// // What no browser could follow is refused when it is built.
/// let script = |sources: &[Source]| {
///     Csp::builder().set(Directive::ScriptSrc, sources.to_vec()).build()
/// };
/// assert!(script(&[Source::NONE, Source::SELF]).is_err());
/// assert!(script(&[Source::STRICT_DYNAMIC]).is_err());
/// assert!(script(&[Source::host("self")]).is_err());
/// # drop(csp);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Csp {
    directives: Vec<(Directive, Value)>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Value {
    Sources(Vec<Source>),
    Words(Vec<Cow<'static, str>>),
}

words! {
    /// A directive of a policy.
    Directive {
        /// What every other fetch directive falls back to.
        DefaultSrc = "default-src",
        /// Scripts.
        ScriptSrc = "script-src",
        /// `<script>` elements.
        ScriptSrcElem = "script-src-elem",
        /// Inline event handlers.
        ScriptSrcAttr = "script-src-attr",
        /// Styles.
        StyleSrc = "style-src",
        /// `<style>` and `<link rel=stylesheet>` elements.
        StyleSrcElem = "style-src-elem",
        /// `style` attributes.
        StyleSrcAttr = "style-src-attr",
        /// Images.
        ImgSrc = "img-src",
        /// Fonts.
        FontSrc = "font-src",
        /// Where scripts may connect to.
        ConnectSrc = "connect-src",
        /// Audio and video.
        MediaSrc = "media-src",
        /// Plug-ins.
        ObjectSrc = "object-src",
        /// Frames.
        FrameSrc = "frame-src",
        /// Frames and workers.
        ChildSrc = "child-src",
        /// Workers.
        WorkerSrc = "worker-src",
        /// Web application manifests.
        ManifestSrc = "manifest-src",
        /// Where forms may be sent. Does not fall back to `default-src`.
        FormAction = "form-action",
        /// Who may frame the page. Does not fall back to `default-src`.
        FrameAncestors = "frame-ancestors",
        /// What `<base>` may say. Does not fall back to `default-src`.
        BaseUri = "base-uri",
        /// A sandbox around the page: [`CspBuilder::sandbox`].
        Sandbox = "sandbox",
        /// Trusted Types for scripts: [`CspBuilder::require_trusted_types`].
        RequireTrustedTypesFor = "require-trusted-types-for",
        /// The names of Trusted Types policies: [`CspBuilder::trusted_types`].
        TrustedTypes = "trusted-types",
        /// The reporting endpoint: [`CspBuilder::report_to`].
        ReportTo = "report-to",
        /// Where older browsers report to: [`CspBuilder::report_uri`].
        ReportUri = "report-uri",
        /// Plain HTTP addresses in the page are asked for over HTTPS:
        /// [`CspBuilder::upgrade_insecure_requests`].
        UpgradeInsecureRequests = "upgrade-insecure-requests",
    }

    /// What a sandboxed page may do all the same.
    SandboxFlag {
        /// Downloads.
        AllowDownloads = "allow-downloads",
        /// Forms.
        AllowForms = "allow-forms",
        /// `alert`, `confirm`, `prompt`.
        AllowModals = "allow-modals",
        /// Locking the screen's orientation.
        AllowOrientationLock = "allow-orientation-lock",
        /// Locking the pointer.
        AllowPointerLock = "allow-pointer-lock",
        /// Pop-ups.
        AllowPopups = "allow-popups",
        /// Pop-ups outside the sandbox.
        AllowPopupsToEscapeSandbox = "allow-popups-to-escape-sandbox",
        /// Presentations.
        AllowPresentation = "allow-presentation",
        /// Its own origin.
        AllowSameOrigin = "allow-same-origin",
        /// Scripts.
        AllowScripts = "allow-scripts",
        /// Navigating the top window.
        AllowTopNavigation = "allow-top-navigation",
        /// Navigating the top window when the user acts.
        AllowTopNavigationByUserActivation = "allow-top-navigation-by-user-activation",
    }
}

impl Directive {
    /// Browsers take no `Reporting-Endpoints` over plain HTTP, and beside `report-to` they leave
    /// `report-uri` alone.
    const fn needs_https(self) -> bool {
        matches!(self, Self::UpgradeInsecureRequests | Self::ReportTo)
    }
}

impl Csp {
    /// An empty builder.
    pub const fn builder() -> CspBuilder {
        CspBuilder {
            directives: Vec::new(),
        }
    }

    /// The policy of pages: scripts and styles that carry the nonce, connections, fonts, manifests
    /// and forms of the page's own origin, images of the own origin or inline; no frame around it,
    /// no plug-in, no `<base>`, no inline handler, and Trusted Types.
    pub fn html() -> Self {
        Self {
            directives: vec![
                sources(Directive::DefaultSrc, [Source::NONE]),
                sources(Directive::ScriptSrc, [Source::NONCE]),
                sources(Directive::StyleSrc, [Source::NONCE]),
                sources(Directive::ImgSrc, [Source::SELF, Source::scheme("data:")]),
                sources(Directive::FontSrc, [Source::SELF]),
                sources(Directive::ConnectSrc, [Source::SELF]),
                sources(Directive::ManifestSrc, [Source::SELF]),
                sources(Directive::ObjectSrc, [Source::NONE]),
                sources(Directive::BaseUri, [Source::NONE]),
                sources(Directive::FormAction, [Source::SELF]),
                sources(Directive::FrameAncestors, [Source::NONE]),
                words(Directive::RequireTrustedTypesFor, ["'script'"]),
                words(Directive::UpgradeInsecureRequests, [] as [&str; 0]),
            ],
        }
    }

    /// The policy of everything that is not a page: nothing at all.
    pub fn api() -> Self {
        let nothing = [
            Directive::DefaultSrc,
            Directive::ObjectSrc,
            Directive::BaseUri,
            Directive::FormAction,
            Directive::FrameAncestors,
        ];
        Self {
            directives: nothing
                .into_iter()
                .map(|directive| sources(directive, [Source::NONE]))
                .collect(),
        }
    }

    /// What helmet 8.3.0 sends.
    pub(super) fn helmet() -> Self {
        let [own, none] = [Source::SELF, Source::NONE];
        let https = || Source::scheme("https:");
        let data = || Source::scheme("data:");
        Self {
            directives: vec![
                sources(Directive::DefaultSrc, [own.clone()]),
                sources(Directive::BaseUri, [own.clone()]),
                sources(Directive::FontSrc, [own.clone(), https(), data()]),
                sources(Directive::FormAction, [own.clone()]),
                sources(Directive::FrameAncestors, [own.clone()]),
                sources(Directive::ImgSrc, [own.clone(), data()]),
                sources(Directive::ObjectSrc, [none.clone()]),
                sources(Directive::ScriptSrc, [own.clone()]),
                sources(Directive::ScriptSrcAttr, [none]),
                sources(Directive::StyleSrc, [own, https(), Source::UNSAFE_INLINE]),
                words(Directive::UpgradeInsecureRequests, [] as [&str; 0]),
            ],
        }
    }

    /// A builder that starts from this policy.
    pub fn edit(self) -> CspBuilder {
        CspBuilder {
            directives: self.directives,
        }
    }

    /// Whether a directive asks for the request's nonce.
    #[must_use]
    pub fn has_nonce(&self) -> bool {
        self.directives.iter().any(|(_, value)| match value {
            Value::Sources(sources) => sources.contains(&Source::NONCE),
            Value::Words(_) => false,
        })
    }

    pub(super) fn has(&self, directive: Directive) -> bool {
        self.directives.iter().any(|(own, _)| *own == directive)
    }

    /// The policy's text for clients that speak HTTPS, or for those that do not.
    pub(super) fn template(&self, secure: bool) -> Template {
        Template {
            bare: from_checked(self.render(secure, None)),
            pieces: if self.has_nonce() {
                self.render(secure, Some(MARK))
                    .split(MARK)
                    .map(Box::from)
                    .collect()
            } else {
                Box::default()
            },
        }
    }

    fn render(&self, secure: bool, nonce: Option<&str>) -> String {
        let mut text = String::new();
        for (directive, value) in &self.directives {
            if !secure && directive.needs_https() {
                continue;
            }
            if !text.is_empty() {
                text.push(';');
            }
            text.push_str(directive.as_str());
            match value {
                Value::Sources(sources) => {
                    let before = text.len();
                    for source in sources {
                        match (source.kind(), nonce) {
                            (SourceKind::Nonce, Some(nonce)) => {
                                text.push_str(" 'nonce-");
                                text.push_str(nonce);
                                text.push('\'');
                            }
                            (SourceKind::Nonce, None) => {}
                            _ => {
                                text.push(' ');
                                text.push_str(source.as_str());
                            }
                        }
                    }
                    if text.len() == before {
                        text.push_str(" 'none'");
                    }
                }
                Value::Words(words) => {
                    for word in words {
                        text.push(' ');
                        text.push_str(word);
                    }
                }
            }
        }
        text
    }
}

/// A policy that is being written.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CspBuilder {
    directives: Vec<(Directive, Value)>,
}

impl CspBuilder {
    /// Sets a directive's sources, in place of any that it had.
    pub fn set(self, directive: Directive, sources: impl IntoIterator<Item = Source>) -> Self {
        self.put(directive, Value::Sources(sources.into_iter().collect()))
    }

    /// Adds sources to a directive; the first takes the place of `'none'`.
    pub fn add(mut self, directive: Directive, more: impl IntoIterator<Item = Source>) -> Self {
        match self
            .directives
            .iter_mut()
            .find(|entry| entry.0 == directive)
        {
            Some((_, Value::Sources(list))) => {
                list.retain(|source| *source != Source::NONE);
                list.extend(more);
                self
            }
            _ => self.set(directive, more),
        }
    }

    /// Leaves a directive out.
    pub fn without(mut self, directive: Directive) -> Self {
        self.directives.retain(|entry| entry.0 != directive);
        self
    }

    /// Puts the page in a sandbox that allows only `flags`.
    pub fn sandbox(self, flags: impl IntoIterator<Item = SandboxFlag>) -> Self {
        let flags = flags.into_iter().map(|flag| flag.as_str().into());
        self.put(Directive::Sandbox, Value::Words(flags.collect()))
    }

    /// Takes only Trusted Types where text becomes code.
    pub fn require_trusted_types(self) -> Self {
        self.put(
            Directive::RequireTrustedTypesFor,
            Value::Words(vec!["'script'".into()]),
        )
    }

    /// Lets scripts create only the Trusted Types policies of these names; `*` is any,
    /// `'allow-duplicates'` lets a name be used twice, and no name at all is `'none'`.
    pub fn trusted_types<N: Into<Cow<'static, str>>>(
        self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        let mut names: Vec<_> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            names.push("'none'".into());
        }
        self.put(Directive::TrustedTypes, Value::Words(names))
    }

    /// Reports violations to the endpoint that `Reporting-Endpoints` has under this name. Sent over
    /// HTTPS alone, as browsers know endpoints of no other page; with
    /// [`report_uri`](Self::report_uri) beside it, pages over plain HTTP report too.
    pub fn report_to(self, endpoint: impl Into<Cow<'static, str>>) -> Self {
        self.put(Directive::ReportTo, Value::Words(vec![endpoint.into()]))
    }

    /// Reports violations to these addresses, for browsers without `report-to`.
    pub fn report_uri<U: Into<Cow<'static, str>>>(self, uris: impl IntoIterator<Item = U>) -> Self {
        let uris = uris.into_iter().map(Into::into).collect();
        self.put(Directive::ReportUri, Value::Words(uris))
    }

    /// Asks for plain HTTP addresses in the page over HTTPS. Sent over HTTPS alone.
    pub fn upgrade_insecure_requests(self) -> Self {
        self.put(Directive::UpgradeInsecureRequests, Value::Words(Vec::new()))
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// Where a browser could not do what the policy says, or would do something else:
    /// - no directive, or one without a source (`'none'` is written);
    /// - `'none'` beside others; a source that means nothing in its directive, such as a nonce for
    ///   images;
    /// - `'strict-dynamic'` without a nonce or hash, which runs nothing; `'unsafe-hashes'` without
    ///   a hash; `'unsafe-inline'` beside a nonce, a hash or `'strict-dynamic'`, which all browsers
    ///   then ignore;
    /// - a host, scheme, name or address that would not be read back as what it is, such as a
    ///   keyword without its quotes or anything with `;`, `,`, a space or a control character.
    pub fn build(self) -> Result<Csp, ConfigError> {
        if self.directives.is_empty() {
            return Err(ConfigError::new(
                "content-security-policy",
                "a policy has at least one directive",
            ));
        }
        for (directive, value) in &self.directives {
            let problem = match value {
                Value::Sources(sources) => sources_problem(*directive, sources),
                Value::Words(words) => words_problem(*directive, words),
            };
            if let Some(problem) = problem {
                return Err(ConfigError::new(
                    format!("content-security-policy {}", directive.as_str()),
                    problem,
                ));
            }
        }
        Ok(Csp {
            directives: self.directives,
        })
    }

    fn put(mut self, directive: Directive, mut value: Value) -> Self {
        if let Value::Sources(sources) = &mut value {
            let mut seen = Vec::with_capacity(sources.len());
            sources.retain(|source| {
                let new = !seen.contains(source);
                if new {
                    seen.push(source.clone());
                }
                new
            });
        }
        match self
            .directives
            .iter_mut()
            .find(|entry| entry.0 == directive)
        {
            Some(entry) => entry.1 = value,
            None => self.directives.push((directive, value)),
        }
        self
    }
}

/// A policy's text with the places of its nonce.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The text without the nonce.
    bare: HeaderValue,
    /// The text around the nonces; empty where there are none.
    pieces: Box<[Box<str>]>,
}

impl Template {
    pub(super) fn bare(&self) -> &HeaderValue {
        &self.bare
    }

    pub(super) fn has_nonce(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The text with `nonce` in its places; `None` where there are none.
    pub(super) fn with_nonce(&self, nonce: &str) -> Option<HeaderValue> {
        let (first, rest) = self.pieces.split_first()?;
        let length: usize = self.pieces.iter().map(|piece| piece.len()).sum();
        let mut text = String::with_capacity(length + rest.len() * TEXT_LEN);
        text.push_str(first);
        for piece in rest {
            text.push_str(nonce);
            text.push_str(piece);
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

fn sources(directive: Directive, list: impl Into<Vec<Source>>) -> (Directive, Value) {
    (directive, Value::Sources(list.into()))
}

fn words(directive: Directive, list: impl IntoIterator<Item = &'static str>) -> (Directive, Value) {
    let list = list.into_iter().map(Cow::Borrowed).collect();
    (directive, Value::Words(list))
}

fn sources_problem(directive: Directive, sources: &[Source]) -> Option<Cow<'static, str>> {
    let kinds = || sources.iter().map(Source::kind);
    let has = |kind| kinds().any(|own| own == kind);
    if !takes_sources(directive) {
        return Some("it takes no sources; the builder has a method for it".into());
    }
    if sources.is_empty() {
        return Some("it has no source; to allow nothing, say `Source::NONE`".into());
    }
    if has(SourceKind::None) && sources.len() > 1 {
        return Some("`'none'` stands alone".into());
    }
    for source in sources {
        if let Some(problem) = source.problem() {
            return Some(problem.into());
        }
        if !means_something(directive, source.kind()) {
            return Some(format!("{} means nothing here", source.as_str()).into());
        }
    }
    let trusts_code = has(SourceKind::Nonce) || has(SourceKind::Hash);
    if has(SourceKind::StrictDynamic) && !trusts_code {
        return Some("`'strict-dynamic'` without a nonce or hash runs nothing".into());
    }
    if has(SourceKind::UnsafeHashes) && !has(SourceKind::Hash) {
        return Some("`'unsafe-hashes'` needs a hash".into());
    }
    if has(SourceKind::UnsafeInline) && trusts_code {
        return Some("`'unsafe-inline'` is ignored beside a nonce or hash".into());
    }
    None
}

const fn takes_sources(directive: Directive) -> bool {
    !matches!(
        directive,
        Directive::Sandbox
            | Directive::RequireTrustedTypesFor
            | Directive::TrustedTypes
            | Directive::ReportTo
            | Directive::ReportUri
            | Directive::UpgradeInsecureRequests
    )
}

/// Whether browsers look at this kind of source in this directive.
fn means_something(directive: Directive, kind: SourceKind) -> bool {
    use Directive as D;

    let script = matches!(directive, D::DefaultSrc | D::ScriptSrc | D::ScriptSrcElem);
    let style = matches!(directive, D::DefaultSrc | D::StyleSrc | D::StyleSrcElem);
    let attribute = matches!(directive, D::ScriptSrcAttr | D::StyleSrcAttr);
    let whole = matches!(directive, D::DefaultSrc | D::ScriptSrc | D::StyleSrc);
    match kind {
        SourceKind::None => true,
        SourceKind::SelfOrigin | SourceKind::Any | SourceKind::Scheme | SourceKind::Host => {
            !attribute
        }
        SourceKind::Nonce => script || style,
        SourceKind::Hash | SourceKind::UnsafeInline | SourceKind::ReportSample => {
            script || style || attribute
        }
        SourceKind::UnsafeHashes => whole || attribute,
        SourceKind::StrictDynamic | SourceKind::SpeculationRules => script,
        SourceKind::UnsafeEval | SourceKind::WasmUnsafeEval => {
            matches!(directive, D::DefaultSrc | D::ScriptSrc)
        }
    }
}

fn words_problem(directive: Directive, words: &[Cow<'static, str>]) -> Option<Cow<'static, str>> {
    let all = |stands: fn(&str) -> bool| words.iter().all(|word| stands(word));
    match directive {
        Directive::TrustedTypes if !all(is_policy_name) => {
            Some("a policy's name is letters, digits and `-#=_/@.%`".into())
        }
        Directive::TrustedTypes if words.len() > 1 && words.iter().any(|word| word == "'none'") => {
            Some("`'none'` stands alone".into())
        }
        Directive::ReportTo if !all(is_token) => {
            Some("an endpoint's name is letters, digits, `-` and `_`".into())
        }
        Directive::ReportUri if words.is_empty() || !all(is_uri) => {
            Some("an address is visible ASCII without `;` and `,`".into())
        }
        _ => None,
    }
}

fn is_policy_name(word: &str) -> bool {
    matches!(word, "*" | "'none'" | "'allow-duplicates'")
        || !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-#=_/@.%".contains(&byte))
}

fn is_token(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_uri(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b';' | b','))
}

/// Stands for the nonce until it is known; no checked text holds it.
const MARK: &str = "\0";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(csp: &Csp, secure: bool) -> String {
        let template = csp.template(secure);
        template.bare().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_presets_are_what_their_own_builder_accepts() {
        for csp in [Csp::html(), Csp::api(), Csp::helmet()] {
            assert_eq!(csp.clone().edit().build(), Ok(csp));
        }
    }

    #[test]
    fn a_nonce_stands_in_all_its_places_or_nowhere() {
        let template = Csp::html().template(true);
        let with = template.with_nonce("abc").unwrap();
        let with = with.to_str().unwrap();
        assert!(with.contains("script-src 'nonce-abc';"));
        assert!(with.contains("style-src 'nonce-abc';"));
        assert!(with.ends_with(";upgrade-insecure-requests"));
        let without = template.bare().to_str().unwrap();
        assert!(without.contains("script-src 'none';style-src 'none';"));
        assert!(!without.contains("nonce"));
        assert!(Csp::api().template(true).with_nonce("abc").is_none());
    }

    #[test]
    fn requests_are_upgraded_over_https_alone() {
        assert!(text(&Csp::html(), true).contains("upgrade-insecure-requests"));
        assert!(!text(&Csp::html(), false).contains("upgrade-insecure-requests"));
    }

    #[test]
    fn adding_takes_the_place_of_none() {
        let csp = Csp::api()
            .edit()
            .add(Directive::DefaultSrc, [Source::SELF])
            .build()
            .unwrap();
        assert!(text(&csp, false).starts_with("default-src 'self';"));
    }

    #[test]
    fn strict_dynamic_stays_when_the_nonce_goes() {
        let csp = Csp::builder()
            .set(
                Directive::ScriptSrc,
                [
                    Source::NONCE,
                    Source::STRICT_DYNAMIC,
                    Source::scheme("https:"),
                ],
            )
            .build()
            .unwrap();
        // Without it, every https script would run.
        assert_eq!(text(&csp, false), "script-src 'strict-dynamic' https:");
    }

    #[test]
    fn the_other_directives() {
        let csp = Csp::builder()
            .sandbox([SandboxFlag::AllowForms, SandboxFlag::AllowScripts])
            .require_trusted_types()
            .trusted_types(["default", "dompurify"])
            .report_to("csp")
            .report_uri(["/csp-report"])
            .build()
            .unwrap();
        assert_eq!(
            text(&csp, true),
            "sandbox allow-forms allow-scripts;require-trusted-types-for 'script';\
             trusted-types default dompurify;report-to csp;report-uri /csp-report"
        );
        assert_eq!(
            text(&csp, false),
            "sandbox allow-forms allow-scripts;require-trusted-types-for 'script';\
             trusted-types default dompurify;report-uri /csp-report"
        );
    }

    #[test]
    fn impossible_policies_are_refused() {
        let set =
            |directive, sources: &[Source]| Csp::builder().set(directive, sources.to_vec()).build();
        use Directive as D;
        for (directive, sources) in [
            (D::ScriptSrc, &[][..]),
            (D::ScriptSrc, &[Source::NONE, Source::SELF]),
            (D::ScriptSrc, &[Source::STRICT_DYNAMIC, Source::SELF]),
            (D::ScriptSrc, &[Source::UNSAFE_HASHES]),
            (D::ScriptSrc, &[Source::UNSAFE_INLINE, Source::NONCE]),
            (D::ScriptSrc, &[Source::UNSAFE_INLINE, Source::sha256("x")]),
            (D::ScriptSrc, &[Source::host("self")]),
            (D::ScriptSrc, &[Source::host("a.example;object-src *")]),
            (D::ScriptSrc, &[Source::scheme("data")]),
            (D::ScriptSrcAttr, &[Source::NONCE]),
            (D::ImgSrc, &[Source::NONCE]),
            (D::ImgSrc, &[Source::UNSAFE_INLINE]),
            (D::StyleSrc, &[Source::NONCE, Source::STRICT_DYNAMIC]),
            (D::StyleSrc, &[Source::UNSAFE_EVAL]),
            (D::FrameAncestors, &[Source::sha256("x")]),
            (D::FormAction, &[Source::NONCE]),
            (D::Sandbox, &[Source::SELF]),
            (D::UpgradeInsecureRequests, &[Source::SELF]),
        ] {
            assert!(
                set(directive, sources).is_err(),
                "{directive:?} {sources:?}"
            );
        }
        assert!(Csp::builder().build().is_err());
        for name in ["", "a b", "a;b", "a\nb"] {
            assert!(Csp::builder().report_to(name).build().is_err());
            assert!(Csp::builder().report_uri([name]).build().is_err());
            assert!(Csp::builder().trusted_types([name]).build().is_err());
        }
        assert!(
            Csp::builder()
                .trusted_types(["'none'", "a"])
                .build()
                .is_err()
        );
    }

    #[test]
    fn an_error_names_the_directive() {
        let error = Csp::builder()
            .set(Directive::ImgSrc, [Source::NONCE])
            .build()
            .unwrap_err();
        assert_eq!(error.setting(), "content-security-policy img-src");
    }
}
