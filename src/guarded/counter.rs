//! The simplest check: a count of bytes.

use bytes::Bytes;

use super::check::{BodyCheck, Released};
use crate::rejection::Rejection;

/// Counts a body down, and refuses the bytes that are too many.
#[derive(Debug)]
pub(crate) struct Counter {
    left: u64,
    refusal: fn() -> Rejection,
}

impl Counter {
    /// Lets `max` bytes go on.
    pub(crate) fn new(max: u64, refusal: fn() -> Rejection) -> Self {
        Self { left: max, refusal }
    }
}

impl BodyCheck for Counter {
    const JUDGES_END: bool = false;

    #[inline]
    fn glance(&mut self, data: &Bytes) -> bool {
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn data(&mut self, data: Bytes, _: &mut Released) -> Result<Option<Bytes>, Rejection> {
        match self.glance(&data) {
            true => Ok(Some(data)),
            false => Err((self.refusal)()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::RejectionKind;

    #[test]
    fn the_byte_past_the_limit_is_refused_however_it_comes() {
        let refusal = || Rejection::new(RejectionKind::PayloadTooLarge, "test", "too_large");
        for frame in 1..=11 {
            let mut counter = Counter::new(10, refusal);
            let mut out = Released::default();
            let mut passed = 0;
            loop {
                match counter.data(Bytes::from(vec![0; frame]), &mut out) {
                    Ok(piece) => passed += piece.map_or(0, |piece| piece.len()),
                    Err(rejection) => break assert_eq!(rejection.status(), 413),
                }
            }
            assert_eq!(passed, 10 / frame * frame);
        }
    }
}
