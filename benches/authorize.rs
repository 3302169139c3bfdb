//! A scope, asked of an identity that an outer layer found: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, authorize);
criterion_main!(benches);

fn authorize(criterion: &mut Criterion) {
    support::time(criterion, "authorize");
}
