//! The networks that clients are counted by.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use crate::error::ConfigError;

/// A network: an address with the bits behind its prefix length cleared.
///
/// IPv4-mapped addresses are unwrapped first, so that one client has one prefix whatever the
/// socket's family.
///
/// ```
/// use portcullis::client::Prefix;
///
/// let prefix = Prefix::of("2001:db8:1:2:3::4".parse()?, 32, 64);
/// assert_eq!(prefix.to_string(), "2001:db8:1:2::/64");
/// assert_eq!(Prefix::of("::ffff:203.0.113.7".parse()?, 24, 48).to_string(), "203.0.113.0/24");
/// let office: Prefix = "198.51.100.0/24".parse()?;
/// assert!(office.contains("::ffff:198.51.100.7".parse()?));
/// assert!("198.51.100.7/24".parse::<Prefix>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The network of `ip` with `v4` leading bits for IPv4 (up to 32) and `v6` for IPv6 (up to
    /// 128); more bits than an address has count as all of them.
    #[must_use]
    pub fn of(ip: IpAddr, v4: u8, v6: u8) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let len = v4.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Self {
                    addr: Ipv4Addr::from_bits(ip.to_bits() & mask).into(),
                    len,
                }
            }
            IpAddr::V6(ip) => {
                let len = v6.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Self {
                    addr: Ipv6Addr::from_bits(ip.to_bits() & mask).into(),
                    len,
                }
            }
        }
    }

    /// The network a client is told apart by: its IPv4 address, or its IPv6 /64.
    #[must_use]
    pub fn of_client(ip: IpAddr) -> Self {
        Self::of(ip, 32, 64)
    }

    /// The network whose clients share an operator: the IPv4 /24, or the IPv6 /48.
    #[must_use]
    pub fn of_site(ip: IpAddr) -> Self {
        Self::of(ip, 24, 48)
    }

    /// The first address.
    #[must_use]
    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    /// The number of leading bits.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a prefix length, not a size")]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// Whether an address is in the network.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.addr.is_ipv4() && Self::of(ip, self.len, self.len) == self
    }
}

/// In CIDR notation, or an address alone. Bits behind the prefix length must not be set: `10.1.2.3/8`
/// is more likely a slip than a wish.
impl FromStr for Prefix {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::new("network", "takes a CIDR such as 203.0.113.0/24");
        if let Ok(ip) = text.parse() {
            return Ok(Self::of(ip, 32, 128));
        }
        let network = network(text).ok_or_else(refuse)?;
        let is_mapped = network.addr().to_canonical().is_ipv4() && !network.addr().is_ipv4();
        if network.trunc() != network || is_mapped {
            return Err(refuse());
        }
        let len = network.prefix_len();
        Ok(Self::of(network.addr(), len, len))
    }
}

/// A network in CIDR notation. Numbers have no leading zeros: some readers take those for octal.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let (address, len) = text.split_once('/')?;
    let is_plain = len == "0" || len.starts_with(|first| matches!(first, '1'..='9'));
    let len = len.parse().ok().filter(|_| is_plain)?;
    IpNet::new(address.parse().ok()?, len).ok()
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}
