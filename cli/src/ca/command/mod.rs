//! `meshwork ca`: says in a line or two what was done, and what comes next.

mod opened;
mod renew;
mod show;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use opened::{open, until};

use super::{Authority, Check, Error as CaError, InvalidSubject, Problem, Stage};
use crate::{
    args::{CaCommand, CaInitArgs, CaIssueArgs, CaRotateArgs},
    error::Error,
};

/// For how long a step of a rotation must have been in place: services look at their files every 10 s.
const SETTLED: Duration = Duration::from_secs(30);

/// `meshwork ca`.
pub(crate) async fn run(command: CaCommand, shutdown: CancellationToken) -> Result<(), Error> {
    match command {
        CaCommand::Init(args) => init(&args).map_err(Error::after_work),
        CaCommand::Issue(args) => issue(&args).map_err(Error::after_work),
        CaCommand::Renew(args) => renew::run(args, shutdown).await.map_err(Error::after_work),
        CaCommand::Rotate(args) => rotate(&args).map_err(Error::after_work),
        CaCommand::Show(args) => show::run(&args),
    }
}

fn init(args: &CaInitArgs) -> Result<(), Error> {
    let folder = &args.source.ca.ca_dir;
    let authority = Authority::init(folder, &args.trust_domain, args.lifetime, SystemTime::now())?;
    let until = until(authority.certificate().not_after());
    writeln!(
        io::stdout(),
        "{}: a CA for the trust domain {}, {until}; ca-key.pem is its secret\nnext: meshwork ca issue service/NAME, for each \
         service",
        folder.display(),
        authority.trust_domain()
    )?;
    Ok(())
}

fn issue(args: &CaIssueArgs) -> Result<(), Error> {
    let authority = open(&args.source.ca.ca_dir)?;
    let subject = args.dns.iter().try_fold(args.subject.clone(), |subject, name| {
        subject.with_dns(name).map_err(|error| Error::flag("--dns", name, error))
    })?;
    let subject = args.ip.iter().try_fold(subject, |subject, ip| {
        subject.with_ip(*ip).map_err(|error: InvalidSubject| Error::flag("--ip", ip, error))
    })?;
    let now = SystemTime::now();
    let issued = authority.issue(&subject, args.lifetime, now)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(".meshwork/tls").join(subject.path()));
    issued.write(&out).map_err(|error| match error {
        CaError::Leaf { folder, problem } => Error::flag("--out", folder.display(), problem),
        error => error.into(),
    })?;
    let (out, domain, until) = (out.display(), authority.trust_domain(), until(now + args.lifetime));
    writeln!(io::stdout(), "{out}: spiffe://{domain}/{subject}, {until}\nuse it with: --tls-dir {out}")?;
    Ok(())
}

fn rotate(args: &CaRotateArgs) -> Result<(), Error> {
    // An expired one too.
    let mut authority = Authority::open(&args.source.ca.ca_dir)?;
    let check = if args.unchecked { Check::Skipped } else { Check::Folders(&args.folders, SETTLED) };
    let stage = authority.rotate(check, args.lifetime, SystemTime::now())?;
    let what = match stage {
        Stage::NextTrusted => "step 1 of 3: a new CA is trusted; the old one still signs",
        Stage::NextSigns => "step 2 of 3: the new CA signs; the old one is still trusted",
        Stage::Settled => "step 3 of 3: the old CA is no longer trusted",
    };
    let then = match stage {
        Stage::NextTrusted | Stage::NextSigns => {
            "meshwork ca renew with all folders, unless it runs with --every; 40 s later meshwork ca rotate with all folders again"
        }
        Stage::Settled => "meshwork ca renew with all folders, unless it runs with --every",
    };
    writeln!(io::stdout(), "{what}\nnext: {then}")?;
    Ok(())
}

impl From<CaError> for Error {
    /// Names the flag that brought it about.
    fn from(error: CaError) -> Self {
        match error {
            CaError::TrustDomain { name, problem } => Self::flag("--trust-domain", name, problem),
            CaError::Leaf {
                problem: problem @ (Problem::NotDistributed | Problem::NotReissued | Problem::TooFresh(_)),
                folder,
            } => Self::NotRotated { folder, problem },
            CaError::Authority { folder, problem } => Self::flag("--ca-dir", folder.display(), problem),
            CaError::Leaf { folder, problem } => Self::flag("FOLDER", folder.display(), problem),
        }
    }
}
