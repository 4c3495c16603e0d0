//! `meshwork authz`: shows, replaces, removes and tries the rules about who may call which methods of a service.
//!
//! Rules are checked here before anything is sent, with the registry's own check; what they say about a call is decided by the
//! function that servers use. A change carries the etag of what it was made from, so that two people do not undo each other's.

mod caller;
mod check;
mod method;
mod method_name;
mod registries;
mod rule;
mod rules;
mod shown;

use std::io::{self, Write as _};

use meshwork::{
    contract::meshwork::registry::v1::{AuthorizationPolicy, ListAuthorizationPoliciesResponse},
    identity::REGISTRY,
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;

use crate::{
    args::{AuthzClearArgs, AuthzCommand, AuthzGetArgs, AuthzListArgs, AuthzSetArgs},
    directory::Directory,
    error::Error,
    table::Output,
};

pub use caller::{CallerId, InvalidCallerId};
pub use method_name::{InvalidMethodName, MethodName};
pub use rule::{InvalidRule, Rule};

/// `meshwork authz`.
pub(crate) async fn run(command: AuthzCommand) -> Result<(), Error> {
    match command {
        AuthzCommand::Get(args) => get(args).await,
        AuthzCommand::List(args) => list(args).await,
        AuthzCommand::Set(args) => set(args).await,
        AuthzCommand::Clear(args) => clear(args).await,
        AuthzCommand::Check(args) => check::run(args).await,
    }
}

async fn get(args: AuthzGetArgs) -> Result<(), Error> {
    let directory = Directory::open(&args.source)?;
    let policy = directory.rules(&args.service).await?;
    directory.warn_of_unregistered(&args.service).await?;
    show(&policy, args.source.json)
}

async fn list(args: AuthzListArgs) -> Result<(), Error> {
    let policies = Directory::open(&args.source)?.all_rules().await?;
    let mut out = io::stdout().lock();
    if args.source.json {
        let all = ListAuthorizationPoliciesResponse { policies, next_page_token: String::new() };
        writeln!(out, "{}", ProtobufJson::new().line(&all))?;
        return Ok(());
    }
    Ok(write!(out, "{}", shown::list(&policies, Output::stdout()))?)
}

async fn set(args: AuthzSetArgs) -> Result<(), Error> {
    let AuthzSetArgs { service, rules, etag, source } = args;
    let policy = rules::policy(&rules, &service)?;
    let policy = AuthorizationPolicy { etag: etag.unwrap_or(policy.etag), ..policy };
    let directory = Directory::open(&source)?;
    let set = directory.set_rules(policy).await?;
    // Those of the registry are all meshwork.*, of which the table says who may call them.
    if service != REGISTRY {
        to_stderr(format_args!("note: all other callers and methods of {service} are refused"));
    }
    directory.warn_of_callers(&set).await?;
    show_changed(&directory, &set, "the rules were not set", source.json).await
}

async fn clear(args: AuthzClearArgs) -> Result<(), Error> {
    let directory = Directory::open(&args.source)?;
    let cleared = directory.delete_rules(&args.service).await?;
    show_changed(&directory, &cleared, "the rules were not removed", args.source.json).await
}

/// Shows what is there after a change; `undone` says what silent registries have not done.
async fn show_changed(
    directory: &Directory,
    policy: &AuthorizationPolicy,
    undone: &'static str,
    json: bool,
) -> Result<(), Error> {
    // Now: a registry that goes away after this has the change.
    let left_out = directory.left_out().join(", ");
    directory.warn_of_unregistered(&policy.service).await?;
    let shown = show(policy, json).map_err(Error::after_work);
    // Instances that are registered there alone go on without the change.
    if left_out.is_empty() { shown } else { Err(Error::NotAtAll { what: undone, registries: left_out }) }
}

fn show(policy: &AuthorizationPolicy, json: bool) -> Result<(), Error> {
    let text = if json { ProtobufJson::new().line(policy) + "\n" } else { shown::service(policy, Output::stdout()) };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}
