//! Times gates beside the service behind them.

#[path = "../../tests/support/gates.rs"]
mod gates;

use criterion::{BatchSize, Criterion};

/// Times the gates whose names begin so, after the services alone.
pub(crate) fn time(criterion: &mut Criterion, name: &str) {
    for mut gate in gates::gates() {
        if gate.name != gate.over && !gate.name.starts_with(name) {
            continue;
        }
        let mut group = criterion.benchmark_group(format!("over {}", gate.over));
        group.bench_function(gate.name, |bencher| {
            bencher.iter_batched(&gate.request, &mut gate.call, BatchSize::SmallInput);
        });
        group.finish();
    }
}
