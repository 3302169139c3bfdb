//! Where the slots of a policy lie: a bounded, sharded table for each kind of key.

mod memory;
mod table;

pub(super) use self::memory::{Address, AddressKind, Store};
