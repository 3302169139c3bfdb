//! The client behind two proxies: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, client);
criterion_main!(benches);

fn client(criterion: &mut Criterion) {
    support::time(criterion, "client");
}
