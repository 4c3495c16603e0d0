//! `meshwork health`: whether one server is serving (grpc.health.v1), for scripts and for the health checks of containers.
//!
//! It goes to the server itself and not through the mesh: one connection, one call, nothing is repeated, so that the answer
//! is about this process at this moment.

use std::{
    error::Error as _,
    io::{self, Write as _},
    time::Duration,
};

use meshwork::{
    contract::grpc::health::v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    identity::Identity,
};
use meshwork_process::{Expected, HostPort, with_causes};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    args::HealthArgs,
    direct::{Direct, said},
    error::Error,
};

/// How long a server may take to answer: it does so from memory, and checks every few seconds must not pile up.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// `meshwork health HOST:PORT [NAME]`.
pub(crate) async fn run(args: HealthArgs) -> Result<(), Error> {
    let security = args.tls.security(Expected::Any).map_err(Error::bad_certificate)?;
    // In permissive mode too: the server is asked in the way in which it is to be reached.
    let asked = ask(&args.address, security.identity(), args.name.clone());
    let problem = match timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(Some(ServingStatus::Serving))) => return Ok(writeln!(io::stdout(), "SERVING")?),
        Ok(Ok(Some(status))) => format!("answers {}", status.as_str_name()),
        Ok(Ok(None)) => {
            return Err(Error::UnknownHealthName { address: args.address.to_string(), name: args.name });
        }
        Ok(Err(problem)) => problem,
        Err(_) => format!("does not answer within {} s", ANSWER_LIMIT.as_secs()),
    };
    Err(Error::NotServing { address: args.address.to_string(), problem })
}

/// Asks about a name; `None`: the server does not know it. The server as a whole has the empty one.
async fn ask(
    address: &HostPort,
    identity: Option<&Identity>,
    service: String,
) -> Result<Option<ServingStatus>, String> {
    let connecting = Direct::connect(&address.to_string(), identity, None).await;
    let Direct { transport, origin } = connecting.map_err(|error| format!("does not answer: {error}"))?;
    match HealthClient::with_origin(transport, origin).check(HealthCheckRequest { service }).await {
        Ok(answer) => Ok(Some(answer.into_inner().status())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        // What the connection says, and no server.
        Err(status) => Err(match status.source() {
            Some(cause) => format!("is not a gRPC server, or the connection was lost: {}", with_causes(cause)),
            None => format!("does not tell whether it is serving: {}", said(&status)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use hyper::server;
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        service::TowerToHyperService,
    };
    use meshwork::contract::grpc::health::v1::{
        HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_server::{Health, HealthServer},
    };
    use meshwork_process::{LogArgs, TlsArgs};
    use tokio::net::TcpListener;
    use tonic::{Request, Response, Status, codegen::BoxStream};

    use super::*;

    /// A server that knows one name.
    struct Told(&'static str, ServingStatus);

    #[tonic::async_trait]
    impl Health for Told {
        type WatchStream = BoxStream<HealthCheckResponse>;

        async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
            if request.get_ref().service == self.0 {
                Ok(Response::new(HealthCheckResponse { status: self.1.into() }))
            } else {
                Err(Status::not_found("as told"))
            }
        }

        async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
            Err(Status::unimplemented("not asked for"))
        }
    }

    /// Asks a server that says `status` of `told` about `name`.
    async fn health(told: &'static str, status: ServingStatus, name: &str) -> Result<(), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens").to_string().parse().expect("HOST:PORT");
        let service = TowerToHyperService::new(HealthServer::new(Told(told, status)));
        let serve = async move {
            let (stream, _) = listener.accept().await.expect("a client asks");
            let server = server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(stream), service).await
        };
        let log = LogArgs { log: Default::default(), log_level: "off".into() };
        tokio::select! {
            result = run(HealthArgs { address, name: name.to_owned(), tls: TlsArgs::default(), log }) => result,
            ended = serve => panic!("the server has ended: {ended:?}"),
        }
    }

    #[tokio::test]
    async fn only_a_server_that_says_serving_is_healthy() {
        use ServingStatus::{NotServing, Serving, Unknown};
        assert!(health("", Serving, "").await.is_ok());
        for (status, said) in [(NotServing, "NOT_SERVING"), (Unknown, "UNKNOWN")] {
            let error = health("", status, "").await.expect_err(said).to_string();
            assert!(error.ends_with(&format!(" answers {said}")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_is_asked_for_by_itself() {
        use ServingStatus::{NotServing, Serving};
        assert!(health("events/order", Serving, "events/order").await.is_ok());
        assert!(health("events/order", NotServing, "events/order").await.is_err());
        let unknown = health("events/order", Serving, "events/other").await.expect_err("the server has no such name");
        assert!(unknown.to_string().contains(r#"does not know "events/other""#), "{unknown}");
    }
}
