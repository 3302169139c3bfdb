//! The rule of origins and the signed token: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, csrf);
criterion_main!(benches);

fn csrf(criterion: &mut Criterion) {
    support::time(criterion, "csrf");
}
