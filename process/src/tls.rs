//! The flags of a process's identity, and of how its connections are protected.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use meshwork::identity::{
    Identity, InvalidIdentity, InvalidSpiffeId, Part, Security, TlsFiles, TlsMode, check_trust_domain,
};

use crate::{failure::Failure, host_port::HostPort, listener::Listener};

const HEADING: &str = "TLS";

/// How connections are protected.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// How connections are protected [default: strict with a certificate, plain without]
    #[arg(long, env = "MESHWORK_TLS_MODE", value_enum, value_name = "MODE", help_heading = HEADING)]
    pub tls_mode: Option<TlsModeArg>,
    /// The folder of the certificate: cert.pem, key.pem and ca.pem, as `meshwork ca issue` writes them. A renewed certificate is
    /// used within 10 s, without a restart
    #[arg(long, env = "MESHWORK_TLS_DIR", value_name = "FOLDER", help_heading = HEADING)]
    pub tls_dir: Option<PathBuf>,
    /// The certificate, instead of --tls-dir: an X509-SVID, as PEM, with its intermediate certificates
    #[arg(long, env = "MESHWORK_TLS_CERT", value_name = "FILE", help_heading = HEADING)]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, env = "MESHWORK_TLS_KEY", value_name = "FILE", help_heading = HEADING)]
    pub tls_key: Option<PathBuf>,
    /// The authorities whose certificates are accepted: one or several, as PEM
    #[arg(long, env = "MESHWORK_TLS_CA", value_name = "FILE", help_heading = HEADING)]
    pub tls_ca: Option<PathBuf>,
    /// The trust domain, which the certificate must be of [default: that of the certificate]
    #[arg(long, env = "MESHWORK_TRUST_DOMAIN", value_name = "NAME", value_parser = parse_trust_domain, help_heading = HEADING)]
    pub trust_domain: Option<String>,
}

/// As `--tls-mode` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsModeArg {
    /// Plain text, from and to anyone
    Plain,
    /// For a migration: takes plain text and TLS on one port, and uses TLS with all instances that have an identity
    Permissive,
    /// TLS only, between identities of the trust domain
    Strict,
}

impl From<TlsModeArg> for TlsMode {
    fn from(mode: TlsModeArg) -> Self {
        match mode {
            TlsModeArg::Plain => Self::Plain,
            TlsModeArg::Permissive => Self::Permissive,
            TlsModeArg::Strict => Self::Strict,
        }
    }
}

/// Plain text beyond this machine.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct InsecureArgs {
    /// Allow --listen beyond loopback in plain or permissive mode: anyone who can reach the port can call it
    #[arg(long, env = "MESHWORK_INSECURE", help_heading = HEADING)]
    pub insecure: bool,
}

/// What a certificate must be that of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// This service.
    Service(&'a str),
    /// Any service or operator.
    Any,
}

impl TlsArgs {
    /// The mode, as it was given or follows from the certificate.
    pub fn mode(&self) -> TlsMode {
        match self.tls_mode {
            Some(mode) => mode.into(),
            None if self.gives_certificate() => TlsMode::Strict,
            None => TlsMode::Plain,
        }
    }

    /// How the process's connections are protected. Reads the certificate, unless the mode is plain.
    ///
    /// # Errors
    /// A certificate that is missing, cannot be used, or is another's.
    pub fn security(&self, expected: Expected<'_>) -> Result<Security, Failure> {
        match self.mode() {
            TlsMode::Plain => match &self.trust_domain {
                // Whoever names one does not want to be plain because a folder's name was empty.
                Some(name) if self.tls_mode.is_none() => {
                    Err(Failure::flag("--trust-domain", name, "needs a certificate: give --tls-dir FOLDER"))
                }
                Some(_) | None => Ok(Security::Plain),
            },
            TlsMode::Permissive => Ok(Security::Permissive(self.identity(expected)?)),
            TlsMode::Strict => Ok(Security::Strict(self.identity(expected)?)),
        }
    }

    fn gives_certificate(&self) -> bool {
        self.tls_dir.is_some() || self.given_file().is_some()
    }

    /// The first of the files that are given by themselves.
    fn given_file(&self) -> Option<(&'static str, &Path)> {
        let files = [("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key), ("--tls-ca", &self.tls_ca)];
        files.into_iter().find_map(|(flag, file)| Some((flag, file.as_deref()?)))
    }

    fn identity(&self, expected: Expected<'_>) -> Result<Identity, Failure> {
        let files = self.files()?;
        let identity = Identity::from_files(files.clone())
            .map_err(|InvalidIdentity { part, problem }| self.unusable(part, files.path(part), problem))?;
        let id = identity.id();
        if let Some(trust_domain) = self.trust_domain.as_ref().filter(|name| *name != id.trust_domain()) {
            return Err(Failure::flag("--trust-domain", trust_domain, format_args!("the certificate is that of {id}")));
        }
        match expected {
            Expected::Service(service) if id.service() != Some(service) => {
                let problem = format!("is that of {id}, and this is spiffe://{}/service/{service}", id.trust_domain());
                Err(self.unusable(Part::Certificate, &files.certificate, problem))
            }
            Expected::Service(_) | Expected::Any => Ok(identity),
        }
    }

    /// Where the files are: those of the folder, but for those that are given by themselves.
    fn files(&self) -> Result<TlsFiles, Failure> {
        let folder = self.tls_dir.as_deref().map(TlsFiles::in_folder);
        let file = |flag, given: &Option<PathBuf>, part| {
            let of_folder = folder.as_ref().map(|files| files.path(part).to_owned());
            given.clone().or(of_folder).ok_or_else(|| match self.given_file() {
                Some((given, file)) => {
                    let missing = format_args!("needs {flag} FILE as well, or --tls-dir FOLDER instead");
                    Failure::flag(given, file.display(), missing)
                }
                None => Failure::flag("--tls-mode", self.mode().name(), "needs a certificate: give --tls-dir FOLDER"),
            })
        };
        Ok(TlsFiles {
            certificate: file("--tls-cert", &self.tls_cert, Part::Certificate)?,
            key: file("--tls-key", &self.tls_key, Part::Key)?,
            bundle: file("--tls-ca", &self.tls_ca, Part::Bundle)?,
        })
    }

    /// The flag by which a file was given.
    fn unusable(&self, part: Part, path: &Path, problem: String) -> Failure {
        let (flag, given) = match part {
            Part::Certificate => ("--tls-cert", &self.tls_cert),
            Part::Key => ("--tls-key", &self.tls_key),
            Part::Bundle => ("--tls-ca", &self.tls_ca),
        };
        Failure::flag(if given.is_some() { flag } else { "--tls-dir" }, path.display(), problem)
    }
}

impl InsecureArgs {
    /// Whether a process may listen there: in plain text only on this machine, unless that is said to be wanted.
    ///
    /// # Errors
    /// It may not.
    pub fn check(self, listen: &HostPort, listener: &Listener, mode: TlsMode) -> Result<(), Failure> {
        if mode == TlsMode::Strict || self.insecure || listener.address().ip().is_loopback() {
            return Ok(());
        }
        let problem = "it takes plain text, so that anyone who can reach the port can call it: use strict mode (--tls-dir), or, if \
                       you trust the network, add --insecure";
        Err(Failure::flag("--listen", listen, problem))
    }
}

fn parse_trust_domain(text: &str) -> Result<String, InvalidSpiffeId> {
    check_trust_domain(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use meshwork_fixture::{Authority, Issued};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        tls: TlsArgs,
    }

    fn args(flags: &[&str]) -> TlsArgs {
        Line::parse_from([&["program"], flags].concat()).tls
    }

    fn refused(flags: &[&str]) -> String {
        let failure = args(flags).security(Expected::Service("order")).expect_err("it cannot be used");
        assert!(matches!(failure, Failure::Flag { .. }), "exit code 2");
        failure.to_string()
    }

    #[test]
    fn with_a_certificate_the_default_is_strict_and_without_it_plain() {
        assert_eq!(args(&[]).mode(), TlsMode::Plain);
        assert_eq!(args(&["--tls-dir", "x"]).mode(), TlsMode::Strict);
        assert_eq!(args(&["--tls-dir", "x", "--tls-mode", "permissive"]).mode(), TlsMode::Permissive);
        let plain = args(&["--tls-dir", "/missing", "--tls-mode", "plain"]).security(Expected::Any);
        assert_eq!(plain.expect("nothing is read").mode(), TlsMode::Plain);
        let said = args(&["--trust-domain", "shop.test", "--tls-mode", "plain"]).security(Expected::Any);
        assert_eq!(said.expect("as it was said").mode(), TlsMode::Plain);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_the_error_of_its_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("shop.test");
        let order = authority.issue("service/order");
        order.write(folder.path()).expect("written");
        let dir = folder.path().to_str().expect("UTF-8");
        assert_eq!(
            args(&["--tls-dir", dir]).security(Expected::Service("order")).expect("good").mode(),
            TlsMode::Strict
        );

        let key = folder.path().join("other.pem");
        std::fs::write(&key, authority.issue("service/order").key).expect("written");
        let key = key.to_str().expect("UTF-8");
        for (flags, begins, says) in [
            (vec!["--tls-mode", "strict"], "--tls-mode strict: ", "--tls-dir FOLDER"),
            (vec!["--trust-domain", "shop.test"], "--trust-domain shop.test: ", "needs a certificate"),
            (vec!["--tls-cert", "x"], "--tls-cert x: ", "needs --tls-key FILE as well"),
            (vec!["--tls-dir", "/missing"], "--tls-dir /missing/cert.pem: ", "cannot be read"),
            (vec!["--tls-dir", dir, "--tls-key", key], "--tls-key ", "is not the key of the certificate"),
            (
                vec!["--tls-dir", dir, "--trust-domain", "bank.test"],
                "--trust-domain bank.test: ",
                "spiffe://shop.test/",
            ),
        ] {
            let message = refused(&flags);
            assert!(message.starts_with(begins) && message.contains(says), "{message}");
        }
        authority.issue("service/query").write(folder.path()).expect("written");
        let message = refused(&["--tls-dir", dir]);
        assert!(message.contains("is that of spiffe://shop.test/service/query, and this is"), "{message}");
        Issued { bundle: Authority::new("shop.test").bundle(), ..order }.write(folder.path()).expect("written");
        assert!(refused(&["--tls-dir", dir]).contains("not signed by an authority of the bundle"));
    }
}
