//! The accept loop, which owns every connection, and how it ends.

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    Config, Error, ServedStore,
    authorization::{Authorization, Knowing, Source},
    call::Stack,
    compression::{self, Inflating},
    connection::{self, CallTasks, Serve},
    handshakes::Handshakes,
    health::{Conditions, Health},
    health_service::Statuses,
    infrastructure::{self, Services},
    layers::{Handler, Layers},
    limits::Places,
    membership::{self, Announce, Membership},
    methods::Methods,
};
use crate::{
    backoff::Backoff,
    contract::meshwork::registry::v1::Instance,
    discovery::announce::Registration,
    identity::{Identity, Security, SpiffeId},
    instance::InvalidField,
    log_limit::LogLimit,
};

/// After failed accepts, mostly because file descriptors ran out: short at first, so as not to be noticed, then longer, so as not to spin.
const ACCEPT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
/// Connections that may wait when a listener closes: what tokio and mio ask the kernel to keep.
const BACKLOG: usize = 1024;
/// For the tasks of aborted calls to end. They need no time but what they take to their next await.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What a server is made of.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) layers: Layers,
    pub(super) descriptors: Vec<&'static [u8]>,
    pub(super) draining: CancellationToken,
    pub(super) announce: Option<Announce>,
    pub(super) conditions: Conditions,
    pub(super) store: Option<ServedStore>,
    /// As it was asked for, and that of the mesh.
    pub(super) security: Option<Security>,
    pub(super) mesh_security: Option<Security>,
    /// As they were given, and those of the mesh.
    pub(super) rules: Option<Source>,
    pub(super) mesh_rules: Option<Source>,
}

pub(super) async fn serve<IO, I, F>(parts: Parts, incoming: I, shutdown: F) -> Result<(), Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    let Parts { config, mut services, layers, mut descriptors, draining, announce, mut conditions, store, .. } = parts;
    let own_security = if parts.mesh_security.is_none() { parts.security.clone() } else { None };
    let security = one_security(parts.security, parts.mesh_security)?;
    let source = one_source(parts.rules, parts.mesh_rules)?;
    if let Some(identity) = security.identity() {
        conditions.reported.push((IDENTITY.to_owned(), identity.condition()));
    }
    let authorization = Authorization::new(&config.service, security.mode(), config.authorization, source);
    let knowing = authorization.knowing();
    conditions.essential.extend(knowing.as_ref().map(Knowing::condition));
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| Error::Descriptors(error);
    descriptors.extend(infrastructure::DESCRIPTORS);
    let own = services.names();
    let statuses = Statuses::default();
    let mut health = Health::new(statuses.clone(), own.iter().cloned(), conditions, &config);
    services.add_health_and_reflection(&descriptors, statuses).map_err(|error| unreadable(error.into()))?;
    let methods = Methods::read(&descriptors, &services.names()).map_err(|error| unreadable(error.into()))?;
    for service in methods.undeclared(&own) {
        tracing::warn!(
            service,
            "no descriptors: calls of this service have no limit of time, no metrics, and are not retried; \
             give its file descriptor set to Server::descriptors"
        );
    }
    let instance = membership::instance(&config, &own, &methods, store);
    let header = config.instance_header()?;
    if announce.is_some() {
        config.check_as(&instance)?;
    }
    let instance = Instance { status: health.begin().into(), ..instance };
    let registration = Registration { instance, methods: membership::methods(&methods), lease_ttl: config.lease_ttl };
    let mut membership = Membership::join(announce, registration);
    health.depends_on(membership.admissions());
    let voice = membership.voice();
    let room = compression::room();
    let own = layers.around(Inflating::new(services.own, config.limits.message_size, room.clone()));
    let stack = Stack {
        infrastructure: Inflating::new(services.infrastructure, config.limits.message_size, room),
        services: services.served,
        authorization,
        methods,
        instance: header,
        places: Places::new(&config.limits),
        open_places: Places::open(&config.limits),
        limits: config.limits,
        draining: draining.clone(),
        admissions: membership.admissions().collect(),
    };
    let mut connections = Connections::new(stack, own, security);
    let stack = connections.serve.stack.clone();
    // Streams end by it in the drain too.
    let _rules = AbortOnDropHandle::new(tokio::spawn(async move { stack.authorization.follow().await }));
    // Boxed, so that it can be closed before the server ends.
    let mut incoming = Box::pin(incoming.fuse());

    let end = async {
        tokio::select! {
            () = shutdown => Ok(()),
            error = membership.failed() => Err(Error::from(error)),
            never = health.follow(voice) => match never {},
            never = follow(knowing) => match never {},
            never = keep_current(own_security) => match never {},
        }
    };
    let end = connections.accept_until(&mut incoming, end).await;
    health.end();
    let leaving = match &end {
        Ok(()) => Some(connections.accept_until(&mut incoming, membership.drain()).await),
        // The process that has taken our place is registered now; this one must not report anything.
        Err(error) => {
            tracing::error!(%error, "this instance must stop");
            None
        }
    };
    draining.cancel();
    connections.accept_waiting(&mut incoming);
    drop(incoming);
    connections.finish(config.drain_limit).await;
    if let Some(leaving) = leaving {
        leaving.leave().await;
    }
    connections.abort().await;
    end
}

async fn follow(knowing: Option<Knowing>) -> Infallible {
    match knowing {
        Some(knowing) => knowing.follow().await,
        None => std::future::pending().await,
    }
}

/// The health name of a server's certificate.
const IDENTITY: &str = "identity";

/// The mesh's, which what was asked for must not contradict: a server would listen in plain text without a word.
fn one_security(own: Option<Security>, mesh: Option<Security>) -> Result<Security, Error> {
    match (own, mesh) {
        (Some(own), Some(mesh)) if own.mode() != mesh.mode() => {
            let problem = format_args!("is {} and that of the mesh {}", own.mode().name(), mesh.mode().name());
            Err(InvalidField::new("security", problem).into())
        }
        (Some(own), Some(mesh)) if id_of(&own) != id_of(&mesh) => {
            Err(InvalidField::new("security", "is of another identity than that of the mesh").into())
        }
        (_, Some(mesh)) => Ok(mesh),
        (own, None) => Ok(own.unwrap_or_default()),
    }
}

fn id_of(security: &Security) -> Option<SpiffeId> {
    security.identity().map(Identity::id)
}

/// The mesh's, beside which there can be no others: operators would set rules without effect.
fn one_source(own: Option<Source>, mesh: Option<Source>) -> Result<Source, Error> {
    match (own, mesh) {
        (Some(_), Some(_)) => {
            Err(InvalidField::new("authorization_rules", "are the mesh's for a server that is announced in one").into())
        }
        (own, mesh) => Ok(own.or(mesh).unwrap_or_default()),
    }
}

/// Keeps the certificate of a server up to date that is in no mesh, which would do it.
async fn keep_current(security: Option<Security>) -> Infallible {
    match security.as_ref().and_then(Security::identity) {
        Some(identity) => identity.clone().keep_current().await,
        None => std::future::pending().await,
    }
}

/// The connections of a server.
struct Connections {
    serve: Serve,
    /// Cloned for each connection, as tonic does it: a user's layer need not be Sync.
    own: Handler,
    handshakes: Handshakes,
    open: JoinSet<()>,
    calls: TaskTracker,
    goaway: CancellationToken,
    /// Peers decide how many there are.
    not_accepted: LogLimit,
}

impl Connections {
    fn new(stack: Stack, own: Handler, security: Security) -> Self {
        let calls = TaskTracker::new();
        calls.close();
        let http2 = connection::http2(&stack.limits, CallTasks(calls.clone()));
        Self {
            handshakes: Handshakes::new(stack.limits.handshakes),
            open: JoinSet::new(),
            goaway: CancellationToken::new(),
            serve: Serve::new(http2, Arc::new(stack), security),
            own,
            calls,
            not_accepted: LogLimit::new(1),
        }
    }

    /// Accepts connections, and lets go of those that ended, until `end` does.
    async fn accept_until<IO, I, F>(&mut self, mut incoming: I, end: F) -> F::Output
    where
        I: Stream<Item = io::Result<IO>> + futures_util::stream::FusedStream + Unpin,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future,
    {
        let mut end = pin!(end);
        let mut backoff = ACCEPT_BACKOFF;
        let mut paused_until = None;
        loop {
            let next = async {
                if let Some(until) = paused_until {
                    sleep_until(until).await;
                }
                incoming.next().await
            };
            // Cancel-safe: a connection is handed out whole or not at all, by `next` as well as by `join_next`.
            tokio::select! {
                biased;
                output = &mut end => return output,
                Some(_) = self.open.join_next() => {}
                Some(accepted) = next => match accepted {
                    Ok(io) => {
                        backoff.reset();
                        paused_until = None;
                        self.open(io);
                    }
                    Err(error) if is_of_one_connection(&error) => {
                        tracing::debug!(%error, "a connection broke before it was accepted");
                    }
                    Err(error) => {
                        paused_until = Some(Instant::now() + backoff.next(rand::random()));
                        if let Some(left_out) = self.not_accepted.pass() {
                            tracing::warn!(%error, "a connection could not be accepted{left_out}");
                        }
                    }
                }
            }
        }
    }

    /// Accepts what waits already. Closing the listener would reset those peers, and a call that they have sent may then
    /// not be sent again automatically.
    fn accept_waiting<IO, I>(&mut self, incoming: &mut I)
    where
        I: Stream<Item = io::Result<IO>> + Unpin,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        for _ in 0..BACKLOG {
            match incoming.next().now_or_never() {
                Some(Some(Ok(io))) => self.open(io),
                Some(Some(Err(_))) => {}
                Some(None) | None => break,
            }
        }
    }

    fn open<IO>(&mut self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !self.serve.is_full() {
            let (serve, own) = (self.serve.clone(), self.own.clone());
            self.open.spawn(serve.serve(io, own, self.goaway.child_token(), self.handshakes.begin()));
        }
    }

    /// Sends GOAWAY on every connection and waits for their calls to finish, but not longer than the limit.
    async fn finish(&mut self, limit: Duration) {
        self.goaway.cancel();
        let all = async { while self.open.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(connections = self.open.len(), ?limit, "calls did not finish in time and are aborted");
        }
    }

    /// Ends what is left.
    async fn abort(mut self) {
        self.open.shutdown().await;
        if timeout(ABORT_LIMIT, self.calls.wait()).await.is_err() {
            tracing::error!(calls = self.calls.len(), "calls block their thread and cannot be ended");
        }
    }
}

/// Whether an error of accepting is about the connection alone: Linux passes on what its network has reported (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | NetworkDown | NetworkUnreachable | HostUnreachable
    )
}
