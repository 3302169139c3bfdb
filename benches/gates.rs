//! What each gate takes for a request that it admits, beside the service behind it.

#[path = "../tests/support/gates.rs"]
mod gates;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

criterion_group!(benches, each_gate);
criterion_main!(benches);

fn each_gate(criterion: &mut Criterion) {
    for mut gate in gates::gates() {
        let mut group = criterion.benchmark_group(format!("over {}", gate.over));
        group.bench_function(gate.name, |bencher| {
            bencher.iter_batched(&gate.request, &mut gate.call, BatchSize::SmallInput);
        });
        group.finish();
    }
}
