//! The names of events and how grave each is.

/// How grave an event is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Severity {
    /// The service does what it is for.
    Info,
    /// A refusal, or something an operator may want to look at. Repeats are folded.
    Warn,
    /// Likely an attack that got somewhere, or a promise that is at risk. Never folded.
    Critical,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $severity:ident;)*) => {
        /// What happened: the OWASP Logging Vocabulary, and the few names that it lacks.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
        }

        impl EventKind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that logs and metrics carry.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// How grave it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }
        }
    };
}

kinds! {
    /// A login succeeded.
    AuthnLoginSuccess = "authn_login_success", Info;
    /// A login succeeded after failures.
    AuthnLoginSuccessAfterFail = "authn_login_successafterfail", Info;
    /// A login failed.
    AuthnLoginFail = "authn_login_fail", Warn;
    /// Logins failed up to the limit.
    AuthnLoginFailMax = "authn_login_fail_max", Warn;
    /// An account was locked.
    AuthnLoginLock = "authn_login_lock", Warn;
    /// A password was changed.
    AuthnPasswordChange = "authn_password_change", Info;
    /// A change of password failed.
    AuthnPasswordChangeFail = "authn_password_change_fail", Warn;
    /// Logins from places too far apart.
    AuthnImpossibleTravel = "authn_impossible_travel", Critical;
    /// A token was made.
    AuthnTokenCreated = "authn_token_created", Info;
    /// A token was revoked.
    AuthnTokenRevoked = "authn_token_revoked", Info;
    /// A revoked or rotated token was used again.
    AuthnTokenReuse = "authn_token_reuse", Critical;
    /// A token was deleted.
    AuthnTokenDelete = "authn_token_delete", Info;
    /// A caller tried what he may not do.
    AuthzFail = "authz_fail", Warn;
    /// A caller's rights were changed.
    AuthzChange = "authz_change", Info;
    /// An administrator acted.
    AuthzAdmin = "authz_admin", Info;
    /// Decryption failed.
    CryptDecryptFail = "crypt_decrypt_fail", Warn;
    /// Encryption failed.
    CryptEncryptFail = "crypt_encrypt_fail", Warn;
    /// A rate limit refused a request.
    ExcessRateLimitExceeded = "excess_rate_limit_exceeded", Warn;
    /// A user has more sessions than allowed.
    ExcessSessionsExceeded = "excess_sessions_exceeded", Warn;
    /// An upload arrived whole.
    UploadComplete = "upload_complete", Info;
    /// An upload was stored.
    UploadStored = "upload_stored", Info;
    /// An upload was checked.
    UploadValidation = "upload_validation", Warn;
    /// An upload was deleted.
    UploadDelete = "upload_delete", Info;
    /// Input was refused.
    InputValidationFail = "input_validation_fail", Warn;
    /// Input outside a closed list was refused.
    InputValidationDiscreteFail = "input_validation_discrete_fail", Warn;
    /// A client asks for many things that do not exist.
    MaliciousExcess404 = "malicious_excess_404", Warn;
    /// Input that no honest client sends.
    MaliciousExtraneous = "malicious_extraneous", Warn;
    /// A known attack tool.
    MaliciousAttackTool = "malicious_attack_tool", Warn;
    /// A cross-origin request that CORS does not allow.
    MaliciousCors = "malicious_cors", Warn;
    /// A cross-site request with an unsafe method.
    MaliciousCsrf = "malicious_csrf", Warn;
    /// A browser reported that a page did what its Content-Security-Policy forbids.
    CspViolation = "csp_violation", Warn;
    /// A direct reference to another user's object.
    MaliciousDirectReference = "malicious_direct_reference", Warn;
    /// Permissions of an object were changed.
    PrivilegePermissionsChanged = "privilege_permissions_changed", Info;
    /// Sensitive data was created.
    SensitiveCreate = "sensitive_create", Info;
    /// Sensitive data was read.
    SensitiveRead = "sensitive_read", Info;
    /// Sensitive data was updated.
    SensitiveUpdate = "sensitive_update", Info;
    /// Sensitive data was deleted.
    SensitiveDelete = "sensitive_delete", Info;
    /// Steps came out of order.
    SequenceFail = "sequence_fail", Warn;
    /// A session began.
    SessionCreated = "session_created", Info;
    /// A session went on.
    SessionRenewed = "session_renewed", Info;
    /// A session ended by time.
    SessionExpired = "session_expired", Info;
    /// A session was ended by its user.
    SessionLogout = "session_logout", Info;
    /// A session was used after its end.
    SessionUseAfterExpire = "session_use_after_expire", Warn;
    /// The service started.
    SysStartup = "sys_startup", Info;
    /// The service stopped.
    SysShutdown = "sys_shutdown", Info;
    /// The service was restarted.
    SysRestart = "sys_restart", Info;
    /// A handler panicked, or the service failed.
    SysCrash = "sys_crash", Critical;
    /// Monitoring was switched off.
    SysMonitorDisabled = "sys_monitor_disabled", Warn;
    /// Monitoring was switched on.
    SysMonitorEnabled = "sys_monitor_enabled", Info;
    /// A user was created.
    UserCreated = "user_created", Info;
    /// A user was updated.
    UserUpdated = "user_updated", Info;
    /// A user was archived.
    UserArchived = "user_archived", Info;
    /// A user was deleted.
    UserDeleted = "user_deleted", Info;
    /// A refresh token came again inside its grace window.
    RefreshReplayed = "refresh_replayed", Info;
    /// A refresh token came again inside its grace window, from another network.
    RefreshReplayedElsewhere = "refresh_replayed_elsewhere", Warn;
    /// A token from the future: the store has lost writes.
    StoreRollbackDetected = "store_rollback_detected", Critical;
    /// A store did not answer.
    StoreUnavailable = "store_unavailable", Warn;
    /// An API key was made.
    ApiKeyCreated = "apikey_created", Info;
    /// An API key was rotated.
    ApiKeyRotated = "apikey_rotated", Info;
    /// An API key that was rotated away came again before its end; sent once for each key.
    ApiKeyUsedAfterRotation = "apikey_used_after_rotation", Info;
    /// An API key was revoked.
    ApiKeyRevoked = "apikey_revoked", Info;
    /// An API key was refused.
    ApiKeyRefused = "apikey_refused", Warn;
    /// A gate met a setup fault and took its configured way out; sent once.
    Misconfigured = "misconfigured", Warn;
}
