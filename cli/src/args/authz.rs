//! The flags of `meshwork authz`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use meshwork_process::TlsModeArg;

use super::{service::parse_service, source::SourceArgs};
use crate::authz::{CallerId, MethodName, Rule};

const AUTHZ_HELP: &str = "\
Examples:
  meshwork authz get order
  meshwork authz set order --allow service/query=shop.order.v1.OrderService/GetOrder
  meshwork authz check --as service/query order/GetOrder

Running instances enforce new rules at once, and keep them while the registry is unreachable. Only operators may change rules,
where callers have identities.";

const GET_HELP: &str = "\
Examples:
  meshwork authz get order
  meshwork authz get order --json > order-rules.json

A rule matches each call of any of its callers to any of its methods. A call that a deny rule matches is refused; of the
others, those that an allow rule matches are accepted; the rest is refused. --json prints one AuthorizationPolicy as protobuf
JSON, as grpcurl does.";

const LIST_HELP: &str = "\
Examples:
  meshwork authz list
  meshwork authz list --json | jq -c '.policies[]'

--json prints one ListAuthorizationPoliciesResponse as protobuf JSON, as grpcurl does.";

const SET_HELP: &str = "\
Examples:
  meshwork authz set order --allow service/query,operator/*=shop.order.v1.OrderService/GetOrder
  meshwork authz set order --allow 'service/*=shop.order.v1.OrderService/*' \\
      --deny service/customer=shop.order.v1.OrderService/CancelOrder
  meshwork authz get order --json | jq '.allow[0].callers += [\"service/web\"]' | meshwork authz set order --file -

Callers are service/NAME, operator/NAME, service/*, operator/*, * (everyone) and anonymous (plain text, outside of strict
mode). A method is PACKAGE.SERVICE/METHOD, or PACKAGE.SERVICE/* for all of a gRPC service; there are no other wildcards.

All rules of the service are replaced. Calls that no rule allows are refused from then on, so first try the new rules on
instances that run with --authorization log. If somebody else has changed the rules meanwhile, nothing is overwritten and the
exit code is 1; so it is if the service does not serve what a rule names. A malformed rule is exit code 2.";

const CLEAR_HELP: &str = "\
Examples:
  meshwork authz clear order

Without rules a service is open to every caller of the trust domain.";

const CHECK_HELP: &str = "\
Examples:
  meshwork authz check --as service/query order/shop.order.v1.OrderService/GetOrder
  meshwork authz check --as operator/ada order/GetOrder
  meshwork authz check --as anonymous --mode permissive shop.order.v1.OrderService/GetOrder

Decides as the servers do, by the rules that the registry has. If the call is allowed, it prints the reason and exits with 0,
otherwise with 1. order/GetOrder is enough if order serves a single gRPC service; a gRPC service alone is enough if it is bound
to a service, or a single service announces it. Which consumers a service names in its code, as for its events, only its
servers know. --json prints an object of its own.";

/// `meshwork authz`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AUTHZ_HELP)]
pub struct AuthzArgs {
    /// The command.
    #[command(subcommand)]
    pub command: AuthzCommand,
}

/// What is wanted of authorization rules.
#[derive(Subcommand, Clone, Debug)]
pub enum AuthzCommand {
    /// Show a service's rules
    Get(AuthzGetArgs),
    /// List the rules of all services
    List(AuthzListArgs),
    /// Replace a service's rules
    Set(AuthzSetArgs),
    /// Remove a service's rules: it is open again
    Clear(AuthzClearArgs),
    /// Check whether a caller may call a method
    Check(AuthzCheckArgs),
}

impl AuthzCommand {
    /// The registries to ask, and how to print the answer.
    pub fn source(&self) -> &SourceArgs {
        match self {
            Self::Get(args) => &args.source,
            Self::List(args) => &args.source,
            Self::Set(args) => &args.source,
            Self::Clear(args) => &args.source,
            Self::Check(args) => &args.source,
        }
    }
}

/// `meshwork authz get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = GET_HELP)]
pub struct AuthzGetArgs {
    /// The service's name
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork authz list`.
#[derive(Args, Clone, Debug)]
#[command(after_help = LIST_HELP)]
pub struct AuthzListArgs {
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork authz set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP)]
pub struct AuthzSetArgs {
    /// The service's name; it need not be registered yet
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The rules.
    #[command(flatten)]
    pub rules: AuthzRules,
    /// Replace only the rules with this etag [default: that of the file, or else whichever are in effect]
    #[arg(long)]
    pub etag: Option<String>,
    /// The registries to change, and how to print the new rules.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// All rules of a service, one by one or in a file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(group = ArgGroup::new("rules").args(["allow", "file"]).required(true))]
pub struct AuthzRules {
    /// Accept calls of any of these callers to any of these methods; may be repeated
    #[arg(long, value_name = "CALLER,...=METHOD,...")]
    pub allow: Vec<Rule>,
    /// Refuse such calls, although --allow matches them; may be repeated
    #[arg(long, value_name = "CALLER,...=METHOD,...", conflicts_with = "file")]
    pub deny: Vec<Rule>,
    /// A service or operator that is believed when it names an end user (header meshwork-subject); may be repeated
    #[arg(long, value_name = "CALLER", conflicts_with = "file")]
    pub subject_caller: Vec<String>,
    /// Take the rules of this file (an AuthorizationPolicy as protobuf JSON; - is stdin)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `meshwork authz clear`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CLEAR_HELP)]
pub struct AuthzClearArgs {
    /// The service's name
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The registries to change, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork authz check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHECK_HELP)]
pub struct AuthzCheckArgs {
    /// Who would call: service/NAME, operator/NAME, anonymous, or a whole SPIFFE ID
    #[arg(long = "as", value_name = "ID")]
    pub caller: CallerId,
    /// The service and the method: SERVICE/PACKAGE.SERVICE/METHOD, SERVICE/METHOD, or PACKAGE.SERVICE/METHOD
    #[arg(value_name = "SERVICE/METHOD")]
    pub method: MethodName,
    /// How the service takes connections, as its --tls-mode
    #[arg(
        long,
        value_enum,
        default_value = "strict",
        hide_possible_values = true,
        value_name = "plain|permissive|strict"
    )]
    pub mode: TlsModeArg,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}
