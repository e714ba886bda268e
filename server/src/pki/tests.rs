mod imported;

use std::os::unix::fs::PermissionsExt;

use muster_certs::certificate::Certificate;

use super::*;

fn domain() -> TrustDomain {
    "example.muster".parse().unwrap()
}

fn created() -> (tempfile::TempDir, PathBuf, Pki) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let pki = Pki::create(&dir, &domain(), SystemTime::now()).unwrap();
    (folder, dir, pki)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_created_can_be_loaded_and_is_the_same() {
    let (_folder, dir, created) = created();
    let loaded = Pki::load(&dir).unwrap();
    assert_eq!(loaded.trust_domain(), &domain());
    assert_eq!(loaded.trust_bundle(), created.trust_bundle());
    assert_eq!(loaded.pins(), created.pins());
}

#[test]
fn keys_are_for_their_owner_alone() {
    let (_folder, dir, _) = created();
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn existing_keys_are_never_overwritten() {
    let (_folder, dir, created) = created();
    assert!(matches!(
        Pki::create(&dir, &domain(), SystemTime::now()),
        Err(Error::Exists(_))
    ));
    assert_eq!(Pki::load(&dir).unwrap().trust_bundle(), created.trust_bundle());
}

#[test]
fn what_a_killed_attempt_left_does_not_stand_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    file::create_private_dir(&folder.path().join("pki.incomplete")).unwrap();
    fs::write(folder.path().join("pki.incomplete").join("root.pem"), "half").unwrap();
    Pki::create(&dir, &domain(), SystemTime::now()).unwrap();
    assert!(!folder.path().join("pki.incomplete").exists());
    Pki::load(&dir).unwrap();
}

#[test]
fn a_controller_runs_without_the_root_key() {
    let (_folder, dir, _) = created();
    fs::remove_file(dir.join("root-key.pem")).unwrap();
    Pki::load(&dir).unwrap();
}

#[test]
fn keys_of_another_trust_domain_than_the_configured_one_are_refused() {
    let (_folder, dir, _) = created();
    Pki::load(&dir).unwrap().of_domain(&domain()).unwrap();
    let error = Pki::load(&dir)
        .unwrap()
        .of_domain(&"other.muster".parse().unwrap())
        .unwrap_err();
    assert!(
        error.to_string().contains("other.muster") && error.to_string().contains("example.muster"),
        "{error}"
    );
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let (_folder, dir, _) = created();
    fs::set_permissions(dir.join("issuing-key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = Pki::load(&dir).unwrap_err();
    let text = format!(
        "{error}: {}",
        std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default()
    );
    assert!(text.contains("chmod 600") && text.contains("issuing-key.pem"), "{text}");
}

#[test]
fn a_damaged_key_file_is_named() {
    let (_folder, dir, _) = created();
    file::write_secret(&dir.join(POLICY_KEY), b"not a key").unwrap();
    let error = Pki::load(&dir).unwrap_err();
    assert!(error.to_string().contains(POLICY_KEY), "{error}");
}

#[test]
fn certificates_say_who_they_are_for_and_for_how_long() {
    let (_folder, _, pki) = created();
    let pki = pki.with_lifetimes(Lifetimes {
        agent: Duration::from_secs(3600),
        ..Lifetimes::default()
    });
    let now = SystemTime::now();
    let id = Uuid::new_v4();
    let key = KeyPair::generate().unwrap();
    let agent = pki.issue_agent(id, &key.public_key(), now).unwrap();
    assert_eq!(
        Identity::from_certificate(&agent.der).unwrap(),
        Identity::agent(&domain(), id)
    );
    assert!(agent.not_after <= now + Duration::from_secs(3600));

    let controller = pki.issue_controller("controller1", now).unwrap();
    let leaf = Certificate::parse(&controller.chain[0]).unwrap();
    assert!(leaf.server_auth && !leaf.client_auth);
    assert_eq!(leaf.uris, ["spiffe://example.muster/controller/controller1"]);
    assert_eq!(controller.chain.len(), 3);

    let user = pki.issue_user("oncall", now, Duration::from_secs(60)).unwrap();
    assert_eq!(user.issued.serial, Certificate::parse(&user.chain[0]).unwrap().serial);
    assert!(pki.issue_user("not a name", now, Duration::from_secs(60)).is_err());
}

#[test]
fn a_signed_policy_verifies_with_the_key_of_the_bundle_and_as_its_kind_only() {
    let (_folder, _, pki) = created();
    let signed = pki.sign_policy("Check", Bytes::from_static(b"payload"));
    let [key] = pki.trust_bundle().policy_keys.try_into().unwrap();
    assert_eq!(signed.key_id, key.key_id);
    sign::verify(&key.public_key, "muster.v1/Check", &signed.payload, &signed.signature).unwrap();
    assert!(sign::verify(&key.public_key, "muster.v1/Job", &signed.payload, &signed.signature).is_err());
}

fn prepared() -> (tempfile::TempDir, Pki) {
    let (folder, _, pki) = created();
    let next = pki.authorities().with_prepared(pki.dir(), SystemTime::now()).unwrap();
    pki.set_authorities(next).unwrap();
    (folder, pki)
}

/// Whether a client that trusts these takes the controller's chain.
fn is_trusted(pki: &Pki, pins: &[Pin], roots: &[CertificateDer<'static>]) -> bool {
    use muster_certs::{
        rustls::{ClientConnection, ServerConnection},
        tls,
    };
    let own = pki.issue_controller("controller1", SystemTime::now()).unwrap();
    let served = tls::ServerCertificate::new(own.chain, &own.key).unwrap();
    let server = tls::agent_listener(&served, pki.agents_clients(), &domain()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let client = tls::enrolling(pins, roots).unwrap();
    let mut client = ClientConnection::new(client, tls::server_name("controller")).unwrap();
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && server.read_tls(&mut wire).is_ok() {
            let _ = server.process_new_packets();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && client.read_tls(&mut wire).is_ok() {
            if client.process_new_packets().is_err() {
                return false;
            }
        }
    }
    !client.is_handshaking()
}

#[test]
fn who_knows_the_old_root_or_its_pin_alone_knows_the_controller_in_every_phase() {
    let (_folder, pki) = prepared();
    let first = pki.authorities().active().clone();
    let known = |pki: &Pki| {
        let root = is_trusted(pki, &[], std::slice::from_ref(&first.root));
        let pin = is_trusted(pki, std::slice::from_ref(&first.pin), &[]);
        (root, pin)
    };
    assert_eq!(known(&pki), (true, true), "prepared");
    let now = clock::now();
    pki.set_authorities(pki.authorities().with_activated(now).unwrap())
        .unwrap();
    assert_ne!(pki.active_id(), first.id());
    assert_eq!(known(&pki), (true, true), "activated");
    let second = pki.authorities().active().clone();
    assert!(is_trusted(&pki, std::slice::from_ref(&second.pin), &[]));

    let authorities = pki.authorities();
    let shown = authorities.with_retired(false, now + clock::HOUR, now).unwrap();
    pki.set_authorities(shown).unwrap();
    assert_eq!(known(&pki), (true, true), "retired, and somebody still knows no better");
    assert_eq!(pki.roots(), std::slice::from_ref(&second.root));
    pki.set_authorities(authorities.with_retired(false, now - 1, now).unwrap())
        .unwrap();
    assert_eq!(known(&pki), (false, false), "nobody needs it");
    pki.set_authorities(authorities.with_retired(true, now + clock::HOUR, now).unwrap())
        .unwrap();
    assert_eq!(known(&pki), (false, false), "compromised");
    assert!(is_trusted(&pki, &[], &[second.root]));
}

#[test]
fn a_rotation_is_on_disk_and_every_phase_has_a_newer_bundle() {
    let (_folder, pki) = prepared();
    let mut versions = vec![1, pki.trust_bundle_version()];
    let check = |pki: &Pki| {
        let again = Pki::load(pki.dir()).unwrap();
        assert_eq!(again.trust_bundle(), pki.trust_bundle());
        assert_eq!(again.active_id(), pki.active_id());
        assert_eq!(again.pins(), pki.pins());
    };
    assert_eq!(pki.pins().len(), 2);
    check(&pki);
    pki.set_authorities(pki.authorities().with_activated(clock::now()).unwrap())
        .unwrap();
    versions.push(pki.trust_bundle_version());
    check(&pki);
    let retired = pki.authorities().with_retired(false, 0, clock::now()).unwrap();
    pki.set_authorities(retired).unwrap();
    versions.push(pki.trust_bundle_version());
    check(&pki);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(pki.trust_bundle().roots.len(), 1);
}

#[test]
fn a_root_key_that_was_taken_away_is_asked_for_by_its_place() {
    let (folder, dir, pki) = created();
    let key = dir.join("root-key.pem");
    let elsewhere = folder.path().join("offline.pem");
    fs::rename(&key, &elsewhere).unwrap();
    let error = pki
        .authorities()
        .with_prepared(pki.dir(), SystemTime::now())
        .unwrap_err();
    assert!(matches!(&error, Error::RootKeyOffline(path) if *path == key), "{error}");
    fs::rename(&elsewhere, &key).unwrap();
    pki.authorities().with_prepared(pki.dir(), SystemTime::now()).unwrap();
}
