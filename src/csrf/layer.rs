//! The layers that refuse cross-site requests.

use std::{
    sync::Arc,
    task::{Context as Task, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{policy::CsrfPolicy, token::CsrfTokens};
use crate::{
    body::RejectionBody, context::Context, future::ResponseFuture, head::Head, rejection::Rejection,
};

macro_rules! gate {
    ($(#[$layer_doc:meta])* $layer:ident($rule:ident: $rule_type:ty), $(#[$service_doc:meta])* $service:ident) => {
        $(#[$layer_doc])*
        #[derive(Clone, Debug)]
        #[must_use]
        pub struct $layer {
            config: Arc<Config<$rule_type>>,
        }

        impl $layer {
            /// Goes by these rules.
            pub fn new($rule: $rule_type) -> Self {
                Self {
                    config: Arc::new(Config::new($rule)),
                }
            }

            /// Sends events to this context and renders refusals as it says.
            pub fn with_context(mut self, context: Context) -> Self {
                Arc::make_mut(&mut self.config).context = context;
                self
            }

            /// Lets other requests pass. What is left out must have a protection of its own.
            pub fn only_if(mut self, only_if: fn(Head<'_>) -> bool) -> Self {
                Arc::make_mut(&mut self.config).only_if = Some(only_if);
                self
            }
        }

        impl<S> Layer<S> for $layer {
            type Service = $service<S>;

            fn layer(&self, inner: S) -> $service<S> {
                $service {
                    inner,
                    config: Arc::clone(&self.config),
                }
            }
        }

        $(#[$service_doc])*
        #[derive(Clone, Debug)]
        pub struct $service<S> {
            inner: S,
            config: Arc<Config<$rule_type>>,
        }

        impl<S, A, B> Service<Request<A>> for $service<S>
        where
            S: Service<Request<A>, Response = Response<B>>,
            A: Body + Send + 'static,
            B: RejectionBody,
        {
            type Response = Response<B>;
            type Error = S::Error;
            type Future = ResponseFuture<S::Future, B>;

            fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
                self.inner.poll_ready(cx)
            }

            fn call(&mut self, request: Request<A>) -> Self::Future {
                match self.config.decide(Head::of(&request), <$rule_type>::decide) {
                    Ok(()) => ResponseFuture::admitted(self.inner.call(request)),
                    Err(rejection) => {
                        let response = self.config.context.refuse(&request, rejection);
                        ResponseFuture::refused(request, response)
                    }
                }
            }
        }
    };
}

gate! {
    /// Refuses cross-site requests; the rules stand in the [module](super). At the edge, outside
    /// every limit, so that a stranger's page spends nothing of its visitor's.
    CsrfLayer(policy: CsrfPolicy),
    /// The service that [`CsrfLayer`] makes.
    Csrf
}

gate! {
    /// Demands `X-CSRF-Token` of unsafe requests. Inside authentication, whose session it goes by.
    CsrfTokenLayer(tokens: CsrfTokens),
    /// The service that [`CsrfTokenLayer`] makes.
    CsrfToken
}

#[derive(Clone, Debug)]
struct Config<R> {
    rule: R,
    context: Context,
    only_if: Option<fn(Head<'_>) -> bool>,
}

impl<R> Config<R> {
    fn new(rule: R) -> Self {
        Self {
            rule,
            context: Context::new(),
            only_if: None,
        }
    }

    fn decide(
        &self,
        head: Head<'_>,
        decide: fn(&R, Head<'_>) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        if self.only_if.is_some_and(|only_if| !only_if(head)) {
            return Ok(());
        }
        decide(&self.rule, head)
    }
}
