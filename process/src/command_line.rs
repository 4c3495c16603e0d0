//! The command line of a process: read with its environment twins, answered with help, a version, or an error in one line.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind};

use crate::{
    environment::{Origins, Twins, without_twins},
    failure::EXIT_CODE_2,
    one_line::{one_line, to_stderr},
};

/// In the table of exit codes of an instance.
const EXIT_CODE_3: &str = "
  3         another process has registered with this instance's id and serves in its place: a supervisor should not start this one
            again at once (systemd: RestartPreventExitStatus=3)";

/// A command line that was understood.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) matches: T,
    /// Which flags have their value from a variable.
    pub(crate) origins: Origins,
    /// What was ignored in variables, each in one line.
    pub(crate) warnings: Vec<String>,
}

/// A command line that starts nothing: help, a version, or an error.
#[derive(Debug)]
pub(crate) enum Refused {
    Clap(clap::Error),
    /// A variable with a bad value.
    Variable(String),
}

impl fmt::Display for Refused {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clap(error) => f.write_str(&one_line(&error.to_string())),
            Self::Variable(problem) => f.write_str(problem),
        }
    }
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

/// The flags, or the code to exit with after all is said.
pub(crate) fn parse<A: clap::Parser>() -> Result<Parsed<A>, ExitCode> {
    let parsed = read(A::command(), env::args_os(), &|name: &OsStr| env::var_os(name));
    let parsed = parsed.and_then(|Parsed { matches, origins, warnings }| {
        Ok(Parsed { matches: A::from_arg_matches(&matches)?, origins, warnings })
    });
    if let Ok(parsed) = &parsed {
        // Not a line of the log: it may be off.
        parsed.warnings.iter().for_each(to_stderr);
    }
    parsed.map_err(Refused::tell)
}

impl Refused {
    /// Says it, and returns the code to exit with.
    fn tell(self) -> ExitCode {
        match self {
            Self::Clap(error) if !error.use_stderr() => printed(&error),
            // A command that is not there: the help says which ones are.
            Self::Clap(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(2)
            }
            refused @ (Self::Clap(_) | Self::Variable(_)) => {
                to_stderr(refused);
                ExitCode::from(2)
            }
        }
    }
}

/// Prints help or a version, and returns the code to exit with.
fn printed(help: &clap::Error) -> ExitCode {
    match help.print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            to_stderr(format_args!("error: cannot write the output: {error}"));
            ExitCode::FAILURE
        }
        // Whoever reads has had enough, as in `meshwork --help | head`.
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Reads a command line; `variable` is the environment.
pub(crate) fn read(
    command: Command,
    line: impl Iterator<Item = OsString>,
    variable: &impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Parsed<ArgMatches>, Refused> {
    let command = with_exit_codes(with_version(command));
    let line: Vec<OsString> = line.collect();
    let bare = without_twins(command.clone(), variable);
    let given = match bare.clone().try_get_matches_from(&line) {
        // Help names the variables, which the bare command has forgotten.
        Err(error) if is_help(&error) => Err(command.clone().try_get_matches_from(&line).err().unwrap_or(error)),
        given => given,
    }?;
    let mut twins = Twins::default();
    let whole = twins.of(bare, &command, &given, variable).map_err(Refused::Variable)?;
    let Twins { origins, warnings } = twins;
    Ok(Parsed { matches: whole.try_get_matches_from(&line)?, origins, warnings })
}

fn is_help(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

/// Whether this is a program that listens until it is stopped.
pub(crate) fn is_server(command: &Command) -> bool {
    has(command, "listen")
}

fn has(command: &Command, flag: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(flag))
}

/// The help of a server says what its exit codes mean.
fn with_exit_codes(command: Command) -> Command {
    if !is_server(&command) {
        return command;
    }
    let help = command.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
    let replaced = if has(&command, "instance-id") { EXIT_CODE_3 } else { "" };
    command.after_help(format!(
        "{help}\
Exit codes:
  0         stopped by SIGINT or SIGTERM
  1         ended by an error
  2         {EXIT_CODE_2}; nothing was served{replaced}
  130, 143  stopped at once by a second SIGINT or SIGTERM"
    ))
}

/// `-V` prints the command's own version, and so does `--version` unless the command means something else by it.
fn with_version(command: Command) -> Command {
    let command = command.disable_version_flag(true);
    if command.get_version().is_none() {
        return command;
    }
    let taken = has(&command, "version");
    let version = Arg::new("program-version").short('V').action(ArgAction::Version).help("Print the program's version");
    command.arg(if taken { version } else { version.long("version") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(command: Command, line: &[&str]) -> Refused {
        read(command, line.iter().map(OsString::from), &|_: &OsStr| None).expect_err("nothing is started")
    }

    fn says(command: Command, line: &[&str]) -> String {
        match refused(command, line) {
            Refused::Clap(error) => error.to_string(),
            Refused::Variable(problem) => problem,
        }
    }

    #[test]
    fn a_program_prints_its_own_version_and_never_another() {
        let own = || Command::new("shop").version("7.1.0");
        assert_eq!(says(own(), &["shop", "-V"]), "shop 7.1.0\n");
        assert_eq!(says(own(), &["shop", "--version"]), "shop 7.1.0\n");
        let taken = || own().arg(Arg::new("version").long("version"));
        assert_eq!(says(taken(), &["shop", "-V"]), "shop 7.1.0\n");
        assert!(read(taken(), ["shop", "--version", "2"].map(OsString::from).into_iter(), &|_: &OsStr| None).is_ok());
        assert!(says(Command::new("shop"), &["shop", "-V"]).contains("unexpected argument '-V'"));
    }

    #[test]
    fn a_tip_is_told_apart_from_the_error() {
        let command = Command::new("shop").arg(Arg::new("replicas").long("replicas"));
        let line = refused(command, &["shop", "--repicas", "2"]).to_string();
        assert_eq!(line, "error: unexpected argument '--repicas' found; tip: a similar argument exists: '--replicas'");
    }

    #[test]
    fn a_missing_command_is_answered_with_the_help_that_names_variables() {
        let command = || {
            let run = Command::new("run").arg(Arg::new("zone").long("zone").env("SHOP_ZONE"));
            Command::new("shop").subcommand_required(true).arg_required_else_help(true).subcommand(run)
        };
        assert!(says(command(), &["shop"]).contains("Usage: shop"));
        assert!(says(command(), &["shop", "run", "--help"]).contains("SHOP_ZONE"));
    }
}
