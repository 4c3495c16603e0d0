//! The picker with connections that a test makes and ends by hand, under a paused clock.

mod ejection;
mod history;
mod picks;
mod queue;
mod shares;
mod tail;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, advance};

use super::*;
use crate::{
    endpoint::{Blame, Connection, Endpoint, Pick, Traits, peer::Peer, stats::EndpointState},
    policy::Policy,
};

/// A connection that ends when a test says so.
#[derive(Clone, Debug)]
struct Link {
    name: &'static str,
    ended: Arc<AtomicBool>,
}

impl Connection for Link {
    fn is_closed(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn certificate_expires(&self) -> Option<std::time::SystemTime> {
        None
    }

    fn stream_limit(&self) -> Option<u32> {
        None
    }
}

fn link(name: &'static str) -> Link {
    Link { name, ended: Arc::default() }
}

struct Bench {
    picker: Picker<Link>,
    endpoints: BTreeMap<&'static str, Arc<Endpoint<Link>>>,
}

impl Bench {
    /// Endpoints that are connected.
    fn new(names: &[&'static str]) -> Self {
        let mut bench = Self::within("");
        for name in names {
            bench.add(name).connected(link(name));
        }
        bench
    }

    /// No endpoints, for calls that are made in `zone`.
    fn within(zone: &str) -> Self {
        Self { picker: Picker::from_seed(zone.into(), 7), endpoints: BTreeMap::new() }
    }

    fn add(&mut self, name: &'static str) -> Arc<Endpoint<Link>> {
        self.add_with(name, Traits::default())
    }

    fn add_with(&mut self, name: &'static str, traits: Traits) -> Arc<Endpoint<Link>> {
        let peer = Peer::new("host:1", Some(name)).expect("a peer");
        let endpoint = self.picker.insert(peer, traits);
        self.endpoints.insert(name, endpoint.clone());
        endpoint
    }

    fn endpoint(&self, name: &str) -> &Endpoint<Link> {
        &self.endpoints[name]
    }

    fn disconnect(&self, name: &str) {
        self.endpoint(name).disconnected("as told".into());
    }

    fn remove(&self, name: &str) {
        self.picker.remove(self.endpoint(name));
    }

    fn set_policy(&self, change: impl FnOnce(&mut Policy)) {
        let mut policy = Policy::default();
        change(&mut policy);
        self.picker.set_policy(Arc::new(policy));
    }

    /// A pick behind a driver that is always in time.
    fn pick(&self) -> Option<Pick<Link>> {
        self.picker.serve_waiters();
        self.pick_at_once()
    }

    /// A pick before the driver has looked again.
    fn pick_at_once(&self) -> Option<Pick<Link>> {
        match self.picker.pick(None).expect("room in the queue") {
            Picked::Now(pick) => Some(pick),
            Picked::Later(_) => None,
        }
    }

    /// Picks until it is that endpoint's turn, while the others are busy with the picks before.
    fn pick_of(&self, name: &str) -> Pick<Link> {
        let mut others = Vec::new();
        loop {
            let pick = self.pick().expect("one is ready");
            if pick.connection.name == name {
                return pick;
            }
            others.push(pick);
            assert!(others.len() < 1000, "{name} is never picked");
        }
    }

    /// How often each is picked, by calls that take no time.
    fn shares(&self, picks: usize) -> BTreeMap<&'static str, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..picks {
            let mut pick = self.pick().expect("one is ready");
            pick.call.answered(Blame::None);
            *shares.entry(pick.connection.name).or_default() += 1;
        }
        shares
    }

    /// Calls of that endpoint that end so.
    fn calls(&self, name: &str, ends: impl IntoIterator<Item = Blame>) {
        for blame in ends {
            self.pick_of(name).call.answered(blame);
        }
    }

    fn state(&self, name: &str) -> EndpointState {
        self.endpoint(name).stats(Instant::now()).state
    }
}
