//! Which limits have counted a request.

use http::Extensions;

use super::peer::Client;

/// The limits that have counted a request, by their numbers, which are not zero.
///
/// It stands in the request's [`Client`], so that noting a limit costs no allocation, or beside it
/// while there is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct CountedBy {
    limits: [u32; MOST],
}

impl CountedBy {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        match extensions.get::<Client>() {
            Some(client) => client.counted_by,
            None => extensions.get::<Self>().copied().unwrap_or_default(),
        }
    }

    pub(crate) fn keep(self, extensions: &mut Extensions) {
        match extensions.get_mut::<Client>() {
            Some(client) => client.counted_by = self,
            None => {
                extensions.insert(self);
            }
        }
    }

    #[inline]
    pub(crate) fn has(&self, limit: u32) -> bool {
        // All of them, without a branch for each.
        let found = self
            .limits
            .iter()
            .fold(false, |found, held| found | (*held == limit));
        found && limit != 0
    }

    /// Notes a limit, as long as there is room: what is not noted counts again.
    #[inline]
    pub(crate) fn note(&mut self, limit: u32) {
        if let Some(free) = self.limits.iter_mut().find(|held| **held == 0) {
            *free = limit;
        }
    }
}

/// More than a request meets in a service of any size.
const MOST: usize = 8;
