//! The one task of a channel: keeps its endpoints as discovery says, and serves the calls that wait.
//!
//! It owns the endpoints' tasks, and works whether calls flow or not.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Home, endpoint::Endpoint, link::Link, peer::Peer, roster::Roster, terms::Rules};
use crate::{
    balance::{Key, Picker, Traits},
    contract::meshwork::registry::v1::{Instance, InstanceStatus},
    endpoint_set::EndpointSet,
};

/// Where a channel's endpoints come from.
pub(super) enum Source {
    /// From discovery, for as long as it runs.
    Discovery(watch::Receiver<EndpointSet>),
    /// Addresses that are one endpoint: the first that answers is used.
    Fixed(Vec<Peer>),
}

/// The task.
pub(super) struct Driver {
    picker: Arc<Picker<Link>>,
    roster: Arc<Roster>,
    rules: Arc<Rules>,
    home: Home,
    move_on: Arc<Notify>,
    live: BTreeMap<String, Live>,
    endpoints: JoinSet<()>,
}

/// An endpoint that may be picked.
struct Live {
    key: Key,
    address: String,
    removed: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        picker: Arc<Picker<Link>>,
        roster: Arc<Roster>,
        rules: Arc<Rules>,
        home: Home,
        move_on: Arc<Notify>,
    ) -> Self {
        Self { picker, roster, rules, home, move_on, live: BTreeMap::new(), endpoints: JoinSet::new() }
    }

    /// Works until `stop`, then ends every connection.
    pub(super) async fn run(mut self, source: Source, stop: CancellationToken) {
        let mut changes = match source {
            Source::Discovery(mut endpoints) => {
                endpoints.mark_changed();
                Some(endpoints)
            }
            Source::Fixed(peers) => {
                let live = self.add(peers, Traits::default());
                debug_assert!(live.is_some(), "a fixed endpoint has an address");
                None
            }
        };
        loop {
            // All of them are cancel-safe: what is not taken now is there the next time.
            tokio::select! {
                () = stop.cancelled() => break,
                set = changed(&mut changes) => match set {
                    Some(set) => self.follow(&set),
                    // Discovery has ended: the last set stays.
                    None => changes = None,
                },
                () = self.picker.woken() => {}
                Some(_) = self.endpoints.join_next() => {}
            }
            self.picker.serve();
        }
        self.picker.close();
        self.endpoints.shutdown().await;
    }

    /// Makes the endpoints those of the set that take calls, or as many of them as this client uses. Unchanged ones keep their connections.
    fn follow(&mut self, set: &EndpointSet) {
        // First, so that no call comes to an endpoint on terms that are not its own.
        self.rules.follow(set);
        self.picker.set_policy(set.policy.clone());
        let serving = || set.endpoints.iter().filter(|(_, instance)| instance.status() == InstanceStatus::Serving);
        let used = self.home.place.subset(&set.policy, serving());
        let gone = |(id, live): (&String, &Live)| match set.endpoints.get(id) {
            Some(instance) if used.contains(id.as_str()) && instance.address == live.address => None,
            _ => Some(id.clone()),
        };
        for id in self.live.iter().filter_map(gone).collect::<Vec<_>>() {
            self.remove(&id);
        }
        for (id, instance) in serving().filter(|(id, _)| used.contains(id.as_str())) {
            match self.live.get(id) {
                Some(live) => self.picker.update(live.key, traits(instance)),
                None => self.join(id, instance),
            }
        }
    }

    fn join(&mut self, id: &str, instance: &Instance) {
        let peer = match Peer::new(&instance.address, Some(id)) {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, service = instance.service, "an instance is left out"),
        };
        if let Some(live) = self.add(vec![peer], traits(instance)) {
            self.live.insert(id.to_owned(), live);
        }
    }

    /// Adds an endpoint and begins to connect it.
    fn add(&mut self, peers: Vec<Peer>, traits: Traits) -> Option<Live> {
        let first = peers.first()?;
        let address = first.address().to_string();
        let (key, gate) = self.picker.insert(traits);
        let removed = CancellationToken::new();
        self.roster.add(key, first.clone());
        let endpoint = Endpoint {
            key,
            peers,
            gate,
            connector: self.home.connector.clone(),
            roster: self.roster.clone(),
            removed: removed.clone(),
            move_on: self.move_on.clone(),
        };
        self.endpoints.spawn(endpoint.run());
        Some(Live { key, address, removed })
    }

    fn remove(&mut self, id: &str) {
        if let Some(live) = self.live.remove(id) {
            self.picker.remove(live.key);
            self.roster.remove(live.key);
            live.removed.cancel();
        }
    }
}

fn traits(instance: &Instance) -> Traits {
    Traits { weight: instance.weight, version: instance.version.clone(), zone: instance.zone.clone() }
}

/// The next endpoint set; never, if there is nothing to come; `None` when the last has come.
async fn changed(changes: &mut Option<watch::Receiver<EndpointSet>>) -> Option<EndpointSet> {
    match changes {
        Some(changes) => changes.changed().await.ok().map(|()| changes.borrow_and_update().clone()),
        None => std::future::pending().await,
    }
}
