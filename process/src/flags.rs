//! The flags that binaries have in common, each with its environment twin, and what they mean.

use std::{collections::BTreeMap, env, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use meshwork::{
    Mesh,
    address::{InvalidAddress, parse_registry},
    instance::{DEFAULT_WEIGHT, InvalidField, LEASE_TTL, WEIGHT, check_id, check_label, check_text},
    server::{Config, Enforcement},
};

use crate::{
    duration::duration_in,
    failure::Failure,
    host_port::HostPort,
    listener::Listener,
    number::number_in,
    telemetry::{LogFormat, parse_filter},
    tls::{Expected, InsecureArgs, TlsArgs},
};

/// What `--drain-limit` may be. Calls that take longer than a day are streams, which end with the drain.
const DRAIN_LIMIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// What `--subset` may be: a registry holds as many instances.
const MAX_SUBSET: usize = 10_000;

/// What every process logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// The format of log lines, on stderr
    #[arg(long, env = "MESHWORK_LOG", value_enum, default_value_t, value_name = "FORMAT")]
    pub log: LogFormat,
    /// What is logged: a level (off, error, warn, info, debug, trace), or a list such as info,meshwork=debug
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = parse_filter, value_name = "LEVEL")]
    pub log_level: String,
}

/// What a service tells about itself.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Its logs.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where metrics are served, as /metrics for Prometheus [default: off]
    #[cfg(feature = "prometheus")]
    #[arg(long, env = "MESHWORK_ADMIN_LISTEN", value_name = "HOST:PORT")]
    pub admin_listen: Option<HostPort>,
    /// The OTLP collector (gRPC) that gets the spans of calls and events, such as http://127.0.0.1:4317 [default: off]
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
    /// The registries of the mesh, up to 8, which are used together: this instance registers at all of
    /// them, and sees every instance that at least one of them knows
    #[arg(long, env = "MESHWORK_REGISTRY", value_delimiter = ',', default_value = "http://127.0.0.1:7600")]
    #[arg(value_parser = parse_registry_flag)]
    pub registry: Vec<String>,
    /// Where the last known addresses are kept, for a start while the registry is unreachable: a folder for this mesh
    /// only, which its processes may share; `--cache-dir ''`: nowhere [default: ~/.cache/meshwork/registry-ADDRESS]
    #[arg(long, env = "MESHWORK_CACHE_DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub cache_dir: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "MESHWORK_LISTEN", default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub listen: HostPort,
    /// Where others reach this instance [default: where it listens]
    #[arg(long, env = "MESHWORK_ADVERTISE", value_parser = HostPort::advertised, value_name = "HOST:PORT")]
    pub advertise: Option<HostPort>,
    /// The instance's id, unique within its service, 1-128 visible ASCII characters. An instance that registers with the id of
    /// another takes its place, and the other one ends with exit code 3 [default: a new one]
    #[arg(long, env = "MESHWORK_INSTANCE_ID", value_parser = parse_id)]
    pub instance_id: Option<String>,
    /// The failure zone that the instance runs in; its own calls stay in this zone while the zone has enough
    /// healthy capacity
    #[arg(long, env = "MESHWORK_ZONE", default_value = "", value_parser = parse_text)]
    pub zone: String,
    /// The instance's version, as your team numbers it
    #[arg(long, env = "MESHWORK_VERSION", default_value = "", value_parser = parse_text)]
    pub version: String,
    /// The instance's share of the load relative to the others, 1-1000
    #[arg(long, env = "MESHWORK_WEIGHT", default_value_t = DEFAULT_WEIGHT, value_parser = number_in(WEIGHT))]
    #[arg(allow_negative_numbers = true)]
    pub weight: u32,
    /// The most instances of a service that this one calls (each process picks a different set), 1-10000; 0: all
    #[arg(long, env = "MESHWORK_SUBSET", default_value_t = 32, value_parser = number_in(0..=MAX_SUBSET))]
    #[arg(allow_negative_numbers = true)]
    pub subset: usize,
    /// A free label, KEY=VALUE; may be given several times
    #[arg(long = "label", env = "MESHWORK_LABELS", value_delimiter = ',', value_parser = parse_label, value_name = "KEY=VALUE")]
    pub labels: Vec<(String, String)>,
    /// How long the instance stays registered without a sign of life, 1s-5m
    #[arg(long, env = "MESHWORK_LEASE_TTL", default_value = "10s", value_parser = duration_in(LEASE_TTL))]
    #[arg(allow_hyphen_values = true)]
    pub lease_ttl: Duration,
    /// How long calls in progress may take to finish when the instance stops, 0s-24h
    #[arg(long, env = "MESHWORK_DRAIN_LIMIT", default_value = "30s", value_parser = duration_in(DRAIN_LIMIT))]
    #[arg(allow_hyphen_values = true)]
    pub drain_limit: Duration,
    /// What happens to calls that the authorization rules of the service do not allow
    #[arg(long, env = "MESHWORK_AUTHORIZATION", value_enum, default_value_t, value_name = "MODE")]
    pub authorization: AuthorizationArg,
    /// Its identity.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Plain text beyond this machine.
    #[command(flatten)]
    pub insecure: InsecureArgs,
}

/// As `--authorization` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AuthorizationArg {
    /// They are refused
    #[default]
    Enforce,
    /// They are logged and counted, and let through: a dry run
    Log,
}

impl From<AuthorizationArg> for Enforcement {
    fn from(arg: AuthorizationArg) -> Self {
        match arg {
            AuthorizationArg::Enforce => Self::Enforce,
            AuthorizationArg::Log => Self::Log,
        }
    }
}

impl InstanceArgs {
    /// Listens at `--listen`: in plain text only on this machine, unless `--insecure` is given.
    pub async fn bind(&self) -> Result<Listener, Failure> {
        let listener = Listener::bind("--listen", &self.listen).await?;
        self.insecure.check(&self.listen, &listener, self.tls.mode())?;
        Ok(listener)
    }

    /// The mesh of `--registry`, with its last endpoint sets in `--cache-dir`, and the certificate of `service` if there is one. Does not
    /// wait for the registry.
    pub fn mesh(&self, service: &str) -> Result<Mesh, Failure> {
        let security = self.tls.security(Expected::Service(service))?;
        let invalid = |error| Failure::flag("--registry", self.registry.join(","), error);
        let mut mesh = Mesh::builder().registries(&self.registry).zone(&self.zone).subset_size(self.subset);
        mesh = mesh.security(security);
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
                // Of both schemes the same: a mesh that moves to TLS keeps what it knows.
                let bare = ["http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme));
                let address = bare.unwrap_or(address).trim_end_matches('/');
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
                let problem = "give --advertise HOST:PORT as well: clients cannot connect to a wildcard address";
                return Err(Failure::flag("--listen", &self.listen, problem));
            }
            None => listener.address().to_string(),
        };
        let defaults = Config::new(service, advertise);
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        if labels.len() < self.labels.len() {
            let given = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
            return Err(Failure::flag("--label", given.join(","), "gives a label twice"));
        }
        let config = Config {
            instance_id: self.instance_id.clone().unwrap_or(defaults.instance_id),
            version: self.version.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            labels,
            lease_ttl: self.lease_ttl,
            drain_limit: self.drain_limit,
            authorization: self.authorization.into(),
            ..defaults
        };
        match config.check() {
            Ok(()) => Ok(config),
            // What each label says was checked when it was read, as were the other flags.
            Err(InvalidField { field, problem }) if field.is_empty() || field == "labels" => {
                Err(Failure::flag("--label", format_args!("({} of them)", self.labels.len()), problem))
            }
            Err(invalid) => Err(Failure::run(invalid)),
        }
    }
}

/// The user's folder for what can be lost (XDG base directories). `None` without a home: never the system's temporary
/// folder, where another user could plant addresses.
fn user_cache() -> Option<PathBuf> {
    let said = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    said.or_else(|| env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache")))
}

fn parse_registry_flag(text: &str) -> Result<String, InvalidAddress> {
    parse_registry(text).map(|_| text.to_owned())
}

fn parse_id(text: &str) -> Result<String, &'static str> {
    check_id(text).map(|()| text.to_owned())
}

fn parse_text(text: &str) -> Result<String, &'static str> {
    check_text(text).map(|()| text.to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("must be KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    check_label(key, value).map(|()| (key.to_owned(), value.to_owned()))
}
