//! An API key, looked up in the cache of keys that were used lately: beside the service alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, api_key);
criterion_main!(benches);

fn api_key(criterion: &mut Criterion) {
    support::time(criterion, "api key");
}
