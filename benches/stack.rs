//! The edge alone, and the whole stack with its guard: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, stack);
criterion_main!(benches);

fn stack(criterion: &mut Criterion) {
    support::time(criterion, "stack");
}
