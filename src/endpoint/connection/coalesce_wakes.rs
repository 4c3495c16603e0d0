//! A task that wakes itself and goes on at once.
//!
//! The parts of a connection wake each other with every call. To tokio a task that is woken while it runs is one that yields:
//! it is queued behind the others, and another thread is woken to help, which finds nothing. At one call in flight that cost
//! two futex calls and two writes to an eventfd for each call. So wake-ups that come while the task runs lead to another round
//! of it instead.
//!
//! A busy task does one round only: with 256 calls in flight, rounds that each did a little cost a quarter of the client's
//! CPU, and a task that yields comes back to all that its callers have given it meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Rounds of a task with little to do before it yields after all: other tasks want to run too, and one that has used up tokio's
/// budget stands still until then.
const ROUNDS: usize = 8;

/// Runs a task in rounds.
pub(crate) struct CoalesceWakes {
    state: Arc<State>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    running: AtomicBool,
    again: AtomicBool,
    task: AtomicWaker,
}

impl CoalesceWakes {
    pub(crate) fn new() -> Self {
        let state = Arc::new(State::default());
        Self { waker: Waker::from(state.clone()), state }
    }

    /// Polls `work` until it is ready, or nothing has woken it meanwhile; once, if it is `busy`.
    pub(crate) fn poll<T>(
        &self,
        context: &mut Context<'_>,
        busy: bool,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.state.task.register(context.waker());
        for _ in 0..if busy { 1 } else { ROUNDS } {
            self.state.running.store(true, Ordering::SeqCst);
            // What woke the task is what it is about to look at.
            self.state.again.swap(false, Ordering::SeqCst);
            let polled = work(&mut Context::from_waker(&self.waker));
            // In this order: a wake in between wakes the task as well, which does no harm.
            self.state.running.store(false, Ordering::SeqCst);
            if !self.state.again.swap(false, Ordering::SeqCst) || polled.is_ready() {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        if !self.running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls work that wakes itself `wakes` times; how often it was polled, and the task woken.
    fn rounds(wakes: usize, busy: bool) -> (usize, usize) {
        let (rounds, woken) = (CoalesceWakes::new(), Arc::new(Woken::default()));
        let mut polls = 0;
        let polled = rounds.poll(&mut Context::from_waker(&waker(woken.clone())), busy, |context| {
            polls += 1;
            if polls <= wakes {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        (polls, woken.0.load(Ordering::SeqCst))
    }

    #[test]
    fn work_that_wakes_itself_is_polled_again_without_waking_the_task() {
        assert_eq!(rounds(0, false), (1, 0));
        assert_eq!(rounds(3, false), (4, 0));
    }

    #[test]
    fn work_that_never_ceases_to_wake_itself_yields_and_so_does_busy_work_at_once() {
        assert_eq!(rounds(usize::MAX, false), (ROUNDS, 1));
        assert_eq!(rounds(3, true), (1, 1));
    }

    #[test]
    fn a_wake_between_polls_wakes_the_task_once() {
        let (rounds, woken) = (CoalesceWakes::new(), Arc::new(Woken::default()));
        let mut kept = None;
        let polled = rounds.poll(&mut Context::from_waker(&waker(woken.clone())), false, |context| {
            kept = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        kept.expect("polled").wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let mut polls = 0;
        let polled = rounds.poll(&mut Context::from_waker(&waker(woken)), false, |_| {
            polls += 1;
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!(polls, 1, "it needs no second round");
    }
}
