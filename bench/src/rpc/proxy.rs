//! The way through a proxy, as a sidecar or a gateway has it: where one is installed.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use meshwork_harness::process::Process;
use tokio::{net::TcpStream, time::sleep};

use super::Error;

/// How long a proxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A proxy that people put in front of gRPC services.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proxy {
    Envoy,
    Nginx,
}

/// A proxy that takes calls.
pub(super) struct Running {
    /// Where.
    pub(super) address: String,
    _process: Process,
}

impl Proxy {
    pub(super) const ALL: [Self; 2] = [Self::Envoy, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
        }
    }

    /// Starts it in front of `endpoints`; `None` if it is not installed.
    pub(super) async fn start(self, endpoints: &[String], folder: &Path) -> Result<Option<Running>, Error> {
        let Some(program) = on_path(self.name()) else { return Ok(None) };
        let failed = |source: std::io::Error| Error::Proxy { name: self.name(), source: source.into() };
        // No other process takes ports on this machine meanwhile; if one does, the proxy says so and the run ends.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map_err(failed)?.port();
        let (file, config) = match self {
            Self::Envoy => ("envoy.json", envoy(port, endpoints)),
            Self::Nginx => ("nginx.conf", nginx(port, endpoints, folder)),
        };
        let file = folder.join(file).display().to_string();
        fs::write(&file, config).map_err(failed)?;
        let process = Process::start(
            &program,
            &match self {
                Self::Envoy => vec!["-c", &file, "--log-level", "error", "--disable-hot-restart"],
                Self::Nginx => vec!["-c", &file, "-e", "stderr"],
            },
        )?;
        let address = format!("127.0.0.1:{port}");
        let until = Instant::now() + START_LIMIT;
        while let Err(error) = TcpStream::connect(&address).await {
            if Instant::now() > until {
                return Err(failed(error));
            }
            sleep(POLL).await;
        }
        Ok(Some(Running { address, _process: process }))
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let also = ["/usr/sbin".into(), "/usr/local/sbin".into()];
    std::env::split_paths(&path).chain(also).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// One listener, one cluster, HTTP/2 on both sides, and nothing else switched on.
fn envoy(port: u16, endpoints: &[String]) -> String {
    let http2 = serde_json::json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let address =
        |host: &str, port: u16| serde_json::json!({ "socket_address": { "address": host, "port_value": port } });
    let endpoint = |endpoint: &String| {
        let (host, port) = endpoint.rsplit_once(':').expect("host:port");
        serde_json::json!({ "endpoint": { "address": address(host, port.parse().expect("a port")) } })
    };
    serde_json::json!({
        "static_resources": {
            "listeners": [{
                "address": address("127.0.0.1", port),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "echo",
                        "codec_type": "HTTP2",
                        "route_config": { "virtual_hosts": [{
                            "name": "echo", "domains": ["*"],
                            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "echo", "timeout": "0s" } }],
                        }] },
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                        }],
                    },
                }] }],
            }],
            "clusters": [{
                "name": "echo", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "1s",
                "typed_extension_protocol_options": http2,
                "load_assignment": {
                    "cluster_name": "echo",
                    "endpoints": [{ "lb_endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() }],
                },
            }],
        },
    })
    .to_string()
}

fn nginx(port: u16, endpoints: &[String], folder: &Path) -> String {
    let servers: String = endpoints.iter().map(|endpoint| format!("server {endpoint}; ")).collect();
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};\n\
         uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
         upstream echo {{ {servers} keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} http2; keepalive_requests 1000000000; location / {{ grpc_pass grpc://echo; }} }} }}\n"
    )
}
