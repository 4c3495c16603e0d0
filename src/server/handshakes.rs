//! Connections that have not begun yet. They are bounded apart from those that have: who has shown no identity takes no place of one
//! who has.
//!
//! Of too many, the oldest gives way to the newest (RFC 4987, 3.4): a good peer is done within milliseconds, and whoever wants to keep
//! it out must open all of them anew in that time.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The connections of a server that have not begun yet.
#[derive(Debug)]
pub(super) struct Handshakes {
    limit: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

impl Handshakes {
    /// Up to `limit` at a time.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// Begins one.
    pub(super) fn begin(&self) -> Handshake {
        let mut open = self.open.lock();
        if open.by_age.len() >= self.limit
            && let Some((_, oldest)) = open.by_age.pop_first()
        {
            oldest.cancel();
        }
        let (number, given_up) = (open.next, CancellationToken::new());
        open.next += 1;
        open.by_age.insert(number, given_up.clone());
        Handshake { number, given_up, open: self.open.clone() }
    }
}

/// A connection that has not begun yet.
#[derive(Debug)]
pub(super) struct Handshake {
    number: u64,
    given_up: CancellationToken,
    open: Arc<Mutex<Open>>,
}

impl Handshake {
    /// Does its work; `None`: it had to give way.
    pub(super) async fn run<F: Future>(self, work: F) -> Option<F::Output> {
        self.given_up.run_until_cancelled(work).await
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.open.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn of_too_many_handshakes_the_oldest_that_is_not_done_gives_way() {
        let handshakes = Handshakes::new(2);
        let [done, mut oldest] = [handshakes.begin(), handshakes.begin()].map(|one| Box::pin(one.run(pending::<()>())));
        drop(done);
        let newer = handshakes.begin();
        assert_eq!(oldest.as_mut().now_or_never(), None, "there is room for two");
        let newest = handshakes.begin();
        assert_eq!(oldest.now_or_never(), Some(None));
        assert_eq!([newer, newest].map(|one| one.run(ready(())).now_or_never()), [Some(Some(())); 2]);
        assert_eq!(handshakes.open.lock().by_age.len(), 0, "nothing is left of those that are over");
    }
}
