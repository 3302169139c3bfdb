//! Networks, differential: what is taken reads back as itself, holds the addresses that its bits say,
//! and trusts nobody at all or everybody.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use portcullis::client::{Prefix, TrustedProxies};

/// The bits of an address, an IPv4-mapped one as IPv4.
fn bits(ip: IpAddr) -> (bool, u128) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (true, u128::from(ip.to_bits()) << 96),
        IpAddr::V6(ip) => (false, ip.to_bits()),
    }
}

fn holds(network: IpAddr, length: u8, ip: IpAddr) -> bool {
    let ((v4, network), (other, ip)) = (bits(network), bits(ip));
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    v4 == other && network & mask == ip & mask
}

fuzz_target!(|text: &str| {
    let (networks, ip) = text.split_once('\n').unwrap_or((text, "::ffff:192.0.2.1"));
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return;
    };
    if let Ok(prefix) = networks.parse::<Prefix>() {
        let shown = prefix.to_string();
        assert_eq!(shown.parse::<Prefix>().expect("it reads back"), prefix);
        assert!(prefix.contains(prefix.addr()));
        assert_eq!(
            prefix.contains(ip),
            holds(prefix.addr(), prefix.len(), ip),
            "{prefix} {ip}"
        );
        assert_eq!(
            Prefix::of(prefix.addr(), prefix.len(), prefix.len()),
            prefix
        );
    }
    let Ok(proxies) = TrustedProxies::new(networks.split(',')) else {
        return;
    };
    let trusted = networks.split(',').any(|network| {
        let (address, length) = network
            .trim()
            .split_once('/')
            .unwrap_or((network.trim(), ""));
        let address: IpAddr = address.parse().expect("it was taken");
        let own = if address.is_ipv4() { 32 } else { 128 };
        let length = if length.is_empty() {
            own
        } else {
            length.parse().expect("it was taken")
        };
        assert!(length > 0, "everybody");
        // A mapped network is one of IPv4.
        let mapped = address.is_ipv6() && address.to_canonical().is_ipv4();
        assert!(!mapped || length > 96, "everybody");
        holds(address, if mapped { length - 96 } else { length }, ip)
    });
    assert_eq!(proxies.contains(ip), trusted, "{networks} {ip}");
});
