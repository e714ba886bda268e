//! Identities on disk, whole and broken.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ca::AGENT_LIFETIME;
use crate::fixtures::{Installation, forge, forge_of, now};

#[test]
fn an_identity_survives_being_saved_and_loaded() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("identity.pem");
    let saved = Installation::new().agent();
    saved.save(&path).unwrap();
    let loaded = IdentityFile::load(&path).unwrap();
    assert_eq!(loaded.to_pem(), saved.to_pem());
    assert_eq!(loaded.chain(), saved.chain());
    assert_eq!(loaded.identity(), saved.identity());
    assert_eq!(loaded.serial(), saved.serial());
    assert_eq!(loaded.not_after(), now() + AGENT_LIFETIME);
}

#[test]
fn the_key_comes_first_in_the_file() {
    let text = Installation::new().agent().to_pem();
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 3);
    assert_eq!(
        text.capacity(),
        text.len(),
        "a grown buffer leaves a copy of the key behind"
    );
}

#[test]
fn key_and_chain_may_stand_in_either_order() {
    let agent = Installation::new().agent();
    let text = format!("{}{}", pem::encode_certificates(agent.chain()), *agent.key().to_pem());
    assert_eq!(IdentityFile::from_pem(&text).unwrap().serial(), agent.serial());
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("identity.pem");
    Installation::new().agent().save(&path).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        IdentityFile::load(&path),
        Err(Error::File(file::Error::FileTooOpen { .. }))
    ));
}

#[test]
fn the_key_of_another_certificate_is_noticed() {
    let installation = Installation::new();
    let (agent, user) = (installation.agent(), installation.user("oncall"));
    let mixed = format!("{}{}", *agent.key().to_pem(), pem::encode_certificates(user.chain()));
    assert!(matches!(IdentityFile::from_pem(&mixed), Err(ContentError::KeyMismatch)));
    let mut upside_down = agent.chain().to_vec();
    upside_down.reverse();
    let upside_down = format!("{}{}", *agent.key().to_pem(), pem::encode_certificates(&upside_down));
    assert!(matches!(
        IdentityFile::from_pem(&upside_down),
        Err(ContentError::KeyMismatch)
    ));
}

#[test]
fn half_an_identity_is_named_as_such() {
    let agent = Installation::new().agent();
    let chain = pem::encode_certificates(agent.chain());
    assert!(matches!(
        IdentityFile::from_pem(&chain),
        Err(ContentError::Pem(pem::Error::NoPrivateKey))
    ));
    let key = agent.key().to_pem();
    assert!(matches!(
        IdentityFile::from_pem(&key),
        Err(ContentError::Pem(pem::Error::NoCertificate))
    ));
}

#[test]
fn a_certificate_without_an_identity_is_refused() {
    let key = KeyPair::generate().unwrap();
    let der = forge(
        &forge_of(&Installation::new().issuing),
        &key,
        &["https://example.com"],
        |_| (),
    );
    assert!(matches!(
        IdentityFile::new(key, vec![der]),
        Err(ContentError::Identity(_))
    ));
}

#[test]
fn an_unreadable_file_is_named_and_its_content_is_not_repeated() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("identity.pem");
    file::write_secret(
        &path,
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    let error = IdentityFile::load(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to read the identity in {}", path.display())
    );
    let text = format!("{error:?}");
    assert!(!text.contains("c2VjcmV0") && !text.contains("secret"), "{text}");
}

#[test]
fn the_private_key_is_not_in_debug() {
    let agent = Installation::new().agent();
    let pem = agent.to_pem();
    let debug = format!("{agent:?}");
    assert!(
        !debug.contains(pem.lines().nth(1).unwrap()) && !debug.contains("pkcs8"),
        "{debug}"
    );
}

proptest! {
    #[test]
    fn a_file_cut_short_is_never_taken_for_whole(at in any::<prop::sample::Index>()) {
        let agent = Installation::new().agent();
        let leaf_only = IdentityFile::new(KeyPair::from_pem(&agent.key().to_pem()).unwrap(), agent.chain()[..1].to_vec()).unwrap();
        let text = leaf_only.to_pem();
        let cut = &text[..at.index(text.len() - 1)];
        prop_assert!(IdentityFile::from_pem(cut).is_err());
    }
}
