//! The environment twins of flags, read in one way for every binary.
//!
//! clap reads a variable as it is. Here an empty one is unset, blanks and newlines around a value are dropped (secrets are
//! mounted with a newline), a switch takes the usual words, and an error names the variable. A flag on the command line
//! wins over its twin, which is then not even looked at.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::Resettable, error::ErrorKind, parser::ValueSource};

use crate::{
    one_line::one_line,
    telemetry::{LEVELS_AND, readable_filter},
};

/// Names a value in the command that tries it; replaced by the name of its variable.
const TRIED: &str = "value";

/// Many programs read it, each with its own syntax: this one ignores what it cannot read, and starts all the same.
const LOG_VARIABLE: &str = "RUST_LOG";

/// Maps flags, such as `--listen`, to the variables that their values come from.
pub(crate) type Origins = BTreeMap<String, String>;

/// A command that asks nothing of the environment by itself. What a variable says is not missing.
pub(crate) fn without_twins(command: Command, variable: &impl Fn(&OsStr) -> Option<OsString>) -> Command {
    let command = command.mut_args(|arg| match value_of(&arg, variable) {
        Some(_) => arg.env(Resettable::Reset).required(false),
        None => arg.env(Resettable::Reset),
    });
    command.mut_subcommands(|subcommand| without_twins(subcommand, variable))
}

/// What the variables of a command line contain.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    pub(crate) origins: Origins,
    /// What was ignored, each in one line.
    pub(crate) warnings: Vec<String>,
}

impl Twins {
    /// The command with the values of the variables as defaults, for what `given` does not have from the command line.
    ///
    /// # Errors
    /// A variable with a value that its flag would not take, in one line.
    pub(crate) fn of(
        &mut self,
        mut command: Command,
        described: &Command,
        given: &ArgMatches,
        variable: &impl Fn(&OsStr) -> Option<OsString>,
    ) -> Result<Command, String> {
        for arg in described.get_arguments() {
            let Some((name, mut value)) = value_of(arg, variable) else { continue };
            if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
                continue;
            }
            if name == LOG_VARIABLE {
                value = self.readable_filter(&value);
                if value.is_empty() {
                    continue;
                }
            }
            let value = accepted(arg, &name, value)?;
            command = command.mut_arg(arg.get_id(), |arg| arg.default_value(value).required(false));
            if let Some(long) = arg.get_long() {
                self.origins.insert(format!("--{long}"), name);
            }
        }
        let Some((name, given)) = given.subcommand() else { return Ok(command) };
        let Some(described) = described.find_subcommand(name) else { return Ok(command) };
        let mut problem = None;
        let command = command.mut_subcommand(name, |subcommand| {
            self.of(subcommand.clone(), described, given, variable).unwrap_or_else(|error| {
                problem = Some(error);
                subcommand
            })
        });
        problem.map_or(Ok(command), Err)
    }

    /// What this program can read of [`LOG_VARIABLE`].
    fn readable_filter(&mut self, value: &OsStr) -> OsString {
        let (readable, ignored) = readable_filter(&value.to_string_lossy());
        let warning = |directive: &String| {
            format!("warning: {LOG_VARIABLE}: {directive:?} is not a level and is ignored; levels are {LEVELS_AND}")
        };
        self.warnings.extend(ignored.iter().map(warning));
        readable.into()
    }
}

/// The variable of a flag and what it says, trimmed. `None`: it says nothing.
fn value_of(arg: &Arg, variable: &impl Fn(&OsStr) -> Option<OsString>) -> Option<(String, OsString)> {
    let name = arg.get_env()?;
    let value = variable(name)?;
    let trimmed = match arg.get_value_delimiter() {
        Some(delimiter) if delimiter.is_ascii() => {
            let mut separator = [0];
            delimiter.encode_utf8(&mut separator);
            let entries = value.as_bytes().split(|byte| *byte == separator[0]).map(<[u8]>::trim_ascii);
            entries.filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join(&separator[..])
        }
        Some(_) | None => value.as_bytes().trim_ascii().to_vec(),
    };
    (!trimmed.is_empty()).then(|| (name.to_string_lossy().into_owned(), OsString::from_vec(trimmed)))
}

/// The value as clap takes it for the flag, once it is known to be one.
fn accepted(arg: &Arg, name: &str, value: OsString) -> Result<OsString, String> {
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        let text = value.to_string_lossy().to_ascii_lowercase();
        return match text.as_str() {
            "1" | "true" | "yes" | "on" => Ok("true".into()),
            "0" | "false" | "no" | "off" => Ok("false".into()),
            _ => Err(format!(
                "error: invalid value '{text}' for {name}: must be 1, true, yes or on, or 0, false, no or off"
            )),
        };
    }
    let mut tried = Arg::new(TRIED).long(TRIED).value_parser(arg.get_value_parser().clone());
    if let Some(delimiter) = arg.get_value_delimiter() {
        tried = tried.value_delimiter(delimiter).action(ArgAction::Append);
    }
    let mut line = OsString::from(format!("--{TRIED}="));
    line.push(&value);
    match Command::new(TRIED).no_binary_name(true).arg(tried).try_get_matches_from([line]) {
        Ok(_) => Ok(value),
        Err(error) if error.kind() == ErrorKind::InvalidUtf8 => {
            Err(format!("error: {name}{}: is not valid UTF-8", for_flag(arg)))
        }
        // The value itself is free to hold these words: the flag is named before the problem, once.
        Err(error) => Err(one_line(&error.to_string()).replacen(
            &format!("for '--{TRIED} <{TRIED}>'"),
            &format!("for {name}{}", for_flag(arg)),
            1,
        )),
    }
}

fn for_flag(arg: &Arg) -> String {
    arg.get_long().map_or_else(String::new, |long| format!(" (for --{long})"))
}
