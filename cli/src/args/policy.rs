//! The flags of `meshwork policy` and `meshwork split`.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Arg, ArgGroup, Args, Subcommand};
use meshwork::policy::limits;
use meshwork_process::duration_in;

use super::source::SourceArgs;

const POLICY_HELP: &str = "\
Examples:
  meshwork policy get order
  meshwork policy set order --timeout 2s --max-attempts 2
  meshwork policy list --json | jq -r '.policies[].service'

Running clients obey a new policy at once, and keep it while the registry is unreachable.";

const GET_HELP: &str = "\
Examples:
  meshwork policy get order
  meshwork policy get order --json > order-policy.json

--json prints one Policy as protobuf JSON, as grpcurl does: only what is set, and the etag.";

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

Values that are not named stay as they are; with --file, which holds a Policy as protobuf JSON, they have their defaults. If
the policy was changed by somebody else in the meantime, or a value is not accepted (its field is named), nothing changes,
and it exits with code 1; with code 2 if the value is in FILE.";

const SPLIT_HELP: &str = "\
Examples:
  meshwork split order v1=95 v2=5      a canary: 5 % of the calls go to the instances of version v2
  meshwork split order v2=1            all calls go to v2
  meshwork split order --clear         versions make no difference again

Shares are relative to each other, 0-1000. Versions are those that instances were started with (--version).";

/// `meshwork policy`.
#[derive(Args, Clone, Debug)]
#[command(after_help = POLICY_HELP)]
pub struct PolicyArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What is wanted of policies.
#[derive(Subcommand, Clone, Debug)]
pub enum PolicyCommand {
    /// Show a service's policy, with the defaults of what is not set
    Get(PolicyGetArgs),
    /// List what is set, for all services
    List(PolicyListArgs),
    /// Change a service's policy
    Set(PolicySetArgs),
    /// Take a service's policy back: the defaults hold again
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
#[command(after_help = SET_HELP, override_usage = "meshwork policy set <SERVICE> [--VALUE <ITS VALUE>]... [OPTIONS]")]
pub struct PolicySetArgs {
    /// The service's name; it need not be registered yet
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
pub struct PolicyClearArgs {
    /// The service's name
    pub service: String,
    /// The registries to change, and how to print the new policy.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// What of a policy changes.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(mut_args(hyphen_values))]
pub struct PolicyChange {
    /// A policy to begin with instead of the service's own: a file of protobuf JSON; -: stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How long a call waits for its answer to begin, over all of its attempts, 1ms-60m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::TIMEOUT)))]
    pub timeout: Option<Setting<Duration>>,
    /// How often a call may be sent in total, hedges included, 1-10
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number(limits::MAX_ATTEMPTS)))]
    pub max_attempts: Option<Setting<u32>>,
    /// Further attempts of a client, in percent of its calls, 0-100
    #[arg(long, value_name = "PERCENT", value_parser = Setting::of(number(limits::PERCENT)))]
    pub budget_percent: Option<Setting<u32>>,
    /// Further attempts per second in addition to that, 0-1000
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number(limits::BUDGET_MIN_PER_SECOND)))]
    pub budget_min_per_second: Option<Setting<u32>>,
    /// The wait before the second attempt, 1ms-60s
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub backoff_min: Option<Setting<Duration>>,
    /// The longest wait before an attempt, up to 60s
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub backoff_max: Option<Setting<Duration>>,
    /// Whether a slow call without side effects is sent to a second instance as well
    #[arg(long, value_name = "on|off", value_parser = Setting::of(switch))]
    pub hedging: Option<Setting<bool>>,
    /// A call is slow after this time at least, 1ms-60s
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::BACKOFF)))]
    pub hedging_min_delay: Option<Setting<Duration>>,
    /// Failures in a row after which an instance is ejected, 1-1000
    #[arg(long, value_name = "COUNT", value_parser = Setting::of(number(limits::CONSECUTIVE_FAILURES)))]
    pub consecutive_failures: Option<Setting<u32>>,
    /// For how long an instance is ejected at first, 100ms-60m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::EJECTION_TIME)))]
    pub ejection_base_time: Option<Setting<Duration>>,
    /// For how long an instance is ejected at most, up to 60m
    #[arg(long, value_name = "DURATION", value_parser = Setting::of(duration_in(limits::EJECTION_TIME)))]
    pub ejection_max_time: Option<Setting<Duration>>,
    /// How many of the instances may be ejected at a time, 0-100; 0: none ever
    #[arg(long, value_name = "PERCENT", value_parser = Setting::of(number(limits::PERCENT)))]
    pub max_ejected_percent: Option<Setting<u32>>,
    /// Whether calls stay in the client's zone while it has the capacity
    #[arg(long, value_name = "on|off", value_parser = Setting::of(switch))]
    pub same_zone_first: Option<Setting<bool>>,
}

/// `meshwork split`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SPLIT_HELP, group = ArgGroup::new("split").args(["shares", "clear"]).required(true))]
pub struct SplitArgs {
    /// The service's name
    pub service: String,
    /// The share of a version; the others get no calls
    #[arg(value_name = "VERSION=SHARE", value_parser = parse_share)]
    pub shares: Vec<(String, u32)>,
    /// End the split: versions make no difference again
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

fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a number, {}-{}", range.start(), range.end()))
    }
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
    let (version, share) = text.rsplit_once('=').filter(|(version, _)| !version.is_empty()).ok_or(problem)?;
    let share = share.parse().ok().filter(|share| limits::VERSION_WEIGHT.contains(share)).ok_or(problem)?;
    Ok((version.to_owned(), share))
}
