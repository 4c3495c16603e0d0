//! pgbench's single-row inserts: what the server, on this disk, does for a program that commits one row at a time.
//!
//! The peer of an order on the same server, which is three such commits and a folded view.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use meshwork_fixture::Server;
use tokio::task::spawn_blocking;

/// The database that every server has.
const DATABASE: &str = "postgres";
/// A key and a row of about an order's size.
const TABLE: &str =
    "drop table if exists pgbench_row; create table pgbench_row (id bigserial primary key, body text not null)";
/// One insert, and so one transaction.
const SCRIPT: &str = "insert into pgbench_row (body) values (repeat('x', 200));\n";

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The script cannot be written, or the program cannot be started.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It failed, or its number was not found.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// A table to insert into, and the script that does.
pub(super) struct Inserts<'a> {
    server: &'a Server,
    script: PathBuf,
}

impl<'a> Inserts<'a> {
    /// Makes the table anew. The script is kept in `folder`, where the server's user must be able to read.
    pub(super) async fn prepare(server: &'a Server, folder: &Path) -> Result<Self, Error> {
        let script = folder.join("insert.sql");
        fs::write(&script, SCRIPT).map_err(|source| Error::Run { program: "pgbench", source })?;
        let mut command = server.program("psql");
        command.args(["--quiet", "--command", TABLE, &server.url(DATABASE)]);
        run("psql", command).await?;
        Ok(Self { server, script })
    }

    /// Transactions per second of this many clients.
    pub(super) async fn per_s(&self, clients: u32, seconds: u64) -> Result<f64, Error> {
        let mut command = self.server.program("pgbench");
        command.args(["--no-vacuum", "--protocol=prepared"]);
        command.args([format!("--client={clients}"), format!("--time={seconds}")]);
        command.arg("--file").arg(&self.script).arg(self.server.url(DATABASE));
        let said = run("pgbench", command).await?;
        tps(&said).ok_or(Error::Failed { program: "pgbench", said })
    }
}

/// The output of a program, awaited on its own thread.
async fn run(program: &'static str, mut command: Command) -> Result<String, Error> {
    let output = spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    let output = output.expect("it does not panic, and the runtime lives on");
    let output = output.map_err(|source| Error::Run { program, source })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(Error::Failed { program, said: text(&output.stderr) })
    }
}

/// The number in pgbench's line `tps = 5170.402374 (without initial connection time)`.
fn tps(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("tps = "))?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_in_what_pgbench_says() {
        let said = "transaction type: insert.sql\nnumber of failed transactions: 0 (0.000%)\nlatency average = 0.193 ms\n\
                    initial connection time = 2.271 ms\ntps = 5170.402374 (without initial connection time)";
        assert_eq!(tps(said), Some(5_170.402_374));
        assert_eq!(tps("pgbench: error: connection refused"), None);
    }
}
