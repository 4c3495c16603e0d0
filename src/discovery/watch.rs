//! The task that watches one registry, for all services that are asked for.
//!
//! ```text
//!   no services ──> watching ── silence, error, end ──> waiting (backoff) ──┐
//!                    ^   │  └── a new service is asked for ──┐              │
//!                    │   v                                   v              │
//!                    └── opened again with all services: resumed if they are the same, else from a snapshot
//! ```
//!
//! It runs whether or not calls flow. What is known is kept when the registry becomes unreachable.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{Cache, Discovery, EndpointSet, RegistryState};
use crate::{
    backoff::Backoff,
    channel::Channel,
    contract::meshwork::registry::v1::{WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient},
    rpc::may_pass,
};

/// A watch that is silent for this long is dead: the registry sends a mark of progress every 10 s.
const SILENCE: Duration = Duration::from_secs(22);
/// How long the registry may take for its first word before what an earlier run left on disk is used.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// A registry that is away for this long is not waited for any longer to say that a service has no authorization rules: more than its
/// restart takes.
const ABSENCE: Duration = Duration::from_secs(10);
/// Bytes of a response. A snapshot is one, whatever is watched: ten thousand instances, all that a registry admits, of 3 KiB each.
pub(crate) const MAX_WATCH_RESPONSE: usize = 32 << 20;
/// Between attempts. Capped low: a restarted registry waits for its clients, and there are few of them.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Watches the registry at `index` of the list until `stop`.
pub(crate) async fn run(
    discovery: Discovery,
    index: usize,
    registry: Channel,
    cache: Option<Cache>,
    stop: CancellationToken,
) {
    let large = registry.clone().max_response_message_size(MAX_WATCH_RESPONSE);
    let client = RegistryServiceClient::new(large).max_decoding_message_size(MAX_WATCH_RESPONSE);
    let mut watcher = Watcher {
        discovery,
        index,
        registry,
        client,
        cache,
        complete: Vec::new(),
        rules_recalled: BTreeSet::new(),
        away_since: Some(Instant::now()),
    };
    stop.run_until_cancelled(watcher.run()).await;
}

struct Watcher {
    discovery: Discovery,
    index: usize,
    registry: Channel,
    client: RegistryServiceClient<Channel>,
    cache: Option<Cache>,
    /// The services that the resume point holds for.
    complete: Vec<Arc<str>>,
    /// The services whose rules of an earlier run were looked for.
    rules_recalled: BTreeSet<Arc<str>>,
    /// Since when the registry has not been heard. `None`: it is there.
    away_since: Option<Instant>,
}

/// Why a watch ended, if it has not failed.
enum End {
    /// More services are to be watched.
    MoreServices,
    /// The registry ended it, to move us to another or because it leaves.
    Closed,
    /// It is the same store as another registry that is watched.
    SameStore(Arc<str>),
}

impl Watcher {
    async fn run(&mut self) {
        let mut backoff = BACKOFF;
        loop {
            let services = self.discovery.wanted();
            self.discovery.union().retain(self.index, &services);
            if services.is_empty() {
                self.discovery.asked_beyond(&services).await;
                continue;
            }
            self.rules_recalled.retain(|service| services.contains(service));
            self.recall_rules(&services).await;
            match self.watch(&services, &mut backoff).await {
                Ok(End::MoreServices) => continue,
                Ok(End::SameStore(epoch)) => {
                    self.excuse(&services);
                    self.stand_by(&epoch).await;
                    continue;
                }
                Ok(End::Closed) => {}
                Err(status) => {
                    self.failed(&status);
                }
            }
            self.discovery.stands(self.index, RegistryState::Away);
            let news = self.discovery.change(&services, |union| union.away(self.index));
            self.keep(&news);
            self.recall(&services).await;
            self.excuse_if_long_away(&services);
            tokio::select! {
                () = sleep(backoff.next(rand::random())) => {}
                // A service that is asked for now must not wait out the backoff of an earlier failure.
                () = self.discovery.asked_beyond(&services) => {}
            }
        }
    }

    /// Reports why there is no watch: a transient error at each attempt, one that a retry will not change only once.
    fn failed(&self, status: &Status) {
        // What a registry has too many of, or is too large to be read, does not pass by itself.
        let hopeless = !may_pass(status.code()) || status.code() == Code::ResourceExhausted;
        let what = if hopeless { "cannot be watched" } else { "does not answer" };
        let news = self.discovery.note(self.index, Some(format!("the registry {what}: {}", status.message())));
        if hopeless && news {
            tracing::warn!(%status, "the registry cannot be watched: no changes of any service arrive");
        } else {
            tracing::debug!(%status, "the registry's watch failed");
        }
    }

    /// Opens a watch and follows it to its end.
    async fn watch(&mut self, services: &[Arc<str>], backoff: &mut Backoff) -> Result<End, Status> {
        let discovery = self.discovery.clone();
        let mut asked = pin!(discovery.asked_beyond(services));
        let mut opening = pin!(open(self.client.clone(), self.request(services)));
        // Both are cancel-safe: an opening that is cut is begun again, and what was asked for is found again by `wanted`.
        let opened = tokio::select! {
            opened = timeout(FIRST_WORD, &mut opening) => opened,
            () = &mut asked => return Ok(End::MoreServices),
        };
        let opened = match opened {
            Ok(opened) => opened?,
            Err(_) => {
                self.recall(services).await;
                tokio::select! {
                    opened = self.or_silent(opening) => opened?,
                    () = &mut asked => return Ok(End::MoreServices),
                }
            }
        };
        let (mut next, mut responses) = opened;
        while let Some(response) = next {
            backoff.reset();
            let epoch: Arc<str> = response.epoch.as_str().into();
            if !self.discovery.stands(self.index, RegistryState::There(epoch.clone())) {
                return Ok(End::SameStore(epoch));
            }
            self.take_in(response, services);
            next = tokio::select! {
                next = self.or_silent(responses.message()) => next?,
                () = &mut asked => return Ok(End::MoreServices),
            };
        }
        Ok(End::Closed)
    }

    /// Waits until no other registry of the same store is watched.
    async fn stand_by(&self, epoch: &Arc<str>) {
        self.discovery.note(self.index, None);
        let watched = RegistryState::There(epoch.clone());
        let mut registries = self.discovery.registries();
        let other = |states: &Vec<RegistryState>| !states.contains(&watched);
        let _ = registries.wait_for(other).await.expect("the sender is here");
    }

    fn request(&self, services: &[Arc<str>]) -> WatchRequest {
        WatchRequest {
            services: services.iter().map(ToString::to_string).collect(),
            resume_from: self.discovery.union().resume_point(self.index).filter(|_| self.complete == services),
        }
    }

    /// A registry that is silent although its connection stands is left for another, or for a new connection.
    async fn or_silent<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        timeout(SILENCE, answer).await.unwrap_or_else(|_| {
            self.registry.reconnect();
            Err(Status::unavailable(format!("silent for {} s", SILENCE.as_secs())))
        })
    }

    /// Goes on without the word of a registry that has been away for long.
    fn excuse_if_long_away(&mut self, services: &[Arc<str>]) {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() < ABSENCE {
            return;
        }
        for set in self.excuse(services) {
            tracing::warn!(
                service = %set.service,
                "a registry is away, and is not waited for any longer: the others know no authorization rules of the service"
            );
        }
    }

    fn excuse(&self, services: &[Arc<str>]) -> Vec<EndpointSet> {
        let news = self.discovery.change(services, |union| union.excuse(self.index));
        self.keep(&news);
        news
    }

    fn take_in(&mut self, response: WatchResponse, services: &[Arc<str>]) {
        self.away_since = None;
        self.discovery.note(self.index, None);
        if self.complete != services {
            self.complete = services.to_vec();
        }
        let news = self.discovery.change(services, |union| union.apply(self.index, response, services));
        self.keep(&news);
    }

    /// Keeps sets for a cold start.
    fn keep(&self, sets: &[EndpointSet]) {
        if let Some(cache) = &self.cache {
            sets.iter().for_each(|set| cache.store(set));
        }
    }

    /// Takes in the rules that an earlier run knew, before a registry speaks that may have lost them: only a deletion removes rules.
    async fn recall_rules(&mut self, services: &[Arc<str>]) {
        let Some(cache) = &self.cache else { return };
        for service in services {
            if self.rules_recalled.insert(service.clone())
                && let Some(earlier) = cache.load(service).await
                && earlier.authorization.rules().is_some()
            {
                self.discovery.change(std::slice::from_ref(service), |union| {
                    union.recall_rules(service, &earlier.authorization);
                });
            }
        }
    }

    /// Falls back on what an earlier run left, for services that are still unknown.
    async fn recall(&mut self, services: &[Arc<str>]) {
        let Some(cache) = &self.cache else { return };
        for service in services {
            if self.discovery.union().has(service) {
                continue;
            }
            if let Some(earlier) = cache.load(service).await {
                let endpoints = earlier.endpoints.len();
                tracing::info!(%service, endpoints, "the registry is unreachable: using the last endpoint set");
                let service = std::slice::from_ref(service);
                self.discovery.change(service, |union| union.recall(&service[0], earlier));
            }
        }
    }
}

type Opened = (Option<WatchResponse>, Streaming<WatchResponse>);

/// Opens a watch, up to the first response.
async fn open(mut client: RegistryServiceClient<Channel>, request: WatchRequest) -> Result<Opened, Status> {
    let mut responses = client.watch(request).await?.into_inner();
    Ok((responses.message().await?, responses))
}
