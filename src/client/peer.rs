//! The two ends of a connection as gates see them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use http::{Extensions, Request};
use tower_service::Service;

#[cfg(feature = "rate-limit")]
use super::counted_by::CountedBy;
use crate::head::Head;

/// The other end of the connection that a request came over. A server leaves it with each request,
/// as [`with_peer`] does; it is not the client where a proxy stands between.
///
/// Deployment caveat: whoever puts it into a request's extensions is believed, so only the acceptor
/// may; what PROXY protocol tells belongs here too.
///
/// ```
/// use portcullis::client::Peer;
///
/// let peer = Peer::new("[::ffff:203.0.113.7]:4711".parse()?).with_tls(true);
/// assert_eq!(peer.ip(), Some("203.0.113.7".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Peer {
    addr: Option<SocketAddr>,
    tls: bool,
}

impl Peer {
    /// A peer at `addr`, over a connection without TLS.
    pub const fn new(addr: SocketAddr) -> Self {
        Self {
            addr: Some(addr),
            tls: false,
        }
    }

    /// A peer without an address, such as one on a Unix socket. It counts as a trusted proxy where
    /// any proxy is trusted.
    pub const fn local() -> Self {
        Self {
            addr: None,
            tls: false,
        }
    }

    /// Says whether the connection itself is TLS.
    pub const fn with_tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// The peer's address as the socket has it.
    #[must_use]
    pub const fn addr(self) -> Option<SocketAddr> {
        self.addr
    }

    /// The peer's address, an IPv4-mapped one unwrapped.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        self.addr.map(|addr| addr.ip().to_canonical())
    }

    /// Whether the connection itself is TLS.
    #[must_use]
    pub const fn tls(self) -> bool {
        self.tls
    }

    /// The peer that the server left with the request.
    #[must_use]
    pub fn of(head: Head<'_>) -> Option<Self> {
        Self::in_extensions(head.extensions)
    }

    fn in_extensions(extensions: &Extensions) -> Option<Self> {
        let peer = extensions.get::<Self>().copied();
        #[cfg(feature = "axum")]
        let peer = peer.or_else(|| {
            let info = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()?;
            Some(Self::new(info.0))
        });
        peer
    }
}

/// The client: who sent the request, once trusted proxies are seen through.
///
/// [`ClientLayer`](super::ClientLayer) leaves it in a request's extensions, for gates and handlers.
///
/// ```
/// use http::{Request, Response};
/// use portcullis::{Client, Head};
///
/// async fn handler(request: Request<()>) -> Result<Response<String>, std::convert::Infallible> {
///     let ip = Client::of(Head::of(&request)).and_then(Client::ip);
///     Ok(Response::new(format!("you are {ip:?}")))
/// }
/// # let mut request = Request::new(());
/// # request.extensions_mut().insert(Client::new("203.0.113.7".parse().ok(), true));
/// # let answer = tokio_test::block_on(handler(request)).unwrap();
/// # assert_eq!(answer.body(), "you are Some(203.0.113.7)");
/// ```
#[derive(Clone, Copy)]
#[must_use]
pub struct Client {
    ip: Option<IpAddr>,
    secure: bool,
    #[cfg(feature = "rate-limit")]
    pub(super) counted_by: CountedBy,
}

impl Client {
    /// A client at `ip` (`None`: on this host, without an address), over HTTPS or not.
    pub fn new(ip: Option<IpAddr>, secure: bool) -> Self {
        Self {
            ip: ip.map(|ip| ip.to_canonical()),
            secure,
            #[cfg(feature = "rate-limit")]
            counted_by: CountedBy::default(),
        }
    }

    /// The client's canonical address; `None` for a peer without one.
    #[inline]
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        self.ip
    }

    /// Whether the client speaks HTTPS, to this server or to a trusted proxy.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        self.secure
    }

    /// The client that an outer layer found, or else the connection's peer; `None` when neither is
    /// known.
    #[inline]
    #[must_use]
    pub fn of(head: Head<'_>) -> Option<Self> {
        Self::in_extensions(head.extensions)
    }

    fn in_extensions(extensions: &Extensions) -> Option<Self> {
        match extensions.get::<Self>() {
            Some(client) => Some(*client),
            None => Peer::in_extensions(extensions).map(Self::from),
        }
    }

    /// Leaves the client with a request, which stays counted by the limits that have counted it.
    pub(crate) fn leave(self, extensions: &mut Extensions) {
        extensions.insert(Self {
            #[cfg(feature = "rate-limit")]
            counted_by: CountedBy::of(extensions),
            ..self
        });
    }

    /// The address (`None`: on this host, without one) of the client that stands with a request, and
    /// the limits that have counted the request.
    #[cfg(feature = "rate-limit")]
    #[inline]
    pub(crate) fn at_hand(
        extensions: &mut Extensions,
    ) -> Option<(Option<&IpAddr>, &mut CountedBy)> {
        let Self { ip, counted_by, .. } = extensions.get_mut()?;
        Some((ip.as_ref(), counted_by))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("ip", &self.ip)
            .field("secure", &self.secure)
            .finish()
    }
}

/// The same address, over the same kind of connection.
impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        (self.ip, self.secure) == (other.ip, other.secure)
    }
}

impl Eq for Client {}

impl From<Peer> for Client {
    fn from(peer: Peer) -> Self {
        Self::new(peer.ip(), peer.tls)
    }
}

/// Leaves `peer` with every request of one connection. For a plain accept loop.
///
/// ```
/// use portcullis::client::{Peer, with_peer};
/// # async fn serve(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// # let service = tower::service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(()));
/// loop {
///     let (stream, addr) = listener.accept().await?;
///     let service = with_peer(service.clone(), Peer::new(addr));
///     // serve `stream` with `service`
/// #   drop((stream, service));
/// }
/// # }
/// ```
pub fn with_peer<S>(inner: S, peer: Peer) -> WithPeer<S> {
    WithPeer { inner, peer }
}

/// The service that [`with_peer`] makes.
#[derive(Clone, Debug)]
pub struct WithPeer<S> {
    inner: S,
    peer: Peer,
}

impl<S, A> Service<Request<A>> for WithPeer<S>
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
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}
