//! The layer that finds the client and leaves it with the request.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request};
use ipnet::IpNet;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    peer::{Client, Peer},
    proxies::TrustedProxies,
};
use crate::head::Head;

/// Finds each request's [`Client`] and leaves it in the extensions. Outermost; `stack` places it.
///
/// It admits every request, as it was. One whose peer is not known gets no client, and the gates that
/// need one take the way that they are configured to. A client that an outer layer found is found
/// anew.
///
/// Deployment caveat: with [`TrustedProxies::none`] every client behind a proxy is that proxy, and
/// shares its limits.
///
/// ```
/// use http::{Request, Response};
/// use portcullis::{
///     Client, Head,
///     client::{ClientLayer, Peer, TrustedProxies, with_peer},
/// };
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio_test::block_on(async {
/// let layer = ClientLayer::new(TrustedProxies::new(["10.0.0.0/8"])?);
/// let service = layer.layer(service_fn(async |request: Request<()>| {
///     Ok::<_, std::io::Error>(Response::new(Client::of(Head::of(&request))))
/// }));
/// // A connection of the load balancer's.
/// let service = with_peer(service, Peer::new("10.1.2.3:443".parse()?));
/// let request = Request::get("/").header("x-forwarded-for", "203.0.113.7").body(())?;
/// let client = service.oneshot(request).await?.into_body().unwrap();
/// assert_eq!(client.ip(), Some("203.0.113.7".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
struct Config {
    proxies: TrustedProxies,
    peer_from: Option<fn(&Extensions) -> Option<Peer>>,
}

impl ClientLayer {
    /// Sees through `proxies`.
    pub fn new(proxies: TrustedProxies) -> Self {
        Self {
            config: Arc::new(Config {
                proxies,
                peer_from: None,
            }),
        }
    }

    /// Reads the peer from what the framework left with the request, where no [`Peer`] is there.
    ///
    /// With tonic: `|extensions| extensions.get::<TcpConnectInfo>()?.remote_addr().map(Peer::new)`.
    pub fn with_peer_from(mut self, peer_from: fn(&Extensions) -> Option<Peer>) -> Self {
        Arc::make_mut(&mut self.config).peer_from = Some(peer_from);
        self
    }

    /// The client of a request.
    pub(crate) fn resolve(&self, head: Head<'_>) -> Option<Client> {
        let peer = Peer::of(head)
            .or_else(|| self.config.peer_from.and_then(|from| from(head.extensions)))?;
        Some(self.config.proxies.client_behind(peer, head.headers))
    }
}

impl fmt::Debug for ClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLayer")
            .field("proxies", &self.config.proxies)
            .finish_non_exhaustive()
    }
}

/// Whose word for the client counts.
impl fmt::Display for ClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxies: Vec<_> = self
            .config
            .proxies
            .networks()
            .map(IpNet::to_string)
            .collect();
        match proxies.is_empty() {
            true => f.write_str("the peer; no forwarding header is believed"),
            false => write!(f, "as told by proxies at {}", proxies.join(", ")),
        }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = ResolveClient<S>;

    fn layer(&self, inner: S) -> ResolveClient<S> {
        ResolveClient {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`ClientLayer`] makes.
#[derive(Clone, Debug)]
pub struct ResolveClient<S> {
    inner: S,
    layer: ClientLayer,
}

impl<S, A> Service<Request<A>> for ResolveClient<S>
where
    S: Service<Request<A>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> S::Future {
        if let Some(client) = self.layer.resolve(Head::of(&request)) {
            client.leave(request.extensions_mut());
        }
        self.inner.call(request)
    }
}
