//! The limit of a body, of which nothing comes: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, body_limit);
criterion_main!(benches);

fn body_limit(criterion: &mut Criterion) {
    support::time(criterion, "body limit");
}
