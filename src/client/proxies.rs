//! Proxies that are believed, and the walk through what they wrote.

use std::{net::IpAddr, num::NonZeroU8};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::{
    forwarded::{Hop, forwarded_hops, forwarded_proto, x_forwarded_for},
    peer::{Client, Peer},
    prefix,
};
use crate::{error::ConfigError, head::Head};

/// The proxies whose forwarding headers are believed, and which header they write.
///
/// By default none is trusted and headers are not read. With some, a request of one of them comes
/// from whom its header says, and a request of anybody else from its peer, whatever its headers say.
///
/// Deployment caveat: a proxy that passes the client's own header on, instead of appending to it or
/// overwriting it, makes everyone anyone; so does a network with machines in it that are not proxies.
///
/// ```
/// use portcullis::client::{ForwardedHeader, Peer, TrustedProxies};
///
/// let proxies = TrustedProxies::new(["10.0.0.0/8", "2001:db8::1"])?
///     .with_header(ForwardedHeader::Forwarded);
/// let mut headers = http::HeaderMap::new();
/// headers.insert("forwarded", "for=6.6.6.6, for=\"[2001:db8:7::9]:4711\";proto=https".parse()?);
/// let client = proxies.client_behind(Peer::new("10.1.2.3:443".parse()?), &headers);
/// assert_eq!(client.ip(), Some("2001:db8:7::9".parse()?));
/// assert!(client.is_secure());
/// let stranger = proxies.client_behind(Peer::new("198.51.100.2:4711".parse()?), &headers);
/// assert_eq!(stranger.ip(), Some("198.51.100.2".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
    hops: Option<NonZeroU8>,
}

/// The one header that the proxies write. There is no fall-back from one to another: a header that
/// the proxies do not overwrite is the client's own word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), for the scheme too. An element in which a parameter stands twice, or
    /// a quote is left open, is no address (section 4).
    Forwarded,
}

impl TrustedProxies {
    /// No proxy: the peer is the client.
    pub const fn none() -> Self {
        Self {
            networks: Vec::new(),
            header: ForwardedHeader::XForwardedFor,
            hops: None,
        }
    }

    /// Proxies in these networks (`10.0.0.0/8`, `2001:db8::/32`) or at these addresses.
    ///
    /// # Errors
    /// When an entry is not a network or an address, or is every address at once.
    pub fn new<S: AsRef<str>>(networks: impl IntoIterator<Item = S>) -> Result<Self, ConfigError> {
        let networks = networks
            .into_iter()
            .map(|network| parse_network(network.as_ref().trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            networks,
            ..Self::none()
        })
    }

    /// Reads `header` instead of `X-Forwarded-For`.
    pub fn with_header(self, header: ForwardedHeader) -> Self {
        Self { header, ..self }
    }

    /// Counts entries instead of looking at addresses: there are `hops` proxies, each of which
    /// appends one entry, so the client is the entry of that number from the right. For proxies
    /// whose addresses change.
    ///
    /// The peer must still be in one of the networks. A header that has fewer entries did not come
    /// the whole way, and its peer is the client.
    ///
    /// ```
    /// use portcullis::client::{Peer, TrustedProxies};
    /// use std::num::NonZeroU8;
    ///
    /// let proxies = TrustedProxies::new(["10.0.0.0/8"])?.with_hops(NonZeroU8::new(2).unwrap());
    /// let mut headers = http::HeaderMap::new();
    /// headers.insert("x-forwarded-for", "6.6.6.6, 203.0.113.7, 198.51.100.2".parse()?);
    /// let client = proxies.client_behind(Peer::new("10.1.2.3:443".parse()?), &headers);
    /// assert_eq!(client.ip(), Some("203.0.113.7".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_hops(self, hops: NonZeroU8) -> Self {
        Self {
            hops: Some(hops),
            ..self
        }
    }

    /// Whether `ip` is one of the proxies.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = &IpNet> {
        self.networks.iter()
    }

    /// Whether no proxy is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The client of a request whose [`Peer`] the server left with it; `None` when it did not.
    #[must_use]
    pub fn client(&self, head: Head<'_>) -> Option<Client> {
        Peer::of(head).map(|peer| self.client_behind(peer, head.headers))
    }

    /// The client of a request that `peer` sent with `headers`, by the rules of the
    /// [module](super). A header that makes no sense leaves the nearest proxy as the client.
    pub fn client_behind(&self, peer: Peer, headers: &HeaderMap) -> Client {
        let trusted = match peer.ip() {
            Some(ip) => self.contains(ip),
            None => !self.is_empty(),
        };
        if !trusted {
            return Client::from(peer);
        }
        let (hops, secure) = match self.header {
            ForwardedHeader::XForwardedFor => (
                x_forwarded_for(headers, &X_FORWARDED_FOR),
                x_forwarded_proto(headers),
            ),
            ForwardedHeader::Forwarded => (forwarded_hops(headers), forwarded_proto(headers)),
        };
        let secure = secure.unwrap_or(peer.tls());
        if let Some(count) = self.hops {
            let entry = hops.iter().nth_back(usize::from(count.get()) - 1);
            return match entry {
                Some(Hop::Address(ip)) => Client::new(Some(*ip), secure),
                Some(Hop::Unknown) | None => Client::new(peer.ip(), secure),
            };
        }
        let mut client = peer.ip();
        for hop in hops.into_iter().rev() {
            match hop {
                Hop::Address(ip) => {
                    client = Some(ip);
                    if !self.contains(ip) {
                        break;
                    }
                }
                // The proxy that wrote this is the last one of which anything is known.
                Hop::Unknown => break,
            }
        }
        Client::new(client, secure)
    }
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::none()
    }
}

/// What the nearest proxy says; it may add its own line behind the client's.
fn x_forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    let last = headers.get_all(X_FORWARDED_PROTO).iter().next_back()?;
    let proto = last.as_bytes().rsplit(|byte| *byte == b',').next()?;
    Some(proto.trim_ascii().eq_ignore_ascii_case(b"https"))
}

fn parse_network(text: &str) -> Result<IpNet, ConfigError> {
    let network = prefix::network(text)
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| refuse("takes networks such as 10.0.0.0/8 and addresses"))?;
    if network.prefix_len() == 0 {
        return Err(refuse(
            "trusts every address, so anybody could claim to be anyone",
        ));
    }
    let network = match network {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(v4), Some(len @ 1..)) => IpNet::new(v4.into(), len)
                .map_err(|_| refuse("takes networks such as 10.0.0.0/8 and addresses"))?,
            (Some(_), _) => {
                return Err(refuse(
                    "trusts every IPv4 address, so anybody could claim to be anyone",
                ));
            }
            (None, _) => network,
        },
        IpNet::V4(_) => network,
    };
    Ok(network)
}

fn refuse(problem: &'static str) -> ConfigError {
    ConfigError::new("trusted proxies", problem)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
