//! The flags of `meshwork bindings`.

use clap::{Args, Subcommand};

use super::{service::parse_service, source::SourceArgs};

const BINDINGS_HELP: &str = "\
Examples:
  meshwork bindings
  meshwork bindings set shop.order.v1.OrderService order
  meshwork bindings clear shop.order.v1.OrderService

SERVICE gets the calls that name only the gRPC service, as at a gateway. ORIGIN says why: registration (its instance was the
first to announce it with a certificate), operator (\"meshwork bindings set\"), announced (not bound, and no other service
announces it) or ambiguous (not bound, and several do: none gets these calls). --json prints one ListBindingsResponse as
protobuf JSON, as grpcurl does.";

const SET_HELP: &str = "\
Examples:
  meshwork bindings set shop.order.v1.OrderService order";

const CLEAR_HELP: &str = "\
Examples:
  meshwork bindings clear shop.order.v1.OrderService

The next instance that registers with a certificate and announces the gRPC service binds it again.";

/// `meshwork bindings`.
#[derive(Args, Clone, Debug)]
#[command(after_help = BINDINGS_HELP, args_conflicts_with_subcommands = true)]
pub struct BindingsArgs {
    /// The command; none: list them.
    #[command(subcommand)]
    pub command: Option<BindingsCommand>,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

impl BindingsArgs {
    /// The registries to ask, and how to print the answer.
    pub fn source(&self) -> &SourceArgs {
        match &self.command {
            None => &self.source,
            Some(BindingsCommand::Set(args)) => &args.source,
            Some(BindingsCommand::Clear(args)) => &args.source,
        }
    }
}

/// What is wanted of bindings.
#[derive(Subcommand, Clone, Debug)]
pub enum BindingsCommand {
    /// Bind a gRPC service to a service, whatever it was bound to
    Set(BindingsSetArgs),
    /// Unbind a gRPC service
    Clear(BindingsClearArgs),
}

/// `meshwork bindings set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP)]
pub struct BindingsSetArgs {
    /// The full name of the gRPC service, such as shop.order.v1.OrderService
    pub grpc_service: String,
    /// The service that gets its calls
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The registries to change, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork bindings clear`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CLEAR_HELP)]
pub struct BindingsClearArgs {
    /// The full name of the gRPC service
    pub grpc_service: String,
    /// The registries to change, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}
