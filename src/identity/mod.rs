//! Who a process is, and who it talks to: mutual TLS (1.3) with SPIFFE identities.
//!
//! - [`spiffe_id`]: identities, and the caller of a call;
//! - [`mode`](TlsMode): which connections a process takes and makes;
//! - [`files`](TlsFiles), `material`: a certificate, its key and its authorities, where they are, and whether they fit;
//! - `verify`: whose certificates are accepted;
//! - `handshake`: connections made and accepted with them;
//! - [`Identity`]: all of it, kept up to date with its files.
//!
//! Sessions are never resumed: a resumed one is not verified again. A connection ends before its certificates do (see
//! `server::connection`), so that whoever is not renewed is out once its certificate has expired.

mod files;
pub(crate) mod handshake;
mod material;
mod mode;
pub mod spiffe_id;
mod validity;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::ClientConfig;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

pub use files::TlsFiles;
pub use material::{InvalidIdentity, Part, Pem};
pub use mode::TlsMode;
pub use spiffe_id::{ANONYMOUS, InvalidSpiffeId, PeerIdentity, REGISTRY, SpiffeId, check_trust_domain};
pub(crate) use validity::Moment;
pub use validity::Validity;

use crate::{
    health::{Condition, Conditioner},
    log_limit::LogLimit,
};
use material::Material;
use validity::shown;
use verify::ExpectedServer;

/// How often the files are read. Contents are compared, not times: Kubernetes swaps a symbolic link, and a clock may go back.
const RELOAD: Duration = Duration::from_secs(10);
/// After files that do not fit together.
const AGAIN: Duration = Duration::from_secs(1);
/// The part of a certificate's life that must be left: below, its renewal was forgotten.
const WARN_BELOW: u32 = 4;

/// How a process's connections are protected: one of [`TlsMode`]'s, with the identity that it needs. A cheap clone. Default: plain.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// [`TlsMode::Plain`].
    #[default]
    Plain,
    /// [`TlsMode::Permissive`].
    Permissive(Identity),
    /// [`TlsMode::Strict`].
    Strict(Identity),
}

impl Security {
    /// Which mode it is.
    pub fn mode(&self) -> TlsMode {
        match self {
            Self::Plain => TlsMode::Plain,
            Self::Permissive(_) => TlsMode::Permissive,
            Self::Strict(_) => TlsMode::Strict,
        }
    }

    /// Who the process is, if it has an identity.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Plain => None,
            Self::Permissive(identity) | Self::Strict(identity) => Some(identity),
        }
    }

    /// With which identity a connection is made; `None`: in plain text. Only permissive mode looks at whether the instance has registered
    /// with an identity: no registry can talk a strict process into plain text.
    pub fn to_instance(&self, has_identity: bool) -> Option<&Identity> {
        match self {
            Self::Plain => None,
            Self::Permissive(identity) => Some(identity).filter(|_| has_identity),
            Self::Strict(identity) => Some(identity),
        }
    }
}

/// A process's certificate, key and trusted authorities, as they are now. A cheap clone; clones share them.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    /// `None`: it stays as it is.
    files: Option<TlsFiles>,
    current: RwLock<Arc<Material>>,
    /// Whether the certificate will last.
    lasts: Conditioner,
    not_taken: LogLimit,
    not_renewed: LogLimit,
}

/// What a look at the files has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// They say what they said.
    Unchanged,
    /// What they say is used from now on, by connections that are made from now on.
    Taken,
    /// What they say cannot be used: what was used before stays in use.
    Refused(InvalidIdentity),
}

impl Identity {
    /// The identity in these files.
    ///
    /// # Errors
    /// [`InvalidIdentity`].
    pub fn from_files(files: TlsFiles) -> Result<Self, InvalidIdentity> {
        let material = Material::new(files.read()?, SystemTime::now())?;
        Ok(Self::new(Some(files), material))
    }

    /// An identity that stays as it is.
    ///
    /// # Errors
    /// [`InvalidIdentity`].
    pub fn from_pem(pem: Pem) -> Result<Self, InvalidIdentity> {
        Ok(Self::new(None, Material::new(pem, SystemTime::now())?))
    }

    fn new(files: Option<TlsFiles>, material: Material) -> Self {
        Self(Arc::new(Inner {
            files,
            current: RwLock::new(Arc::new(material)),
            lasts: Conditioner::default(),
            not_taken: LogLimit::new(1),
            not_renewed: LogLimit::new(1),
        }))
    }

    /// Who the process is.
    pub fn id(&self) -> SpiffeId {
        self.current().id.clone()
    }

    /// When its certificate can be used.
    pub fn validity(&self) -> Validity {
        self.current().validity
    }

    /// Whether its certificate lasts: not below a quarter of its life, when its renewal was forgotten.
    pub fn condition(&self) -> Condition {
        self.0.lasts.condition()
    }

    /// Reads the files, and takes what they say if it fits together and is the same identity.
    pub fn reload(&self) -> Reloaded {
        let Some(files) = &self.0.files else { return Reloaded::Unchanged };
        let before = self.current();
        let reloaded = files.read().and_then(|pem| {
            if pem == before.pem {
                return Ok(None);
            }
            let new = Material::new(pem, SystemTime::now())?;
            if new.id != before.id {
                let problem = format!("is now that of {}, and this process is {}", new.id, before.id);
                return Err(InvalidIdentity { part: Part::Certificate, problem });
            }
            Ok(Some(new))
        });
        match reloaded {
            Ok(None) => Reloaded::Unchanged,
            Ok(Some(new)) => {
                *self.0.current.write() = Arc::new(new);
                Reloaded::Taken
            }
            Err(error) => Reloaded::Refused(error),
        }
    }

    /// Keeps it up to date with its files, and reports how long its certificate lasts, without end.
    pub async fn keep_current(self) -> std::convert::Infallible {
        let mut looks = interval(RELOAD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether the last look found files that cannot be used.
        let mut in_doubt = false;
        let mut reading = None;
        loop {
            looks.tick().await;
            let identity = self.clone();
            let mut read = reading.take().unwrap_or_else(|| spawn_blocking(move || identity.reload()));
            match timeout(RELOAD, &mut read).await {
                // Perhaps in the middle of a renewal, which replaces three files.
                Ok(Ok(Reloaded::Refused(problem))) if !in_doubt => {
                    in_doubt = true;
                    tracing::debug!(%problem, "the files do not fit together; looking again");
                    looks.reset_after(AGAIN);
                }
                Ok(Ok(reloaded)) => {
                    in_doubt = matches!(reloaded, Reloaded::Refused(_));
                    self.tell(&reloaded);
                }
                Ok(Err(error)) => tracing::error!(%error, "a defect: looking at the certificate's files has failed"),
                Err(_) => {
                    reading = Some(read);
                    if let Some(left_out) = self.0.not_taken.pass() {
                        tracing::warn!("the certificate's files cannot be read: their disk does not answer{left_out}");
                    }
                }
            }
            self.look_at_life(SystemTime::now());
        }
    }

    fn tell(&self, reloaded: &Reloaded) {
        let count = |result| metrics::counter!("meshwork_identity_reloads_total", "result" => result).increment(1);
        match reloaded {
            Reloaded::Unchanged => {}
            Reloaded::Taken => {
                count("taken");
                let current = self.current();
                let expires = shown(current.validity.not_after);
                tracing::info!(identity = %current.id, expires, "a renewed certificate or bundle is in use");
            }
            Reloaded::Refused(InvalidIdentity { part, problem }) => {
                count("refused");
                let file =
                    self.0.files.as_ref().map(|files| files.path(*part).display().to_string()).unwrap_or_default();
                if let Some(left_out) = self.0.not_taken.pass() {
                    tracing::warn!(
                        file,
                        problem,
                        "the certificate, key and bundle were replaced by what cannot be used; those from before stay in use{left_out}"
                    );
                }
            }
        }
    }

    /// Reports what is left of the certificate's life.
    fn look_at_life(&self, now: SystemTime) {
        let current = self.current();
        let (left, expires) = (current.validity.left(now), shown(current.validity.not_after));
        let name = current.id.path().to_owned();
        metrics::gauge!("meshwork_identity_seconds_left", "identity" => name).set(left.as_secs_f64());
        let lasts = if left.is_zero() {
            Err(format!("the certificate of {} expired at {expires}: no connection can be made", current.id))
        } else if left < current.validity.whole() / WARN_BELOW {
            Err(format!("the certificate of {} expires at {expires} and was not renewed", current.id))
        } else {
            Ok(())
        };
        if let Err(problem) = &lasts
            && let Some(left_out) = self.0.not_renewed.pass()
        {
            tracing::warn!("{problem}{left_out}");
        }
        self.0.lasts.set(lasts);
    }

    fn current(&self) -> Arc<Material> {
        self.0.current.read().clone()
    }

    fn client_config(&self, expected: ExpectedServer) -> Arc<ClientConfig> {
        self.current().client(expected)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.id().as_str()).finish()
    }
}
