//! Allowed hosts and the redirect, over HTTPS: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, https);
criterion_main!(benches);

fn https(criterion: &mut Criterion) {
    support::time(criterion, "https");
}
