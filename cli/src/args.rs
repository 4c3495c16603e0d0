//! The command line: what can be asked for, its defaults, and its help.

mod authz;
mod bindings;
mod ca;
mod lifetime;
mod new;
mod policy;
mod service;
mod source;

use std::{net::SocketAddr, path::PathBuf, time::SystemTime};

use clap::{Args, Parser, Subcommand};
use meshwork::address::{InvalidAddress, parse_address};
use meshwork_process::{EXIT_CODE_2, HostPort, LogArgs, TelemetryArgs, TlsArgs, number_in};
use prost_types::Timestamp;

pub use authz::{
    AuthzArgs, AuthzCheckArgs, AuthzClearArgs, AuthzCommand, AuthzGetArgs, AuthzListArgs, AuthzRules, AuthzSetArgs,
};
pub use bindings::{BindingsArgs, BindingsClearArgs, BindingsCommand, BindingsSetArgs};
pub use ca::{
    CaArgs, CaCommand, CaDirArgs, CaInitArgs, CaIssueArgs, CaRenewArgs, CaRotateArgs, CaShowArgs, CaSourceArgs,
};
pub use lifetime::InvalidLifetime;
pub use new::NewArgs;
pub use policy::{
    PolicyArgs, PolicyChange, PolicyClearArgs, PolicyCommand, PolicyGetArgs, PolicyListArgs, PolicySetArgs, Setting,
    SplitArgs,
};
pub use source::{DEFAULT_REGISTRY, SourceArgs};

pub use crate::{
    authz::{CallerId, InvalidCallerId, InvalidMethodName, InvalidRule, MethodName, Rule},
    new::{InvalidPackageName, PackageName},
};

use crate::fleet::Replicas;
use service::parse_service;
pub(crate) use source::mesh_of;
use source::parse_registry;

fn help() -> String {
    format!(
        "\
Examples:
  meshwork up                       a whole mesh on this machine; its data is kept in .meshwork
  meshwork demo                     place 1000 orders and check that nothing was lost
  meshwork instances order          the instances of order
  meshwork split order v1=95 v2=5   a canary: version v2 gets 5 % of the calls, at once
  meshwork authz get order          who may call which methods of order
  meshwork watch --json | jq .      changes, as they happen
  meshwork reconcile order          after a restore of order's store: show what must be undone
  meshwork ca issue service/order   a certificate for order, once there is a CA (meshwork ca init)
  meshwork new inventory            the package of a service of your own

Exit codes:
  0    success; for up, watch and ca renew --every also: stopped by SIGINT or SIGTERM
  1    an operation or a check failed
  2    {EXIT_CODE_2}; nothing was done
  130  interrupted by SIGINT (143: by SIGTERM) before it had finished; up and watch: stopped at once by a second signal

Errors go to stderr. `meshwork COMMAND --help` has examples for each command."
    )
}

const UP_HELP: &str = "\
Examples:
  meshwork up
  meshwork up --replicas order=3,customer=2 --data-dir /var/tmp/shop
  meshwork up --registry-addr 127.0.0.1:0 --json | jq -r .registry
  meshwork up --database-url postgres://postgres@127.0.0.1/shop
  meshwork up --tls

It runs until SIGINT (Ctrl-C) or SIGTERM, then lets all calls finish, and exits with 0; a second signal stops it at once.
It also stops when its standard output is closed. Started again on the same folder (and databases) it finds its data, and
finishes the sagas that were in progress. Each instance gets the same port again at the next start, if it is free. If the
registry's port is in use, or the folder is in use or cannot be written, it exits with code 2 and leaves nothing running, and
no new files.";

const DEMO_HELP: &str = "\
Examples:
  meshwork demo
  meshwork demo --orders 20000 --customers 50
  meshwork demo --registry http://127.0.0.1:7600 --json

Without --registry it uses the mesh at http://127.0.0.1:7600 or, if none answers, starts one in a temporary folder and kills
one of its instances during the run. At the end it checks that every acknowledged order exists exactly once and is in a final
state, and that each customer's available credit is the limit minus the approved orders. If a check fails, the exit code is 1.";

const SERVICES_HELP: &str = "\
Examples:
  meshwork services
  meshwork services --json | jq -r '.services[].name'
  MESHWORK_REGISTRY=http://10.0.0.7:7600 meshwork services

--json prints one ListServicesResponse as protobuf JSON, as grpcurl does. The exit code is 1 if no registry answers within
3 s.";

const INSTANCES_HELP: &str = "\
Examples:
  meshwork instances order
  meshwork instances order --stats
  meshwork instances order --json | jq -r '.instances[] | select(.status == \"INSTANCE_STATUS_SERVING\") | .address'

STATUS is reported by the registry, HEALTH by the instance itself; EVENTS is the worst state of its subscriptions. Problems
are listed below the table. --json prints one ListInstancesResponse as protobuf JSON, as grpcurl does.

With --stats: STATE is ready, connecting, transient_failure (no connection), ejected, or probation (tried again after an
ejection); LATENCY is the recent average time to the beginning of an answer; LOAD is the expected cost of the next call, by
which clients choose: the latency times the calls in progress, and more after failures; CERTIFICATE is
what is left of the life of the certificate that the instance has shown. --json then prints an object of its own, whose array \"instances\" has the values of the table.

The exit code is 1 if the service has never registered or no registry answers within 3 s.";

const RECONCILE_HELP: &str = "\
Examples:
  meshwork reconcile order          show what must be undone
  meshwork reconcile order --yes    undo it
  meshwork reconcile order --yes --backup-time 2026-11-29T02:00:00Z

When the store of SERVICE is restored from a backup, its readers may have read events that the store no longer has; they then
stop. For each reader and partition this finds the last common event, undoes the effects of the lost ones (credit of lost
orders is released, views are rebuilt), and lets the reader continue from there. Without --yes it changes nothing. It is safe
to repeat: readers that are not ahead are left alone. If a reader does not answer, or cannot do it now, the exit code is 1:
run it again.";

const STORE_HELP: &str = "\
Examples:
  meshwork store backup sqlite:///var/lib/meshwork/order.db /backup/order-2026-11-29.db
  meshwork store adopt order 01a22508-6bcd-72ee-9524-d291df4a401d";

const STORE_BACKUP_HELP: &str = "\
Examples:
  meshwork store backup sqlite:///var/lib/meshwork/order.db /backup/order-2026-11-29.db

The copy is consistent even while the service writes. Do not copy the file yourself: recent writes are still in the
write-ahead log. If TARGET exists, or the database does not, it exits with code 2 and writes nothing.";

const STORE_ADOPT_HELP: &str = "\
Examples:
  meshwork store adopt order 01a22508-6bcd-72ee-9524-d291df4a401d

A service has one store; instances with another one are refused (`meshwork instances` lists them). Use this when a service
was started on a database with another store id, such as a new and empty one; a moved copy keeps its id. From then on every registry given accepts instances with this store, and removes the others once
one of them has registered. If a registry does not answer, or knows no instance with this store yet, the exit code is 1: run
it again. Afterwards run \"meshwork reconcile SERVICE\".";

const HEALTH_HELP: &str = "\
Examples:
  meshwork health 127.0.0.1:7602
  until meshwork health order-1:7602; do sleep 1; done
  meshwork health 127.0.0.1:7602 events/customer    whether this server keeps up with the events of customer

Asks the server once. If it answers SERVING, this prints so and exits with 0; if it answers anything else (one that is stopping
says NOT_SERVING), or nothing within 3 s, it exits with 1. It is suitable as a container's health check.";

const WATCH_HELP: &str = "\
Examples:
  meshwork watch
  meshwork watch order
  meshwork watch --json | jq -c 'select(.change) | .change.removed[]'

One line for each change: the time (UTC), + joined, ~ changed or - left, service, instance, address, status, zone,
version. Instances that are there already are shown first, with +. If the registry is lost, watching goes on when it is back.
--json prints each WatchResponse (snapshot or change) as one line of protobuf JSON. SIGINT (Ctrl-C) stops it with exit
code 0.";

/// Run and operate a proxyless gRPC service mesh
#[derive(Parser, Clone, Debug)]
#[command(name = "meshwork", version, after_help = help(), disable_help_subcommand = true)]
pub struct Cli {
    /// The command.
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
            Command::Authz(args) => (&args.command.source().log).into(),
            Command::Bindings(args) => (&args.source().log).into(),
            Command::Watch(args) => (&args.source.log).into(),
            Command::Health(args) => (&args.log).into(),
            Command::Store(args) => (&args.command.log()).into(),
            Command::Reconcile(args) => (&args.source.log).into(),
            Command::Ca(args) => args.command.log().into(),
            Command::New(args) => (&args.log).into(),
        }
    }
}

/// The command.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run a complete mesh in one process: a registry, and instances of customer, order and query
    Up(UpArgs),
    /// Place orders in a mesh and check that nothing was lost; if no mesh is running, start one, and kill one of its instances
    /// during the run
    Demo(DemoArgs),
    /// List the services that a registry knows
    Services(ServicesArgs),
    /// List the instances of a service
    Instances(InstancesArgs),
    /// Show and change how clients treat a service: timeout, retries, ejection, zones
    Policy(PolicyArgs),
    /// Divide a service's calls among its versions, for example for a canary
    Split(SplitArgs),
    /// Show, change and check the rules about who may call which methods of a service
    Authz(AuthzArgs),
    /// Show and change which service gets the calls that name only a gRPC service, as at a gateway
    Bindings(BindingsArgs),
    /// Show instances as they join, change and leave
    Watch(WatchArgs),
    /// Check whether one server is serving
    Health(HealthArgs),
    /// Back up a store, or make a service use another one
    Store(StoreArgs),
    /// After a service's store was restored: undo what its readers did with the lost events
    Reconcile(ReconcileArgs),
    /// Give services and operators certificates, renew them, and replace the CA
    Ca(CaArgs),
    /// Create the package of a new service, with a client and tests, ready to build and run
    New(NewArgs),
}

/// `meshwork up`.
#[derive(Args, Clone, Debug)]
#[command(after_help = UP_HELP, mut_arg("log_level", |arg| arg.default_value("warn")))]
pub struct UpArgs {
    /// Where the registry listens: a loopback address or localhost, and a port; port 0 takes a free one
    #[arg(long, env = "MESHWORK_REGISTRY_ADDR", default_value = "127.0.0.1:7600", value_name = "IP:PORT")]
    #[arg(value_parser = parse_loopback)]
    pub registry_addr: SocketAddr,
    /// The port of the first instance, 1-65000; the others follow it. A port in use is replaced by a free one. 0: only free
    /// ones [default: the registry's port + 1; 0 if that port is 0]
    #[arg(long, env = "MESHWORK_BASE_PORT", value_name = "PORT", value_parser = number_in(0..=65000_u16))]
    #[arg(allow_negative_numbers = true)]
    pub base_port: Option<u16>,
    /// The folder of the data: databases and policies; created if missing
    #[arg(long, env = "MESHWORK_DATA_DIR", default_value = ".meshwork", value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// The number of instances of customer, order and query, 1-16 each; 2 for those not named
    #[arg(long, env = "MESHWORK_REPLICAS", default_value = "customer=2,order=2,query=2")]
    #[arg(value_name = "SERVICE=COUNT,...")]
    pub replicas: Replicas,
    /// sqlite://: files in --data-dir. postgres://HOST/NAME: customers and orders in the databases NAME_customer and NAME_order,
    /// created if missing; the views of query stay in --data-dir
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, default_value = "sqlite://", value_name = "URL")]
    pub database_url: String,
    /// Encrypt all connections, between identities: a certificate for each service and one for you is made, and renewed, in
    /// --data-dir/tls
    #[arg(long, env = "MESHWORK_UP_TLS")]
    pub tls: bool,
    /// Print the instances and their addresses as one line of JSON instead of a table
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
    /// The registries of the mesh to use, separated by commas [default: http://127.0.0.1:7600 if it answers, else a new mesh]
    #[arg(long, env = "MESHWORK_REGISTRY", value_delimiter = ',', value_parser = parse_registry, value_name = "URL,...")]
    pub registry: Vec<String>,
    /// The number of orders, 1-1000000
    #[arg(long, default_value_t = 1000, value_name = "COUNT", value_parser = number_in(1..=1_000_000_u32))]
    #[arg(allow_negative_numbers = true)]
    pub orders: u32,
    /// The number of customers that place the orders, 1-1000
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = number_in(1..=1000_u32))]
    #[arg(allow_negative_numbers = true)]
    pub customers: u32,
    /// Report one approved order to the check as rejected, to show that it can fail (exit code 1)
    #[arg(long)]
    pub tamper: bool,
    /// The identity of who calls.
    #[command(flatten)]
    pub tls: TlsArgs,
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
    /// The service's name, as "meshwork services" lists it
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// Make a few calls to the instances, and show how they look to a client
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
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// Apply the changes; without it they are only shown
    #[arg(long)]
    pub yes: bool,
    /// The time of the restored backup, or any earlier time, such as 2026-11-29T02:00:00Z; needed only if the service's clock has
    /// been set back since the backup
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
    /// The command.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What is wanted of a store.
#[derive(Subcommand, Clone, Debug)]
pub enum StoreCommand {
    /// Make a consistent copy of an SQLite database, even while it is in use
    #[command(after_help = STORE_BACKUP_HELP)]
    Backup(StoreBackupArgs),
    /// Make a service use another store, such as a new and empty one
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
    /// The database, as sqlite://FILE; for PostgreSQL use pg_dump
    #[arg(value_name = "URL")]
    pub database_url: String,
    /// The file to create
    pub target: PathBuf,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `meshwork store adopt`.
#[derive(Args, Clone, Debug)]
pub struct StoreAdoptArgs {
    /// The service
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The store's id; the log of the refused instance shows it
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
    #[arg(value_parser = parse_service)]
    pub service: Option<String>,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork health`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HEALTH_HELP, mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct HealthArgs {
    /// The server: anything that speaks grpc.health.v1, as all servers of a mesh do
    #[arg(value_name = "HOST:PORT", value_parser = parse_server)]
    pub address: HostPort,
    /// One of its gRPC services, such as shop.order.v1.OrderService, or a subscription, such as events/order [default: the whole
    /// server]
    #[arg(default_value = "", hide_default_value = true)]
    pub name: String,
    /// The identity of who asks.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Reads an address of `up`'s registry. The mesh has no identities yet, so it stays on this machine.
fn parse_loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text
        .replacen("localhost:", "127.0.0.1:", 1)
        .parse()
        .map_err(|_| "must be IP:PORT or localhost:PORT, with a port of 0-65535")?;
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
