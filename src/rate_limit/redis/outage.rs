//! What a policy does while Redis is away.

/// What a policy does while Redis is away.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outage {
    /// The instance's own counts decide: at most the limit from each instance.
    #[default]
    Local,
    /// Everything is admitted.
    Open,
    /// Everything is refused: 503 with `Retry-After`.
    Closed,
}
