//! Calls one gate, for callgrind to count: `instructions NAME`. Without a name, the names of all.

#[path = "../../../tests/support/gates.rs"]
mod gates;

use gates::{Answer, Ask, Gate};

/// As many as `run.sh` divides by.
const CALLS: usize = 1_000;

fn main() {
    let mut gates = gates::gates();
    let Some(name) = std::env::args().nth(1) else {
        for gate in gates {
            println!("{}\t{}", gate.name, gate.over);
        }
        return;
    };
    let gate = gates
        .iter_mut()
        .find(|gate| gate.name == name)
        .expect("one of the names");
    // What the first requests set up is not what a request costs.
    for _ in 0..64 {
        (gate.call)((gate.request)());
    }
    for _ in 0..CALLS {
        let request = (gate.request)();
        drop(counted(gate, request));
    }
}

/// The instructions in here are those that count.
#[inline(never)]
fn counted(gate: &mut Gate, request: Ask) -> Answer {
    (gate.call)(request)
}
