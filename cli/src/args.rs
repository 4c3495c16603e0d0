//! The command line: what can be asked for, its defaults, and its help.

mod new;
mod policy;
mod source;

use std::{net::SocketAddr, path::PathBuf, time::SystemTime};

use clap::{Args, Parser, Subcommand};
use meshwork::address::{InvalidAddress, parse_address};
use meshwork_process::{EXIT_CODE_2, HostPort, LogArgs, TelemetryArgs};
use prost_types::Timestamp;

pub use new::NewArgs;
pub use policy::{
    PolicyArgs, PolicyChange, PolicyClearArgs, PolicyCommand, PolicyGetArgs, PolicyListArgs, PolicySetArgs, Setting,
    SplitArgs,
};
pub use source::{DEFAULT_REGISTRY, SourceArgs};

pub use crate::new::{InvalidPackageName, PackageName};

use crate::fleet::Replicas;
use source::parse_registry;

fn help() -> String {
    format!(
        "\
Examples:
  meshwork up                       a whole mesh on this machine; its data is kept in .meshwork
  meshwork demo                     a story with a thousand orders, and a check that no credit was lost
  meshwork instances order          who serves `order`
  meshwork split order v1=95 v2=5   a canary: version v2 gets 5 % of the calls, at once
  meshwork watch --json | jq .      what changes, as it changes
  meshwork reconcile order          after a restore of `order`: what its readers have to undo
  meshwork new inventory            the package of a service of your own

Exit codes:
  0    done; for up and watch: ended in order by SIGINT or SIGTERM
  1    an operation or a check failed
  2    {EXIT_CODE_2}
  130  ended by SIGINT (143: SIGTERM) before it was done; up and watch: at once, by a second one

Errors are one line on stderr. `meshwork COMMAND --help` has examples for each command."
    )
}

const UP_HELP: &str = "\
Examples:
  meshwork up
  meshwork up --replicas order=3,customer=2 --data-dir /var/tmp/shop
  meshwork up --registry-addr 127.0.0.1:0 --json | jq -r .registry
  meshwork up --database-url postgres://postgres@127.0.0.1/shop

It runs until SIGINT (Ctrl-C) or SIGTERM, then lets all calls finish, and exits with 0; a second signal ends it at once.
Started again on the same folder (and databases) it finds its data, and finishes the sagas that were under way.
Each instance has the same port at each start, as far as it is free. If the registry's port is taken, or the folder is in use or
cannot be written, it exits with code 2 and leaves nothing running, and no new files.";

const DEMO_HELP: &str = "\
Examples:
  meshwork demo
  meshwork demo --orders 20000 --customers 50
  meshwork demo --registry http://127.0.0.1:7600 --json

Without --registry it plays in the mesh that answers at http://127.0.0.1:7600. If there is none, it starts one in a
temporary folder, and kills one of its instances on the way. At the end it pages through all that it did, and checks
that every acknowledged order is there once and in a terminal state, and that the available credit of every customer
is the limit less the approved orders. If a promise is broken, it exits with code 1. --tamper shows that the check can
fail.";

const SERVICES_HELP: &str = "\
Examples:
  meshwork services
  meshwork services --json | jq -r '.services[].name'
  MESHWORK_REGISTRY=http://10.0.0.7:7600 meshwork services

--json prints one ListServicesResponse as protobuf JSON, as grpcurl does. If no registry answers within 3 s, it exits with
code 1.";

const INSTANCES_HELP: &str = "\
Examples:
  meshwork instances order
  meshwork instances order --stats
  meshwork instances order --json | jq -r '.instances[] | select(.status == \"INSTANCE_STATUS_SERVING\") | .address'

STATUS is what the registry says, HEALTH what the instance itself answers, EVENTS how its subscriptions stand: the worst of
them. Problems are listed below the table. --json prints one ListInstancesResponse as protobuf JSON, as grpcurl does.
If the service was never registered, or no registry answers within 3 s, it exits with code 1.";

const RECONCILE_HELP: &str = "\
Examples:
  meshwork reconcile order          what would be done
  meshwork reconcile order --yes    does it
  meshwork reconcile order --yes --backup-time 2026-11-29T02:00:00Z

After the store of SERVICE was restored from a backup, its readers have read events that it has lost, and stop. For each reader
and partition this finds the last event that both have, undoes the effects of the lost ones (credit of lost orders is released,
views are rebuilt), and lets the reader go on from there. Without --yes it changes nothing. It is safe to repeat: readers that
have lost nothing are left alone. If a reader does not answer, or cannot do it now, it exits with code 1; run it again.";

const STORE_HELP: &str = "\
Examples:
  meshwork store backup sqlite:///var/lib/meshwork/order.db /backup/order-2026-11-29.db
  meshwork store adopt order 01a22508-6bcd-72ee-9524-d291df4a401d";

const STORE_BACKUP_HELP: &str = "\
Examples:
  meshwork store backup sqlite:///var/lib/meshwork/order.db /backup/order-2026-11-29.db

A consistent copy, also while the service is running and writing. Do not copy the file itself: it lacks what is still in the
write-ahead log. If TARGET exists, or the database does not, it exits with code 2 and writes nothing.";

const STORE_ADOPT_HELP: &str = "\
Examples:
  meshwork store adopt order 01a22508-6bcd-72ee-9524-d291df4a401d

A service has one store: an instance with another one is refused while the first is being served (`meshwork instances` shows it,
and its log names both stores). Use this after moving a service to another database: from now on, at every registry of the
list, instances with this store are accepted. Once one of them has registered, those with another store are removed and refused. A
registry that does not answer, or knows no instance with this store yet, is named, and makes the exit code 1: run it again. Then run `meshwork reconcile SERVICE`.";

const HEALTH_HELP: &str = "\
Examples:
  meshwork health 127.0.0.1:7602
  until meshwork health order-1:7602; do sleep 1; done
  meshwork health 127.0.0.1:7602 events/customer    whether it keeps up with the events of customer

It asks the server itself, once, by grpc.health.v1, and prints SERVING. If the server answers anything else (a draining one says
NOT_SERVING), or nothing within 3 s, it exits with code 1. So it fits a container's health check.";

const WATCH_HELP: &str = "\
Examples:
  meshwork watch
  meshwork watch order
  meshwork watch --json | jq -c 'select(.change) | .change.removed[]'

One line for each change: the time (UTC), + joined, ~ changed or - left, service, instance, address, status, zone,
version. --json prints each WatchResponse (snapshot or change) as one line of protobuf JSON. If the registry goes away
it goes on where it was as soon as the registry is back. SIGINT (Ctrl-C) ends it with exit code 0.";

/// A proxyless gRPC service mesh on the command line
#[derive(Parser, Clone, Debug)]
#[command(name = "meshwork", version, after_help = help(), disable_help_subcommand = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What the process tells about itself; logs on stderr, so that stdout is the command's own.
    pub fn telemetry(&self) -> TelemetryArgs {
        match &self.command {
            Command::Up(args) => args.telemetry.clone(),
            Command::Demo(args) => (&args.log).into(),
            Command::Services(args) => (&args.source.log).into(),
            Command::Instances(args) => (&args.source.log).into(),
            Command::Policy(args) => (&args.command.source().log).into(),
            Command::Split(args) => (&args.source.log).into(),
            Command::Watch(args) => (&args.source.log).into(),
            Command::Health(args) => (&args.log).into(),
            Command::Store(args) => (&args.command.log()).into(),
            Command::Reconcile(args) => (&args.source.log).into(),
            Command::New(args) => (&args.log).into(),
        }
    }
}

/// The subcommand.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Start a whole mesh in this process: a registry, and instances of customer, order and query
    Up(UpArgs),
    /// Drive customers and orders through a mesh and check that nothing was lost; if no mesh is running, start one, and
    /// kill one of its instances on the way
    Demo(DemoArgs),
    /// List the services that a registry knows
    Services(ServicesArgs),
    /// List the instances of a service
    Instances(InstancesArgs),
    /// Show and change how clients treat a service: timeout, retries, ejection, zones
    Policy(PolicyArgs),
    /// Share a service's calls between its versions, as for a canary
    Split(SplitArgs),
    /// Show who joins, changes and leaves, as it happens
    Watch(WatchArgs),
    /// Ask one server whether it serves
    Health(HealthArgs),
    /// Back up a store, or declare which store a service uses
    Store(StoreArgs),
    /// After a restore: undo what its readers did with events that the service has lost
    Reconcile(ReconcileArgs),
    /// Write the package of a new service, with a client and tests, which is built and run as it is
    New(NewArgs),
}

/// `meshwork up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = UP_HELP, mut_arg("log_level", |arg| arg.default_value("warn")))]
pub struct UpArgs {
    /// Where the registry listens, a loopback address; port 0 takes a free one
    #[arg(long, env = "MESHWORK_REGISTRY_ADDR", default_value = "127.0.0.1:7600", value_name = "IP:PORT")]
    #[arg(value_parser = parse_loopback)]
    pub registry_addr: SocketAddr,
    /// The port of the first instance, 1-65000; the others have those after it. Where one is taken, a free one is used instead.
    /// 0: free ones [default: the registry's port and 1; free ones, if that is 0]
    #[arg(long, env = "MESHWORK_BASE_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=65000))]
    #[arg(allow_negative_numbers = true)]
    pub base_port: Option<u16>,
    /// The folder of the SQLite files; made if it is missing
    #[arg(long, env = "MESHWORK_DATA_DIR", default_value = ".meshwork", value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// How many instances, 1-16 of customer, order and query; what is not named has 2
    #[arg(long, env = "MESHWORK_REPLICAS", default_value = "customer=2,order=2,query=2")]
    #[arg(value_name = "SERVICE=COUNT,...")]
    pub replicas: Replicas,
    /// sqlite:// keeps a file for each service in --data-dir; postgres://HOST/shop keeps customers and orders in the
    /// databases shop_customer and shop_order, which are made if they are missing, and the views of query in --data-dir
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, default_value = "sqlite://", value_name = "URL")]
    pub database_url: String,
    /// Print what runs where as one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// What it tells about itself.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl UpArgs {
    /// The port of the first instance. `None`: each has a free one.
    pub fn base_port(&self) -> Option<u16> {
        match (self.base_port, self.registry_addr.port()) {
            (Some(0), _) | (None, 0) => None,
            (Some(port), _) => Some(port),
            (None, registry) => registry.checked_add(1),
        }
    }
}

/// `meshwork demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DEMO_HELP, mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct DemoArgs {
    /// The registries of the mesh to play in, which are used together [default: see below]
    #[arg(long, env = "MESHWORK_REGISTRY", value_delimiter = ',', value_parser = parse_registry, value_name = "URL,...")]
    pub registry: Vec<String>,
    /// How many orders are placed, 1-1000000
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub orders: u32,
    /// How many customers share them, 1-1000
    #[arg(long, default_value_t = 10, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub customers: u32,
    /// Show that the check can fail: hand it one approved order as rejected (exit code 1)
    #[arg(long)]
    pub tamper: bool,
    /// Print the result as one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `meshwork services`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVICES_HELP)]
pub struct ServicesArgs {
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork instances`.
#[derive(Args, Clone, Debug)]
#[command(after_help = INSTANCES_HELP)]
pub struct InstancesArgs {
    /// The service's name, as `meshwork services` lists it
    pub service: String,
    /// Connect to the instances, call them, and show how they look to a client: state, latency, load, failures
    #[arg(long)]
    pub stats: bool,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork reconcile`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RECONCILE_HELP)]
pub struct ReconcileArgs {
    /// The service whose store was restored
    pub service: String,
    /// Do it; the default is a dry run
    #[arg(long)]
    pub yes: bool,
    /// When its backup was made, or any time before, as in 2026-11-29T02:00:00Z; needed only if the service's clock went back
    /// since, so that its new events look older than the lost ones
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    pub backup_time: Option<Timestamp>,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork store`.
#[derive(Args, Clone, Debug)]
#[command(after_help = STORE_HELP)]
pub struct StoreArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What is wanted of a store.
#[derive(Subcommand, Clone, Debug)]
pub enum StoreCommand {
    /// Make a consistent copy of an SQLite database, also while it is in use
    #[command(after_help = STORE_BACKUP_HELP)]
    Backup(StoreBackupArgs),
    /// Declare which store a service uses
    #[command(after_help = STORE_ADOPT_HELP)]
    Adopt(StoreAdoptArgs),
}

impl StoreCommand {
    fn log(&self) -> LogArgs {
        match self {
            Self::Backup(args) => args.log.clone(),
            Self::Adopt(args) => args.source.log.clone(),
        }
    }
}

/// `meshwork store backup`.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct StoreBackupArgs {
    /// The database, as in --database-url; of PostgreSQL use pg_dump
    #[arg(value_name = "URL")]
    pub database_url: String,
    /// The file to be made
    pub target: PathBuf,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `meshwork store adopt`.
#[derive(Args, Clone, Debug)]
pub struct StoreAdoptArgs {
    /// The service
    pub service: String,
    /// The store's id, which the refused instance's log names
    pub store_id: String,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork watch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = WATCH_HELP)]
pub struct WatchArgs {
    /// Only this service [default: all]
    pub service: Option<String>,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork health`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HEALTH_HELP, mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct HealthArgs {
    /// The server, any that speaks grpc.health.v1: every process of a mesh does
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    pub address: HostPort,
    /// A service of it, such as shop.order.v1.OrderService, or a subscription, such as events/order [default: the whole server]
    #[arg(default_value = "", hide_default_value = true)]
    pub name: String,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Reads an address of `up`'s registry. The mesh has no identities yet, so it stays on this machine.
fn parse_loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse()
        .map_err(|_| "must be IP:PORT, such as 127.0.0.1:7600, or localhost:PORT")?;
    if address.ip().is_loopback() { Ok(address) } else { Err("must be a loopback address, such as 127.0.0.1:7600") }
}

/// Reads the address of a server. Port 0 is one to listen on.
fn parse_server(text: &str) -> Result<HostPort, InvalidAddress> {
    parse_address(text)?;
    text.parse()
}

/// Reads a time at which a backup can have been made.
fn parse_past(text: &str) -> Result<Timestamp, &'static str> {
    let time: Timestamp = text.parse().map_err(|_| "must be a time as in 2026-11-29T02:00:00Z")?;
    // A time of day without one would be read as UTC, which is hours off for most.
    let has_zone = text.split_once(':').is_some_and(|(_, rest)| rest.contains(['Z', 'z', '+', '-']));
    let now = Timestamp::from(SystemTime::now());
    match (time.seconds, time.nanos) {
        _ if !has_zone => Err("must be a time with its zone, as in 2026-11-29T02:00:00Z"),
        (..0, _) => Err("must not be before 1970"),
        at if at > (now.seconds, now.nanos) => Err("must not be in the future"),
        _ => Ok(time),
    }
}

#[cfg(test)]
mod tests;
