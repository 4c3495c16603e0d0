//! `meshwork watch`: lists the instances, and then shows changes as they happen.
//!
//! It reconnects by itself and goes on where it was; what did not change meanwhile is not shown again.

mod changes;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use console::{Alignment, pad_str, style};
use meshwork::contract::meshwork::registry::v1::{
    Instance, ResumePoint, WatchRequest, WatchResponse, watch_response::Event,
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    args::WatchArgs,
    directory::{Directory, or_dash, status_name},
    error::Error,
    table::{ID_WIDTH, Output, printable},
};
use changes::{Change, Known};

/// How long to wait before the next attempt to reach a registry that is gone: short enough for a person who watches.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Shows changes until `shutdown`.
pub(crate) async fn run(args: WatchArgs, shutdown: CancellationToken) -> Result<(), Error> {
    let registry = &args.source.registry;
    let mesh = args.source.mesh()?;
    let watch = Watch {
        directory: Directory::new(&mesh, registry),
        services: args.service.into_iter().collect(),
        printer: if args.source.json { Printer::Json(ProtobufJson::new()) } else { Printer::lines() },
        resume_from: None,
    };
    // Whatever is being awaited when the signal comes holds nothing that would be lost.
    shutdown.run_until_cancelled(watch.run()).await.unwrap_or(Ok(()))
}

struct Watch {
    directory: Directory,
    services: Vec<String>,
    printer: Printer,
    /// The last point that was shown.
    resume_from: Option<ResumePoint>,
}

impl Watch {
    /// Ends only with an error: if no registry answers at the start, or the registry does not accept the watch.
    async fn run(mut self) -> Result<(), Error> {
        self.printer.start()?;
        let registry = self.directory.addresses();
        loop {
            let problem = match self.follow().await {
                Ok(status) => status.message().to_owned(),
                Err(Error::NoRegistry { problem, .. }) if self.resume_from.is_some() => problem,
                Err(Error::Answered { status, .. }) if self.resume_from.is_some() => status.message().to_owned(),
                Err(error) => return Err(error),
            };
            to_stderr(format_args!("lost the registry at {registry} ({}): trying again", printable(&problem)));
            // In case it accepts connections only to close them.
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    /// Follows one stream to its end.
    async fn follow(&mut self) -> Result<Status, Error> {
        let request = WatchRequest { services: self.services.clone(), resume_from: self.resume_from.clone() };
        let mut client = self.directory.client();
        let mut stream = self.directory.answer("watch", client.watch(request)).await?;
        loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    let at = ResumePoint { epoch: response.epoch.clone(), revision: response.revision };
                    if self.resume_from.replace(at).is_none() {
                        warn_of_unknown(&response);
                    }
                    self.printer.show(response)?;
                }
                Ok(None) => return Ok(Status::unavailable("the stream has ended")),
                Err(status) => return Ok(status),
            }
        }
    }
}

/// Warns of services that no instance has registered yet: one may still come, or the name may be misspelled.
fn warn_of_unknown(first: &WatchResponse) {
    let Some(Event::Snapshot(snapshot)) = &first.event else { return };
    for service in snapshot.services.iter().filter(|service| !service.known) {
        to_stderr(format_args!("the registry knows no service {:?} yet: waiting for it", service.service));
    }
}

/// How changes are shown.
enum Printer {
    /// Each response as it is.
    Json(ProtobufJson),
    /// A line for each change.
    Lines(Known),
}

impl Printer {
    fn lines() -> Self {
        Self::Lines(Known::default())
    }

    /// On a terminal, says what the columns are; a pipe gets only lines of one kind.
    fn start(&self) -> Result<(), Error> {
        if matches!(self, Self::Lines(_)) && io::stdout().is_terminal() {
            let header =
                columns(["TIME", "", "SERVICE", "INSTANCE", "ADDRESS", "STATUS", "ZONE VERSION"], Output::Terminal);
            writeln!(io::stdout(), "{}", style(header).bold())?;
        }
        Ok(())
    }

    fn show(&mut self, response: WatchResponse) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        match self {
            Self::Json(json) => match &response.event {
                Some(Event::Snapshot(_) | Event::Change(_)) => writeln!(out, "{}", json.line(&response))?,
                Some(Event::Progress(_)) | None => {}
            },
            Self::Lines(known) => {
                for change in known.apply(response) {
                    writeln!(out, "{}", line(&change, SystemTime::now(), Output::stdout()))?;
                }
            }
        }
        Ok(out.flush()?)
    }
}

/// A change as a line, on a terminal of at most 100 columns.
fn line(change: &Change, now: SystemTime, output: Output) -> String {
    let (mark, instance) = match change {
        Change::Joined(instance) => (style("+").green(), instance),
        Change::Changed(instance) => (style("~").yellow(), instance),
        Change::Left(instance) => (style("-").red(), instance),
    };
    let Instance { service, instance_id, address, zone, version, .. } = instance;
    let place = format!("{} {}", or_dash(zone), or_dash(version));
    let status = match change {
        Change::Left(_) => style("GONE").red(),
        Change::Joined(_) | Change::Changed(_) => status_name(instance.status()),
    };
    let (mark, status) = (mark.to_string(), status.to_string());
    let (service, id, address) = (printable(service), printable(instance_id), printable(address));
    columns([&clock(now), &mark, &service, &id, &address, &status, &place], output)
}

fn columns(cells: [&str; 7], output: Output) -> String {
    const WIDTHS: [usize; 7] = [9, 1, 12, ID_WIDTH, 21, 11, 18];
    // Coloured words are short, so that no colour is cut in two.
    let pad = |(text, room)| pad_str(&output.fit(text, room), room, Alignment::Left, None).into_owned();
    let line = cells.into_iter().zip(WIDTHS).map(pad).collect::<Vec<_>>().join(" ");
    line.trim_end().to_owned()
}

/// The time of day, UTC.
fn clock(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use meshwork::contract::meshwork::registry::v1::InstanceStatus;

    use super::*;

    #[test]
    fn a_change_is_one_line_of_at_most_100_columns() {
        let long = Instance {
            service: "s".repeat(63),
            instance_id: "i".repeat(128),
            address: "a".repeat(255),
            zone: "z".repeat(128),
            version: "1.0\n".into(),
            status: InstanceStatus::NotServing.into(),
            ..Instance::default()
        };
        let at = UNIX_EPOCH + Duration::from_secs(86400 + 3661);
        let piped = line(&Change::Joined(long.clone()), at, Output::Pipe);
        assert!(piped.contains(&long.instance_id) && piped.contains(&long.address), "a pipe gets all of it");
        let line = line(&Change::Joined(long), at, Output::Terminal);
        let line = console::strip_ansi_codes(&line);
        assert!(line.chars().count() <= crate::table::MAX_WIDTH, "{line}");
        assert!(line.starts_with("01:01:01Z + s"), "{line}");
        assert!(line.contains("NOT_SERVING") && !line.contains('\n'), "{line}");
    }
}
