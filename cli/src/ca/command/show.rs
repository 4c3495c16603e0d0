//! `meshwork ca show`: what is trusted, where a rotation is, and the state of certificates.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use meshwork::identity::SpiffeId;
use prost_types::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    args::CaShowArgs,
    ca::{Authority, Certificate, Inspected, Stage},
    error::Error,
    table::{Align, Table, printable},
};

/// What is shown, in the form of --json.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Shown {
    trust_domain: String,
    stage: &'static str,
    cas: Vec<ShownCa>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<ShownLeaf>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ShownCa {
    role: &'static str,
    expire_time: String,
    #[serde(skip)]
    left: String,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ShownLeaf {
    folder: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "whole")]
    identity: Option<SpiffeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    state: String,
    #[serde(skip)]
    left: String,
}

/// `meshwork ca show`.
pub(super) fn run(args: &CaShowArgs) -> Result<(), Error> {
    let authority = Authority::open(&args.source.ca.ca_dir)?;
    let now = SystemTime::now();
    let shown = Shown {
        trust_domain: authority.trust_domain().to_owned(),
        stage: stage(authority.stage()),
        cas: authority.trusted().iter().map(|ca| shown_ca(&authority, ca, now)).collect(),
        certificates: args.folders.iter().map(|folder| shown_leaf(&authority, folder, now)).collect(),
    };
    let mut out = io::stdout().lock();
    if args.json {
        let json = serde_json::to_string(&shown).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{json}")?);
    }
    writeln!(out, "trust domain: {}\n{}\n", shown.trust_domain, explained(authority.stage()))?;
    let mut cas = Table::new([("CA", Align::Left), ("EXPIRES", Align::Left), ("LEFT", Align::Right)]);
    for ca in shown.cas {
        cas.row([ca.role.to_owned(), ca.expire_time, ca.left]);
    }
    write!(out, "{cas}")?;
    if shown.certificates.is_empty() {
        return Ok(());
    }
    let columns = [("FOLDER", Align::Left), ("IDENTITY", Align::Left), ("LEFT", Align::Right), ("STATE", Align::Left)];
    let mut leaves = Table::new(columns);
    for leaf in shown.certificates {
        let folder = printable(&leaf.folder.to_string_lossy());
        leaves.row([
            folder,
            leaf.identity.as_ref().map_or("", SpiffeId::path).to_owned(),
            leaf.left,
            printable(&leaf.state),
        ]);
    }
    Ok(write!(out, "\n{leaves}")?)
}

fn shown_ca(authority: &Authority, ca: &Certificate, now: SystemTime) -> ShownCa {
    let role = match authority.stage() {
        _ if ca == authority.certificate() => "signs",
        Stage::NextTrusted => "next",
        Stage::NextSigns | Stage::Settled => "old",
    };
    ShownCa { role, expire_time: Timestamp::from(ca.not_after()).to_string(), left: left(ca.not_after(), now) }
}

fn shown_leaf(authority: &Authority, folder: &Path, now: SystemTime) -> ShownLeaf {
    let folder = folder.to_owned();
    match authority.inspect(&folder) {
        Ok(Inspected { identity, certificate, signed, distributed, .. }) => {
            let not_after = certificate.not_after();
            let state = match () {
                () if now > not_after => "expired",
                () if !signed || !distributed || now > certificate.half_life() => "due",
                () => "valid",
            };
            ShownLeaf {
                folder,
                identity: Some(identity),
                expire_time: Some(Timestamp::from(not_after).to_string()),
                state: state.to_owned(),
                left: left(not_after, now),
            }
        }
        Err(problem) => {
            ShownLeaf { folder, identity: None, expire_time: None, state: problem.to_string(), left: String::new() }
        }
    }
}

/// The identity as `meshwork instances --json` has it.
fn whole<S: Serializer>(identity: &Option<SpiffeId>, serializer: S) -> Result<S::Ok, S::Error> {
    identity.as_ref().map(SpiffeId::as_str).serialize(serializer)
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Settled => "settled",
        Stage::NextTrusted => "nextTrusted",
        Stage::NextSigns => "nextSigns",
    }
}

fn explained(stage: Stage) -> &'static str {
    match stage {
        Stage::Settled => "no rotation is in progress",
        Stage::NextTrusted => {
            "rotation, after step 1 of 3: a new CA is trusted; the old one still signs\nnext: meshwork ca renew, then \
             meshwork ca rotate, both with all folders"
        }
        Stage::NextSigns => {
            "rotation, after step 2 of 3: the new CA signs; the old one is still trusted\nnext: meshwork ca renew, then \
             meshwork ca rotate, both with all folders"
        }
    }
}

/// The time until then in its largest unit of which there are two, rounded down.
fn left(until: SystemTime, now: SystemTime) -> String {
    let left = until.duration_since(now).unwrap_or_default().as_secs();
    let units = [("d", 24 * 3600), ("h", 3600), ("m", 60)];
    let unit = units.into_iter().find(|(_, seconds)| left >= 2 * seconds);
    let (name, seconds) = unit.unwrap_or(("s", Duration::from_secs(1).as_secs()));
    format!("{}{name}", left / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_shown_in_one_unit_and_never_more_than_there_is() {
        let now = SystemTime::UNIX_EPOCH;
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (86400, "24h"), (200_000, "2d")]
        {
            assert_eq!(left(now + Duration::from_secs(seconds), now), text);
        }
        assert_eq!(left(now, now + Duration::from_secs(1)), "0s");
    }
}
