//! Who is at the other end: the peer of the connection, and the client behind trusted proxies.
//!
//! A server leaves the connection's [`Peer`] with each request: [`with_peer`] does it in a plain
//! accept loop, axum's `ConnectInfo<SocketAddr>` is understood behind the feature `axum`, and
//! [`ClientLayer::with_peer_from`] reads whatever else a framework leaves (tonic's
//! `TcpConnectInfo`, say). [`ClientLayer`], which `stack` places outermost, finds the [`Client`]:
//!
//! 1. the peer's own address, unless the peer is one of the [`TrustedProxies`];
//! 2. else the forwarding header (`X-Forwarded-For`, or `Forwarded` of RFC 7239) is walked from right
//!    to left, all its lines joined, and the first address that is not a trusted proxy is the client;
//!    where all of them are, the leftmost is;
//! 3. an entry that is not an address ends the walk at the proxy that wrote it: what is further
//!    left is anybody's claim.
//!
//! Whether the client speaks HTTPS is what the trusted peer says (`X-Forwarded-Proto`, or the `proto`
//! of `Forwarded`), and where it says nothing, or is not trusted, whether the connection is TLS.
//!
//! Addresses are canonical: an IPv4-mapped IPv6 address is the IPv4 address. Ports and zones are
//! dropped, and the unspecified address is none.
//!
//! Nothing here refuses a request. Without a peer there is no client; what a gate then does is its own
//! setting (`rate_limit::MissingKey` for a limit).
//!
//! Deployment caveat: trust only the proxies that you run and that overwrite or append to the
//! header; a client can write anything into it. Which proxies there are, and how to find out what
//! they send, is in `guide::client_ip`.
//!
//! ```
//! use http::Request;
//! use portcullis::client::{Client, Peer, TrustedProxies};
//! use portcullis::Head;
//!
//! let proxies = TrustedProxies::new(["10.0.0.0/8"])?;
//! let mut request = Request::get("/").header("x-forwarded-for", "6.6.6.6, 203.0.113.7").body(())?;
//! request.extensions_mut().insert(Peer::new("10.1.2.3:443".parse()?));
//! let client = proxies.client(Head::of(&request)).unwrap();
//! assert_eq!(client.ip(), Some("203.0.113.7".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "rate-limit")]
mod counted_by;
mod forwarded;
mod layer;
mod peer;
mod prefix;
mod proxies;

#[cfg(feature = "rate-limit")]
pub(crate) use self::counted_by::CountedBy;
pub use self::{
    layer::{ClientLayer, ResolveClient},
    peer::{Client, Peer, WithPeer, with_peer},
    prefix::Prefix,
    proxies::{ForwardedHeader, TrustedProxies},
};
