//! The flags of `meshwork ca`.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use meshwork_process::{LogArgs, duration_in};

use super::lifetime::lifetime_in;
use crate::ca::{InvalidSubject, Subject, check_dns_name};

/// A day by default: whoever steals a key has it as long. The longest is for what no renewer reaches.
const LEAF: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(90 * 24 * 3600);
const CA: RangeInclusive<Duration> = Duration::from_secs(24 * 3600)..=Duration::from_secs(30 * 365 * 24 * 3600);
/// A certificate of a minute is renewed after half of it.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

const CA_HELP: &str = "\
Examples:
  meshwork ca init --trust-domain shop.test         once
  meshwork ca issue service/order                   for each service
  meshwork ca issue operator/ada                    for each person or script that operates the mesh
  meshwork ca renew --every 1h .meshwork/tls/*/*    keeps running beside the services
  meshwork ca show .meshwork/tls/*/*                what is trusted, and until when

A certificate names a service or an operator: spiffe://TRUST_DOMAIN/service/NAME or /operator/NAME. Its folder has the files
cert.pem, key.pem and ca.pem, which services read with --tls-dir, and read again when they change. Whoever has the file
ca-key.pem can be any service: keep --ca-dir where no service can read it.";

const INIT_HELP: &str = "\
Examples:
  meshwork ca init --trust-domain shop.test
  meshwork ca init --trust-domain shop.test --ca-dir /var/lib/meshwork-ca --lifetime 5y

If there is a CA in --ca-dir already, it exits with code 2 and writes nothing.";

const ISSUE_HELP: &str = "\
Examples:
  meshwork ca issue service/order
  meshwork ca issue service/order --dns localhost --ip 127.0.0.1        for stock clients on this machine
  meshwork ca issue service/order --dns order.shop.svc.cluster.local --out /etc/meshwork/order
  meshwork ca issue operator/ada --lifetime 8h

Clients of Meshwork check the identity only. Stock gRPC clients check that the host that they were given is one of the
certificate's names: the service's own name, and those of --dns and --ip. A certificate of the same identity in --out is replaced;
if there is one of another, it exits with code 2 and writes nothing.";

const RENEW_HELP: &str = "\
Examples:
  meshwork ca renew .meshwork/tls/*/*
  meshwork ca renew --every 1h .meshwork/tls/*/*

A certificate is replaced, with a new key, for the same identity, names and lifetime, when less than half of its life is left,
when it has expired, or when the CA's key has been replaced. Services read the new one without a restart. The trusted CAs (ca.pem)
are brought up to date in any case. If a folder cannot be renewed, the others are, and the exit code is 1.

With --every it runs until SIGINT or SIGTERM, and exits with 0. It also renews in between when one is due, logs failures, and
tries again within 30 s.";

const ROTATE_HELP: &str = "\
Examples:
  meshwork ca rotate .meshwork/tls/*/*    1. a new CA is trusted beside the old one
  meshwork ca renew .meshwork/tls/*/*
  meshwork ca rotate .meshwork/tls/*/*    2. the new CA signs
  meshwork ca renew .meshwork/tls/*/*
  meshwork ca rotate .meshwork/tls/*/*    3. the old CA is no longer trusted
  meshwork ca renew .meshwork/tls/*/*

Replaces the CA's key while services run, in three steps, so that no service ever refuses another. A running `meshwork ca renew
--every` does the renewals. Name all folders: a step is refused, with exit code 1, while one of them lacks what the step before
has changed, or has had it for less than 30 s, in which its service may not have read it. `meshwork ca show` says which step is next.";

const SHOW_HELP: &str = "\
Examples:
  meshwork ca show
  meshwork ca show .meshwork/tls/*/*
  meshwork ca show .meshwork/tls/*/* --json | jq -r '.certificates[] | select(.state != \"valid\") | .folder'

STATE is valid, due (less than half of its life is left, or the CA or the trusted CAs have changed: run \"meshwork ca renew\"),
expired, or what is wrong with the folder; the exit code is 0 all the same. --json prints one object; its \"stage\" is settled,
nextTrusted (after step 1 of a rotation) or nextSigns (after step 2).";

/// `meshwork ca`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CA_HELP)]
pub struct CaArgs {
    /// The command.
    #[command(subcommand)]
    pub command: CaCommand,
}

/// What is wanted of an authority.
#[derive(Subcommand, Clone, Debug)]
pub enum CaCommand {
    /// Make the CA of a mesh
    Init(CaInitArgs),
    /// Give a service or an operator a certificate
    Issue(CaIssueArgs),
    /// Replace certificates before they expire
    Renew(CaRenewArgs),
    /// Replace the CA's key, step by step
    Rotate(CaRotateArgs),
    /// Show the CA, what is trusted, and the state of certificates
    Show(CaShowArgs),
}

impl CaCommand {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        match self {
            Self::Init(args) => &args.source.log,
            Self::Issue(args) => &args.source.log,
            Self::Renew(args) => &args.log,
            Self::Rotate(args) => &args.source.log,
            Self::Show(args) => &args.source.log,
        }
    }
}

/// What the commands that run once have in common.
#[derive(Args, Clone, Debug)]
#[command(mut_arg("log_level", |arg| arg.default_value("off")))]
pub struct CaSourceArgs {
    /// Where the CA is.
    #[command(flatten)]
    pub ca: CaDirArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where the CA is.
#[derive(Args, Clone, Debug)]
pub struct CaDirArgs {
    /// The folder of the CA; no service needs it
    #[arg(long, env = "MESHWORK_CA_DIR", default_value = ".meshwork/ca", value_name = "FOLDER")]
    pub ca_dir: PathBuf,
}

/// `meshwork ca init`.
#[derive(Args, Clone, Debug)]
#[command(after_help = INIT_HELP)]
pub struct CaInitArgs {
    /// The name of the mesh in all identities, such as shop.test: 1-255 characters of [a-z0-9._-]. It cannot be changed later
    #[arg(long, env = "MESHWORK_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: String,
    /// How long the CA is valid, 1d-30y
    #[arg(long, default_value = "10y", value_parser = lifetime_in(CA), value_name = "DURATION")]
    #[arg(allow_hyphen_values = true)]
    pub lifetime: Duration,
    /// Where the CA is to be, and what is logged.
    #[command(flatten)]
    pub source: CaSourceArgs,
}

/// `meshwork ca issue`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ISSUE_HELP)]
pub struct CaIssueArgs {
    /// Whom it is for: service/NAME, as the service registers, or operator/NAME
    #[arg(value_name = "IDENTITY")]
    pub subject: Subject,
    /// A name of the service's host, beside its own; may be given several times
    #[arg(long, value_delimiter = ',', value_parser = parse_dns, value_name = "HOST,...")]
    pub dns: Vec<String>,
    /// An address of the service's host; may be given several times
    #[arg(long, value_delimiter = ',', value_name = "IP,...")]
    pub ip: Vec<IpAddr>,
    /// How long the certificate is valid, 1m-90d
    #[arg(long, default_value = "24h", value_parser = lifetime_in(LEAF), value_name = "DURATION")]
    #[arg(allow_hyphen_values = true)]
    pub lifetime: Duration,
    /// The folder of the certificate; created if missing [default: .meshwork/tls/IDENTITY]
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Where the CA is, and what is logged.
    #[command(flatten)]
    pub source: CaSourceArgs,
}

/// `meshwork ca renew`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RENEW_HELP)]
pub struct CaRenewArgs {
    /// The folders of the certificates
    #[arg(required = true, value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Replace all certificates, due or not
    #[arg(long, conflicts_with = "every")]
    pub force: bool,
    /// Keep running, and look this often, 1s-24h
    #[arg(long, value_parser = duration_in(EVERY), value_name = "DURATION", allow_hyphen_values = true)]
    pub every: Option<Duration>,
    /// Where the CA is.
    #[command(flatten)]
    pub ca: CaDirArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `meshwork ca rotate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ROTATE_HELP)]
pub struct CaRotateArgs {
    /// The folders of all certificates
    #[arg(required_unless_present = "unchecked", value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Take the step without looking at folders, which are elsewhere: a service that was forgotten is cut off
    #[arg(long, conflicts_with = "folders")]
    pub unchecked: bool,
    /// How long the new CA is valid, 1d-30y
    #[arg(long, default_value = "10y", value_parser = lifetime_in(CA), value_name = "DURATION")]
    #[arg(allow_hyphen_values = true)]
    pub lifetime: Duration,
    /// Where the CA is, and what is logged.
    #[command(flatten)]
    pub source: CaSourceArgs,
}

/// `meshwork ca show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SHOW_HELP)]
pub struct CaShowArgs {
    /// The folders of certificates, to show them too
    #[arg(value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Where the CA is, and what is logged.
    #[command(flatten)]
    pub source: CaSourceArgs,
}

/// Reads the name of a host.
fn parse_dns(text: &str) -> Result<String, InvalidSubject> {
    check_dns_name(text).map(|()| text.to_owned())
}
