//! The one task of a channel: keeps its endpoints as discovery says, and serves the calls that wait.
//!
//! It owns the endpoints' tasks, and works whether calls flow or not.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{connector::Connector, endpoint::Endpoint, link::Link, peer::Peer, roster::Roster, terms::Rules};
use crate::{
    balance::{Gate, Key, LoadSet, Picker},
    contract::meshwork::registry::v1::{Instance, InstanceStatus},
    discovery::EndpointSet,
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
    connector: Connector,
    move_on: Arc<Notify>,
    loads: LoadSet,
    live: BTreeMap<String, Live>,
    next_key: Key,
    endpoints: JoinSet<()>,
}

/// An endpoint that may be picked.
struct Live {
    key: Key,
    address: String,
    gate: Arc<Gate<Link>>,
    removed: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        picker: Arc<Picker<Link>>,
        roster: Arc<Roster>,
        rules: Arc<Rules>,
        connector: Connector,
        move_on: Arc<Notify>,
    ) -> Self {
        Self {
            picker,
            roster,
            rules,
            connector,
            move_on,
            loads: LoadSet::default(),
            live: BTreeMap::new(),
            next_key: 0,
            endpoints: JoinSet::new(),
        }
    }

    /// Works until `stop`, then ends every connection.
    pub(super) async fn run(mut self, source: Source, stop: CancellationToken) {
        let mut changes = match source {
            Source::Discovery(mut endpoints) => {
                endpoints.mark_changed();
                Some(endpoints)
            }
            Source::Fixed(peers) => {
                let gate = self.add(peers);
                debug_assert!(gate.is_some(), "a fixed endpoint has an address");
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

    /// Makes the endpoints those of the set that take calls. Unchanged ones keep their connections.
    fn follow(&mut self, set: &EndpointSet) {
        // First, so that no call comes to an endpoint on terms that are not its own.
        self.rules.follow(set);
        let serving = |instance: &Instance| instance.status() == InstanceStatus::Serving;
        let gone = |(id, live): (&String, &Live)| match set.endpoints.get(id) {
            Some(instance) if serving(instance) && instance.address == live.address => None,
            _ => Some(id.clone()),
        };
        for id in self.live.iter().filter_map(gone).collect::<Vec<_>>() {
            self.remove(&id);
        }
        for (id, instance) in set.endpoints.iter().filter(|(_, instance)| serving(instance)) {
            match self.live.get(id) {
                Some(live) => live.gate.load().set_weight(instance.weight),
                None => self.join(id, instance),
            }
        }
    }

    fn join(&mut self, id: &str, instance: &Instance) {
        let peer = match Peer::new(&instance.address, Some(id)) {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, service = instance.service, "an instance is left out"),
        };
        if let Some(live) = self.add(vec![peer]) {
            live.gate.load().set_weight(instance.weight);
            self.live.insert(id.to_owned(), live);
        }
    }

    /// Adds an endpoint and begins to connect it.
    fn add(&mut self, peers: Vec<Peer>) -> Option<Live> {
        let first = peers.first()?;
        let (name, address) = (first.to_string(), first.address().to_string());
        let key = self.next_key;
        self.next_key += 1;
        let gate = Arc::new(Gate::new(self.loads.add(0)));
        let removed = CancellationToken::new();
        self.roster.add(key, name);
        self.picker.insert(key, gate.clone());
        let endpoint = Endpoint {
            key,
            peers,
            gate: gate.clone(),
            connector: self.connector.clone(),
            roster: self.roster.clone(),
            removed: removed.clone(),
            move_on: self.move_on.clone(),
        };
        self.endpoints.spawn(endpoint.run());
        Some(Live { key, address, gate, removed })
    }

    fn remove(&mut self, id: &str) {
        if let Some(live) = self.live.remove(id) {
            self.picker.remove(live.key);
            self.roster.remove(live.key);
            live.removed.cancel();
        }
    }
}

/// The next endpoint set; never, if there is nothing to come; `None` when the last has come.
async fn changed(changes: &mut Option<watch::Receiver<EndpointSet>>) -> Option<EndpointSet> {
    match changes {
        Some(changes) => changes.changed().await.ok().map(|()| changes.borrow_and_update().clone()),
        None => std::future::pending().await,
    }
}
