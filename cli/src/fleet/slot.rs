//! A place for one instance, and the task that keeps it filled.
//!
//! ```text
//!   start -> running --abort / ended unasked--> waiting (backoff) -> start
//!               '------stop--> draining -> ended
//! ```

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use meshwork::{
    Mesh,
    identity::Security,
    server::{self, is_fenced},
};
use meshwork_process::Listener;
use meshwork_registry::policies::PolicyStore;
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Service,
    parts::{Parts, server_config},
    store::{Location, Stores},
};

/// The longest wait before an instance is started again.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// An instance that ran this long has not failed at its start.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

type RunResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Run = Box<
    dyn Fn(server::Config, Listener, CancellationToken) -> Pin<Box<dyn Future<Output = RunResult> + Send>>
        + Send
        + Sync,
>;

/// Where an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its service.
    pub service: String,
    /// Its id in the registry.
    pub instance_id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its data is: a file, or `postgres:DATABASE`. `None`: in memory.
    pub store: Option<String>,
}

pub(super) struct Slot {
    running: watch::Receiver<Option<Running>>,
    stopping: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

#[derive(Clone)]
struct Running {
    instance: Instance,
    kill: CancellationToken,
}

impl Slot {
    pub(super) fn start(
        service: Service,
        index: usize,
        config: &Arc<Config>,
        mesh: &Mesh,
        stores: &Arc<Stores>,
        listener: TcpListener,
    ) -> Self {
        let parts = Arc::new(Parts {
            service,
            index,
            mesh: mesh.clone(),
            stores: stores.clone(),
            saga_deadline: config.saga_deadline,
        });
        let run: Run = Box::new(move |server, listener, stopping| {
            let parts = parts.clone();
            Box::pin(async move { parts.run(server, listener, stopping).await })
        });
        Self::spawn(service.name(), Some(Location::of(service, index, config).shown()), config, listener, run)
    }

    pub(super) fn start_registry(
        config: &Arc<Config>,
        policies: PolicyStore,
        security: Security,
        listener: TcpListener,
    ) -> Self {
        let grace = config.grace;
        let run: Run = Box::new(move |server, listener, stopping| {
            let registry =
                meshwork_registry::Config { server, grace, security: security.clone(), policies: policies.clone() };
            let shutdown = stopping.cancelled_owned();
            Box::pin(async move { Ok(meshwork_registry::run(registry, listener, shutdown).await?) })
        });
        Self::spawn("registry", None, config, listener, run)
    }

    /// The instance that runs at the moment.
    pub(super) fn instance(&self) -> Option<Instance> {
        self.running.borrow().as_ref().map(|running| running.instance.clone())
    }

    /// Ends the instance at once, and returns when it is gone.
    pub(super) async fn abort(&self, instance_id: &str) {
        let mut running = self.running.clone();
        let is_there =
            |running: &Option<Running>| running.as_ref().is_some_and(|r| r.instance.instance_id == instance_id);
        if let Some(found) = running.borrow().as_ref().filter(|r| r.instance.instance_id == instance_id) {
            found.kill.cancel();
        }
        // An error means that the slot's task has ended, and the instance with it.
        let _ = running.wait_for(|running| !is_there(running)).await;
    }

    /// Ends the instance at once and for good.
    pub(super) async fn kill(&self) {
        if let Some(task) = self.task.lock().await.take() {
            task.abort();
            // An error says that it was aborted.
            let _ = task.await;
        }
    }

    /// Lets the instance drain, and returns when it is gone for good.
    pub(super) async fn stop(&self) {
        self.stopping.cancel();
        if let Some(task) = self.task.lock().await.take() {
            // An error is a panic; it was reported by the panic hook.
            let _ = task.await;
        }
    }

    fn spawn(
        service: &'static str,
        store: Option<String>,
        config: &Arc<Config>,
        listener: TcpListener,
        run: Run,
    ) -> Self {
        let (sender, running) = watch::channel(None);
        let stopping = CancellationToken::new();
        let keeper =
            Keeper { service, store, config: config.clone(), running: sender, stopping: stopping.clone(), run };
        let task = tokio::spawn(keeper.keep(listener));
        Self { running, stopping, task: Mutex::new(Some(task)) }
    }
}

/// How long an instance that ended is left alone: doubled for each failure in a row.
struct Restarts {
    first: Duration,
    next: Duration,
}

impl Restarts {
    fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// How long to wait after a run that lasted for `ran` and ended with `result`.
    fn pause(&mut self, ran: Duration, result: &RunResult) -> Duration {
        // What another has replaced would replace it in turn: however long it ran, it is left alone for longer each time.
        let fenced = result.as_ref().is_err_and(|error| is_fenced(&**error));
        if ran > HEALTHY_AFTER && !fenced {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (pause * 2).min(MAX_BACKOFF);
        pause
    }
}

struct Keeper {
    service: &'static str,
    store: Option<String>,
    config: Arc<Config>,
    running: watch::Sender<Option<Running>>,
    stopping: CancellationToken,
    run: Run,
}

impl Keeper {
    /// Keeps an instance running until it is asked to stop.
    async fn keep(self, first: TcpListener) {
        let address = first.local_addr().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let mut listener = Some(first);
        let mut restarts = Restarts::new(self.config.restart_after);
        loop {
            let started = Instant::now();
            let result = match listener.take() {
                Some(listener) => self.run_once(listener).await,
                None => match self.listen_again(address).await {
                    Ok(listener) => self.run_once(listener).await,
                    Err(error) => Err(error.into()),
                },
            };
            if self.stopping.is_cancelled() {
                return;
            }
            let pause = restarts.pause(started.elapsed(), &result);
            match result {
                Ok(()) => tracing::warn!(service = self.service, "an instance ended; starting it again"),
                Err(error) => tracing::warn!(service = self.service, error, "an instance failed; starting it again"),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// The registry comes back on its address or not at all, an instance on any if its own is taken by now.
    async fn listen_again(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address).await;
        if listener.is_err() && self.store.is_some() {
            return TcpListener::bind((address.ip(), 0)).await;
        }
        listener
    }

    async fn run_once(&self, listener: TcpListener) -> RunResult {
        let listener = Listener::new(listener)?;
        let address = listener.address();
        let server = server_config(&self.config, self.service, address);
        let kill = CancellationToken::new();
        let instance = Instance {
            service: self.service.to_owned(),
            instance_id: server.instance_id.clone(),
            address,
            store: self.store.clone(),
        };
        self.running.send_replace(Some(Running { instance, kill: kill.clone() }));
        let result = tokio::select! {
            result = (self.run)(server, listener, self.stopping.clone()) => result,
            () = kill.cancelled() => Err("killed".into()),
        };
        self.running.send_replace(None);
        result
    }
}

#[cfg(test)]
mod tests {
    use meshwork::server::AnnounceError;

    use super::*;

    #[test]
    fn an_instance_that_another_replaces_again_and_again_is_started_ever_more_seldom() {
        let fenced = || -> RunResult {
            let error = AnnounceError::Fenced { service: "order".into(), instance_id: "a".into() };
            Err(server::Error::from(error).into())
        };
        let (long, seconds) = (HEALTHY_AFTER * 2, Duration::from_secs);
        let mut restarts = Restarts::new(seconds(1));
        let pauses: Vec<_> = (0..6).map(|_| restarts.pause(long, &fenced()).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30]);
        assert_eq!(restarts.pause(long, &Err("killed".into())), seconds(1), "it was well meanwhile");
        assert_eq!(restarts.pause(seconds(0), &Err("it cannot start".into())), seconds(2));
    }
}
