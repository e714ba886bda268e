//! Context files, right and wrong.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use muster_certs::{Identity, ca::Ca, key::KeyPair};

use super::*;

/// 2026-11-20T23:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_215_600)
}

/// A context as the controller writes it.
fn entry(name: &str) -> String {
    let trust_domain: TrustDomain = "example.muster".parse().unwrap();
    let root = Ca::create_root(&trust_domain, now()).unwrap();
    let issuing = Ca::create_issuing(&root, now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let user = Identity::User {
        trust_domain,
        name: "admin".parse().unwrap(),
    };
    let validity = muster_certs::ca::backdated(now(), muster_certs::ca::USER_LIFETIME);
    let issued = issuing.issue(&user, &key.public_key(), validity).unwrap();
    let chain = muster_certs::pem::encode_certificates([&issued.der, issuing.certificate_der()]);
    let block = |text: &str| text.lines().map(|line| format!("      {line}\n")).collect::<String>();
    format!(
        "  - name: {name}\n    server: 127.0.0.1:9443\n    trust_domain: example.muster\n    ca: |\n{}    certificate: |\n{}    key: |\n{}",
        block(&root.certificate_pem()),
        block(&chain),
        block(&key.to_pem()),
    )
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(content: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        file::write_secret(&folder.path(), content.as_bytes()).unwrap();
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("admin.yaml")
    }

    fn load(&self, name: Option<&str>) -> Result<Context, Problem> {
        Context::load(Some(&self.path()), name, None)
    }

    fn refuse(&self, name: Option<&str>) -> Problem {
        self.load(name).unwrap_err()
    }
}

#[test]
fn a_context_is_read_as_the_controller_writes_it() {
    let folder = Folder::with(&format!("current: dev\ncontexts:\n{}{}", entry("dev"), entry("prod")));
    let context = folder.load(None).unwrap();
    assert_eq!(
        (context.name.as_str(), context.server.as_str()),
        ("dev", "127.0.0.1:9443")
    );
    assert_eq!(
        context.identity().unwrap().identity().to_string(),
        "spiffe://example.muster/user/admin"
    );
    assert_eq!(context.roots.len(), 1);
    assert_eq!(folder.load(Some("prod")).unwrap().name, "prod");
}

#[test]
fn a_controller_can_be_known_by_its_host_name() {
    let plain = Folder::with(&format!("contexts:\n{}", entry("dev")));
    assert_eq!(plain.load(None).unwrap().server_name, None);
    let named = format!("contexts:\n{}    server_name: muster.example.com\n", entry("dev"));
    let context = Folder::with(&named).load(None).unwrap();
    assert_eq!(context.server_name.as_deref(), Some("muster.example.com"));
}

#[test]
fn the_only_context_needs_no_choice_and_two_do() {
    assert_eq!(
        Folder::with(&format!("contexts:\n{}", entry("dev")))
            .load(None)
            .unwrap()
            .name,
        "dev"
    );
    let problem = Folder::with(&format!("contexts:\n{}{}", entry("a"), entry("b"))).refuse(None);
    assert!(problem.why.contains("it has a, b"), "{problem:?}");
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let folder = Folder::with(&format!("contexts:\n{}", entry("dev")));
    for mode in [0o640, 0o604, 0o666, 0o610] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let problem = folder.refuse(None);
        assert_eq!(problem.exit, Exit::Failure);
        assert!(problem.why.contains(&format!("{mode:04o}")), "{problem:?}");
        assert_eq!(problem.steps[0], format!("chmod 600 {}", folder.path().display()));
    }
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let problem = Context::load(Some(&folder.path().join("none.yaml")), None, None).unwrap_err();
    assert!(problem.why.contains("none.yaml does not exist"), "{problem:?}");
    assert!(
        problem.steps.concat().contains("muster-server admin create"),
        "{problem:?}"
    );
}

#[test]
fn a_mistyped_context_finds_the_one_that_was_meant() {
    let folder = Folder::with(&format!("contexts:\n{}", entry("production")));
    let problem = folder.refuse(Some("prodution"));
    assert_eq!(problem.steps, ["did you mean --context production?"]);
    assert!(folder.refuse(Some("x")).why.contains("it has production"));
}

#[test]
fn a_broken_file_is_explained_without_showing_what_is_in_it() {
    let whole = format!("current: dev\ncontexts:\n{}", entry("dev"));
    let key_line = whole.lines().rev().nth(1).unwrap().trim().to_owned();
    for broken in [
        whole.replace("    key: |", "    keys: |"),
        whole.replace("    key: |", "    key: "),
        whole.replace("    key: |", "   key: |"),
        whole.replace("BEGIN PRIVATE", "BEGIN PRIVAT"),
        whole.replace("example.muster", "no domain!"),
        format!("{whole}extra: 1\n"),
        "[".to_owned(),
    ] {
        let problem = Folder::with(&broken).refuse(None);
        let text = format!("{problem:?}");
        assert!(!text.contains(&key_line), "{text}");
        assert!(!problem.why.is_empty() && !problem.steps.is_empty(), "{text}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (first, second) = (entry("dev"), entry("dev"));
    let key = second.split("    key: |\n").nth(1).unwrap();
    let mixed = format!(
        "contexts:\n{}    key: |\n{key}",
        first.split("    key: |\n").next().unwrap()
    );
    let problem = Folder::with(&mixed).refuse(None);
    assert!(
        problem
            .why
            .contains("`certificate and key`: the private key does not belong"),
        "{problem:?}"
    );
}

#[test]
fn the_last_week_of_a_certificate_is_worth_a_word() {
    let context = Folder::with(&format!("contexts:\n{}", entry("dev")))
        .load(None)
        .unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(context.days_left(now()), None);
    assert_eq!(
        context.days_left(context.identity().unwrap().not_after() - day * 3),
        Some(3)
    );
    assert_eq!(
        context.days_left(context.identity().unwrap().not_after() + day),
        None,
        "the controller says so itself"
    );
}

/// The context file of a script: what knows the controller, and an API key.
fn entry_of_key(name: &str, key: &ApiKey) -> String {
    let entry = entry(name);
    let (head, _) = entry.split_once("    certificate: |").unwrap();
    format!("{head}    api_key: {}\n", *key.expose())
}

#[test]
fn an_api_key_stands_in_the_place_of_certificate_and_key() {
    let key = ApiKey::generate().unwrap();
    let context = Folder::with(&format!("contexts:\n{}", entry_of_key("ci", &key)))
        .load(None)
        .unwrap();
    assert!(matches!(&context.credentials, Credentials::ApiKey(read) if read.id() == key.id()));
    assert!(context.identity().is_none() && context.days_left(now()).is_none());
    let secret = key.expose();
    assert!(!format!("{context:?}").contains(secret.rsplit('_').next().unwrap()));
}

#[test]
fn a_key_that_is_given_takes_the_place_of_what_the_context_holds() {
    let (own, given) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let nobody = entry_of_key("dev", &own).replace("    api_key", "    # api_key");
    for entry in [entry("dev"), entry_of_key("dev", &own), nobody] {
        let folder = Folder::with(&format!("contexts:\n{entry}"));
        let context = Context::load(Some(&folder.path()), None, Some(given.clone())).unwrap();
        assert!(matches!(&context.credentials, Credentials::ApiKey(key) if key.id() == given.id()));
    }
}

#[test]
fn a_context_is_one_caller_and_says_what_is_missing_or_too_much() {
    let key = ApiKey::generate().unwrap();
    let secret = key.expose();
    let with_key = entry_of_key("dev", &key);
    let whole = entry("dev");
    let (keyless, _) = whole.split_once("    key: |").unwrap();
    for (entry, why) in [
        (format!("{whole}    api_key: {}\n", *secret), "leave one of them out"),
        (keyless.to_owned(), "`key` is missing"),
        (with_key.replace("    api_key", "    # api_key"), "neither"),
        (
            with_key.replace(secret.as_str(), &secret[..secret.len() - 1]),
            "`api_key`: an API key is",
        ),
        (
            with_key.replace(secret.as_str(), "''"),
            "`api_key`: an API key is missing",
        ),
    ] {
        let problem = Folder::with(&format!("contexts:\n{entry}")).refuse(None);
        assert!(problem.why.contains(why), "{why}: {problem:?}");
        assert!(!format!("{problem:?}").contains(&secret[25..60]), "{problem:?}");
    }
}
