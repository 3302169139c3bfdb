//! Reading `X-Forwarded-For` and `Forwarded` (RFC 7239).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

/// One entry of a forwarding header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hop {
    Address(IpAddr),
    /// Not an address: `unknown`, an obfuscated name, or rubbish.
    Unknown,
}

/// The entries of all lines, in order, the nearest proxy's last.
pub(super) fn x_forwarded_for(headers: &HeaderMap, name: &HeaderName) -> Vec<Hop> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|entry| hop(entry.trim_ascii()))
        .collect()
}

/// The `for` of every element of `Forwarded`, in order.
pub(super) fn forwarded_hops(headers: &HeaderMap) -> Vec<Hop> {
    elements(headers)
        .into_iter()
        .map(|element| element.hop)
        .collect()
}

/// Whether the nearest proxy's `proto` is `https`; `None` when it says none.
pub(super) fn forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    elements(headers).pop()?.https
}

#[derive(Clone, Copy, Debug)]
struct Element {
    hop: Hop,
    https: Option<bool>,
}

const UNREADABLE: Element = Element {
    hop: Hop::Unknown,
    https: None,
};

fn elements(headers: &HeaderMap) -> Vec<Element> {
    headers
        .get_all(FORWARDED)
        .iter()
        .flat_map(|line| split_quoted(line.as_bytes(), b','))
        .map(element)
        .collect()
}

fn element(text: Option<&[u8]>) -> Element {
    let Some(text) = text else { return UNREADABLE };
    let mut node = None;
    let mut proto = None;
    for pair in split_quoted(text, b';') {
        let Some(pair) = pair.map(<[u8]>::trim_ascii) else {
            return UNREADABLE;
        };
        if pair.is_empty() {
            continue;
        }
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
            return UNREADABLE;
        };
        let (name, value) = (&pair[..equals], unquote(&pair[equals + 1..]));
        let slot = if name.eq_ignore_ascii_case(b"for") {
            &mut node
        } else if name.eq_ignore_ascii_case(b"proto") {
            &mut proto
        } else {
            continue;
        };
        // Each parameter stands at most once (RFC 7239 section 4).
        if value.is_none() || slot.replace(value).is_some() {
            return UNREADABLE;
        }
    }
    Element {
        hop: node.flatten().map_or(Hop::Unknown, |node| hop(&node)),
        https: proto
            .flatten()
            .map(|proto| proto.eq_ignore_ascii_case(b"https")),
    }
}

/// Splits at a separator outside quoted strings; the last part is `None` when a quote is open.
fn split_quoted(text: &[u8], separator: u8) -> Vec<Option<&[u8]>> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                parts.push(Some(&text[start..index]));
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push((!quoted).then_some(&text[start..]));
    parts
}

/// A token as it is, a quoted string without its quotes; `None` when it is neither.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        let plain = !value.is_empty() && !value.contains(&b'"');
        return plain.then(|| value.to_vec());
    };
    let inner = inner.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => text.push(*bytes.next()?),
            b'"' => return None,
            plain => text.push(*plain),
        }
    }
    Some(text)
}

/// An address, with or without a port, an IPv6 one with or without brackets; a zone is dropped.
fn hop(entry: &[u8]) -> Hop {
    parse(entry)
        .map(|ip| ip.to_canonical())
        .filter(|ip| !ip.is_unspecified())
        .map_or(Hop::Unknown, Hop::Address)
}

fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let text = match text.split_once('%') {
        Some((address, zone)) => {
            let rest = zone.find(']').map_or("", |end| &zone[end..]);
            &*format!("{address}{rest}")
        }
        None => text,
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some(addr.ip());
    }
    let bracketed = text.strip_prefix('[')?.strip_suffix(']')?;
    bracketed.parse().map(IpAddr::V6).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hops(value: &str) -> Vec<Option<String>> {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, value.parse().unwrap());
        forwarded_hops(&headers)
            .into_iter()
            .map(|hop| match hop {
                Hop::Address(ip) => Some(ip.to_string()),
                Hop::Unknown => None,
            })
            .collect()
    }

    #[test]
    fn addresses_in_every_legal_form() {
        for (entry, address) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:8080", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:8080", "2001:db8::7"),
            ("[fe80::1%eth0]:80", "fe80::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(
                hop(entry.as_bytes()),
                Hop::Address(address.parse().unwrap())
            );
        }
        for entry in [
            "", "unknown", "_hidden", "0.0.0.0", "::", "1.2.3", "1.2.3.4:", "a.b", "é",
        ] {
            assert_eq!(hop(entry.as_bytes()), Hop::Unknown, "{entry}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let v6 = Some("2001:db8::7".to_owned());
        assert_eq!(hops("for=\"[2001:db8::7]:80\";proto=https"), [v6]);
        assert_eq!(
            hops("For=1.2.3.4, for=unknown"),
            [Some("1.2.3.4".into()), None]
        );
        assert_eq!(hops("for=_a;for=1.2.3.4"), [None]);
        assert_eq!(
            hops("by=\"x,for=6.6.6.6\";for=1.2.3.4"),
            [Some("1.2.3.4".into())]
        );
        assert_eq!(hops("for=\"1.2.3.4"), [None]);
        assert_eq!(
            hops("for=1.2.3.4, for=\"6.6.6.6, for=5.5.5.5"),
            [Some("1.2.3.4".into()), None]
        );
    }
}
