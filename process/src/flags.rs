//! The flags that binaries have in common, each with its environment twin, and what they mean.

use std::{env, path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use meshwork::{Mesh, discovery::DEFAULT_WEIGHT, server::Config};

use crate::{failure::Failure, host_port::HostPort, listener::Listener, telemetry::LogFormat};

/// What every process logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines look, on stderr
    #[arg(long, env = "MESHWORK_LOG", value_enum, default_value_t)]
    pub log: LogFormat,
    /// Which lines are logged: a level (error, warn, info, debug, trace), or a list such as info,meshwork=debug
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// What a service tells about itself.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Its logs.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where metrics are served, HOST:PORT, as /metrics for Prometheus [default: nowhere]
    #[cfg(feature = "prometheus")]
    #[arg(long, env = "MESHWORK_ADMIN_LISTEN")]
    pub admin_listen: Option<HostPort>,
    /// The OTLP collector (gRPC) that gets the spans of calls and events, such as http://127.0.0.1:4317 [default: none]
    #[cfg(feature = "otel")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl From<&LogArgs> for TelemetryArgs {
    /// Logs alone.
    fn from(log: &LogArgs) -> Self {
        Self {
            log: log.clone(),
            #[cfg(feature = "prometheus")]
            admin_listen: None,
            #[cfg(feature = "otel")]
            otlp_endpoint: None,
        }
    }
}

/// Where a service keeps its data.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// The service's own database, such as sqlite://order.db (one process) or postgres://... (shared by several)
    // Its value stays out of --help: it may hold a password.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
}

/// An instance of a service, and its place in the mesh.
#[derive(Args, Clone, Debug)]
pub struct InstanceArgs {
    /// The registries of the mesh, up to 8, which are used together: this instance registers at each, and sees what any knows
    #[arg(long, env = "MESHWORK_REGISTRY", value_delimiter = ',', default_value = "http://127.0.0.1:7600")]
    pub registry: Vec<String>,
    /// Where the last known addresses are kept, for a start while the registry is away: a folder of this mesh alone, which
    /// processes may share; empty: nowhere [default: ~/.cache/meshwork/registry-ADDRESS]
    #[arg(long, env = "MESHWORK_CACHE_DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub cache_dir: Option<PathBuf>,
    /// Where to listen, HOST:PORT; port 0 takes a free one
    #[arg(long, env = "MESHWORK_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: HostPort,
    /// Where others reach this instance, HOST:PORT [default: where it listens]
    #[arg(long, env = "MESHWORK_ADVERTISE")]
    pub advertise: Option<HostPort>,
    /// The instance's id, unique within its service [default: a new one]
    #[arg(long, env = "MESHWORK_INSTANCE_ID")]
    pub instance_id: Option<String>,
    /// The failure zone that the instance runs in; its own calls stay within while there is enough capacity
    #[arg(long, env = "MESHWORK_ZONE", default_value = "")]
    pub zone: String,
    /// The instance's version, as the team numbers them
    #[arg(long, env = "MESHWORK_VERSION", default_value = "")]
    pub version: String,
    /// The instance's share of the load relative to the others, 1-1000
    #[arg(long, env = "MESHWORK_WEIGHT", default_value_t = DEFAULT_WEIGHT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
    /// How many instances of a service this one calls at most, each process others; 0: all
    #[arg(long, env = "MESHWORK_SUBSET", default_value_t = 32)]
    pub subset: usize,
    /// A free label, KEY=VALUE; may be given several times
    #[arg(long = "label", env = "MESHWORK_LABELS", value_delimiter = ',', value_parser = parse_label, value_name = "KEY=VALUE")]
    pub labels: Vec<(String, String)>,
    /// How long the instance stays registered without a sign of life, 1s to 300s
    #[arg(long, env = "MESHWORK_LEASE_TTL", default_value = "10s", value_parser = parse_lease_ttl)]
    pub lease_ttl: Duration,
    /// How long calls under way may take to finish at the end
    #[arg(long, env = "MESHWORK_DRAIN_LIMIT", default_value = "30s", value_parser = parse_duration)]
    pub drain_limit: Duration,
}

impl InstanceArgs {
    /// Listens at `--listen`.
    pub async fn bind(&self) -> Result<Listener, Failure> {
        Listener::bind("--listen", &self.listen).await
    }

    /// The mesh of `--registry`, with its last endpoint sets in `--cache-dir`. Does not wait for the registry.
    pub fn mesh(&self) -> Result<Mesh, Failure> {
        let invalid = |error| Failure::flag("--registry", self.registry.join(","), error);
        let mut mesh = Mesh::builder().registries(&self.registry).zone(&self.zone).subset_size(self.subset);
        if let Some(folder) = self.cache_folder(user_cache()) {
            mesh = mesh.cache_dir(folder);
        }
        mesh.build().map_err(invalid)
    }

    /// `--cache-dir`, or one within `user_cache`. Named after the first registry, so that meshes do not mix.
    pub(super) fn cache_folder(&self, user_cache: Option<PathBuf>) -> Option<PathBuf> {
        match &self.cache_dir {
            Some(folder) if folder.as_os_str().is_empty() => None,
            Some(folder) => Some(folder.clone()),
            None => {
                let address = self.registry.first()?;
                let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
                let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' };
                // The prefix keeps a name of dots from leading out of the folder.
                let name: String = "registry-".chars().chain(address.chars().map(safe)).collect();
                Some(user_cache?.join("meshwork").join(name))
            }
        }
    }

    /// The server's config of an instance of `service` that listens there.
    pub fn config(&self, service: &str, listener: &Listener) -> Result<Config, Failure> {
        let advertise = match &self.advertise {
            Some(address) => address.to_string(),
            None if listener.address().ip().is_unspecified() => {
                let problem = "give --advertise HOST:PORT as well: nobody can reach this instance under all addresses";
                return Err(Failure::flag("--listen", &self.listen, problem));
            }
            None => listener.address().to_string(),
        };
        let defaults = Config::new(service, advertise);
        Ok(Config {
            instance_id: self.instance_id.clone().unwrap_or(defaults.instance_id),
            version: self.version.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            labels: self.labels.iter().cloned().collect(),
            lease_ttl: self.lease_ttl,
            drain_limit: self.drain_limit,
            ..defaults
        })
    }
}

/// The user's folder for what can be lost (XDG base directories). `None` without a home: never the system's temporary
/// folder, where another user could put addresses of their own.
fn user_cache() -> Option<PathBuf> {
    let said = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    said.or_else(|| env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache")))
}

/// Reads a duration such as `30s`, `500ms` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let problem = "must be a duration, such as 500ms, 30s or 2m";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(problem)?;
    let number: u32 = text[..digits].parse().map_err(|_| problem)?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err(problem),
    };
    Ok(unit * number)
}

fn parse_lease_ttl(text: &str) -> Result<Duration, &'static str> {
    let ttl = parse_duration(text)?;
    let accepted = Duration::from_secs(1)..=Duration::from_secs(300);
    if accepted.contains(&ttl) { Ok(ttl) } else { Err("must be 1s to 300s") }
}

fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE"),
    }
}
