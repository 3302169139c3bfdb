//! What one kind of answer is given, header by header.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, CONTENT_TYPE, DATE, LOCATION,
        REFERRER_POLICY, SERVER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        X_DNS_PREFETCH_CONTROL, X_FRAME_OPTIONS, X_XSS_PROTECTION,
    },
};

use super::{
    csp::{Csp, Directive},
    hsts::Hsts,
    permissions::PermissionsPolicy,
    reporting::ReportingEndpoints,
    value::{
        CrossDomainPolicies, EmbedderPolicy, FrameOptions, OpenerPolicy, ReferrerPolicy,
        ResourcePolicy,
    },
};
use crate::error::ConfigError;

/// The headers of one kind of answer. Each is set only where the answer has none of that name,
/// unless it is named [`overriding`](Self::overriding).
///
/// ```
/// use http::header::X_FRAME_OPTIONS;
/// use portcullis::headers::{FrameOptions, Profile, SecurityHeaders};
///
/// let profile = Profile::html()
///     .frame_options(FrameOptions::SameOrigin)
///     .overriding(X_FRAME_OPTIONS);
/// let headers = SecurityHeaders::pinned(profile);
/// # drop(headers);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Profile {
    pub(super) fixed: HeaderMap,
    pub(super) csp: Option<Csp>,
    pub(super) report_only: Option<Csp>,
    pub(super) hsts: Option<Hsts>,
    pub(super) overriding: Vec<HeaderName>,
    pub(super) stripped: Vec<HeaderName>,
    pub(super) errors_not_stored: bool,
}

impl Profile {
    /// No header at all, and nothing removed.
    pub fn empty() -> Self {
        Self {
            fixed: HeaderMap::new(),
            csp: None,
            report_only: None,
            hsts: None,
            overriding: Vec::new(),
            stripped: Vec::new(),
            errors_not_stored: false,
        }
    }

    /// For pages; the table stands in the [module](super).
    pub fn html() -> Self {
        Self::common()
            .csp(Csp::html())
            .referrer_policy(ReferrerPolicy::SameOrigin)
    }

    /// For everything else; the table stands in the [module](super).
    pub fn api() -> Self {
        Self::common()
            .csp(Csp::api())
            .referrer_policy(ReferrerPolicy::NoReferrer)
    }

    /// What helmet 8.3.0 sends, value for value; but `Strict-Transport-Security` and
    /// `upgrade-insecure-requests` over HTTPS alone.
    pub fn helmet() -> Self {
        Self::empty()
            .csp(Csp::helmet())
            .opener_policy(OpenerPolicy::SameOrigin)
            .resource_policy(ResourcePolicy::SameOrigin)
            .origin_agent_cluster()
            .referrer_policy(ReferrerPolicy::NoReferrer)
            .hsts(Hsts::days(365))
            .content_type_options()
            .dns_prefetch_off()
            .fixed(X_DOWNLOAD_OPTIONS, HeaderValue::from_static("noopen"))
            .frame_options(FrameOptions::SameOrigin)
            .cross_domain_policies(CrossDomainPolicies::None)
            .fixed(X_XSS_PROTECTION, HeaderValue::from_static("0"))
            .strip(X_POWERED_BY)
    }

    /// Sets `Content-Security-Policy`.
    pub fn csp(self, csp: Csp) -> Self {
        Self {
            csp: Some(csp),
            ..self
        }
    }

    /// Sets `Content-Security-Policy-Report-Only`, beside an enforced policy or alone.
    ///
    /// # Errors
    ///
    /// Where the policy holds `sandbox` or `upgrade-insecure-requests`, which browsers ignore in a
    /// policy that only reports.
    pub fn csp_report_only(self, csp: Csp) -> Result<Self, ConfigError> {
        if csp.has(Directive::Sandbox) || csp.has(Directive::UpgradeInsecureRequests) {
            return Err(ConfigError::new(
                "content-security-policy-report-only",
                "`sandbox` and `upgrade-insecure-requests` cannot be reported; leave them out",
            ));
        }
        Ok(Self {
            report_only: Some(csp),
            ..self
        })
    }

    /// Sets `Strict-Transport-Security`, sent over HTTPS alone.
    pub fn hsts(self, hsts: Hsts) -> Self {
        Self {
            hsts: Some(hsts),
            ..self
        }
    }

    /// Sets `Reporting-Endpoints`.
    pub fn reporting_endpoints(self, endpoints: &ReportingEndpoints) -> Self {
        self.fixed(REPORTING_ENDPOINTS, endpoints.value())
    }

    /// Sets `Permissions-Policy`.
    pub fn permissions_policy(self, policy: &PermissionsPolicy) -> Self {
        if policy.is_empty() {
            return self.without(PERMISSIONS_POLICY);
        }
        self.fixed(PERMISSIONS_POLICY, policy.value())
    }

    /// Sets `Referrer-Policy`.
    pub fn referrer_policy(self, policy: ReferrerPolicy) -> Self {
        self.word(REFERRER_POLICY, policy.as_str())
    }

    /// Sets `X-Frame-Options`; browsers that know `frame-ancestors` go by that.
    pub fn frame_options(self, options: FrameOptions) -> Self {
        self.word(X_FRAME_OPTIONS, options.as_str())
    }

    /// Sets `Cross-Origin-Opener-Policy`.
    pub fn opener_policy(self, policy: OpenerPolicy) -> Self {
        self.word(CROSS_ORIGIN_OPENER_POLICY, policy.as_str())
    }

    /// Sets `Cross-Origin-Resource-Policy`.
    pub fn resource_policy(self, policy: ResourcePolicy) -> Self {
        self.word(CROSS_ORIGIN_RESOURCE_POLICY, policy.as_str())
    }

    /// Sets `Cross-Origin-Embedder-Policy`.
    pub fn embedder_policy(self, policy: EmbedderPolicy) -> Self {
        self.word(CROSS_ORIGIN_EMBEDDER_POLICY, policy.as_str())
    }

    /// Sets `X-Permitted-Cross-Domain-Policies`.
    pub fn cross_domain_policies(self, policies: CrossDomainPolicies) -> Self {
        self.word(X_PERMITTED_CROSS_DOMAIN_POLICIES, policies.as_str())
    }

    /// Sets `Origin-Agent-Cluster: ?1`: the page shares no process-wide state with its site.
    pub fn origin_agent_cluster(self) -> Self {
        self.word(ORIGIN_AGENT_CLUSTER, "?1")
    }

    /// Sets `X-Content-Type-Options: nosniff`.
    pub fn content_type_options(self) -> Self {
        self.word(X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// Sets `X-DNS-Prefetch-Control: off`.
    pub fn dns_prefetch_off(self) -> Self {
        self.word(X_DNS_PREFETCH_CONTROL, "off")
    }

    /// Sets any other header.
    ///
    /// # Errors
    ///
    /// Where the header frames or describes the message (`Content-Length`, `Set-Cookie`, …), which
    /// only its handler knows, or has a typed setter because its value depends on the request.
    pub fn header(self, name: HeaderName, value: HeaderValue) -> Result<Self, ConfigError> {
        if DEPENDS_ON_REQUEST.contains(&name) {
            return Err(ConfigError::new(
                format!("header {name}"),
                "it depends on the request; use the profile's method for it",
            ));
        }
        if BELONGS_TO_MESSAGE.contains(&name) {
            return Err(ConfigError::new(
                format!("header {name}"),
                "it belongs to the message; only its handler can set it",
            ));
        }
        Ok(self.fixed(name, value))
    }

    /// Does not set the header. What a handler sets of that name is left.
    pub fn without(mut self, name: HeaderName) -> Self {
        if name == CONTENT_SECURITY_POLICY {
            self.csp = None;
        } else if name == CONTENT_SECURITY_POLICY_REPORT_ONLY {
            self.report_only = None;
        } else if name == STRICT_TRANSPORT_SECURITY {
            self.hsts = None;
        } else {
            self.fixed.remove(&name);
        }
        self
    }

    /// Lets the profile's header replace a handler's.
    pub fn overriding(mut self, name: HeaderName) -> Self {
        self.overriding.push(name);
        self
    }

    /// Removes the header from answers, as is done with `Server` and `X-Powered-By`.
    pub fn strip(mut self, name: HeaderName) -> Self {
        self.stripped.push(name);
        self
    }

    /// Leaves a header that would be removed.
    pub fn keep(mut self, name: &HeaderName) -> Self {
        self.stripped.retain(|own| own != name);
        self
    }

    /// Says whether errors (4xx and 5xx) without a `Cache-Control` get `no-store`.
    pub fn errors_not_stored(self, on: bool) -> Self {
        Self {
            errors_not_stored: on,
            ..self
        }
    }

    fn common() -> Self {
        Self::empty()
            .opener_policy(OpenerPolicy::SameOrigin)
            .resource_policy(ResourcePolicy::SameOrigin)
            .origin_agent_cluster()
            .permissions_policy(&PermissionsPolicy::deny_powerful())
            .hsts(Hsts::days(730))
            .content_type_options()
            .dns_prefetch_off()
            .frame_options(FrameOptions::Deny)
            .cross_domain_policies(CrossDomainPolicies::None)
            .strip(SERVER)
            .strip(X_POWERED_BY)
            .errors_not_stored(true)
    }

    fn word(self, name: HeaderName, word: &'static str) -> Self {
        self.fixed(name, HeaderValue::from_static(word))
    }

    fn fixed(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fixed.insert(name, value);
        self
    }
}

const CROSS_ORIGIN_EMBEDDER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-embedder-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const ORIGIN_AGENT_CLUSTER: HeaderName = HeaderName::from_static("origin-agent-cluster");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");
const X_DOWNLOAD_OPTIONS: HeaderName = HeaderName::from_static("x-download-options");
const X_PERMITTED_CROSS_DOMAIN_POLICIES: HeaderName =
    HeaderName::from_static("x-permitted-cross-domain-policies");
const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

const DEPENDS_ON_REQUEST: [HeaderName; 4] = [
    CONTENT_SECURITY_POLICY,
    CONTENT_SECURITY_POLICY_REPORT_ONLY,
    STRICT_TRANSPORT_SECURITY,
    CACHE_CONTROL,
];

const BELONGS_TO_MESSAGE: [HeaderName; 15] = [
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    KEEP_ALIVE,
    LOCATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VARY,
    WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_profiles_to_set_is_refused() {
        for name in BELONGS_TO_MESSAGE.into_iter().chain(DEPENDS_ON_REQUEST) {
            let value = HeaderValue::from_static("x");
            assert!(Profile::empty().header(name, value).is_err());
        }
        let name = HeaderName::from_static("x-robots-tag");
        assert!(
            Profile::empty()
                .header(name, HeaderValue::from_static("none"))
                .is_ok()
        );
    }

    #[test]
    fn a_policy_that_only_reports_cannot_upgrade_or_sandbox() {
        assert!(Profile::html().csp_report_only(Csp::html()).is_err());
        let csp = Csp::html()
            .edit()
            .without(Directive::UpgradeInsecureRequests)
            .build()
            .unwrap();
        assert!(Profile::html().csp_report_only(csp.clone()).is_ok());
        let csp = csp.edit().sandbox([]).build().unwrap();
        assert!(Profile::html().csp_report_only(csp).is_err());
    }
}
