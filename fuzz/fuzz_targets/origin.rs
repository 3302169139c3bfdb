//! Origins: what is taken is byte for byte what a browser makes of it (URL, section 4.7): its scheme,
//! its host in the one form that hosts have, and its port where it is not the scheme's own.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;
use libfuzzer_sys::fuzz_target;
use portcullis::Origin;

fuzz_target!(|text: &str| {
    let Ok(origin) = Origin::new(text) else {
        return;
    };
    assert_eq!(origin.as_str(), text);
    let uri: Uri = text.parse().expect("an origin is a URI");
    let (scheme, host) = (uri.scheme_str().unwrap(), uri.host().unwrap());
    let default = if scheme == "https" { 443 } else { 80 };
    let written = match uri.port_u16() {
        None => format!("{scheme}://{host}"),
        Some(port) => {
            assert_ne!(port, default);
            format!("{scheme}://{host}:{port}")
        }
    };
    assert_eq!(written, text);
    assert_eq!(uri.authority().unwrap().as_str(), origin.authority());
    assert!(origin.is_https() == (scheme == "https") && matches!(scheme, "http" | "https"));
    let last = host.rsplit('.').next().unwrap();
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap();
        let parsed: Ipv6Addr = address.parse().expect("an address");
        assert!(parsed.to_ipv4_mapped().is_some() || parsed.to_string() == address);
    } else if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        assert_eq!(
            host.parse::<Ipv4Addr>().expect("an address").to_string(),
            host
        );
    } else {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        assert!(host.bytes().all(plain) && host.split('.').all(|label| !label.is_empty()));
    }
});
