//! An endpoint as the balance sees it: a gate that is open while calls can go through.
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
//! *pending*, never an error, so that the balance passes over it and does not evict it. Ejection by failures will be one
//! more reason for a gate to close.

use std::{
    convert::Infallible,
    future::{self, Ready},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};
use tower::{Service, load::Load};

use super::load::{EndpointLoad, PendingCall};

/// A connection to an endpoint: a cheap handle to send calls with.
pub(crate) trait Link: Clone + Send + 'static {
    /// Whether it takes no more calls.
    fn is_closed(&self) -> bool;
}

/// The state of one endpoint, shared by the owner of its connection, the balance, and its calls.
pub(crate) struct Gate<L> {
    state: Mutex<State<L>>,
    /// The balance, while it waits for the gate to open.
    balance: AtomicWaker,
    load: Arc<EndpointLoad>,
    /// Whether the pick that is being made should go elsewhere.
    avoided: AtomicBool,
}

struct State<L> {
    link: Option<L>,
    paused_until: Option<Instant>,
}

impl<L: Link> Gate<L> {
    /// A closed gate.
    pub(crate) fn new(load: Arc<EndpointLoad>) -> Self {
        let state = Mutex::new(State { link: None, paused_until: None });
        Self { state, balance: AtomicWaker::new(), load, avoided: AtomicBool::new(false) }
    }

    /// Lets calls through to a new connection.
    pub(crate) fn open(&self, link: L) {
        *self.state() = State { link: Some(link), paused_until: None };
        self.balance.wake();
    }

    /// Lets no more calls through. Those that went through are not touched.
    pub(crate) fn close(&self) {
        self.state().link = None;
        // The balance may hold this gate as ready: it looks again when it picks it.
    }

    /// Lets no calls through for a time: the endpoint has refused one, and the others had better go elsewhere.
    pub(crate) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state();
        state.paused_until = state.paused_until.max(Some(until));
    }

    pub(super) fn set_avoided(&self, avoided: bool) {
        self.avoided.store(avoided, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> &Arc<EndpointLoad> {
        &self.load
    }

    /// The connection to use now, or how long there is none.
    fn passage(&self) -> Result<L, Shut> {
        let state = self.state();
        match (&state.link, state.paused_until) {
            (_, Some(until)) if until > Instant::now() => Err(Shut::Until(until)),
            (Some(link), _) if !link.is_closed() => Ok(link.clone()),
            _ => Err(Shut::WithoutConnection),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

enum Shut {
    Until(Instant),
    WithoutConnection,
}

/// An endpoint that was picked for one call, and is charged for it until `call` is dropped.
pub(crate) struct Pick<L> {
    pub(crate) link: L,
    pub(crate) gate: Arc<Gate<L>>,
    pub(crate) call: PendingCall,
}

/// The gate as a tower service that hands out a [`Pick`]: the balance chooses, and the call itself is made outside of it.
pub(super) struct GateService<L> {
    gate: Arc<Gate<L>>,
    /// What `poll_ready` found, for `call`: the gate may close in between.
    passage: Option<L>,
    /// Wakes the balance at the end of a pause.
    pause: Option<Pin<Box<Sleep>>>,
    /// Where `pause` runs. A call may be polled outside of Tokio, and a panic would poison the balance for all.
    runtime: Handle,
}

impl<L> GateService<L> {
    /// For the runtime that it is called in.
    pub(super) fn new(gate: Arc<Gate<L>>) -> Self {
        Self { gate, passage: None, pause: None, runtime: Handle::current() }
    }
}

impl<L: Link> Service<()> for GateService<L> {
    type Response = Pick<L>;
    type Error = Infallible;
    type Future = Ready<Result<Pick<L>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Before the look at the state, or an opening in between would wake nobody.
        self.gate.balance.register(context.waker());
        loop {
            self.passage = None;
            match self.gate.passage() {
                Ok(link) => {
                    self.passage = Some(link);
                    self.pause = None;
                    return Poll::Ready(Ok(()));
                }
                Err(Shut::WithoutConnection) => return Poll::Pending,
                Err(Shut::Until(until)) => {
                    let pause = self.pause.get_or_insert_with(|| {
                        let _entered = self.runtime.enter();
                        Box::pin(sleep_until(until))
                    });
                    if pause.deadline() != until {
                        pause.as_mut().reset(until);
                    }
                    if pause.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.pause = None;
                }
            }
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let link = self.passage.take().expect("tower: called only when ready");
        let call = self.gate.load.begin();
        future::ready(Ok(Pick { link, gate: self.gate.clone(), call }))
    }
}

impl<L> Load for GateService<L> {
    type Metric = f64;

    fn load(&self) -> f64 {
        if self.gate.avoided.load(Ordering::Relaxed) { f64::INFINITY } else { self.gate.load.load() }
    }
}
