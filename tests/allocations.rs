//! How often each gate allocates for a request that it admits. Alone in its program, which counts.
#![cfg(all(
    feature = "api-key",
    feature = "aws-lc-rs",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "rate-limit",
    feature = "upload"
))]

#[path = "support/gates.rs"]
mod gates;

use gates::Gate;

/// The most that each adds to the service behind it.
const MOST: [(&str, u64); 23] = [
    // The extensions that keep the client.
    ("client", 2),
    ("headers", 4),
    ("headers, page with a nonce", 5),
    ("headers, helmet's", 2),
    ("https", 0),
    ("cors", 8),
    ("csrf", 0),
    ("csrf token, not needed", 0),
    ("rate limit, log", 0),
    ("rate limit, ring", 0),
    ("rate limit, smooth", 0),
    ("rate limit, two policies", 0),
    ("rate limit, fields", 1),
    ("rate limit, refused", REFUSED),
    ("rate limit, refused, by default a line", REFUSED),
    ("jwt", 6),
    ("jwt, cached", 2),
    ("api key", 2),
    ("authorize", 0),
    ("body limit", 0),
    ("upload", 23),
    ("stack, edge", 5),
    ("stack, whole", 9),
];

/// The labels of a counter are one.
const REFUSED: u64 = if cfg!(feature = "metrics") { 8 } else { 7 };

#[test]
fn no_gate_allocates_more_than_it_did() {
    let counts: Vec<_> = gates::gates()
        .into_iter()
        .map(|mut gate| (allocations(&mut gate), gate))
        .collect();
    let mut over = Vec::new();
    for (count, gate) in &counts {
        if gate.name == gate.over {
            continue;
        }
        let alone = counts
            .iter()
            .find(|(_, alone)| alone.name == gate.over)
            .unwrap()
            .0;
        let most = MOST
            .iter()
            .find(|(name, _)| *name == gate.name)
            .map(|(_, most)| *most);
        let added = count.saturating_sub(alone);
        if most.is_none_or(|most| added > most) {
            over.push(format!(
                "{}: {added} allocations, at most {most:?}",
                gate.name
            ));
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

/// Of one request, when the gate has seen some: the least of several, since a table may grow in one.
fn allocations(gate: &mut Gate) -> u64 {
    let counts = (0..16).map(|_| {
        let mut request = Some((gate.request)());
        let mut answer = None;
        let counted = allocation_counter::measure(|| answer = request.take().map(&mut gate.call));
        drop(answer);
        counted.count_total
    });
    counts.min().unwrap_or_default()
}
