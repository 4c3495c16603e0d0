//! Meshwork: a proxyless gRPC service mesh.
//!
//! A client finds the live instances of a service through the registry, and balances its calls over them:
//!
//! ```
//! use meshwork::{Mesh, contract::grpc::health::v1::health_client::HealthClient};
//!
//! # async fn example() -> Result<(), meshwork::MeshError> {
//! let mesh = Mesh::connect("http://127.0.0.1:7600")?;
//! let order = HealthClient::new(mesh.channel("order")); // or any other client that tonic generates
//! # Ok(())
//! # }
//! ```
//!
//! # The path of a call, and of what it changes
//!
//! The modules, in the order in which a call passes through them:
//!
//! - [`contract`]: the generated clients, servers and messages, where every call begins and ends;
//! - [`identity`]: who a process is, and who it talks to: mutual TLS;
//! - [`discovery`]: which instances serve what, kept up to date by one watch of the registry; [`Mesh`] is a process's handle on it;
//! - [`policy`]: how the instances of a service are to be treated, as operators set it;
//! - [`authorization`]: who may call what, as operators and a service's code say it;
//! - [`channel`]: THE client stack: retry, hedge, commit, transparent retry, dispatch;
//! - `balance`: which endpoint a call goes to: split, zone, and tower's `Balance` over our own load;
//! - `endpoint`: THE endpoint: identity, connectivity, outlier state, load, and its connection;
//! - [`address`], [`service_name`], [`instance`], [`headers`], [`deadline`], [`trace`]: where a call goes, and what
//!   client and server say to each other besides the call itself;
//! - [`health`]: whether what calls and events depend on is healthy, as a server's health reports it;
//! - [`server`]: THE server stack: accept loop, limits, your service; announced in the mesh, drained when it leaves;
//! - [`rpc`]: what a handler needs besides its rules: errors with details, pages, tokens;
//! - [`dial`], [`log_limit`], [`backoff`], [`cause`], [`duration`], [`id`], [`file_lock`]: small things that Meshwork's own packages
//!   share: connections to names, lines that a peer can cause, waits between attempts, errors in one line, locks on files.
//!
//! # Beside this package
//!
//! - `meshwork-events`: a service's durable state: its store, its log of events, and its subscriptions to other logs;
//! - `meshwork-process`: the `main` of a service: flags, logs, signals, spans, metrics;
//! - `meshwork-testing`: a registry and a mesh in process, for the tests of a service.
//!
//! `meshwork new NAME` writes the package of a service that uses them.

pub mod contract;

pub mod identity;

mod mesh;

pub mod discovery;

mod endpoint_set;

pub mod policy;

pub mod authorization;

pub mod channel;

mod balance;

mod endpoint;

mod request_body;

pub mod address;

pub mod service_name;

pub mod instance;

pub mod headers;

pub mod deadline;

pub mod duration;

pub mod trace;

pub mod health;

pub mod server;

pub mod rpc;

pub mod backoff;

pub mod cause;

pub mod dial;

pub mod file_lock;

pub mod id;

pub mod log_limit;

pub use mesh::{MAX_REGISTRIES, Mesh, MeshBuilder, MeshError};
