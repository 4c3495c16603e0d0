//! An authority from its first certificate to the replacement of its key.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use tempfile::TempDir;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// For which a step of a rotation must have been in place.
const SETTLED: Duration = Duration::from_secs(30);

/// The time of all tests, in whole seconds, as a certificate has it.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority(folder: &TempDir) -> Authority {
    Authority::init(&folder.path().join("ca"), "shop.test", CA_LIFETIME, now()).expect("a new authority")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn service(name: &str) -> Subject {
    Subject::service(name).expect("a service")
}

/// The folder of a new certificate for a day.
fn issued(authority: &Authority, folder: &TempDir, subject: &Subject) -> PathBuf {
    let out = folder.path().join(subject.path());
    let issued = authority.issue(subject, DAY, now()).expect("signed");
    issued.write(&out).expect("written");
    out
}

fn certificate(folder: &Path) -> Certificate {
    Certificate::read("cert.pem", &text(folder, "cert.pem")).expect("a certificate")
}

fn text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).expect(file)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn problem<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("it should fail").to_string()
}

/// What rustls says of a set of files, as the certificate of a server called `name`, and as a client's.
fn verify(folder: &Path, name: &str, at: SystemTime) -> (Result<(), rustls::Error>, Result<(), rustls::Error>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |file: &str| fs::read(folder.join(file)).expect(file);
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(&read("ca.pem")) {
        roots.add(ca.expect("a certificate")).expect("a root");
    }
    let roots = Arc::new(roots);
    let cert = CertificateDer::from_pem_slice(&read("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
    CertifiedKey::from_der(vec![cert.clone()], key, &provider).expect("the key fits");
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"));
    let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let as_server = server.build().expect("a verifier").verify_server_cert(&cert, &[], &name, &[], at);
    let client = WebPkiClientVerifier::builder_with_provider(roots, provider).build().expect("a verifier");
    (as_server.map(drop), client.verify_client_cert(&cert, &[], at).map(drop))
}

#[test]
fn a_service_is_accepted_as_server_and_as_client_under_each_of_its_names_while_it_is_valid() {
    let folder = folder();
    let order = service("order").with_dns("localhost").and_then(|order| order.with_ip([127, 0, 0, 1].into()));
    let out = issued(&authority(&folder), &folder, &order.expect("good names"));
    for name in ["order", "localhost", "127.0.0.1"] {
        assert_eq!(verify(&out, name, now()), (Ok(()), Ok(())), "{name}");
    }
    assert!(verify(&out, "customer", now()).0.is_err(), "another name");
    for (at, valid) in [
        (now() - CLOCK_SKEW, true),
        (now() - CLOCK_SKEW - Duration::from_secs(1), false),
        (now() + DAY, true),
        (now() + DAY + Duration::from_secs(1), false),
    ] {
        let (server, client) = verify(&out, "order", at);
        assert_eq!((server.is_ok(), client.is_ok()), (valid, valid), "{at:?}");
    }
    let certificate = certificate(&out);
    assert_eq!(certificate.uris(), ["spiffe://shop.test/service/order"]);
    assert!(!certificate.is_ca());
}

#[test]
fn an_operator_is_accepted_as_client_and_has_the_name_of_no_host() {
    let folder = folder();
    let out = issued(&authority(&folder), &folder, &Subject::operator("ada").expect("an operator"));
    let (server, client) = verify(&out, "ada", now());
    assert!(server.is_err(), "it would be taken for the service ada");
    assert_eq!(client, Ok(()));
    assert_eq!(certificate(&out).identity().expect("an identity").path(), "operator/ada");
}

#[test]
fn tests_can_have_certificates_that_must_be_refused() {
    let folder = folder();
    let authority = authority(&folder);
    let good = Leaf::new(authority.trust_domain(), &service("order"), DAY, now());
    let two = ["spiffe://shop.test/service/order", "spiffe://shop.test/service/customer"].map(str::to_owned);
    for (name, leaf) in [
        ("expired", Leaf { not_after: now() - HOUR, not_before: now() - DAY, ..good.clone() }),
        ("not yet valid", Leaf { not_before: now() + HOUR, ..good.clone() }),
        ("a CA", Leaf { is_ca: true, ..good.clone() }),
        ("two identities", Leaf { uris: two.into(), ..good.clone() }),
        ("none", Leaf { uris: Vec::new(), ..good.clone() }),
    ] {
        let out = folder.path().join(name);
        authority.sign(&leaf).expect("signed").write(&out).expect("written");
        let certificate = certificate(&out);
        assert_eq!((certificate.uris(), certificate.is_ca()), (leaf.uris.as_slice(), leaf.is_ca), "{name}");
        assert_eq!((certificate.not_before(), certificate.not_after()), (leaf.not_before, leaf.not_after), "{name}");
        let refused = verify(&out, "order", now()).0.is_err() || certificate.identity().is_none();
        assert!(refused, "{name}");
    }
}

#[test]
fn keys_are_for_their_owner_alone_and_in_no_debug_output() {
    let folder = folder();
    let authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    assert_eq!(mode(authority.folder()), 0o700);
    for path in [authority.folder().join("ca-key.pem"), out.join("key.pem")] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let key = fs::read_to_string(path).expect("readable");
        let secret = key.lines().nth(1).expect("a line of the key");
        let issued = authority.issue(&service("order"), DAY, now()).expect("signed");
        assert!(!format!("{authority:?}{issued:?}").contains(secret));
        assert!(!format!("{issued:?}").contains("PRIVATE"));
    }
    assert_eq!(mode(&out.join("cert.pem")), 0o644);
    let left = fs::read_dir(&out).expect("readable").count();
    assert_eq!(left, 3, "no draft is left");
}

#[test]
fn a_key_that_was_given_to_a_group_stays_so() {
    let folder = folder();
    let authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    fs::set_permissions(out.join("key.pem"), fs::Permissions::from_mode(0o640)).expect("set");
    authority.renew(&out, Renewal::Now, now()).expect("renewed");
    assert_eq!(mode(&out.join("key.pem")), 0o640);
}

#[test]
fn an_authority_is_never_replaced_and_its_folder_holds_no_other_certificate() {
    let folder = folder();
    let authority = authority(&folder);
    let ca = text(authority.folder(), "ca.pem");
    let again = problem(Authority::init(authority.folder(), "other.test", CA_LIFETIME, now()));
    assert!(again.contains("has a CA in it already (ca.pem)"), "{again}");
    let issued = authority.issue(&service("order"), DAY, now()).expect("signed");
    let inside = problem(issued.write(authority.folder()));
    assert!(inside.contains("is the folder of a CA"), "{inside}");
    assert_eq!(text(authority.folder(), "ca.pem"), ca);

    fs::remove_file(authority.folder().join("ca.pem")).expect("there");
    assert!(Authority::init(authority.folder(), "other.test", CA_LIFETIME, now()).is_err(), "its key is there");
}

#[test]
fn an_authority_that_a_crash_has_left_half_made_is_made_anew() {
    for left in [&["ca-key.pem"][..], &["ca-key.pem", "bundle.pem"]] {
        let folder = folder();
        let whole = authority(&folder);
        let path = folder.path().join("ca");
        for file in ["ca-key.pem", "bundle.pem", "ca.pem"].iter().filter(|file| !left.contains(file)) {
            fs::rename(path.join(file), path.join(format!("{file}.draft"))).expect("it was there");
        }
        let made = authority(&folder);
        assert_ne!(made.bundle_pem(), whole.bundle_pem());
        let out = issued(&made, &folder, &service("order"));
        assert_eq!(verify(&out, "order", now()), (Ok(()), Ok(())));
    }
}

#[test]
fn a_certificate_takes_the_place_of_the_same_identitys_only() {
    let folder = folder();
    let authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    let other = authority.issue(&service("customer"), DAY, now()).expect("signed");
    let refused = problem(other.write(&out));
    assert!(refused.contains("has the certificate of spiffe://shop.test/service/order in it"), "{refused}");
    let more = service("order").with_dns("order.shop").expect("a name");
    authority.issue(&more, DAY, now()).expect("signed").write(&out).expect("the same identity");
    assert_eq!(certificate(&out).dns(), ["order", "order.shop"]);
}

#[test]
fn a_trust_domain_that_some_verifier_cannot_read_is_refused() {
    let folder = folder();
    for bad in ["", "Shop", "shop..test", ".test", "test.", "a b", "spiffe://shop.test"] {
        let refused = Authority::init(&folder.path().join("ca"), bad, CA_LIFETIME, now());
        assert!(matches!(refused, Err(Error::TrustDomain { .. })), "{bad}: {refused:?}");
    }
    assert!(!folder.path().join("ca").exists());
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let folder = folder();
    let mine = authority(&folder);
    let missing = problem(Authority::open(&folder.path().join("nowhere")));
    assert!(missing.ends_with("has no CA in it; make one with \"meshwork ca init\""), "{missing}");
    let other = Authority::init(&folder.path().join("other"), "shop.test", CA_LIFETIME, now()).expect("another");
    let stranger = Authority::init(&folder.path().join("stranger"), "else.test", CA_LIFETIME, now()).expect("another");
    for (file, from, said) in [
        ("ca-key.pem", text(other.folder(), "ca-key.pem"), "ca-key.pem is not the key of ca.pem"),
        ("ca-key.pem", "secret".to_owned(), "ca-key.pem has no private key (PKCS #8, PEM) in it"),
        ("bundle.pem", text(other.folder(), "ca.pem"), "bundle.pem does not have ca.pem in it"),
        ("bundle.pem", String::new(), "bundle.pem has no certificate in it"),
        ("bundle.pem", text(mine.folder(), "ca-key.pem"), "bundle.pem has something else than certificates in it"),
        (
            "bundle.pem",
            format!("{}{}", mine.bundle_pem(), stranger.bundle_pem()),
            "bundle.pem has a certificate in it that is not a CA of shop.test",
        ),
    ] {
        let before = text(mine.folder(), file);
        fs::write(mine.folder().join(file), from).expect("written");
        let error = problem(Authority::open(mine.folder()));
        assert!(error.ends_with(said), "{error}");
        fs::write(mine.folder().join(file), before).expect("written");
    }
    Authority::open(mine.folder()).expect("as before");
}

#[test]
fn a_certificate_is_renewed_with_a_new_key_once_half_of_its_life_has_passed_and_also_after_all_of_it() {
    let folder = folder();
    let authority = authority(&folder);
    let order = service("order").with_dns("localhost").and_then(|order| order.with_ip([127, 0, 0, 1].into()));
    let out = issued(&authority, &folder, &order.expect("good names"));
    let renew = |at: SystemTime| authority.renew(&out, Renewal::WhenDue, at).expect("no error");
    let first = renew(now());
    assert_eq!((first.reissued, first.bundle_changed, first.due), (false, false, now() + DAY / 2));
    assert!(!renew(now() + DAY / 2).reissued, "half of it is left");

    for at in [now() + DAY / 2 + Duration::from_secs(1), now() + 40 * DAY] {
        let (before, key) = (certificate(&out), text(&out, "key.pem"));
        let renewed = renew(at);
        assert_eq!((renewed.reissued, renewed.not_after, renewed.due), (true, at + DAY, at + DAY / 2));
        assert_ne!(text(&out, "key.pem"), key);
        let after = certificate(&out);
        assert_eq!((after.uris(), after.dns(), after.ips()), (before.uris(), before.dns(), before.ips()));
        assert_eq!(verify(&out, "localhost", at), (Ok(()), Ok(())));
    }
}

#[test]
fn only_a_certificate_of_this_authority_is_renewed_and_only_beside_its_key() {
    let folder = folder();
    let mine = authority(&folder);
    let other = Authority::init(&folder.path().join("other"), "shop.test", CA_LIFETIME, now()).expect("another");
    let foreign = issued(&other, &folder, &service("foreign"));
    // A certificate is public: a service may put an operator's into its own folder.
    let order = issued(&mine, &folder, &service("order"));
    let ada = issued(&mine, &folder, &Subject::operator("ada").expect("an operator"));
    fs::copy(ada.join("cert.pem"), order.join("cert.pem")).expect("copied");
    let strange = folder.path().join("strange");
    let uris = vec!["spiffe://else.test/service/order".to_owned()];
    let leaf = Leaf { uris, ..Leaf::new("shop.test", &service("order"), DAY, now()) };
    mine.sign(&leaf).expect("signed").write(&strange).expect("written");
    for (out, said) in [
        (&foreign, "is not a certificate of a service or an operator of shop.test that a trusted CA has signed"),
        (&order, "key.pem is not the key of cert.pem"),
        (&strange, "is not a certificate of a service or an operator of shop.test"),
        (&folder.path().join("nowhere"), "has no cert.pem in it"),
    ] {
        let bundle = fs::read(out.join("ca.pem")).ok();
        let error = problem(mine.renew(out, Renewal::Now, now()));
        assert!(error.contains(said), "{error}");
        assert_eq!(fs::read(out.join("ca.pem")).ok(), bundle, "it is left alone");
    }
}

#[test]
fn a_crash_between_key_and_certificate_is_finished_by_the_next_renewal() {
    let folder = folder();
    let authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    let new = authority.issue(&service("order"), DAY, now() + HOUR).expect("signed");
    fs::write(out.join("key.pem"), &new.key_pem).expect("written");
    fs::write(out.join("cert.pem.draft"), &new.cert_pem).expect("written");
    let renewed = authority.renew(&out, Renewal::WhenDue, now() + HOUR).expect("it can be finished");
    assert!(!renewed.reissued, "the certificate was there");
    assert_eq!(text(&out, "cert.pem"), new.cert_pem);
    assert_eq!(verify(&out, "order", now() + HOUR), (Ok(()), Ok(())));
}

#[test]
fn a_link_in_a_services_folder_leads_no_key_elsewhere() {
    let folder = folder();
    let authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "not ours").expect("written");
    symlink(&elsewhere, out.join("key.pem.draft")).expect("linked");
    let key = text(&out, "key.pem");
    fs::rename(out.join("key.pem"), folder.path().join("moved")).expect("moved");
    symlink(folder.path().join("moved"), out.join("key.pem")).expect("linked");
    authority.renew(&out, Renewal::Now, now()).expect("renewed");
    assert_eq!(fs::read_to_string(elsewhere).expect("readable"), "not ours");
    assert_eq!(text(folder.path(), "moved"), key);
    assert!(!out.join("key.pem").is_symlink());
}

#[test]
fn an_expired_authority_signs_nothing_and_can_be_replaced() {
    let folder = folder();
    let mut authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    let late = now() + CA_LIFETIME;
    assert!(!authority.expires_soon(now()) && authority.expires_soon(late - 29 * DAY));
    for error in
        [problem(authority.issue(&service("order"), DAY, late)), problem(authority.renew(&out, Renewal::WhenDue, late))]
    {
        assert!(error.contains("the CA expired at 2037-") && error.contains("meshwork ca rotate"), "{error}");
    }
    authority.rotate(Check::Skipped, CA_LIFETIME, late).expect("a new CA is trusted");
    authority.rotate(Check::Skipped, CA_LIFETIME, late).expect("it signs");
    assert!(authority.renew(&out, Renewal::WhenDue, late).expect("renewed").reissued);
    assert_eq!(verify(&out, "order", late), (Ok(()), Ok(())));
}

/// What a service with the files of one folder says to one with those of another.
fn trusts(one: &Path, other: &Path) -> bool {
    let mixed = folder();
    for (from, file) in [(one, "ca.pem"), (other, "cert.pem"), (other, "key.pem")] {
        fs::copy(from.join(file), mixed.path().join(file)).expect("copied");
    }
    verify(mixed.path(), "order", now()).1.is_ok()
}

#[test]
fn at_no_time_of_a_rotation_does_one_service_refuse_another_and_at_its_end_the_old_ca_is_refused() {
    let folder = folder();
    let mut authority = authority(&folder);
    let old = issued(&authority, &folder, &service("old"));
    let folders: [PathBuf; 2] = ["order", "customer"].map(|name| issued(&authority, &folder, &service(name)));
    let all_trust = |after: &str| {
        for (one, other) in [(0, 1), (1, 0), (0, 0)] {
            assert!(trusts(&folders[one], &folders[other]), "{after}");
        }
    };
    let check = Check::Folders(&folders, Duration::ZERO);
    let steps = [
        (Stage::NextTrusted, "does not trust the new CA yet", false),
        (Stage::NextSigns, "has a certificate of the old CA still", true),
        (Stage::Settled, "", false),
    ];
    for (stage, refused, reissues) in steps {
        assert_eq!(authority.rotate(check, CA_LIFETIME, now()).expect("the step before is in place"), stage);
        assert_eq!(Authority::open(authority.folder()).expect("as it says").stage(), stage);
        all_trust("a step is taken");
        for (at, out) in folders.iter().enumerate() {
            if stage != Stage::Settled {
                // Each service that is left is named, the last one too.
                let error = problem(authority.rotate(check, CA_LIFETIME, now()));
                assert!(error.contains(refused) && error.starts_with(&*out.to_string_lossy()), "{at}: {error}");
            }
            assert_eq!(authority.renew(out, Renewal::WhenDue, now()).expect("renewed").reissued, reissues);
            all_trust("a service has renewed, the other not");
        }
    }
    assert!(!trusts(&folders[0], &old), "the old CA's");
    assert!(problem(authority.renew(&old, Renewal::WhenDue, now())).contains("issue it again"));
    let files = fs::read_dir(authority.folder()).expect("readable").count();
    assert_eq!((authority.trusted().len(), files), (1, 3));
}

#[test]
fn a_step_that_services_may_not_have_read_yet_is_refused_for_a_time() {
    let folder = folder();
    let mut authority = authority(&folder);
    let out = [issued(&authority, &folder, &service("order"))];
    authority.rotate(Check::Folders(&out, SETTLED), CA_LIFETIME, now()).expect("it changes no service yet");
    authority.renew(&out[0], Renewal::WhenDue, now()).expect("renewed");
    let written = fs::metadata(out[0].join("ca.pem")).and_then(|file| file.modified()).expect("its time");
    let rotate = |authority: &mut Authority, at| authority.rotate(Check::Folders(&out, SETTLED), CA_LIFETIME, at);
    let early = problem(rotate(&mut authority, written + Duration::from_secs(10)));
    assert!(early.ends_with("try again in 20s"), "{early}");
    assert!(rotate(&mut authority, written - HOUR).is_err(), "clocks differ");
    assert_eq!(rotate(&mut authority, written + SETTLED).expect("long enough"), Stage::NextSigns);
}

#[test]
fn a_step_waits_for_a_service_whose_renewal_was_left_half_done_by_a_crash() {
    let folder = folder();
    let mut authority = authority(&folder);
    let folders = [issued(&authority, &folder, &service("order"))];
    let [out] = &folders;
    let check = Check::Folders(&folders, Duration::ZERO);
    for _ in 0..2 {
        authority.rotate(check, CA_LIFETIME, now()).expect("a step");
        let new = authority.issue(&service("order"), DAY, now()).expect("signed");
        new.write(out).expect("written");
    }
    let old = text(out, "cert.pem");
    let new = authority.issue(&service("order"), DAY, now()).expect("signed");
    fs::write(out.join("key.pem"), &new.key_pem).expect("written");
    fs::write(out.join("cert.pem.draft"), &new.cert_pem).expect("written");

    let refused = problem(authority.rotate(check, CA_LIFETIME, now()));
    assert!(refused.contains("has a certificate of the old CA still"), "{refused}");

    authority.renew(out, Renewal::WhenDue, now()).expect("it can be finished");
    assert_ne!(text(out, "cert.pem"), old);
    assert_eq!(authority.rotate(check, CA_LIFETIME, now()).expect("a step"), Stage::Settled);
}

#[test]
fn a_crash_in_a_step_of_a_rotation_is_made_good_by_the_next() {
    let folder = folder();
    let mut authority = authority(&folder);
    let out = issued(&authority, &folder, &service("order"));
    // Step 1, cut off before the bundle: the new CA was never given to anybody.
    let other = Authority::init(&folder.path().join("other"), "shop.test", CA_LIFETIME, now()).expect("another");
    fs::write(authority.folder().join("next.pem"), other.bundle_pem()).expect("written");
    fs::write(authority.folder().join("next-key.pem"), "half a k").expect("written");
    let reopened = Authority::open(authority.folder()).expect("opened");
    assert_eq!(reopened.trusted().len(), 1);
    let step = |authority: &mut Authority| authority.rotate(Check::Skipped, CA_LIFETIME, now()).expect("a step");
    assert_eq!(step(&mut authority), Stage::NextTrusted);
    // Step 2, cut off between key and certificate.
    fs::rename(authority.folder().join("next-key.pem"), authority.folder().join("ca-key.pem")).expect("renamed");
    let mut authority = Authority::open(authority.folder()).expect("opened");
    assert_eq!(authority.stage(), Stage::NextSigns);
    assert!(authority.renew(&out, Renewal::WhenDue, now()).expect("renewed").reissued);
    assert_eq!(step(&mut authority), Stage::Settled);
    authority.renew(&out, Renewal::WhenDue, now()).expect("renewed");
    assert_eq!(verify(&out, "order", now()), (Ok(()), Ok(())));
    assert_eq!(text(&out, "ca.pem"), text(authority.folder(), "ca.pem"));
}
