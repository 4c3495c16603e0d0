//! The flags of `meshwork policy` and `meshwork split`.

use std::{fmt::Display, path::PathBuf, time::Duration};

use clap::{Arg, ArgGroup, Args, Subcommand};
use meshwork::{instance::check_text, policy::limits};
use meshwork_process::{duration_in, number_in};

use super::{service::parse_service, source::SourceArgs};

const POLICY_HELP: &str = "\
Examples:
  meshwork policy get order
  meshwork policy set order --timeout 2s --max-attempts 2
  meshwork policy list --json | jq -r '.policies[].service'

Running clients apply a new policy at once, and keep it while the registry is unreachable.";

const GET_HELP: &str = "\
Examples:
  meshwork policy get order
  meshwork policy get order --json > order-policy.json

--json prints one Policy as protobuf JSON, as grpcurl does: only what is set, and the etag.";

const CLEAR_HELP: &str = "\
Examples:
  meshwork policy clear order

The split between versions is part of the policy, and is removed with it.";

const LIST_HELP: &str = "\
Examples:
  meshwork policy list
  meshwork policy list --json | jq -c '.policies[]'

--json prints one ListPoliciesResponse as protobuf JSON, as grpcurl does.";

const SET_HELP: &str = "\
Examples:
  meshwork policy set order --timeout 2s --max-attempts 2
  meshwork policy set order --hedging off --max-ejected-percent 30
  meshwork policy set order --timeout default
  meshwork policy get order --json | jq '.timeout = \"2s\"' | meshwork policy set order --file -

Values not given stay as they are; with --file, those that neither the file nor a flag gives return to their defaults. The
value \"default\" removes a setting. If somebody else has
changed the policy meanwhile, or values contradict each other, nothing changes and the exit code is 1; an invalid value is
exit code 2.";

const SPLIT_HELP: &str = "\
Examples:
  meshwork split order v1=95 v2=5      a canary: 5 % of the calls go to the instances of version v2
  meshwork split order v2=1            all calls go to v2
  meshwork split order --clear         calls go to all versions again

A version is what VERSION in \"meshwork instances\" shows.";

/// `meshwork policy`.
#[derive(Args, Clone, Debug)]
#[command(after_help = POLICY_HELP)]
pub struct PolicyArgs {
    /// The command.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What is wanted of policies.
#[derive(Subcommand, Clone, Debug)]
pub enum PolicyCommand {
    /// Show a service's policy, defaults included
    Get(PolicyGetArgs),
    /// List the values that are set, for all services
    List(PolicyListArgs),
    /// Change a service's policy
    Set(PolicySetArgs),
    /// Remove a service's policy: the defaults apply again
    Clear(PolicyClearArgs),
}

impl PolicyCommand {
    /// The registries to ask, and how to print the answer.
    pub fn source(&self) -> &SourceArgs {
        match self {
            Self::Get(args) => &args.source,
            Self::List(args) => &args.source,
            Self::Set(args) => &args.source,
            Self::Clear(args) => &args.source,
        }
    }
}

/// `meshwork policy get`.
#[derive(Args, Clone, Debug)]
#[command(after_help = GET_HELP)]
pub struct PolicyGetArgs {
    /// The service's name
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork policy list`.
#[derive(Args, Clone, Debug)]
#[command(after_help = LIST_HELP)]
pub struct PolicyListArgs {
    /// The registries to ask, and how to print the answer.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork policy set`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SET_HELP, override_usage = "meshwork policy set <SERVICE> [OPTIONS]")]
pub struct PolicySetArgs {
    /// The service's name; it need not be registered yet
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// What changes.
    #[command(flatten)]
    pub change: PolicyChange,
    /// The registries to change, and how to print the new policy.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `meshwork policy clear`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CLEAR_HELP)]
pub struct PolicyClearArgs {
    /// The service's name
    #[arg(value_parser = parse_service)]
    pub service: String,
    /// The registries to change, and how to print the new policy.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// What of a policy changes.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(mut_args(hyphen_values))]
pub struct PolicyChange {
    /// Start from the policy in this file (protobuf JSON; - is stdin) instead of the current one
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The longest wait for the beginning of an answer, all attempts together, 1ms-1h
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::TIMEOUT)))]
    pub timeout: Option<Setting<Duration>>,
    /// The most attempts of one call, hedges included, 1-10
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number_in(limits::MAX_ATTEMPTS)))]
    pub max_attempts: Option<Setting<u32>>,
    /// Retries and hedges that a client may send, in percent of its calls, 0-100
    #[arg(long, value_name = "PERCENT", value_parser = Setting::of(number_in(limits::PERCENT)))]
    pub budget_percent: Option<Setting<u32>>,
    /// Retries and hedges per second that are allowed in addition, 0-1000
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number_in(limits::BUDGET_MIN_PER_SECOND)))]
    pub budget_min_per_second: Option<Setting<u32>>,
    /// The wait before the second attempt, 1ms-1m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub backoff_min: Option<Setting<Duration>>,
    /// The longest wait before an attempt, up to 1m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub backoff_max: Option<Setting<Duration>>,
    /// Whether a slow call without side effects is sent to a second instance as well
    #[arg(long, value_name = "on|off", value_parser = Setting::of(switch))]
    pub hedging: Option<Setting<bool>>,
    /// The shortest time after which a call counts as slow, 1ms-1m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub hedging_min_delay: Option<Setting<Duration>>,
    /// Failures in a row after which an instance is ejected, 1-1000
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number_in(limits::CONSECUTIVE_FAILURES)))]
    pub consecutive_failures: Option<Setting<u32>>,
    /// The length of the first ejection, 100ms-1h
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::EJECTION_TIME)))]
    pub ejection_base_time: Option<Setting<Duration>>,
    /// The length of the longest ejection, up to 1h
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::EJECTION_TIME)))]
    pub ejection_max_time: Option<Setting<Duration>>,
    /// The most instances that may be ejected at a time, in percent, 0-100; 0: never eject
    #[arg(long, value_name = "PERCENT", value_parser = Setting::of(number_in(limits::PERCENT)))]
    pub max_ejected_percent: Option<Setting<u32>>,
    /// Whether calls stay in the client's zone while that zone has enough capacity
    #[arg(long, value_name = "on|off", value_parser = Setting::of(switch))]
    pub same_zone_first: Option<Setting<bool>>,
}

/// `meshwork split`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SPLIT_HELP, group = ArgGroup::new("split").args(["shares", "clear"]).required(true))]
#[command(override_usage = "meshwork split [OPTIONS] <SERVICE> <VERSION=SHARE...|--clear>")]
pub struct SplitArgs {
    /// The service's name
    #[arg(value_parser = parse_first)]
    pub service: String,
    /// The share of a version, 0-1000, relative to the others; a version that is not named gets no calls while a named one has
    /// instances
    #[arg(value_name = "VERSION=SHARE", value_parser = parse_share)]
    pub shares: Vec<(String, u32)>,
    /// End the split: calls go to all versions again
    #[arg(long)]
    pub clear: bool,
    /// The registries to change, and how to print the new policy.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// What a flag says about a value of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// The default holds again.
    Default,
    /// This holds.
    To(T),
}

impl<T> Setting<T> {
    fn of<E: Display>(parse: impl Fn(&str) -> Result<T, E> + Clone) -> impl Fn(&str) -> Result<Self, String> + Clone {
        move |text| match text {
            "default" => Ok(Self::Default),
            text => parse(text).map(Self::To).map_err(|problem| format!("{problem}, or the word default")),
        }
    }
}

/// A flag reads also a value such as `-1s`, and says its range, instead of taking the value for an unknown flag.
fn hyphen_values(arg: Arg) -> Arg {
    if arg.get_long().is_some() { arg.allow_hyphen_values(true) } else { arg }
}

/// Reads the name of a service where a share is often given first.
fn parse_first(text: &str) -> Result<String, String> {
    parse_service(text).map_err(|problem| format!("{problem}; the service comes first"))
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off"),
    }
}

fn parse_share(text: &str) -> Result<(String, u32), &'static str> {
    let problem = "must be VERSION=SHARE, such as v1=95, with a share of 0-1000";
    // A version may hold a `=`, a share does not.
    let (version, share) = text.rsplit_once('=').ok_or(problem)?;
    if version.is_empty() || check_text(version).is_err() {
        return Err("a version has 1-128 visible characters");
    }
    let share = share.parse().ok().filter(|share| limits::VERSION_WEIGHT.contains(share)).ok_or(problem)?;
    Ok((version.to_owned(), share))
}
