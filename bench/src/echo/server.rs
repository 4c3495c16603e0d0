//! The process: any number of echo endpoints, each with its own server and instance.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use meshwork::{Mesh, server::Server};
use meshwork_process::{Failure, InstanceArgs};
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    SERVICE,
    behaviour::{Behaviour, Fate, normal},
    contract::{
        self, BehaveRequest, BehaveResponse, EchoRequest, EchoResponse,
        echo_service_server::{EchoService, EchoServiceServer},
    },
};

/// The flags of an echo process.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    instance: InstanceArgs,
    /// The service's name in the mesh
    #[arg(long, default_value = SERVICE)]
    service: String,
    /// How many endpoints
    #[arg(long, default_value_t = 1)]
    endpoints: usize,
    /// How many times an endpoint is restarted, all of them in turn: it drains, leaves, and joins as a new instance
    #[arg(long, default_value_t = 0)]
    restarts: usize,
    /// Restarts each second
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
    restarts_per_s: u32,
}

impl Args {
    /// Serves until SIGTERM, and drains.
    pub(crate) async fn serve(&self) -> Result<(), Failure> {
        let mut terminated = signal(SignalKind::terminate()).map_err(Failure::run)?;
        let mesh = self.instance.mesh(&self.service)?;
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        tokio::spawn(async move {
            terminated.recv().await;
            stop.cancel();
        });
        let restarts: Vec<_> = (0..self.endpoints).map(|_| Notify::new()).collect();
        let endpoints = restarts.iter().map(|restart| self.endpoint(&mesh, restart, &stopping));
        let served = tokio::select! {
            served = try_join_all(endpoints) => served,
            never = self.restart(&restarts) => match never {},
        };
        mesh.close().await;
        served.map(drop)
    }

    /// Restarts endpoints in turn, and then none.
    async fn restart(&self, endpoints: &[Notify]) -> Infallible {
        let mut turn = interval(Duration::from_secs(1) / self.restarts_per_s);
        // A process that was held up does not make up for it: that would be a storm.
        turn.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for endpoint in endpoints.iter().cycle().take(self.restarts) {
            turn.tick().await;
            endpoint.notify_one();
        }
        pending().await
    }

    /// Serves as one instance after the other.
    async fn endpoint(&self, mesh: &Mesh, restart: &Notify, stopping: &CancellationToken) -> Result<(), Failure> {
        while !stopping.is_cancelled() {
            let leave = async {
                tokio::select! {
                    () = restart.notified() => {}
                    () = stopping.cancelled() => {}
                }
            };
            self.serve_until(leave, mesh.clone()).await?;
        }
        Ok(())
    }

    async fn serve_until(&self, leave: impl Future<Output = ()>, mesh: Mesh) -> Result<(), Failure> {
        let listener = self.instance.bind().await?;
        let config = self.instance.config(&self.service, &listener)?;
        let server = Server::new(config)
            .add_service(EchoServiceServer::new(Endpoint::default()))
            .descriptors(contract::DESCRIPTORS)
            .announce(mesh);
        server.serve(listener.say_ready(SERVICE), leave).await.map_err(Failure::run)
    }
}

/// One endpoint.
#[derive(Clone, Default)]
struct Endpoint(Arc<Inner>);

#[derive(Default)]
struct Inner {
    behaviour: Mutex<Behaviour>,
    calls: AtomicU64,
}

#[tonic::async_trait]
impl EchoService for Endpoint {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let behaviour = *self.0.behaviour.lock();
        match behaviour.fate(self.0.calls.fetch_add(1, Ordering::Relaxed), normal(rand::random)) {
            Fate::Answered(Duration::ZERO) => {}
            Fate::Answered(latency) => sleep(latency).await,
            Fate::Refused => return Err(Status::unavailable("told to refuse")),
            Fate::Lost => pending().await,
        }
        Ok(Response::new(EchoResponse { payload: request.into_inner().payload }))
    }

    async fn behave(&self, request: Request<BehaveRequest>) -> Result<Response<BehaveResponse>, Status> {
        *self.0.behaviour.lock() = request.into_inner().into();
        Ok(Response::new(BehaveResponse {}))
    }
}
