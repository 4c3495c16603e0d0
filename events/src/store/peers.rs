//! How processes that share a database learn of each other's commits.
//!
//! Only *that* something happened is told: whoever hears it reads the database. So words may be merged, repeated and even
//! lost; behind a lost one there is a poll.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

/// What a word is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The log has grown, or cursors have moved.
    Log,
    /// A member has joined or left.
    Members,
}

impl Topic {
    /// Every topic, in the order of their indexes.
    pub(super) const ALL: [Self; 2] = [Self::Log, Self::Members];

    /// Its name on the wire.
    #[cfg(feature = "postgres")]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Members => "members",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Log => 0,
            Self::Members => 1,
        }
    }
}

/// The other processes on the same database. The store's own task carries the words.
#[derive(Debug, Default)]
pub struct Peers {
    untold: [AtomicBool; Topic::ALL.len()],
    wake: Notify,
    heard: [watch::Sender<()>; Topic::ALL.len()],
}

impl Peers {
    /// Tells the others soon; returns at once. What is told while a word is under way becomes one more word.
    pub fn tell(&self, topic: Topic) {
        self.untold[topic.index()].store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Changes when another process has told, and for [`Topic::Log`] at least four times a second.
    pub fn heard(&self, topic: Topic) -> watch::Receiver<()> {
        self.heard[topic.index()].subscribe()
    }

    /// Waits for something to tell. Cancel-safe: what was not taken stays untold.
    #[cfg(any(feature = "postgres", test))]
    pub(super) async fn untold(&self) -> Vec<Topic> {
        loop {
            let taken = |topic: &Topic| self.untold[topic.index()].swap(false, Ordering::AcqRel);
            let topics: Vec<Topic> = Topic::ALL.into_iter().filter(taken).collect();
            if !topics.is_empty() {
                return topics;
            }
            self.wake.notified().await;
        }
    }

    /// Wakes those who listen here.
    #[cfg(feature = "postgres")]
    pub(super) fn hear(&self, topic: Topic) {
        self.heard[topic.index()].send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn however_many_commits_tell_while_a_word_is_under_way_become_one_more_word() {
        let peers = Peers::default();
        for _ in 0..1000 {
            peers.tell(Topic::Log);
        }
        assert_eq!(peers.untold().await, [Topic::Log]);
        assert_eq!(peers.untold().now_or_never(), None, "all was told");
        peers.tell(Topic::Members);
        peers.tell(Topic::Log);
        assert_eq!(peers.untold().await, Topic::ALL);
    }
}
