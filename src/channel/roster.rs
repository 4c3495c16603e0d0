//! The endpoints of a channel by name, for people: what an error says about them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

use crate::balance::Key;

type Explain = dyn Fn() -> Option<String> + Send + Sync;

/// Who is known, and what is wrong with whom.
pub(crate) struct Roster {
    endpoints: Mutex<BTreeMap<Key, Standing>>,
    /// What there is to say about where the endpoints come from.
    discovery: Box<Explain>,
}

struct Standing {
    name: String,
    state: State,
}

/// How an endpoint's connection stands.
pub(super) enum State {
    Connecting,
    Connected,
    /// Why there is none.
    Failed(String),
}

impl Roster {
    pub(crate) fn new(discovery: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { endpoints: Mutex::default(), discovery: Box::new(discovery) }
    }

    pub(super) fn add(&self, key: Key, name: String) {
        self.endpoints().insert(key, Standing { name, state: State::Connecting });
    }

    pub(super) fn remove(&self, key: Key) {
        self.endpoints().remove(&key);
    }

    /// Notes how an endpoint stands. A removed one is not taken up again.
    pub(super) fn note(&self, key: Key, state: State) {
        if let Some(standing) = self.endpoints().get_mut(&key) {
            standing.state = state;
        }
    }

    /// Every endpoint and how it stands.
    pub(super) fn describe(&self) -> Vec<String> {
        self.endpoints().values().map(ToString::to_string).collect()
    }

    pub(super) fn discovery(&self) -> Option<String> {
        (self.discovery)()
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<Key, Standing>> {
        self.endpoints.lock().expect("no code panics while it holds this lock")
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Connecting => write!(f, "{} (connecting)", self.name),
            State::Connected => write!(f, "{} (connected, takes no calls)", self.name),
            State::Failed(why) => write!(f, "{} ({why})", self.name),
        }
    }
}
