//! CAs of another PKI, and what a running controller takes over from disk. Foreign CAs are made with our own, which are CAs
//! like any other to who reads them.

use muster_certs::{ca::Ca, pem};

use super::*;

/// A root somewhere else, and files of issuing CAs below it.
struct Elsewhere {
    root: Ca,
    folder: tempfile::TempDir,
}

impl Elsewhere {
    fn new() -> Self {
        Self {
            root: Ca::create_root(&"corp.example".parse().unwrap(), SystemTime::now()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A new issuing CA, with these further certificates in the file.
    fn chain(&self, more: &[&CertificateDer<'static>]) -> Result<Chain, Error> {
        let issuing = Ca::create_issuing(&self.root, SystemTime::now()).unwrap();
        self.files(&issuing, more)
    }

    fn files(&self, issuing: &Ca, more: &[&CertificateDer<'static>]) -> Result<Chain, Error> {
        let (certificates, key) = (self.folder.path().join("ca.pem"), self.folder.path().join("ca-key.pem"));
        let mut all = vec![issuing.certificate_der(), self.root.certificate_der()];
        all.extend(more);
        fs::write(&certificates, pem::encode_certificates(all)).unwrap();
        file::write_secret(&key, issuing.key_pem().as_bytes()).unwrap();
        import::read(&domain(), &certificates, &key, SystemTime::now())
    }
}

fn external() -> (tempfile::TempDir, Elsewhere, Pki) {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Elsewhere::new();
    let chain = elsewhere.chain(&[]).unwrap();
    let pki = Pki::create_external(&folder.path().join("pki"), &chain).unwrap();
    (folder, elsewhere, pki)
}

fn text(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

#[test]
fn an_installation_can_stand_on_a_ca_of_another_pki() {
    let (_folder, elsewhere, pki) = external();
    assert_eq!(pki.trust_domain(), &domain());
    assert_eq!(pki.roots(), [elsewhere.root.certificate_der().clone()]);
    assert!(pki.authorities().active().entry.external);
    assert!(is_trusted(&pki, &pki.pins(), &[]));
    let key = KeyPair::generate().unwrap();
    let agent = pki
        .issue_agent(Uuid::new_v4(), &key.public_key(), SystemTime::now())
        .unwrap();
    let chain = pki.agent_chain(agent.der);
    assert_eq!(chain[1], *pki.authorities().active().issuing.certificate_der());
    for entry in fs::read_dir(pki.dir()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert_eq!(Pki::load(pki.dir()).unwrap().trust_bundle(), pki.trust_bundle());
    // The next one comes from there too.
    let error = pki
        .authorities()
        .with_prepared(pki.dir(), SystemTime::now())
        .unwrap_err();
    assert!(error.to_string().contains("ca import"), "{error}");
}

#[test]
fn the_next_ca_of_the_same_root_is_trusted_without_more() {
    let (_folder, elsewhere, pki) = external();
    let first = pki.active_id();
    let version = pki.trust_bundle_version();
    let imported = pki.import(elsewhere.chain(&[]).unwrap(), SystemTime::now()).unwrap();
    let Imported::Prepared(second) = imported else {
        panic!("{imported:?}")
    };
    assert!(pki.trust_bundle_version() > version);
    assert_eq!((pki.roots().len(), pki.pins().len()), (1, 1));
    assert_eq!(pki.active_id(), first);
    let error = pki
        .import(elsewhere.chain(&[]).unwrap(), SystemTime::now())
        .unwrap_err();
    assert!(error.to_string().contains("prepared already"), "{error}");

    pki.set_authorities(pki.authorities().with_activated(clock::now()).unwrap())
        .unwrap();
    assert_eq!(pki.active_id(), second);
    assert!(is_trusted(&pki, &[], &[elsewhere.root.certificate_der().clone()]));
    let error = pki
        .import(elsewhere.chain(&[]).unwrap(), SystemTime::now())
        .unwrap_err();
    assert!(error.to_string().contains("not retired"), "{error}");
}

#[test]
fn another_root_is_taken_with_the_word_of_the_present_one_and_not_without() {
    let (_folder, elsewhere, pki) = external();
    let present = elsewhere.root.certificate_der().clone();
    let other = Elsewhere::new();
    let error = pki.import(other.chain(&[]).unwrap(), SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("present one has signed"), "{error}");
    assert!(pki.authorities().prepared().is_none());

    let cross = elsewhere.root.cross_sign(&other.root, SystemTime::now()).unwrap();
    pki.import(other.chain(&[&cross]).unwrap(), SystemTime::now()).unwrap();
    assert_eq!(pki.roots().len(), 2);
    pki.set_authorities(pki.authorities().with_activated(clock::now()).unwrap())
        .unwrap();
    assert!(is_trusted(&pki, &[], &[present]), "who knows the old root alone");
    assert!(is_trusted(&pki, &[], &[other.root.certificate_der().clone()]));
}

#[test]
fn our_own_root_speaks_for_one_of_another_pki_when_its_key_is_there() {
    let (_folder, dir, pki) = created();
    let own = pki.roots()[0].clone();
    let elsewhere = Elsewhere::new();
    let key = dir.join("root-key.pem");
    fs::rename(&key, dir.join("away")).unwrap();
    let error = pki
        .import(elsewhere.chain(&[]).unwrap(), SystemTime::now())
        .unwrap_err();
    assert!(matches!(&error, Error::RootKeyOffline(path) if *path == key), "{error}");
    fs::rename(dir.join("away"), &key).unwrap();
    pki.import(elsewhere.chain(&[]).unwrap(), SystemTime::now()).unwrap();
    pki.set_authorities(pki.authorities().with_activated(clock::now()).unwrap())
        .unwrap();
    assert!(is_trusted(&pki, &[], &[own]));
}

#[test]
fn a_ca_that_is_there_gets_its_new_certificate() {
    let (_folder, elsewhere, pki) = external();
    let active = pki.authorities().active().clone();
    // The same key again, as its PKI has renewed it.
    let renewed = elsewhere.files(&active.issuing, &[]).unwrap();
    let imported = pki.import(renewed, SystemTime::now()).unwrap();
    assert_eq!(imported, Imported::Renewed(active.id()));
    assert_eq!(pki.authorities().all().len(), 1);
    assert_ne!(pki.authorities().active().entry.folder, active.entry.folder);
    assert_eq!(Pki::load(pki.dir()).unwrap().trust_bundle(), pki.trust_bundle());
}

#[test]
fn files_that_are_no_good_are_told_by_their_names() {
    let elsewhere = Elsewhere::new();
    elsewhere.chain(&[]).unwrap();
    let at = |name: &str| elsewhere.folder.path().join(name);
    let read = || import::read(&domain(), &at("ca.pem"), &at("ca-key.pem"), SystemTime::now());
    fs::set_permissions(at("ca-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = text(&read().unwrap_err());
    assert!(error.contains("chmod 600") && error.contains("ca-key.pem"), "{error}");
    file::write_secret(&at("ca-key.pem"), b"nothing").unwrap();
    let error = text(&read().unwrap_err());
    assert!(error.contains("ca-key.pem"), "{error}");
    fs::write(at("ca.pem"), "nothing").unwrap();
    let error = text(&read().unwrap_err());
    assert!(error.contains("ca.pem"), "{error}");
    fs::remove_file(at("ca.pem")).unwrap();
    let error = text(&read().unwrap_err());
    assert!(error.contains("ca.pem"), "{error}");
}

#[test]
fn a_running_controller_takes_over_what_another_process_has_imported() {
    let (_folder, elsewhere, running) = external();
    assert!(running.reload().unwrap().is_none(), "nothing has changed");
    let mut told = running.watch();
    let host = Pki::load(running.dir()).unwrap();
    let imported = host.import(elsewhere.chain(&[]).unwrap(), SystemTime::now()).unwrap();
    let Imported::Prepared(id) = imported else {
        panic!("{imported:?}")
    };

    let reloaded = running.reload().unwrap().expect("it has changed");
    assert!(reloaded.before.prepared().is_none());
    assert_eq!(reloaded.after.prepared().unwrap().id(), id);
    assert!(told.has_changed().unwrap());
    told.mark_unchanged();
    assert_eq!(running.trust_bundle(), host.trust_bundle());
    assert!(running.reload().unwrap().is_none(), "once");
    // And the other way round: who changes something has what is on disk.
    running
        .set_authorities(running.authorities().with_activated(clock::now()).unwrap())
        .unwrap();
    drop(host.alone().unwrap());
    assert_eq!(host.active_id(), id);
}

#[test]
fn what_is_no_good_on_disk_is_told_once_and_changes_nothing() {
    let (_folder, dir, running) = created();
    let good = fs::read(dir.join("issuing.pem")).unwrap();
    let bundle = running.trust_bundle();
    file::write_secret(&dir.join("issuing.pem"), b"damaged").unwrap();
    assert!(text(&running.reload().unwrap_err()).contains("issuing.pem"));
    assert!(running.reload().unwrap().is_none(), "told already");
    assert_eq!(running.trust_bundle(), bundle);
    file::write_secret(&dir.join("issuing.pem"), &good).unwrap();
    assert!(running.reload().unwrap().is_none(), "as before");

    // Neither another trust domain nor an older list.
    let next = running.authorities().with_prepared(&dir, SystemTime::now()).unwrap();
    running.set_authorities(next).unwrap();
    let list = fs::read_to_string(dir.join("authorities.json")).unwrap();
    for (from, to, word) in [
        ("example.muster", "other.muster", "trust domain"),
        (&running.trust_bundle_version().to_string()[..], "2", "older"),
    ] {
        file::write_secret(&dir.join("authorities.json"), list.replace(from, to).as_bytes()).unwrap();
        let error = running.reload().unwrap_err().to_string();
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
    file::write_secret(&dir.join("authorities.json"), b"{}").unwrap();
    assert!(running.reload().is_err());
}
