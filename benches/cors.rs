//! CORS, for an origin that is allowed: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, cors);
criterion_main!(benches);

fn cors(criterion: &mut Criterion) {
    support::time(criterion, "cors");
}
