//! The endpoints of a channel by name, for people: what an error says about them, and how they stand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard},
};

use tokio::time::Instant;

use crate::{
    balance::{Health, Key, Statement, Traits},
    endpoint::{
        connection::drive::StreamLimit,
        peer::Peer,
        stats::{EndpointState, EndpointStats},
    },
};

type Explain = dyn Fn() -> Option<String> + Send + Sync;

/// Who is known, and what is wrong with whom.
pub(crate) struct Roster {
    endpoints: Mutex<BTreeMap<Key, Standing>>,
    /// What there is to say about where the endpoints come from.
    discovery: Box<Explain>,
}

struct Standing {
    peer: Peer,
    state: State,
}

/// How an endpoint's connection stands.
pub(crate) enum State {
    Connecting,
    Connected(StreamLimit),
    /// Why there is none.
    Failed(String),
}

impl Roster {
    pub(crate) fn new(discovery: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { endpoints: Mutex::default(), discovery: Box::new(discovery) }
    }

    pub(crate) fn add(&self, key: Key, peer: Peer) {
        self.endpoints().insert(key, Standing { peer, state: State::Connecting });
    }

    pub(crate) fn remove(&self, key: Key) {
        self.endpoints().remove(&key);
    }

    /// Notes how an endpoint stands. A removed one is not taken up again.
    pub(crate) fn note(&self, key: Key, state: State) {
        if let Some(standing) = self.endpoints().get_mut(&key) {
            standing.state = state;
        }
    }

    /// Every endpoint and how it stands.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.endpoints().values().map(ToString::to_string).collect()
    }

    /// Every endpoint as the picker's statements and its connection tell. One that is being removed is left out.
    pub(crate) fn stats(&self, statements: Vec<(Key, Traits, Statement)>) -> Vec<(Key, EndpointStats)> {
        let endpoints = self.endpoints();
        let stats = |(key, traits, Statement { health, calls }): (Key, Traits, Statement)| {
            let Standing { peer, state } = endpoints.get(&key)?;
            let stats = EndpointStats {
                instance_id: peer.instance().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned(),
                address: peer.address().to_string(),
                version: traits.version,
                zone: traits.zone,
                weight: traits.weight,
                state: state.with(&health),
                stream_limit: state.stream_limit(),
                calls,
            };
            Some((key, stats))
        };
        statements.into_iter().filter_map(stats).collect()
    }

    pub(crate) fn discovery(&self) -> Option<String> {
        (self.discovery)()
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<Key, Standing>> {
        self.endpoints.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    fn stream_limit(&self) -> Option<u32> {
        match self {
            Self::Connected(limit) => limit.get(),
            Self::Connecting | Self::Failed(_) => None,
        }
    }

    /// The state that people are told: without a connection, health does not matter.
    fn with(&self, health: &Health) -> EndpointState {
        match (self, health) {
            (Self::Connecting, _) => EndpointState::Connecting,
            (Self::Failed(why), _) => EndpointState::Unreachable { why: why.clone() },
            (Self::Connected(_), Health::Healthy { .. }) => EndpointState::Ready,
            (Self::Connected(_), Health::Ejected { until, .. }) => {
                EndpointState::Ejected { time_left: until.saturating_duration_since(Instant::now()) }
            }
            (Self::Connected(_), Health::Probation { .. }) => EndpointState::Probation,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Connecting => write!(f, "{} (connecting)", self.peer),
            State::Connected(_) => write!(f, "{} (connected, takes no calls)", self.peer),
            State::Failed(why) => write!(f, "{} ({why})", self.peer),
        }
    }
}
