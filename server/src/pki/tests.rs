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
    fs::write(folder.path().join("pki.incomplete").join(ROOT), "half").unwrap();
    Pki::create(&dir, &domain(), SystemTime::now()).unwrap();
    assert!(!folder.path().join("pki.incomplete").exists());
    Pki::load(&dir).unwrap();
}

#[test]
fn a_controller_runs_without_the_root_key() {
    let (_folder, dir, _) = created();
    fs::remove_file(dir.join(ROOT_KEY)).unwrap();
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
    fs::set_permissions(dir.join(ISSUING_KEY), fs::Permissions::from_mode(0o640)).unwrap();
    let error = Pki::load(&dir).unwrap_err();
    let text = format!(
        "{error}: {}",
        std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default()
    );
    assert!(text.contains("chmod 600") && text.contains(ISSUING_KEY), "{text}");
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
