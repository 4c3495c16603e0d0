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
use crate::envoy;

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
            Self::Envoy => ("envoy.json", envoy::config(port, endpoints, envoy::Transport::default())),
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
