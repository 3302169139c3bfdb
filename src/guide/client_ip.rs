//! Proxies and client IP: whose word counts.
//!
//! A header that says who the client is can be written by anybody. So the address of the connection
//! is the client, until a proxy that you name says otherwise:
//!
//! ```
//! use http::Request;
//! use portcullis::{Head, Peer, TrustedProxies};
//!
//! let proxies = TrustedProxies::new(["10.0.0.0/8"])?;
//! let client = |peer: &str| {
//!     let mut request = Request::get("/").header("x-forwarded-for", "6.6.6.6, 203.0.113.7").body(()).unwrap();
//!     request.extensions_mut().insert(Peer::new(peer.parse().unwrap()));
//!     proxies.client(Head::of(&request)).and_then(|client| client.ip())
//! };
//! // From the balancer: the entry that it appended. What the client wrote before it is a claim.
//! assert_eq!(client("10.1.2.3:443"), Some("203.0.113.7".parse()?));
//! // From anybody else the header is not read.
//! assert_eq!(client("198.51.100.9:443"), Some("198.51.100.9".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | in front | what to say |
//! |---|---|
//! | nothing | [`TrustedProxies::none`](crate::TrustedProxies::none), the default |
//! | your own nginx, HAProxy, Envoy | its network; have it *set* `X-Forwarded-For` and `X-Forwarded-Proto` |
//! | a cloud balancer in your network | the subnets that it lives in |
//! | a CDN before your balancer | both; the CDN's networks change, so load them as configuration |
//! | proxies whose addresses change | [`with_hops`](crate::TrustedProxies::with_hops): how many stand between |
//! | proxies that write RFC 7239 | [`with_header`](crate::TrustedProxies::with_header) |
//!
//! One header is read and there is no fall-back to another, since one that your proxies do not
//! overwrite is the client's own word.
//!
//! **The peer has to arrive.** axum: `into_make_service_with_connect_info::<SocketAddr>()` with the
//! feature `axum`. hyper: [`client::with_peer`](crate::client::with_peer). tonic and others:
//! [`ClientLayer::with_peer_from`](crate::ClientLayer::with_peer_from). Behind a proxy that speaks the
//! PROXY protocol, insert a [`Peer`](crate::Peer) with the address that the acceptor read. Where no
//! peer is known, all clients share one count and an event of kind `misconfigured` says so, once.
//!
//! **How to see that it is right**: call the service through the proxy with a forged
//! `X-Forwarded-For` from two machines, and look at the client that the events name. If it is the
//! proxy, it is not trusted; if it is what you forged, the proxy passes the header on.
