//! One client, which makes the calls of a slice for each line of stdin, answers with a line on stdout, and ends with its stdin.
//!
//! Between the slices it only keeps its connections. It uses what every version of the library has, and nothing else.

mod drive;
mod peer;

use std::{
    error::Error,
    io::{self, BufRead as _, Write as _},
};

use clap::Parser;
use meshwork_caller::Load;
use tokio::runtime::Runtime;

use peer::{Peer, Wanted};

/// Calls the benchmarks' echo on request
#[derive(Debug, Parser)]
#[command(after_help = "\
Each line of stdin is a slice of calls, and is answered on stdout when all have ended:
  {\"in_flight\":16,\"time\":{\"secs\":1,\"nanos\":0}}")]
struct Cli {
    #[command(subcommand)]
    wanted: Wanted,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Cli { wanted } = Cli::parse();
    let runtime = Runtime::new()?;
    let peer = {
        // Channels start tasks.
        let _guard = runtime.enter();
        Peer::new(&wanted)?
    };
    for line in io::stdin().lock().lines() {
        let load: Load = serde_json::from_str(&line?)?;
        let slice = runtime.block_on(peer.drive(load));
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&slice)?)?;
        stdout.flush()?;
    }
    Ok(())
}
