//! Who the client is, through the public API: what can be forged and what cannot.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
};

use http::{HeaderMap, HeaderName};
use portcullis::{
    TrustedProxies,
    client::{ForwardedHeader, Peer, Prefix},
};
use proptest::prelude::*;

const PROXY: &str = "10.0.0.1:443";
const STRANGER: &str = "198.51.100.66:4711";

fn client(proxies: &TrustedProxies, peer: &str, fields: &[(&str, &str)]) -> IpAddr {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    let peer: SocketAddr = peer.parse().unwrap();
    let client = proxies.client_behind(Peer::new(peer), &headers);
    client.ip().unwrap()
}

fn by_networks() -> TrustedProxies {
    TrustedProxies::new(["10.0.0.0/8", "2001:db8:1::/48"]).unwrap()
}

/// `010.0.0.0/8` is 8.0.0.0/8 to readers that know octal numbers.
#[test]
fn a_number_with_a_leading_zero_is_no_network() {
    for (strict, lax) in [
        ("10.0.0.0/8", "010.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "::ffff:010.0.0.0/104"),
        ("10.0.0.0/8", "10.0.0.0/08"),
        ("10.0.0.0/8", "10.0.0.0/+8"),
    ] {
        assert!(TrustedProxies::new([strict]).is_ok(), "{strict}");
        assert!(TrustedProxies::new([lax]).is_err(), "{lax}");
        assert!(lax.parse::<Prefix>().is_err(), "{lax}");
    }
    assert!("10.0.0.0/8".parse::<Prefix>().is_ok());
}

/// Who is trusted, the peer, what it sent, and who the client is.
type Row<'a> = (
    &'a TrustedProxies,
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
);

#[test]
fn the_spoof_matrix() {
    let networks = by_networks();
    let rfc_7239 = by_networks().with_header(ForwardedHeader::Forwarded);
    let two_hops = by_networks().with_hops(NonZeroU8::new(2).unwrap());
    const XFF: &str = "x-forwarded-for";
    const FORWARDED: &str = "forwarded";
    let rows: &[Row<'_>] = &[
        // A peer that is not a proxy is the client, whatever it says.
        (
            &networks,
            STRANGER,
            &[(XFF, "203.0.113.7")],
            "198.51.100.66",
        ),
        (
            &networks,
            STRANGER,
            &[(XFF, "10.0.0.9, 203.0.113.7")],
            "198.51.100.66",
        ),
        (
            &rfc_7239,
            STRANGER,
            &[(FORWARDED, "for=203.0.113.7")],
            "198.51.100.66",
        ),
        (
            &two_hops,
            STRANGER,
            &[(XFF, "203.0.113.7, 10.0.0.2")],
            "198.51.100.66",
        ),
        (
            &TrustedProxies::none(),
            PROXY,
            &[(XFF, "203.0.113.7")],
            "10.0.0.1",
        ),
        // What the client put in front of what the proxies appended changes nothing.
        (&networks, PROXY, &[(XFF, "203.0.113.7")], "203.0.113.7"),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6, 203.0.113.7")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6, 203.0.113.7, 10.0.0.2")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "10.0.0.9, 203.0.113.7, 10.0.0.2")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6"), (XFF, "203.0.113.7")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6"), (XFF, "203.0.113.7, 10.0.0.2")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6, 203.0.113.7:1234")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6, ::ffff:203.0.113.7")],
            "203.0.113.7",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "6.6.6.6, [2001:db8:2::7]:80")],
            "2001:db8:2::7",
        ),
        // An entry that is no address ends the walk at the proxy that wrote it.
        (
            &networks,
            PROXY,
            &[(XFF, "203.0.113.7, unknown")],
            "10.0.0.1",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "203.0.113.7, , 10.0.0.2")],
            "10.0.0.2",
        ),
        (
            &networks,
            PROXY,
            &[(XFF, "203.0.113.7, 0.0.0.0, 10.0.0.2")],
            "10.0.0.2",
        ),
        (&networks, PROXY, &[(XFF, "")], "10.0.0.1"),
        (&networks, PROXY, &[], "10.0.0.1"),
        // One header alone is read.
        (&networks, PROXY, &[(FORWARDED, "for=6.6.6.6")], "10.0.0.1"),
        (&networks, PROXY, &[("x-real-ip", "6.6.6.6")], "10.0.0.1"),
        (
            &networks,
            PROXY,
            &[("cf-connecting-ip", "6.6.6.6")],
            "10.0.0.1",
        ),
        (&rfc_7239, PROXY, &[(XFF, "6.6.6.6")], "10.0.0.1"),
        (
            &rfc_7239,
            PROXY,
            &[(FORWARDED, "for=6.6.6.6, for=203.0.113.7")],
            "203.0.113.7",
        ),
        (
            &rfc_7239,
            PROXY,
            &[(FORWARDED, "for=6.6.6.6"), (FORWARDED, "for=203.0.113.7")],
            "203.0.113.7",
        ),
        (
            &rfc_7239,
            PROXY,
            &[(FORWARDED, "for=6.6.6.6;for=203.0.113.7")],
            "10.0.0.1",
        ),
        (
            &rfc_7239,
            PROXY,
            &[(FORWARDED, "for=203.0.113.7, for=_hidden")],
            "10.0.0.1",
        ),
        (
            &rfc_7239,
            PROXY,
            &[(FORWARDED, "for=\"6.6.6.6, for=203.0.113.7")],
            "10.0.0.1",
        ),
        // A hop count takes the entry of that number, and nothing else.
        (
            &two_hops,
            PROXY,
            &[(XFF, "203.0.113.7, 198.51.100.2")],
            "203.0.113.7",
        ),
        (
            &two_hops,
            PROXY,
            &[(XFF, "6.6.6.6, 203.0.113.7, 198.51.100.2")],
            "203.0.113.7",
        ),
        (
            &two_hops,
            PROXY,
            &[(XFF, "203.0.113.7"), (XFF, "198.51.100.2")],
            "203.0.113.7",
        ),
        (&two_hops, PROXY, &[(XFF, "198.51.100.2")], "10.0.0.1"),
        (
            &two_hops,
            PROXY,
            &[(XFF, "6.6.6.6, rubbish, 198.51.100.2")],
            "10.0.0.1",
        ),
    ];
    for (proxies, peer, fields, expected) in rows {
        let expected: IpAddr = expected.parse().unwrap();
        assert_eq!(client(proxies, peer, fields), expected, "{peer} {fields:?}");
    }
}

proptest! {
    #[test]
    fn forged_entries_never_change_the_client(
        forged in prop::collection::vec("[ -~]{0,24}", 0..6),
        lines in prop::collection::vec("[ -~]{0,40}", 0..3),
        peer_is_proxy in any::<bool>(),
    ) {
        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in lines {
            fields.push(("x-forwarded-for", line.clone()));
            fields.push(("forwarded", line.clone()));
            fields.push(("x-real-ip", line));
        }
        let mut last = forged;
        last.push("203.0.113.7".to_owned());
        fields.push(("x-forwarded-for", last.join(", ")));
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.trim())).collect();
        let peer = if peer_is_proxy { PROXY } else { STRANGER };
        let expected = if peer_is_proxy { "203.0.113.7" } else { "198.51.100.66" };
        let expected: IpAddr = expected.parse().unwrap();
        prop_assert_eq!(client(&by_networks(), peer, &fields), expected);
        let one = by_networks().with_hops(NonZeroU8::MIN);
        prop_assert_eq!(client(&one, peer, &fields), expected);
    }

    #[test]
    fn no_header_makes_the_readers_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", value.clone());
            headers.insert("forwarded", value.clone());
            headers.insert("x-forwarded-proto", value);
            let peer = Peer::new(PROXY.parse().unwrap());
            for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
                let proxies = by_networks().with_header(header);
                let _ = proxies.client_behind(peer, &headers);
            }
        }
    }
}
