//! Notifications between the processes that share a database, so that they see each other's commits.
//!
//! A notification only says *that* its topic has changed: its subscribers read the database. So notifications may be merged,
//! repeated and even lost; a poll makes up for a lost one.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

/// What a notification is about.
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

/// The line to the other processes on the same database. A task of the store sends and receives the notifications.
#[derive(Debug, Default)]
pub struct Notifier {
    pending: [AtomicBool; Topic::ALL.len()],
    wake: Notify,
    received: [watch::Sender<()>; Topic::ALL.len()],
}

impl Notifier {
    /// Notifies the other processes soon; returns at once. Calls while a notification is under way become one more.
    pub fn notify(&self, topic: Topic) {
        self.pending[topic.index()].store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// A receiver that changes when another process has notified, and for [`Topic::Log`] at least four times a second.
    pub fn subscribe(&self, topic: Topic) -> watch::Receiver<()> {
        self.received[topic.index()].subscribe()
    }

    /// Waits until there are notifications to send, and takes them. Cancel-safe: what was not taken stays pending.
    #[cfg(any(feature = "postgres", test))]
    pub(super) async fn pending(&self) -> Vec<Topic> {
        loop {
            let taken = |topic: &Topic| self.pending[topic.index()].swap(false, Ordering::AcqRel);
            let topics: Vec<Topic> = Topic::ALL.into_iter().filter(taken).collect();
            if !topics.is_empty() {
                return topics;
            }
            self.wake.notified().await;
        }
    }

    /// Wakes this process's subscribers.
    #[cfg(feature = "postgres")]
    pub(super) fn deliver(&self, topic: Topic) {
        self.received[topic.index()].send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn however_many_commits_tell_while_a_word_is_under_way_become_one_more_word() {
        let notifier = Notifier::default();
        for _ in 0..1000 {
            notifier.notify(Topic::Log);
        }
        assert_eq!(notifier.pending().await, [Topic::Log]);
        assert_eq!(notifier.pending().now_or_never(), None, "all was taken");
        notifier.notify(Topic::Members);
        notifier.notify(Topic::Log);
        assert_eq!(notifier.pending().await, Topic::ALL);
    }
}
