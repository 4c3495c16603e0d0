//! The flags of `meshwork-registry`.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use meshwork::identity::{REGISTRY, TlsMode};
use meshwork_process::{Expected, Failure, HostPort, InsecureArgs, Listener, TelemetryArgs, TlsArgs, duration_in};

use crate::{
    Config,
    policies::{PolicyStore, folder},
};

/// What `--grace` may be: no lease is longer than some minutes.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

/// Keeps the instances of every service of one mesh: they join with a lease, clients watch them.
///
/// Leases live in memory. After a restart the instances register again automatically; until --grace has passed, clients
/// remove no instance. Policies, rules and bindings are kept in --policy-file.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "meshwork-registry", version, disable_version_flag = true, after_help = EXAMPLES)]
pub struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "MESHWORK_LISTEN", default_value = "127.0.0.1:7600", value_name = "HOST:PORT")]
    pub listen: HostPort,
    /// How long after its start clients remove no instance, 0s-1h; 0s if there was no mesh before
    #[arg(long, env = "MESHWORK_GRACE", default_value = "15s", value_parser = duration_in(GRACE))]
    pub grace: Duration,
    /// The file that keeps the policies over a restart; authorization policies and bindings are kept in files beside it. They are
    /// created when the first is set. Each registry needs its own: `meshwork policy` sets a policy at all of them [default: in memory, lost with the process; strict and permissive mode require it]
    #[arg(long, env = "MESHWORK_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// Its identity.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Plain text beyond this machine.
    #[command(flatten)]
    pub insecure: InsecureArgs,
    /// What it tells about itself.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

const EXAMPLES: &str = "\
Examples:
  A registry for this machine:
    meshwork-registry --policy-file /var/lib/meshwork/policies.json
  On a trusted network, for machines to log to:
    meshwork-registry --listen 0.0.0.0:7600 --insecure --log json
  What is registered (the reflection service is on, so no proto files are needed):
    grpcurl -plaintext 127.0.0.1:7600 meshwork.registry.v1.RegistryService/ListServices
    grpcurl -plaintext -d '{\"services\": [\"order\"]}' 127.0.0.1:7600 meshwork.registry.v1.RegistryService/Watch";

impl Args {
    /// Listens, and makes the config of a registry that does.
    ///
    /// # Errors
    /// An address that cannot be listened on, or must not be without `--insecure`; a certificate or a file of policies that is missing or
    /// cannot be used.
    pub async fn listen(&self) -> Result<(Config, Listener), Failure> {
        let listener = Listener::bind("--listen", &self.listen).await?;
        self.insecure.check(&self.listen, &listener, self.tls.mode())?;
        let mode = self.tls.mode();
        if mode != TlsMode::Plain && self.policy_file.is_none() {
            let problem = "needs --policy-file FILE: the rules about who may call what must outlast a restart";
            return Err(Failure::flag("--tls-mode", mode.name(), problem));
        }
        let security = self.tls.security(Expected::Service(REGISTRY))?;
        let policies = match &self.policy_file {
            Some(file) if !folder(file).is_dir() => {
                // Not made here, as those of databases are not: one that is missing is mostly a slip of the pen.
                let problem = format!("there is no folder {}", folder(file).display());
                return Err(Failure::flag("--policy-file", file.display(), problem));
            }
            Some(file) => {
                PolicyStore::open(file).await.map_err(|error| Failure::flag("--policy-file", file.display(), error))?
            }
            None => PolicyStore::default(),
        };
        let config = Config { grace: self.grace, policies, security, ..Config::new(listener.address().to_string()) };
        Ok((config, listener.say_ready("registry")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::DEFAULT_GRACE;

    fn args(flags: &[&str]) -> Args {
        Args::parse_from([&["meshwork-registry"], flags].concat())
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let args = args(&[]);
        assert_eq!((args.listen.to_string().as_str(), args.grace), ("127.0.0.1:7600", DEFAULT_GRACE));
    }

    #[tokio::test]
    async fn a_file_of_policies_that_cannot_be_used_is_a_bad_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("policies.json");
        std::fs::write(&file, "no JSON").expect("written");
        let flags = ["--listen", "localhost:0", "--policy-file", file.to_str().expect("UTF-8")];
        let failure = args(&flags).listen().await.expect_err("it holds something else");
        assert!(matches!(failure, Failure::Flag { flag: "--policy-file", .. }), "exit code 2");
        assert!(failure.to_string().contains("policies.json: is not a list of policies"), "{failure}");
    }

    #[tokio::test]
    async fn a_file_of_policies_in_a_folder_that_is_not_there_is_a_bad_flag_and_makes_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("missing").join("policies.json");
        let flags = ["--listen", "localhost:0", "--policy-file", file.to_str().expect("UTF-8")];
        let failure = args(&flags).listen().await.expect_err("there is no folder");
        assert!(failure.to_string().contains("there is no folder"), "{failure}");
        assert!(!folder.path().join("missing").exists());
    }

    #[tokio::test]
    async fn beyond_loopback_it_listens_only_if_insecure_is_said() {
        let failure = args(&["--listen", "0.0.0.0:0"]).listen().await.expect_err("it is not safe");
        let message = failure.to_string();
        assert!(matches!(failure, Failure::Flag { .. }), "exit code 2");
        assert!(message.starts_with("--listen 0.0.0.0:0: ") && message.contains("--insecure"), "{message}");
        assert!(args(&["--listen", "0.0.0.0:0", "--insecure"]).listen().await.is_ok());
        assert!(args(&["--listen", "localhost:0"]).listen().await.is_ok());
    }
}
