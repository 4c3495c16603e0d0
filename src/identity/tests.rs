//! Handshakes over in-memory pipes, with certificates that a test's own authority has signed.

use meshwork_fixture::{Authority, Issued, Leaf, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::Instant,
};

use super::{handshake::AcceptError, *};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn far_off() -> Instant {
    Instant::now() + DAY
}

fn pem(issued: &Issued) -> Pem {
    let text = |text: &String| text.clone().into_bytes();
    Pem { certificate: text(&issued.certificate), key: text(&issued.key), bundle: text(&issued.bundle) }
}

pub(crate) fn identity(issued: &Issued) -> Identity {
    Identity::from_pem(pem(issued)).expect("a good identity")
}

/// An identity that its own process would not take: a peer must not take it either.
fn bad_identity(issued: &Issued, good: &Issued) -> Identity {
    let identity = identity(good);
    *identity.0.current.write() = Arc::new(Material::unchecked(pem(issued)));
    identity
}

/// How a client and a server get on: the error of each, if it has one.
async fn meet(
    client: &Identity,
    service: &str,
    server: &Security,
) -> (Result<(), String>, Result<PeerIdentity, String>) {
    let (near, far) = duplex(64 * 1024);
    let connecting = async {
        let (mut stream, _) = client.connect(service, near).await.map_err(|error| error.to_string())?;
        // In TLS 1.3 a client hears only now that it was refused.
        stream.write_all(b"x").await.map_err(|error| error.to_string())?;
        let answer = stream.read_u8().await.map_err(|error| error.to_string())?;
        assert_eq!(answer, b'y');
        Ok(())
    };
    let accepting = async {
        let (mut stream, peer) = server.accept(far, far_off()).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())?;
        stream.write_all(b"y").await.map_err(|error| error.to_string())?;
        Ok(peer.identity)
    };
    tokio::join!(connecting, accepting)
}

struct World {
    authority: Authority,
    order: Issued,
    query: Issued,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new("shop.test");
        let (order, query) = (authority.issue("service/order"), authority.issue("service/query"));
        Self { authority, order, query }
    }

    /// Meets a good server with a client that has this certificate.
    async fn client_with(&self, leaf: &Issued) -> (String, String) {
        let client = bad_identity(leaf, &self.query);
        let (client, server) = meet(&client, "order", &Security::Strict(identity(&self.order))).await;
        (client.expect_err("refused"), server.expect_err("refuses"))
    }

    /// Meets a server that has this certificate with a good client.
    async fn server_with(&self, leaf: &Issued) -> (String, String) {
        let server = bad_identity(leaf, &self.order);
        let (client, server) = meet(&identity(&self.query), "order", &Security::Strict(server)).await;
        (client.expect_err("refuses"), server.expect_err("refused"))
    }
}

#[tokio::test]
async fn both_sides_know_each_other_and_no_session_is_resumed() {
    let world = World::new();
    let (order, query) = (identity(&world.order), identity(&world.query));
    let server = Security::Strict(order);
    for _ in 0..2 {
        let (client, peer) = meet(&query, "order", &server).await;
        assert_eq!(client, Ok(()));
        assert_eq!(peer.expect("verified").name(), "service/query");
    }
    let config = query.client_config(ExpectedServer::AnyOf("shop.test".into()));
    assert!(format!("{:?}", config.resumption).contains("NoClientSessionStorage"), "{:?}", config.resumption);
    let config = query.current().server.clone();
    assert_eq!((config.send_tls13_tickets, config.session_storage.can_cache()), (0, false));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_refused_with_its_reason_whoever_shows_it() {
    let world = World::new();
    let now = SystemTime::now();
    let foreign = Authority::new("shop.test").issue("service/order");
    let foreign = Issued { bundle: world.order.bundle.clone(), ..foreign };
    let leaf = |path: &str| world.authority.leaf(path);
    let cases: [(&str, Issued, &str); 7] = [
        ("another authority", foreign, "is not signed by an authority of the bundle"),
        (
            "expired",
            world.authority.sign(&Leaf { valid: (now - DAY, now - DAY / 2), ..leaf("service/order") }),
            "expired at",
        ),
        (
            "not yet valid",
            world.authority.sign(&Leaf { valid: (now + DAY / 2, now + DAY), ..leaf("service/order") }),
            "is not valid before",
        ),
        (
            "an authority's",
            world.authority.sign(&Leaf { is_authority: true, ..leaf("service/order") }),
            "that of an authority (CA)",
        ),
        (
            "two URI names",
            world.authority.sign(&Leaf {
                uris: ["order", "query"].map(|name| format!("spiffe://shop.test/service/{name}")).into(),
                ..leaf("service/order")
            }),
            "has 2 URI names",
        ),
        ("no URI name", world.authority.sign(&Leaf { uris: vec![], ..leaf("service/order") }), "has no URI name"),
        (
            "no SPIFFE ID",
            world.authority.sign(&Leaf { uris: vec!["https://shop.test/service/order".into()], ..leaf("x/y") }),
            "is not a SPIFFE ID",
        ),
    ];
    for (case, issued, reason) in cases {
        let (client, server) = world.client_with(&issued).await;
        assert!(server.contains(reason), "{case}, of a client: {server}");
        assert!(!client.is_empty(), "{case}");
        let (client, server) = world.server_with(&issued).await;
        assert!(client.contains(reason), "{case}, of a server: {client}");
        assert!(server.contains("does not accept this certificate"), "{case}: {server}");
        let refused = Identity::from_pem(pem(&issued));
        let refused = refused.expect_err(case);
        assert!(refused.part == Part::Certificate && refused.problem.contains(reason), "{case}: {refused}");
    }
}

#[tokio::test]
async fn an_intermediate_authority_is_accepted_with_its_certificate_and_not_without() {
    let world = World::new();
    let whole = world.authority.intermediate().issue("service/order");
    let (client, peer) = meet(&identity(&whole), "order", &Security::Strict(identity(&whole))).await;
    assert_eq!((client, peer.expect("verified").name()), (Ok(()), "service/order"));
    let end = whole.certificate.find("-----END CERTIFICATE-----\n").expect("a certificate") + 26;
    let alone = Issued { certificate: whole.certificate[..end].to_owned(), ..whole };
    let reason = "is not signed by an authority of the bundle";
    let (client, server) = (world.client_with(&alone).await, world.server_with(&alone).await);
    assert!(client.1.contains(reason) && server.0.contains(reason), "{client:?} {server:?}");
    assert!(Identity::from_pem(pem(&alone)).expect_err("refused").problem.contains(reason));
}

#[tokio::test]
async fn certificates_may_have_keys_of_other_kinds_but_none_that_needs_a_passphrase() {
    let world = World::new();
    let server = Security::Strict(identity(&world.order));
    for kind in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let query = identity(&world.authority.sign_for(&world.authority.leaf("service/query"), kind));
        let (client, peer) = meet(&query, "order", &server).await;
        assert_eq!((client, peer.expect("verified").name()), (Ok(()), "service/query"));
    }
    let cut = world.order.certificate.replace("-----END CERTIFICATE-----", "");
    let refused = Identity::from_pem(pem(&Issued { certificate: cut, ..world.order.clone() })).expect_err("refused");
    assert!(refused.problem.ends_with("its end is missing (-----END CERTIFICATE-----)"), "{refused}");
    for header in ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED"] {
        let key = format!("{header}\n\nMIGH\n-----END PRIVATE KEY-----\n");
        let refused = Identity::from_pem(pem(&Issued { key, ..world.order.clone() })).expect_err("refused");
        assert!(refused.part == Part::Key && refused.problem.contains("is encrypted"), "{refused}");
    }
}

#[tokio::test]
async fn the_certificate_of_another_service_at_the_right_address_is_refused() {
    let world = World::new();
    let customer = Security::Strict(identity(&world.authority.issue("service/customer")));
    let (client, _) = meet(&identity(&world.query), "order", &customer).await;
    let error = client.expect_err("it is not order");
    for part in ["spiffe://shop.test/service/customer", "not of spiffe://shop.test/service/order"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn another_trust_domain_is_refused_although_its_authority_is_trusted() {
    let world = World::new();
    let foreign = Authority::new("bank.test").issue("service/query");
    let bundle = format!("{}{}", world.order.bundle, foreign.bundle);
    let order = Security::Strict(identity(&Issued { bundle: bundle.clone(), ..world.order.clone() }));
    let foreign = Issued { bundle, ..foreign };
    let (client, _) = meet(&identity(&foreign), "order", &order).await;
    assert!(client.expect_err("foreign").contains("not of spiffe://bank.test/service/order"));
    let (_, server) = meet(&bad_identity(&foreign, &world.query), "order", &order).await;
    assert!(server.expect_err("foreign").contains("of another trust domain than shop.test"));
}

#[tokio::test]
async fn an_operator_connects_to_whichever_service_is_there_but_to_no_other_operator() {
    let world = World::new();
    let ada = identity(&world.authority.issue("operator/ada"));
    for (path, good) in [("service/order", true), ("operator/bob", false)] {
        let server = Security::Strict(identity(&world.authority.issue(path)));
        let (near, far) = duplex(64 * 1024);
        let (client, _) = tokio::join!(ada.connect_to_any(near), server.accept(far, far_off()));
        assert_eq!(client.is_ok(), good, "{path}");
    }
}

/// What a server does with a peer that begins so, and what the peer reads of it.
async fn begin(server: &Security, bytes: &[u8]) -> (Result<PeerIdentity, AcceptError>, Vec<u8>) {
    let (mut near, far): (DuplexStream, DuplexStream) = duplex(64 * 1024);
    near.write_all(bytes).await.expect("room");
    near.shutdown().await.expect("open");
    let accepted = server.accept(far, far_off()).await.map(|(_, peer)| peer.identity);
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.expect("closed");
    (accepted, answer)
}

#[tokio::test]
async fn plain_text_to_a_strict_port_gets_a_goaway_that_says_why_and_a_permissive_port_takes_it_as_anonymous() {
    let world = World::new();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (refused, answer) = begin(&Security::Strict(identity(&world.order)), preface).await;
    assert!(matches!(refused, Err(AcceptError::PlainText)));
    assert!(answer.ends_with(b"this port takes TLS connections only"), "{}", answer.escape_ascii());
    let (accepted, _) = begin(&Security::Permissive(identity(&world.order)), preface).await;
    assert_eq!(accepted.expect("for a migration"), PeerIdentity::ANONYMOUS);
    let (closed, answer) = begin(&Security::Strict(identity(&world.order)), b"").await;
    assert!(matches!(closed, Err(AcceptError::Nothing)) && answer.is_empty());
}

#[tokio::test]
async fn tls_to_a_port_in_plain_text_says_so_and_nothing_is_sent_in_plain_text() {
    let world = World::new();
    let (near, mut far) = duplex(64 * 1024);
    let query = identity(&world.query);
    let plain_server = async {
        far.write_all(b"\0\0\0\x04\0\0\0\0\0").await.expect("room");
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("closed");
        heard
    };
    let (connected, heard) = tokio::join!(query.connect("order", near), plain_server);
    let error = connected.expect_err("no TLS").to_string();
    assert!(error.contains("does not speak TLS; it may run in plain mode"), "{error}");
    assert_eq!(heard[0], handshake::TLS_RECORD);
}

#[test]
fn a_strict_process_speaks_no_plain_text_whatever_a_registry_says_and_a_permissive_one_only_to_those_without_identity()
{
    let world = World::new();
    let identity = identity(&world.order);
    let (strict, permissive) = (Security::Strict(identity.clone()), Security::Permissive(identity));
    assert!(strict.to_instance(false).is_some() && strict.to_instance(true).is_some());
    assert!(permissive.to_instance(true).is_some() && permissive.to_instance(false).is_none());
    assert!(Security::Plain.to_instance(true).is_none());
}

#[test]
fn a_certificate_tells_its_dates() {
    let world = World::new();
    let now = SystemTime::now();
    let leaf = Leaf { valid: (now - DAY, now + DAY), ..world.authority.leaf("service/order") };
    let validity = identity(&world.authority.sign(&leaf)).validity();
    let about = |one: SystemTime, other: SystemTime| one.max(other).duration_since(one.min(other)).expect("sorted");
    assert!(about(validity.not_before, now - DAY).as_secs() < 2 && about(validity.not_after, now + DAY).as_secs() < 2);
    assert_eq!(validity.left(now + DAY * 2), Duration::ZERO);
}

/// An identity in a folder.
struct Kept {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl Kept {
    fn new(issued: &Issued) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        issued.write(folder.path()).expect("written");
        let identity = Identity::from_files(TlsFiles::in_folder(folder.path())).expect("good");
        Self { folder, identity }
    }

    fn replace(&self, issued: &Issued) -> Reloaded {
        issued.write(self.folder.path()).expect("written");
        self.identity.reload()
    }
}

#[tokio::test]
async fn what_the_files_say_is_taken_together_if_it_fits_and_what_was_there_stays_if_not() {
    let world = World::new();
    let kept = Kept::new(&world.order);
    assert_eq!(kept.identity.reload(), Reloaded::Unchanged);
    let renewed = world.authority.issue("service/order");
    let now = SystemTime::now();
    let expired =
        world.authority.sign(&Leaf { valid: (now - DAY, now - DAY / 2), ..world.authority.leaf("service/order") });
    for (case, files, part, problem) in [
        (
            "a key of another certificate",
            Issued { key: world.query.key.clone(), ..world.order.clone() },
            Part::Key,
            "is not the key of the certificate",
        ),
        ("half of a renewal", Issued { key: renewed.key.clone(), ..world.order.clone() }, Part::Key, "is not the key"),
        ("no key", Issued { key: "\n".into(), ..world.order.clone() }, Part::Key, "no private key"),
        (
            "no certificate",
            Issued { certificate: "x".into(), ..world.order.clone() },
            Part::Certificate,
            "no certificate",
        ),
        ("an empty bundle", Issued { bundle: String::new(), ..world.order.clone() }, Part::Bundle, "no certificate"),
        (
            "a bundle without its authority",
            Issued { bundle: Authority::new("shop.test").bundle(), ..world.order.clone() },
            Part::Certificate,
            "is not signed by an authority of the bundle",
        ),
        ("an expired one", expired, Part::Certificate, "expired at"),
        ("another's", world.query.clone(), Part::Certificate, "is now that of spiffe://shop.test/service/query"),
    ] {
        let Reloaded::Refused(refused) = kept.replace(&files) else { panic!("{case}") };
        assert!(refused.part == part && refused.problem.contains(problem), "{case}: {refused:?}");
        let (client, _) = meet(&identity(&world.query), "order", &Security::Strict(kept.identity.clone())).await;
        assert_eq!(client, Ok(()), "{case}: the old one stays in use");
    }
    assert_eq!(kept.replace(&renewed), Reloaded::Taken);
    let spaced = Issued { certificate: format!("\n\n{}\n\n", renewed.certificate), ..renewed };
    assert_eq!(kept.replace(&spaced), Reloaded::Taken, "stray newlines do no harm");
    std::fs::remove_file(kept.folder.path().join("ca.pem")).expect("there");
    let Reloaded::Refused(refused) = kept.identity.reload() else { panic!("a file is missing") };
    assert!(refused.part == Part::Bundle && refused.problem.contains("cannot be read"), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mesh_takes_a_renewed_certificate_within_ten_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new("shop.test");
    authority.issue("service/order").write(folder.path()).expect("written");
    let order = Identity::from_files(TlsFiles::in_folder(folder.path())).expect("a good identity");
    let mesh = crate::Mesh::builder().registries(["127.0.0.1:1"]).security(Security::Strict(order.clone()));
    let mesh = mesh.build().expect("a mesh");
    let before = order.validity();
    let (from, until) = authority.leaf("service/order").valid;
    let longer = Leaf { valid: (from, until + DAY), ..authority.leaf("service/order") };
    authority.sign(&longer).write(folder.path()).expect("written");
    let begin = Instant::now();
    while order.validity() == before {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(begin.elapsed() <= Duration::from_secs(12), "nobody looks at the files");
    }
    mesh.close().await;
}

#[tokio::test]
async fn an_authority_is_replaced_with_both_in_the_bundle_and_the_old_one_is_out_afterwards() {
    let world = World::new();
    let (order, query) = (Kept::new(&world.order), Kept::new(&world.query));
    let next = Authority::new("shop.test");
    let both = format!("{}{}", world.authority.bundle(), next.bundle());
    let meets = async || {
        let (client, server) = meet(&query.identity, "order", &Security::Strict(order.identity.clone())).await;
        client.is_ok() && server.is_ok()
    };
    for (kept, old) in [(&order, &world.order), (&query, &world.query)] {
        assert_eq!(kept.replace(&Issued { bundle: both.clone(), ..old.clone() }), Reloaded::Taken);
        assert!(meets().await, "the bundle of one is larger");
    }
    for (kept, path) in [(&order, "service/order"), (&query, "service/query")] {
        assert_eq!(kept.replace(&Issued { bundle: both.clone(), ..next.issue(path) }), Reloaded::Taken);
        assert!(meets().await, "one is signed by the new authority");
    }
    for (kept, path) in [(&order, "service/order"), (&query, "service/query")] {
        assert_eq!(kept.replace(&next.issue(path)), Reloaded::Taken);
        assert!(meets().await, "the old one is out of one bundle");
    }
    let (client, _) = meet(&identity(&world.query), "order", &Security::Strict(order.identity.clone())).await;
    assert!(client.expect_err("of the old authority").contains("not signed by an authority of the bundle"));
}

#[test]
fn a_renewal_that_is_forgotten_shows_in_the_condition_and_ends_there_with_the_renewal() {
    let world = World::new();
    let kept = Kept::new(&world.order);
    let condition = kept.identity.condition();
    let Validity { not_after, .. } = kept.identity.validity();
    kept.identity.look_at_life(not_after - Duration::from_secs(1800));
    assert_eq!(condition.problem(), None);
    kept.identity.look_at_life(not_after - Duration::from_secs(600));
    assert!(condition.problem().expect("below a quarter").contains("was not renewed"));
    kept.identity.look_at_life(not_after + Duration::from_secs(1));
    assert!(condition.problem().expect("expired").contains("no connection can be made"));
    let now = SystemTime::now();
    let renewed = Leaf { valid: (now, now + DAY), ..world.authority.leaf("service/order") };
    assert_eq!(kept.replace(&world.authority.sign(&renewed)), Reloaded::Taken);
    kept.identity.look_at_life(now);
    assert_eq!(condition.problem(), None);
}

#[test]
fn a_key_is_in_no_debug_text() {
    let world = World::new();
    let key_line = world.order.key.lines().nth(1).expect("PEM").to_owned();
    let text = format!("{:?} {:?}", pem(&world.order), identity(&world.order));
    assert!(!text.contains(&key_line) && text.contains("spiffe://shop.test/service/order"), "{text}");
}
