//! An endpoint as the picker sees it: a gate that is open while calls can go through.
//!
//! ```text
//!            open(connection)                  pause(time)
//!   closed ────────────────────> open ───────────────────────> paused
//!     ^                           │ ^                            │
//!     └──── close, or the ────────┘ └──── the time is over ──────┘
//!           connection ended
//! ```
//!
//! Readiness is real: the gate is open only with a connection on which the server has spoken. A gate that is not open is
//! passed over, and never forgotten. An endpoint that its failures have ejected keeps its connection: see `health`.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::endpoint::{Account, Ejections, PendingCall};

/// A connection to an endpoint: a cheap handle to send calls with.
pub(crate) trait Link: Clone + Send + 'static {
    /// Whether it takes no more calls.
    fn is_closed(&self) -> bool;
}

/// One endpoint, shared by the owner of its connection, the picker, and its calls.
pub(crate) struct Gate<L> {
    state: Mutex<State<L>>,
    pub(super) account: Arc<Account>,
}

struct State<L> {
    link: Option<L>,
    paused_until: Option<Instant>,
    /// When it had a connection for the first time.
    opened: Option<Instant>,
}

/// An endpoint that was picked for one call, and is charged for it until `call` is dropped.
pub(crate) struct Pick<L> {
    pub(crate) link: L,
    pub(crate) gate: Arc<Gate<L>>,
    pub(crate) call: PendingCall,
}

impl<L: Link> Gate<L> {
    /// A closed gate.
    pub(super) fn new(account: Account) -> Self {
        let state = State { link: None, paused_until: None, opened: None };
        Self { state: Mutex::new(state), account: Arc::new(account) }
    }

    /// Lets calls through to a new connection.
    pub(crate) fn open(&self, link: L) {
        let mut state = self.state();
        let opened = state.opened.or_else(|| Some(Instant::now()));
        *state = State { link: Some(link), paused_until: None, opened };
        drop(state);
        self.account.set().changed();
    }

    /// Lets no more calls through. Those that went through are not touched.
    pub(crate) fn close(&self) {
        self.state().link = None;
        self.account.set().changed();
    }

    /// Lets no calls through for a time: the endpoint has refused one, and the others had better go elsewhere.
    pub(crate) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// When it had a connection for the first time, if it has one now.
    pub(super) fn connected(&self) -> Option<Instant> {
        let state = self.state();
        state.live()?;
        state.opened
    }

    /// Until when it is paused.
    pub(super) fn paused(&self) -> Option<Instant> {
        self.state().paused_until
    }

    /// What a call would cost, if one can go through now.
    pub(super) fn offer(&self, now: Instant, ejections: Ejections, weight: f64) -> Option<f64> {
        self.state().passage(now)?;
        self.account.offer(now, ejections, weight)
    }

    /// Lets a call through.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Option<Pick<L>> {
        let link = self.state().passage(now)?.clone();
        Some(Pick { link, gate: self.clone(), call: self.account.begin(now) })
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl<L: Link> State<L> {
    /// The connection, if it takes calls. It may have ended before its owner has closed the gate.
    fn live(&self) -> Option<&L> {
        self.link.as_ref().filter(|link| !link.is_closed())
    }

    fn passage(&self, now: Instant) -> Option<&L> {
        if self.paused_until.is_some_and(|until| until > now) { None } else { self.live() }
    }
}
