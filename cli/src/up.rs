//! `meshwork up`: the whole mesh in this process, until a signal drains it.

use std::{
    fmt,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
};

use meshwork_events::store;
use meshwork_process::{
    STOPPING,
    telemetry::{metrics_address, say},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::{
    args::UpArgs,
    error::Error,
    fleet::{self, Databases, Fleet, InvalidPostgresUrl, Views},
    table::{Align, Output, Table},
};

/// What a person exports for commands that join a mesh.
const CERTIFICATE_OF_COMMANDS: [&str; 2] = ["MESHWORK_TLS_DIR", "MESHWORK_TLS_MODE"];

/// Runs a mesh until `shutdown`, then drains it.
pub(crate) async fn run(args: UpArgs, shutdown: CancellationToken) -> Result<(), Error> {
    let format = args.telemetry.log.log;
    if !args.tls && CERTIFICATE_OF_COMMANDS.iter().any(|name| std::env::var_os(name).is_some_and(|set| !set.is_empty()))
    {
        let [dir, mode] = CERTIFICATE_OF_COMMANDS;
        say(
            format,
            Level::WARN,
            format_args!(
                "{dir} and {mode} are for other commands: this mesh is in plain mode; --tls makes a strict one"
            ),
        );
    }
    let config = fleet::Config {
        base_port: args.base_port(),
        registry_addr: args.registry_addr,
        databases: databases(&args.database_url)?,
        replicas: args.replicas,
        tls: args.tls,
        ..fleet::Config::new(args.data_dir)
    };
    // A signal during the start drops what is there already: there are no callers yet to drain for.
    let Some(fleet) = shutdown.run_until_cancelled(Fleet::start(config)).await else {
        say(format, Level::INFO, "stopped before the mesh was ready");
        return Ok(());
    };
    let metrics = metrics_address();
    let fleet = fleet.map_err(|error| clash(&error, metrics).unwrap_or_else(|| error.into()))?;
    for moved in fleet.moved() {
        say(format, Level::WARN, moved);
    }
    let told = tell(&fleet, metrics, args.json);
    if told.is_ok() {
        shutdown.cancelled().await;
    }
    say(format, Level::INFO, STOPPING);
    fleet.stop().await;
    say(format, Level::INFO, "stopped");
    Ok(told?)
}

/// The metrics have the port that the registry is to have: they were there first, and the registry's flag is most often the default.
fn clash(error: &fleet::Error, metrics: Option<SocketAddr>) -> Option<Error> {
    let fleet::Error::Listen { address, source } = error else { return None };
    let metrics = metrics.filter(|metrics| metrics.port() == address.port())?;
    let taken = source.kind() == io::ErrorKind::AddrInUse;
    let problem =
        format!("is where the registry listens too (--registry-addr {address}): give one of them another port");
    taken.then(|| Error::flag("--admin-listen", metrics, problem))
}

/// Says that the mesh is ready, and how to use it.
fn tell(fleet: &Fleet, metrics: Option<SocketAddr>, json: bool) -> io::Result<()> {
    let instances = fleet.instances();
    let metrics = metrics.map(|address| format!("http://{address}/metrics"));
    let mut out = io::stdout().lock();
    if json {
        let instances = instances.iter().map(Place::from).collect();
        let tls_dir = fleet.operator_folder().map(|folder| folder.display().to_string());
        let ready = Ready { registry: fleet.registry_url(), metrics, tls_dir, instances };
        writeln!(out, "{}", serde_json::to_string(&ready)?)?;
    } else {
        write!(out, "{}", place_table(&instances, Output::stdout()))?;
        if let Some(metrics) = metrics {
            writeln!(out, "metrics: {metrics}")?;
        }
        let try_it = TryIt { instances: &instances, certificate: fleet.operator_folder() };
        writeln!(out, "\n{try_it}\nmesh is ready")?;
    }
    out.flush()
}

/// Reads `--database-url`. The value is not repeated whole: it may hold a password.
fn databases(url: &str) -> Result<Databases, Error> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let problem = match scheme {
        "sqlite" if rest.trim_matches('/').is_empty() => return Ok(Databases::Sqlite),
        "sqlite" => "up chooses the file names: give sqlite:// here, and the folder as --data-dir".into(),
        "postgres" | "postgresql" => match url.parse() {
            Ok(url) => return Ok(Databases::Postgres { url, views: Views::Private }),
            Err(error) => InvalidPostgresUrl::to_string(&error),
        },
        _ => "must be sqlite:// (one file per service, in --data-dir) or postgres://HOST/DATABASE".into(),
    };
    Err(Error::flag("--database-url", store::shown(url), problem))
}

/// What `--json` prints once the mesh is ready.
#[derive(Serialize)]
struct Ready {
    registry: String,
    /// Where Prometheus finds them; null: nowhere.
    metrics: Option<String>,
    /// The folder of the certificate to connect with; null: connections are in plain text.
    #[serde(rename = "tlsDir")]
    tls_dir: Option<String>,
    instances: Vec<Place>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    service: String,
    instance_id: String,
    address: String,
    /// Its database: a file, or `postgres:DATABASE`; null: in memory.
    store: Option<String>,
}

impl From<&fleet::Instance> for Place {
    fn from(instance: &fleet::Instance) -> Self {
        Self {
            service: instance.service.clone(),
            instance_id: instance.instance_id.clone(),
            address: instance.address.to_string(),
            store: instance.store.clone(),
        }
    }
}

fn place_table(instances: &[fleet::Instance], output: Output) -> Table<4> {
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("ADDRESS", Align::Left),
        ("STORE", Align::Left),
        ("INSTANCE", Align::Left),
    ])
    .on(output);
    for Place { service, instance_id, address, store } in instances.iter().map(Place::from) {
        table.row([service, address, store.unwrap_or_else(|| "memory".into()), output.id(&instance_id)]);
    }
    table
}

/// Lines that work as pasted into a shell: a customer, an order for it, and what the read side says.
struct TryIt<'a> {
    instances: &'a [fleet::Instance],
    /// The folder of the certificate to connect with.
    certificate: Option<&'a Path>,
}

impl fmt::Display for TryIt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |service: &str| self.instances.iter().find(|i| i.service == service).map(|i| i.address);
        let (Some(registry), Some(customer), Some(order), Some(query)) =
            (at("registry"), at("customer"), at("order"), at("query"))
        else {
            return Ok(());
        };
        let flags = match self.certificate {
            None => "-plaintext",
            Some(folder) => {
                let [bundle, certificate, key] =
                    ["ca.pem", "cert.pem", "key.pem"].map(|file| folder.join(file).display().to_string());
                writeln!(f, "Connections need a certificate; this is yours, also for other commands of meshwork:\n")?;
                writeln!(f, "  export MESHWORK_TLS_DIR={}", folder.display())?;
                writeln!(f, "  TLS=\"-cacert {bundle} -cert {certificate} -key {key}\"\n")?;
                "$TLS"
            }
        };
        write!(
            f,
            r#"Try it; grpcurl needs no proto files:

  grpcurl {flags} {customer} list
  grpcurl {flags} -d '{{"service":"order"}}' {registry} meshwork.registry.v1.RegistryService/ListInstances
  CUSTOMER=$(grpcurl {flags} -d '{{"name":"Ada","credit_limit":{{"currency_code":"USD","units":15}}}}' \
    {customer} shop.customer.v1.CustomerService/CreateCustomer |
    tee /dev/stderr | sed -n 's/.*"customerId": "\(.*\)".*/\1/p')
  grpcurl {flags} -d '{{"customer_id":"'$CUSTOMER'","total":{{"currency_code":"USD","units":12,"nanos":340000000}}}}' \
    {order} shop.order.v1.OrderService/CreateOrder
  grpcurl {flags} -d '{{"customer_id":"'$CUSTOMER'"}}' {query} shop.query.v1.QueryService/GetCustomerHistory
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use meshwork_process::Failure;

    use super::*;

    fn instance(service: &str, port: u16) -> fleet::Instance {
        fleet::Instance {
            service: service.into(),
            instance_id: format!("019ab3c4-0000-7000-8000-{port:012}"),
            address: ([127, 0, 0, 1], port).into(),
            store: Some(format!("/a/long/folder/name/under/which/nobody/would/look/{service}.db")),
        }
    }

    #[test]
    fn what_runs_where_fits_100_columns_and_the_lines_to_paste_have_real_addresses() {
        let services = ["registry", "customer", "order", "query"];
        let instances: Vec<_> = services.iter().zip(40001..).map(|(service, port)| instance(service, port)).collect();
        for line in place_table(&instances, Output::Terminal).to_string().lines() {
            assert!(line.chars().count() <= crate::table::MAX_WIDTH, "{line}");
        }
        let lines = TryIt { instances: &instances, certificate: None }.to_string();
        for port in 40001..=40004 {
            assert!(lines.contains(&format!("127.0.0.1:{port} ")), "{lines}");
        }
        let lines = TryIt { instances: &instances, certificate: Some(Path::new("/data/tls/operator")) }.to_string();
        assert!(lines.contains("-key /data/tls/operator/key.pem") && !lines.contains("-plaintext"), "{lines}");
    }

    #[test]
    fn a_database_of_another_kind_or_without_a_name_is_refused_and_a_password_is_not_repeated() {
        for good in ["sqlite:", "sqlite://", "sqlite"] {
            assert!(matches!(databases(good), Ok(Databases::Sqlite)), "{good}");
        }
        assert!(matches!(databases("postgres://me:secret@host/shop"), Ok(Databases::Postgres { .. })));
        for (bad, says) in [
            ("postgres://me:secret@host", "must be postgres://HOST/DATABASE"),
            ("sqlite://order.db", "--data-dir"),
            ("mysql://me:secret@host", "must be sqlite://"),
        ] {
            let failure = Failure::from(databases(bad).expect_err(bad));
            assert!(matches!(failure, Failure::Flag { flag: "--database-url", .. }));
            let text = failure.to_string();
            assert!(text.contains(says) && !text.contains("secret"), "{text}");
        }
    }
}
