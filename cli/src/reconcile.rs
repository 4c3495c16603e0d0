//! `meshwork reconcile`: after the store of a service was restored, brings back the readers of events that it has lost.
//!
//! Each reader knows what to undo, and does it (meshwork.event.v1.OperationsService); here they are found, asked one after
//! the other, and what they say is put together.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use meshwork::contract::meshwork::{
    event::v1::{
        Fork, ReconcileSubscriptionRequest, ReconcileSubscriptionResponse,
        operations_service_client::OperationsServiceClient,
    },
    registry::v1::Instance,
};
use meshwork_process::to_stderr;
use meshwork_registry::ProtobufJson;
use prost_types::Timestamp;
use tokio::time::timeout;
use tonic::Status;
use uuid::Uuid;

use crate::{
    args::ReconcileArgs,
    direct::{Direct, MAX_ASKED, Transport, said, subscriptions},
    directory::Directory,
    error::Error,
    table::{Align, Table, printable},
};

/// How long an instance may take to say what it reads.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long it may take to reconcile: a little more than a server allows a call.
const RECONCILE_LIMIT: Duration = Duration::from_secs(65);

/// An instance that reads the service's events.
struct Reader {
    service: String,
    instance_id: String,
    store_id: String,
    client: OperationsServiceClient<Transport>,
}

/// What became of one store that is read into.
struct Reconciled {
    service: String,
    store_id: String,
    result: Result<ReconcileSubscriptionResponse, String>,
}

/// `meshwork reconcile SERVICE`.
pub(crate) async fn run(args: ReconcileArgs) -> Result<(), Error> {
    let (readers, silent) = readers(&Directory::open(&args.source)?, &args.service).await?;
    for problem in &silent {
        to_stderr(format_args!("{}", printable(problem)));
    }
    let request = ReconcileSubscriptionRequest {
        source: args.service.clone(),
        validate_only: !args.yes,
        backup_time: args.backup_time,
    };
    let mut stores: BTreeMap<(String, String), Vec<Reader>> = BTreeMap::new();
    for reader in readers {
        stores.entry((reader.service.clone(), reader.store_id.clone())).or_default().push(reader);
    }
    if stores.is_empty() && silent.is_empty() {
        return Err(Error::NoReader(args.service));
    }
    let mut outcomes = Vec::new();
    for ((service, store_id), readers) in stores {
        let result = reconcile(readers, &request).await;
        outcomes.push(Reconciled { service, store_id, result });
    }
    let mut out = io::stdout().lock();
    if args.source.json {
        writeln!(out, "{}", json(&args, &outcomes))?;
    } else {
        write!(out, "{}", text(&args, &outcomes, silent.len()))?;
    }
    match failed(&outcomes, silent.len()) {
        0 => Ok(()),
        left => Err(Error::NotReconciled(left)),
    }
}

/// The readers of a service's events, and what is wrong with instances that may be readers, and do not say.
async fn readers(directory: &Directory, source: &str) -> Result<(Vec<Reader>, Vec<String>), Error> {
    let (mut instances, mut silent) = (Vec::new(), Vec::new());
    for service in directory.services().await?.into_iter().filter(|service| service.name != source) {
        let of_service = match directory.instances(&service.name).await {
            Ok(of_service) => of_service,
            // The registry has restarted meanwhile.
            Err(Error::UnknownService(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        if of_service.is_empty() {
            silent.push(format!("{} has no instance to ask whether it reads the events", service.name));
        }
        instances.extend(of_service);
    }
    let unasked =
        |registry| format!("the registry at {registry} did not answer: readers that only it knows are not asked");
    silent.extend(directory.left_out().into_iter().map(unasked));
    let ask = |instance: Instance| async move {
        let asked = async {
            let Direct { transport, origin } = Direct::to_instance(&instance, directory.security()).await?;
            let mut client = OperationsServiceClient::with_origin(transport, origin);
            Ok(subscriptions(&mut client).await?.map(|told| (client, told)))
        };
        timeout(ANSWER_LIMIT, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))
    };
    let asked: Vec<_> = instances.iter().map(|instance| ask(instance.clone())).collect();
    let told: Vec<_> = stream::iter(asked).buffered(MAX_ASKED).collect().await;
    let mut readers = Vec::new();
    for (instance, told) in instances.into_iter().zip(told) {
        let (service, instance_id) = (instance.service, instance.instance_id);
        match told {
            Ok(Some((client, told))) if told.subscriptions.iter().any(|reads| reads.source == source) => {
                readers.push(Reader { service, instance_id, store_id: told.store_id, client });
            }
            Ok(_) => {}
            Err(problem) => silent.push(format!("{service} {instance_id} cannot be asked: {problem}")),
        }
    }
    Ok((readers, silent))
}

/// One of the instances that share a store does the work. The others are asked as well, so that they read on at once.
async fn reconcile(
    readers: Vec<Reader>,
    request: &ReconcileSubscriptionRequest,
) -> Result<ReconcileSubscriptionResponse, String> {
    let mut first = None;
    for Reader { instance_id, mut client, .. } in readers {
        let answer = timeout(RECONCILE_LIMIT, client.reconcile_subscription(request.clone())).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("no answer within {} s", RECONCILE_LIMIT.as_secs())))
        });
        let answer = answer.map_err(|status| format!("{instance_id}: {}", said(&status)))?.into_inner();
        first.get_or_insert(answer);
        if request.validate_only {
            break;
        }
    }
    Ok(first.expect("a store has a reader"))
}

/// How many stores, and instances that were `silent`, are not known to be well.
fn failed(outcomes: &[Reconciled], silent: usize) -> usize {
    silent + outcomes.iter().filter(|outcome| outcome.result.is_err()).count()
}

fn text(args: &ReconcileArgs, outcomes: &[Reconciled], silent: usize) -> String {
    let mut text = String::new();
    let mut lost = false;
    for Reconciled { service, store_id, result } in outcomes {
        match result {
            Err(problem) => text += &format!("{service}, store {store_id}: {}\n\n", printable(problem)),
            Ok(told) if told.forks.is_empty() => {}
            Ok(told) => {
                lost = true;
                text += &format!("{service}, store {store_id}, has read events that {} has lost:\n", args.service);
                text += &table(&told.forks).to_string();
                for undone in &told.undone {
                    let tense = if args.yes { "undone" } else { "to be undone" };
                    text += &format!("{tense}: {} {}\n", undone.count, printable(&undone.what));
                }
                text.push('\n');
            }
        }
    }
    // What is wrong was said, and is no reason to say that all is well.
    if failed(outcomes, silent) > 0 && (args.yes || !lost) {
        return text;
    }
    let stores = outcomes.len();
    text += &match (lost, args.yes) {
        (false, _) => {
            format!("nothing to undo: no reader is ahead of {} ({})\n", args.service, counted(stores, "checked"))
        }
        (true, true) => {
            let stores = counted(stores, "continue");
            format!("done: {stores} from the last event in common with {}\n", args.service)
        }
        (true, false) => {
            format!("dry run: nothing was changed; to apply it: meshwork reconcile {} --yes\n", args.service)
        }
    };
    text
}

fn counted(stores: usize, what: &str) -> String {
    match (stores, what) {
        (1, "continue") => "1 store continues".to_owned(),
        (1, what) => format!("1 store {what}"),
        (stores, what) => format!("{stores} stores {what}"),
    }
}

fn table(forks: &[Fork]) -> Table<6> {
    let right = |title| (title, Align::Right);
    let left = |title| (title, Align::Left);
    let mut table = Table::new([
        right("PARTITION"),
        right("LAST READ"),
        left("ITS TIME"),
        right("LAST COMMON"),
        left("ITS TIME"),
        right("LOST"),
    ]);
    for fork in forks {
        table.row([
            fork.partition.to_string(),
            fork.read_position.to_string(),
            time(&fork.read_event_id),
            fork.common_position.to_string(),
            time(&fork.common_event_id),
            (fork.read_position - fork.common_position.min(fork.read_position)).to_string(),
        ]);
    }
    table
}

/// When an event was written, as its id says.
fn time(event_id: &str) -> String {
    let written = Uuid::try_parse(event_id).ok().and_then(|id| id.get_timestamp()).and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        Some(Timestamp { seconds: i64::try_from(seconds).ok()?, nanos: i32::try_from(nanos).ok()? })
    });
    written.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

fn json(args: &ReconcileArgs, outcomes: &[Reconciled]) -> serde_json::Value {
    let protobuf = ProtobufJson::new();
    let stores = outcomes.iter().map(|Reconciled { service, store_id, result }| match result {
        Ok(told) => {
            let told: serde_json::Value = serde_json::from_str(&protobuf.line(told)).expect("protobuf JSON is JSON");
            serde_json::json!({ "service": service, "storeId": store_id, "reconciled": told })
        }
        Err(problem) => serde_json::json!({ "service": service, "storeId": store_id, "problem": problem }),
    });
    let changed = args.yes && outcomes.iter().flat_map(|outcome| &outcome.result).any(|told| !told.forks.is_empty());
    serde_json::json!({ "source": args.service, "changed": changed, "stores": stores.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    type Results = Vec<Result<ReconcileSubscriptionResponse, String>>;

    fn asked(yes: bool, results: Results) -> (ReconcileArgs, Vec<Reconciled>) {
        let line = ["meshwork", "reconcile", "order", "--yes"];
        let cli = Cli::try_parse_from(&line[..if yes { 4 } else { 3 }]).expect("a command line");
        let Command::Reconcile(args) = cli.command else { panic!("another command") };
        let outcome = |result| Reconciled { service: "query".into(), store_id: "store".into(), result };
        (args, results.into_iter().map(outcome).collect())
    }

    fn told(yes: bool, results: Results, silent: usize) -> String {
        let (args, outcomes) = asked(yes, results);
        text(&args, &outcomes, silent)
    }

    fn well() -> Result<ReconcileSubscriptionResponse, String> {
        Ok(ReconcileSubscriptionResponse::default())
    }

    fn lost() -> Result<ReconcileSubscriptionResponse, String> {
        Ok(ReconcileSubscriptionResponse { forks: vec![Fork::default()], ..Default::default() })
    }

    #[test]
    fn json_says_changed_only_if_something_was() {
        for (yes, results, changed) in [
            (true, vec![well()], false),
            (true, vec![Err("silent".to_owned())], false),
            (false, vec![lost()], false),
            (true, vec![well(), lost()], true),
        ] {
            let (args, outcomes) = asked(yes, results);
            assert_eq!(json(&args, &outcomes)["changed"], changed, "{yes} {}", json(&args, &outcomes));
        }
    }

    #[test]
    fn all_is_well_is_said_only_if_every_reader_has_said_so() {
        const WELL: &str = "nothing to undo: no reader is ahead of order";
        let failed = || Err("Aborted: another".to_owned());
        for yes in [false, true] {
            assert!(told(yes, vec![well()], 0).contains(WELL));
            for (results, silent) in [(vec![], 1), (vec![well()], 1), (vec![failed()], 0), (vec![well(), failed()], 0)]
            {
                assert!(!told(yes, results, silent).contains(WELL));
            }
        }
        assert!(told(true, vec![lost()], 0).contains("done"));
        assert!(!told(true, vec![lost(), failed()], 0).contains("done"));
        assert!(told(false, vec![lost(), failed()], 0).contains("--yes"));
    }
}
