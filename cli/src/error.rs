//! Why a command fails, and what a script learns from that: exit code 2 if a flag, or what it stands for, cannot be used
//! or the mesh cannot start, 1 for everything else.

use std::{fmt::Display, io, path::PathBuf};

use meshwork::{MeshError, rpc::code_name};
use meshwork_process::Failure;
use tonic::Status;

use crate::{ca, fleet};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A flag, or what it stands for, cannot be used.
    #[error("{flag} {value}: {problem}")]
    Flag {
        /// As it is typed.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, or what is accepted.
        problem: String,
    },
    /// No registry answers.
    #[error("no registry answers at {registry} (--registry): {problem}; {}", advice(problem))]
    NoRegistry {
        /// Where it was asked for.
        registry: String,
        /// What happened instead.
        problem: String,
    },
    /// The registry is of a later version.
    #[error("this version of meshwork does not understand the registry's policy: {0}")]
    StrangePolicy(String),
    /// No instance of this service has ever registered.
    #[error("the registry knows no service {0:?}: `meshwork services` lists the ones it knows")]
    UnknownService(String),
    /// The mesh is no shop.
    #[error("the mesh at {registry} (--registry) has no instance of {service:?}, which the demo needs")]
    NoInstance {
        /// The registry of the mesh.
        registry: String,
        /// The service that is missing.
        service: &'static str,
    },
    /// A call failed.
    #[error("cannot {what}: {}: {}", code_name(status.code()), status.message().replace('\n', " "))]
    Call {
        /// What was to be done.
        what: &'static str,
        /// How the call ended.
        status: Box<Status>,
    },
    /// What answers does not know the rpcs of a registry, or does not speak gRPC.
    #[error(
        "cannot {what}: {}: {}: is this a registry? Give the address of one with --registry",
        code_name(status.code()),
        status.message().replace('\n', " ")
    )]
    NotARegistry {
        /// What was to be done.
        what: &'static str,
        /// How the call ended.
        status: Box<Status>,
    },
    /// A registry has answered that it could not.
    #[error(
        "cannot {what}: the registry at {registry} answered {}: {}",
        code_name(status.code()),
        status.message().replace('\n', " ")
    )]
    Answered {
        /// Which.
        registry: String,
        /// What was to be done.
        what: &'static str,
        /// How the call ended.
        status: Box<Status>,
    },
    /// A server that has no such name in its health.
    #[error(
        "{address} does not know {name:?}: give one of its gRPC services, events/SERVICE, or nothing for the whole server"
    )]
    UnknownHealthName {
        /// The server that was asked.
        address: String,
        /// For what.
        name: String,
    },
    /// A server does not serve.
    #[error("{address} {problem}")]
    NotServing {
        /// The server that was asked.
        address: String,
        /// What it says, or what happened instead, as a sentence about it.
        problem: String,
    },
    /// No instance reads the events of this service.
    #[error("nothing to reconcile: no registered service reads the events of {0:?}")]
    NoReader(String),
    /// Stores could not be reconciled; each was named before.
    #[error("{} not reconciled (see above): run it again", stores_were(.0))]
    NotReconciled(usize),
    /// No instance has the store that is to be adopted.
    #[error(
        "no instance of {service:?} with store {store_id} has tried to register: start one with it, and run it again"
    )]
    UnknownStore {
        /// The service.
        service: String,
        /// The store.
        store_id: String,
    },
    /// An adoption decides between ids, which copies have in common.
    #[error(
        "{service:?} is served from several copies of store {store_id}: stop the instances on all but one (`meshwork instances {service}`)"
    )]
    Copies {
        /// The service.
        service: String,
        /// The store.
        store_id: String,
    },
    /// Registries do not know of an adoption; each was named before.
    #[error("not adopted at {0} of the registries: run it again once they answer and know an instance with this store")]
    NotAdopted(usize),
    /// Registries did not answer, while others did what was asked for.
    #[error("{what} at {registries}: run it again once all registries answer")]
    NotAtAll {
        /// What was not done, as in "the policy was not set".
        what: &'static str,
        /// Where.
        registries: String,
    },
    /// What is in effect is not what was to be replaced.
    #[error(
        "somebody has changed the {what} of {service}: etag {etag:?} is not in effect any more; run \"meshwork {command} get \
         {service}\" again, and repeat the change"
    )]
    Changed {
        /// What was to be replaced, as in "rules".
        what: &'static str,
        /// Of which service.
        service: String,
        /// Its etag when it was read.
        etag: String,
        /// The command that shows it.
        command: &'static str,
    },
    /// The call that was asked about may not begin.
    #[error("denied: {0}")]
    Denied(String),
    /// Whether the call may begin is decided in the service's code, and not by its rules.
    #[error("not decided by rules: {0}")]
    NotDecided(String),
    /// A gRPC service that is not bound is to be unbound.
    #[error("{0} is not bound: \"meshwork bindings\" lists the gRPC services that are")]
    NotBound(String),
    /// Certificates could not be renewed; each was named before.
    #[error("{} not renewed (see above)", certificates_were(.0))]
    NotRenewed(usize),
    /// A step of a rotation would cut a service off.
    #[error("the CA is not rotated: {} {problem}", folder.display())]
    NotRotated {
        /// The folder of its certificate.
        folder: PathBuf,
        /// What is missing there.
        problem: ca::Problem,
    },
    /// The mesh did not keep its promises; each was printed before.
    #[error("checks failed: {0}")]
    Broken(usize),
    /// The check cannot be shown to fail.
    #[error("--tamper needs an approved order, and there is none: give more --orders")]
    NothingToTamper,
    /// A signal came before the end.
    #[error("interrupted")]
    Interrupted,
    /// The temporary folder cannot be made.
    #[error("cannot make a temporary folder")]
    TempDir(#[source] io::Error),
    /// Stdout cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// Stdout cannot be written, after something was changed.
    #[error("done, but the output could not be written")]
    Untold(#[source] io::Error),
}

fn stores_were(count: &usize) -> String {
    match count {
        1 => "1 store or instance was".to_owned(),
        count => format!("{count} stores or instances were"),
    }
}

fn certificates_were(count: &usize) -> String {
    match count {
        1 => "1 certificate was".to_owned(),
        count => format!("{count} certificates were"),
    }
}

/// What to do about a registry that does not answer.
fn advice(problem: &str) -> &'static str {
    if problem.contains("takes TLS connections only") {
        "give your certificate with --tls-dir FOLDER"
    } else if problem.contains("TLS handshake") {
        "see --tls-dir and --tls-mode"
    } else {
        "start one with \"meshwork up\", or give its address"
    }
}

impl Error {
    /// A flag that cannot be used.
    pub(crate) fn flag(flag: &'static str, value: impl Display, problem: impl Display) -> Self {
        Self::Flag { flag, value: value.to_string(), problem: problem.to_string() }
    }

    /// The same, of a command that prints only after its work is done: it is not to be run again.
    pub(crate) fn after_work(self) -> Self {
        if let Self::Output(error) = self { Self::Untold(error) } else { self }
    }

    /// A registry list of which no mesh can be made.
    pub(crate) fn bad_registry(registry: &[String]) -> impl FnOnce(MeshError) -> Self {
        move |error| Self::flag("--registry", registry.join(","), error)
    }

    /// A certificate that cannot be used.
    pub(crate) fn bad_certificate(failure: Failure) -> Self {
        match failure {
            Failure::Flag { flag, value, problem } => Self::Flag { flag, value, problem },
            other @ (Failure::Run(_) | Failure::Interrupted) => Self::flag("--tls-dir", "", other),
        }
    }

    /// A call that failed; for `map_err`.
    pub(crate) fn call(what: &'static str) -> impl Fn(Status) -> Self {
        move |status| Self::Call { what, status: Box::new(status) }
    }
}

impl From<fleet::Error> for Error {
    /// Names the flag that brought it about.
    fn from(error: fleet::Error) -> Self {
        match error {
            fleet::Error::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                Self::flag("--registry-addr", address, "the port is in use; give another one, or 0 to take a free one")
            }
            fleet::Error::Listen { address, source } => {
                Self::flag("--registry-addr", address, format_args!("cannot listen there: {source}"))
            }
            fleet::Error::NotAFolder { path } => Self::flag("--data-dir", path.display(), "is not a folder"),
            fleet::Error::Folder { folder, path, source } => {
                Self::flag("--data-dir", folder.display(), format_args!("cannot write {}: {source}", path.display()))
            }
            fleet::Error::InUse { path } => Self::flag(
                "--data-dir",
                path.display(),
                "another process uses this folder; stop that process, or give another folder",
            ),
            fleet::Error::Store { path, source } => {
                Self::flag("--data-dir", path.parent().unwrap_or(&path).display(), source.problem())
            }
            fleet::Error::Authority { folder, source } => Self::flag("--data-dir", folder.display(), source),
            fleet::Error::Identity { folder, source } => Self::flag("--data-dir", folder.display(), source),
            fleet::Error::Policies { path, source } => Self::flag("--data-dir", path.display(), source),
            fleet::Error::Database { database, source } => {
                Self::flag("--database-url", format_args!("(database {database})"), source.problem())
            }
            fleet::Error::Mesh(error) => Self::flag("--registry-addr", "of the mesh", error),
            fleet::Error::NotServing { ref service, wanted, .. } => {
                Self::flag("--replicas", format_args!("{service}={wanted}"), &error)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Flag { flag, value, problem } => Self::Flag { flag, value, problem },
            Error::Interrupted => Self::Interrupted,
            error @ (Error::NoRegistry { .. }
            | Error::StrangePolicy(_)
            | Error::UnknownService(_)
            | Error::NoInstance { .. }
            | Error::Call { .. }
            | Error::Answered { .. }
            | Error::NotARegistry { .. }
            | Error::UnknownHealthName { .. }
            | Error::NotServing { .. }
            | Error::NoReader(_)
            | Error::NotReconciled(_)
            | Error::UnknownStore { .. }
            | Error::Copies { .. }
            | Error::NotAdopted(_)
            | Error::NotAtAll { .. }
            | Error::Changed { .. }
            | Error::Denied(_)
            | Error::NotDecided(_)
            | Error::NotBound(_)
            | Error::NotRenewed(_)
            | Error::NotRotated { .. }
            | Error::Broken(_)
            | Error::NothingToTamper
            | Error::TempDir(_)
            | Error::Output(_)
            | Error::Untold(_)) => Self::run(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_says_what_was_tried_and_how_it_ended_on_one_line() {
        let error = Error::call("create a customer")(Status::deadline_exceeded("too\nslow"));
        assert_eq!(Failure::from(error).to_string(), "cannot create a customer: DEADLINE_EXCEEDED: too slow");
    }

    #[test]
    fn a_mesh_that_cannot_start_names_the_flag_to_change() {
        let address = ([127, 0, 0, 1], 7600).into();
        let taken = fleet::Error::Listen { address, source: io::ErrorKind::AddrInUse.into() };
        let failure = Failure::from(Error::from(taken));
        assert!(failure.to_string().starts_with("--registry-addr 127.0.0.1:7600: the port is in use"), "{failure}");

        let failure = Failure::from(Error::from(fleet::Error::InUse { path: ".meshwork".into() }));
        assert!(matches!(&failure, Failure::Flag { flag: "--data-dir", .. }), "{failure}");
    }
}
