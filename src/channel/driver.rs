//! The one task of a channel: keeps its endpoints as discovery says, and serves the calls that wait.
//!
//! It owns the endpoints' tasks, and works whether calls flow or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{context::ChannelContext, service_config::ServiceConfig};
use crate::{
    balance::Picker,
    contract::meshwork::registry::v1::{Instance, InstanceStatus},
    endpoint::{
        Endpoint, Traits,
        connection::{connect::KeepConnected, connector::Dialer},
        peer::Peer,
    },
    endpoint_set::{EndpointSet, Endpoints, changes},
    log_limit::LogLimit,
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
    picker: Arc<Picker>,
    config: Arc<ServiceConfig>,
    context: ChannelContext,
    dialer: Dialer,
    reconnect: Arc<Notify>,
    live: BTreeMap<Arc<str>, Live>,
    /// The instances of the latest set that had an identity once: no later word of a registry takes their calls back into plain text.
    had_identity: BTreeSet<Arc<str>>,
    /// The latest set.
    known: Endpoints,
    /// Whether all of its instances are used, and not a subset.
    uses_all: bool,
    connecting: JoinSet<()>,
    not_understood: LogLimit,
}

/// An endpoint that is kept connected.
struct Live {
    endpoint: Arc<Endpoint>,
    /// What it was made of, or brought up to date with; `None` at fixed addresses.
    instance: Option<Arc<Instance>>,
    removed: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        service: Arc<str>,
        picker: Arc<Picker>,
        config: Arc<ServiceConfig>,
        context: ChannelContext,
        reconnect: Arc<Notify>,
    ) -> Self {
        let dialer = Dialer { connector: context.connector.clone(), security: context.security.clone(), service };
        Self {
            picker,
            config,
            context,
            dialer,
            reconnect,
            live: BTreeMap::new(),
            had_identity: BTreeSet::new(),
            known: Endpoints::default(),
            uses_all: false,
            connecting: JoinSet::new(),
            not_understood: LogLimit::new(1),
        }
    }

    /// Works until `stop`, then ends every connection.
    pub(super) async fn run(mut self, source: Source, stop: CancellationToken) {
        // However it ends: the calls that wait must not wait for a task that is gone.
        let _closed = CloseOnDrop(self.picker.clone());
        let mut changes = match source {
            Source::Discovery(mut endpoints) => {
                endpoints.mark_changed();
                Some(endpoints)
            }
            Source::Fixed(peers) => {
                // Registries, which are Meshwork's servers.
                let live = self.add(peers, Traits { takes_pings: true, has_identity: true, ..Traits::default() });
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
                () = self.picker.changed() => {}
                Some(_) = self.connecting.join_next() => {}
            }
            self.picker.serve_waiters();
        }
        self.picker.close();
        self.connecting.shutdown().await;
    }

    /// Makes the endpoints those of the set that take calls, or as many of them as this client uses. Unchanged ones keep their
    /// connections.
    fn follow(&mut self, set: &EndpointSet) {
        let before = std::mem::replace(&mut self.known, set.endpoints.clone());
        self.had_identity.retain(|id| set.endpoints.contains_key(id));
        // First, so that no call comes to an endpoint by a configuration that is not its own.
        self.config.follow(set.policy.clone(), changes(&before, &self.known));
        self.picker.set_policy(set.policy.clone());
        let used = self.context.locality.subset(&set.policy, &set.endpoints);
        let all_before = std::mem::replace(&mut self.uses_all, used.is_none());
        match used {
            // The usual case of a set that is used as a whole: only what has changed is looked at.
            None if all_before => {
                let changed = changes(&before, &set.endpoints).map(|(id, _, now)| (id.clone(), now.cloned()));
                changed.collect::<Vec<_>>().into_iter().for_each(|(id, now)| self.place(&id, now.as_ref()));
            }
            used => {
                let is_used = |id: &str| used.as_ref().is_none_or(|used| used.contains(id));
                let left = |id: &&Arc<str>| !is_used(id) || !set.endpoints.contains_key(&***id);
                for id in self.live.keys().filter(left).cloned().collect::<Vec<_>>() {
                    self.remove(&id);
                }
                for (id, instance) in set.endpoints.iter().filter(|(id, _)| is_used(id)) {
                    self.place(id, Some(instance));
                }
            }
        }
    }

    /// Makes an endpoint of an instance that takes calls, brings it up to date, or removes it.
    fn place(&mut self, id: &Arc<str>, instance: Option<&Arc<Instance>>) {
        let Some(instance) = instance.filter(|instance| instance.status() == InstanceStatus::Serving) else {
            return self.remove(id);
        };
        if !instance.identity.is_empty() {
            self.had_identity.insert(id.clone());
        }
        let had_identity = self.had_identity.contains(id);
        match self.live.get_mut(id) {
            Some(live) if live.is_at(&instance.address) => live.follow(instance, had_identity),
            Some(_) => {
                self.remove(id);
                self.join(id, instance);
            }
            None => self.join(id, instance),
        }
    }

    fn join(&mut self, id: &Arc<str>, instance: &Arc<Instance>) {
        let peer = match Peer::new(&instance.address, Some(id)) {
            Ok(peer) => peer,
            Err(error) => {
                if let Some(left_out) = self.not_understood.pass() {
                    tracing::warn!(%error, service = instance.service, "an instance was ignored{left_out}");
                }
                return;
            }
        };
        if let Some(live) = self.add(vec![peer], traits(instance, self.had_identity.contains(id))) {
            self.live.insert(id.clone(), Live { instance: Some(instance.clone()), ..live });
        }
    }

    /// Adds an endpoint and begins to connect it.
    fn add(&mut self, peers: Vec<Peer>, traits: Traits) -> Option<Live> {
        let first = peers.first()?.clone();
        let endpoint = self.picker.insert(first, traits);
        let removed = CancellationToken::new();
        let keep_connected = KeepConnected {
            endpoint: endpoint.clone(),
            peers,
            dialer: self.dialer.clone(),
            removed: removed.clone(),
            reconnect: self.reconnect.clone(),
        };
        self.connecting.spawn(keep_connected.run());
        Some(Live { endpoint, instance: None, removed })
    }

    fn remove(&mut self, id: &str) {
        if let Some(live) = self.live.remove(id) {
            self.picker.remove(&live.endpoint);
            live.removed.cancel();
        }
    }
}

/// Closes a picker when its driver ends.
struct CloseOnDrop(Arc<Picker>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Live {
    fn is_at(&self, address: &str) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.address == address)
    }

    /// Applies a set's view of it. Most instances of a set are unchanged from the set before.
    fn follow(&mut self, instance: &Arc<Instance>, had_identity: bool) {
        if !self.instance.as_ref().is_some_and(|known| Arc::ptr_eq(known, instance)) {
            self.endpoint.set_traits(traits(instance, had_identity));
            self.instance = Some(instance.clone());
        }
    }
}

fn traits(instance: &Instance, had_identity: bool) -> Traits {
    Traits {
        weight: instance.weight,
        version: instance.version.clone(),
        zone: instance.zone.clone(),
        takes_pings: instance.takes_pings,
        has_identity: had_identity,
    }
}

/// The next endpoint set; never, if there is nothing to come; `None` when the last has come.
async fn changed(changes: &mut Option<watch::Receiver<EndpointSet>>) -> Option<EndpointSet> {
    match changes {
        Some(changes) => changes.changed().await.ok().map(|()| changes.borrow_and_update().clone()),
        None => std::future::pending().await,
    }
}
