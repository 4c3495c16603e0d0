//! The command line: which benchmark, how often, and where the report goes.
//!
//! A benchmark is a module with its `Args` and a `run` that returns an [`RunOutcome`]; everything around it is done here, once.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use meshwork_harness::{report::RunOutcome, run::reported};

use crate::{deploy, echo, load, query, recover, rpc, saga, tail, tls};

/// Meshwork's benchmarks. Each prints a table and writes a report with the machine, every round and the figures.
#[derive(Debug, Parser)]
#[command(
    name = "meshwork-bench",
    version,
    after_help = "\
Exit codes: 0 the figures stand; 1 something failed under load, so there are no figures; 2 the benchmark could not run."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Where the report goes, as NAME.json; databases of the run are kept there meanwhile, because a folder in memory
    /// would make durable writes look free
    #[arg(long, global = true, default_value = "target/bench", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Orders per second from CreateOrder to a terminal state seen on one watch stream
    Saga(saga::Args),
    /// How long orders wait for a customer process that was killed, and whether any is lost
    Recover(recover::Args),
    /// Reads per second and the lag of the views, with 1, 2 and 3 query instances, while orders come in
    Query(query::Args),
    /// What a call costs, against the client of an earlier commit, tonic's own channels and proxies
    Rpc(rpc::Args),
    /// What one bad endpoint of eleven does to the calls of a service (Finagle's experiment)
    Tail(tail::Args),
    /// How many processes can be replaced each second without a failed call
    Deploy(deploy::Args),
    /// What mutual TLS costs, and whether certificates and modes change without a failed call
    Tls(tls::Args),
    /// The echo that others call
    #[command(hide = true)]
    Echo(Box<echo::Args>),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Saga(_) => "saga",
            Self::Recover(_) => "recover",
            Self::Query(_) => "query",
            Self::Rpc(_) => "rpc",
            Self::Tail(_) => "tail",
            Self::Deploy(_) => "deploy",
            Self::Tls(_) => "tls",
            Self::Echo(_) => "echo",
        }
    }
}

/// Why a benchmark could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The saga.
    #[error(transparent)]
    Saga(#[from] saga::Error),
    /// A shop of processes, or its load.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// The calls under test.
    #[error(transparent)]
    Rpc(#[from] rpc::Error),
    /// The deployments.
    #[error(transparent)]
    Deploy(#[from] deploy::Error),
    /// The experiment.
    #[error(transparent)]
    Tail(#[from] tail::Error),
    /// Mutual TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Runs the benchmark and reports it.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    if let Command::Echo(args) = &cli.command {
        // It drains on SIGTERM.
        return served(args.serve().await);
    }
    reported(cli.command.name(), &cli.common.out, async |scratch: &Path| measure(&cli.command, scratch).await).await
}

fn served(served: Result<(), meshwork_process::Failure>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(command: &Command, scratch: &Path) -> Result<RunOutcome, Error> {
    Ok(match command {
        Command::Saga(args) => saga::run(args, scratch).await?,
        Command::Recover(args) => recover::run(args, scratch).await?,
        Command::Query(args) => query::run(args, scratch).await?,
        Command::Rpc(args) => rpc::run(args, scratch).await?,
        Command::Tail(args) => tail::run(args).await?,
        Command::Deploy(args) => deploy::run(args).await?,
        Command::Tls(args) => tls::run(args, scratch).await?,
        Command::Echo(_) => unreachable!("it measures nothing: see `run`"),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_in_the_help_is_accepted() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().expect("examples").to_string();
            let examples: Vec<_> = help.lines().filter_map(|line| line.split_once("cargo bench-mesh ")).collect();
            assert!(!examples.is_empty(), "{}", command.get_name());
            for (_, example) in examples {
                // What it is for stands behind it, apart.
                let example = example.split("   ").next().expect("there is a first part");
                let args = example.split_whitespace().map(|arg| if arg == "''" { "" } else { arg });
                let parsed = Cli::try_parse_from(["meshwork-bench"].into_iter().chain(args));
                assert_eq!(parsed.map(|cli| cli.command.name()).ok(), Some(command.get_name()), "{example}");
            }
        }
    }

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from(["meshwork-bench"].iter().chain(args)).unwrap()
    }

    #[test]
    fn every_benchmark_has_the_documented_defaults() {
        let Cli { command: Command::Saga(saga), common } = parse(&["saga"]) else { panic!("not saga") };
        assert_eq!((saga.seconds, saga.in_flight, saga.rounds), (20, 64, 3));
        assert_eq!(common.out, PathBuf::from("target/bench"));
        let Cli { command: Command::Recover(recover), .. } = parse(&["recover"]) else { panic!("not recover") };
        assert_eq!(recover.rounds, 5);
        let Cli { command: Command::Query(query), .. } = parse(&["query"]) else { panic!("not query") };
        assert_eq!((query.seconds, query.readers, query.rounds), (10, 32, 3));
        let Cli { command: Command::Rpc(rpc), .. } = parse(&["rpc"]) else { panic!("not rpc") };
        assert_eq!((rpc.slices, rpc.slice_ms, rpc.only), (15, 1000, None));
        let Cli { command: Command::Tls(tls), .. } = parse(&["tls"]) else { panic!("not tls") };
        assert_eq!((tls.slices, tls.slice_ms, tls.handshakes, tls.only), (15, 1000, 2000, None));
    }

    #[test]
    fn a_load_of_nothing_is_refused() {
        let saga = ["--seconds=0", "--in-flight=0", "--rounds=0", "--in-flight=100000"].map(|flag| ("saga", flag));
        let query = ["--seconds=0", "--readers=0", "--rounds=0"].map(|flag| ("query", flag));
        for (command, bad) in saga.into_iter().chain(query).chain([("recover", "--rounds=0")]) {
            assert!(Cli::try_parse_from(["meshwork-bench", command, bad]).is_err(), "{command} {bad}");
        }
    }
}
