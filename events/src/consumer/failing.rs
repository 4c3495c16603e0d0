//! The partitions of which something was refused: they are read event by event until they are past it.

use std::{collections::BTreeMap, time::Duration};

use meshwork::backoff::Backoff;

/// Between attempts at an event that the store refuses: a table is locked or renamed, rights are taken. Back within 5 s of
/// the repair.
const REFUSED_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Over all connections of a subscription.
#[derive(Default)]
pub(super) struct Failing(BTreeMap<u32, Refused>);

struct Refused {
    /// Read event by event up to here.
    until: u64,
    backoff: Backoff,
}

impl Failing {
    /// Whether the events behind `after` are to be read one by one.
    pub(super) fn is_one_by_one(&self, partition: u32, after: u64) -> bool {
        self.0.get(&partition).is_some_and(|refused| after < refused.until)
    }

    /// Something up to `until` was refused. How long to wait, if it is to be tried again.
    pub(super) fn refused(&mut self, partition: u32, until: u64) -> &mut Backoff {
        let refused = self.0.entry(partition).or_insert(Refused { until, backoff: REFUSED_BACKOFF });
        refused.until = refused.until.max(until);
        &mut refused.backoff
    }

    /// Everything up to `through` was applied. Whether the partition is past what was refused.
    pub(super) fn applied(&mut self, partition: u32, through: u64) -> bool {
        let past = self.0.get(&partition).is_some_and(|refused| refused.until <= through);
        past && self.0.remove(&partition).is_some()
    }

    /// The partition is another instance's.
    pub(super) fn forget(&mut self, partition: u32) {
        self.0.remove(&partition);
    }
}
