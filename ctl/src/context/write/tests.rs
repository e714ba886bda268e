//! Files that were written, read again.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use muster_certs::{ca, ca::Ca};
use proptest::prelude::*;

use super::*;

/// A root with the CA below it.
struct Authority {
    root: Ca,
    issuing: Ca,
}

static FIRST: LazyLock<Authority> = LazyLock::new(Authority::new);
static SECOND: LazyLock<Authority> = LazyLock::new(Authority::new);

impl Authority {
    fn new() -> Authority {
        let root = Ca::create_root(&"example.muster".parse().unwrap(), SystemTime::now()).unwrap();
        let issuing = Ca::create_issuing(&root, SystemTime::now()).unwrap();
        Authority { root, issuing }
    }

    /// What a controller answers.
    fn answer(&self, user: &str, key: &PublicKey) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let identity = Identity::user(&"example.muster".parse().unwrap(), user).unwrap();
        let validity = ca::backdated(SystemTime::now(), Duration::from_secs(3600));
        let leaf = self.issuing.issue(&identity, key, validity).unwrap().der;
        let chain = vec![leaf.to_vec(), self.issuing.certificate_der().to_vec()];
        (chain, vec![self.root.certificate_der().to_vec()])
    }

    fn issued(&self, context: &Context, user: &str, key: &PublicKey) -> Issued {
        let (chain, roots) = self.answer(user, key);
        Issued::of(context, user, key, chain, roots).unwrap()
    }

    /// A context of the user admin as it stands in a file.
    fn context(&self, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let (chain, _) = self.answer("admin", &key.public_key());
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let entry = context_file::Entry {
            is_protected: false,
            name,
            server: "127.0.0.1:9443",
            trust_domain: "example.muster",
            server_name: None,
            roots: &self.root.certificate_pem(),
            credentials: context_file::Credentials::Certificate {
                certificates: &pem::encode_certificates(&chain),
                key: Some(&key.to_pem()),
            },
        };
        let file = context_file::render("", None, &[entry]);
        file.strip_prefix("contexts:\n").unwrap().to_owned()
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(content: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        file::write_secret(&folder.path("config.yaml"), content.as_bytes()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, context: Option<&str>) -> Context {
        Context::load(Some(&self.path("config.yaml")), context, None).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("config.yaml")).unwrap()
    }
}

/// The same context with a new key, from the second CA.
fn renewed(before: &Context) -> Context {
    let key = KeyPair::generate().unwrap();
    let issued = SECOND.issued(before, "admin", &key.public_key());
    let identity = IdentityFile::new(key, issued.certificates.clone()).unwrap();
    before.renewed(&issued, identity)
}

#[test]
fn a_new_file_is_a_context_that_is_ready_for_use_by_its_owner_alone() {
    let folder = Folder::with(&format!("contexts:\n{}", FIRST.context("dev")));
    let context = folder.load(None);
    let key = KeyPair::generate().unwrap();
    let issued = SECOND.issued(&context, "alice", &key.public_key());
    let path = folder.path("alice.yaml");
    let file = NewFile::claim(&path).unwrap();
    file.write(&issued.new_file(&context, Some(&key))).unwrap();

    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let alice = Context::load(Some(&path), None, None).unwrap();
    assert_eq!((alice.name.as_str(), &alice.server), ("dev", &context.server));
    assert_eq!(
        alice.identity().unwrap().identity().to_string(),
        "spiffe://example.muster/user/alice"
    );
    assert_eq!(alice.roots, [SECOND.root.certificate_der().clone()]);
}

#[test]
fn a_file_without_a_key_is_whole_when_its_owner_has_added_it() {
    let folder = Folder::with(&format!("contexts:\n{}", FIRST.context("dev")));
    let context = folder.load(None);
    let key = KeyPair::generate().unwrap();
    let issued = FIRST.issued(&context, "alice", &key.public_key());
    let mut text = issued.new_file(&context, None).to_string();
    text.push_str("    key: |\n");
    for line in key.to_pem().lines() {
        text.push_str(&format!("      {line}\n"));
    }
    let alice = Folder::with(&text).load(None);
    assert_eq!(alice.identity().unwrap().key().public_key(), key.public_key());
}

#[test]
fn no_file_is_overwritten_and_an_attempt_leaves_none() {
    let folder = Folder::with("precious");
    let before = NewFile::claim(&folder.path("config.yaml")).unwrap_err();
    assert!(before.headline.contains("exists already"), "{before:?}");
    symlink("nowhere", folder.path("link")).unwrap();
    NewFile::claim(&folder.path("link")).unwrap_err();
    assert_eq!(folder.text(), "precious");

    let attempt = NewFile::claim(&folder.path("alice.yaml")).unwrap();
    assert!(folder.path("alice.yaml").exists());
    drop(attempt);
    assert!(!folder.path("alice.yaml").exists());
    assert!(NewFile::claim(&folder.path("none/alice.yaml")).is_err());
}

#[test]
fn a_renewed_context_takes_its_own_place_and_nothing_else_changes() {
    let (dev, prod) = (FIRST.context("dev"), FIRST.context("prod"));
    let folder = Folder::with(&format!("# mine\n# alone\ncurrent: prod\ncontexts:\n{dev}{prod}"));
    let before = folder.load(None);
    let after = renewed(&before);
    after.replace(&before).unwrap();

    let text = folder.text();
    assert!(
        text.starts_with("# mine\n# alone\ncurrent: \"prod\"\ncontexts:\n"),
        "{text}"
    );
    assert!(text.contains(&dev), "the other context is as it was");
    let now = folder.load(None);
    assert_eq!(now.name, "prod");
    assert_eq!(now.identity().unwrap().serial(), after.identity().unwrap().serial());
    assert_eq!(now.roots, [SECOND.root.certificate_der().clone()]);
    let mode = fs::metadata(folder.path("config.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_link_to_the_file_stays_a_link() {
    let folder = Folder::with(&format!("contexts:\n{}", FIRST.context("dev")));
    symlink(folder.path("config.yaml"), folder.path("link.yaml")).unwrap();
    let before = Context::load(Some(&folder.path("link.yaml")), None, None).unwrap();
    let after = renewed(&before);
    after.replace(&before).unwrap();
    assert!(fs::symlink_metadata(folder.path("link.yaml")).unwrap().is_symlink());
    assert_eq!(
        folder.load(None).identity().unwrap().serial(),
        after.identity().unwrap().serial()
    );
}

#[test]
fn a_context_that_has_changed_meanwhile_is_not_touched() {
    let folder = Folder::with(&format!("contexts:\n{}", FIRST.context("dev")));
    let before = folder.load(None);
    renewed(&before).replace(&before).unwrap();
    let text = folder.text();
    let problem = renewed(&before).replace(&before).unwrap_err();
    assert!(problem.why.contains("another one by now"), "{problem:?}");
    assert_eq!(folder.text(), text);
}

#[test]
fn who_is_known_by_a_host_name_keeps_the_roots_of_the_web_pki() {
    let named = format!(
        "contexts:\n{}    server_name: \"muster.example.com\"\n",
        FIRST.context("dev")
    );
    let folder = Folder::with(&named);
    let before = folder.load(None);
    renewed(&before).replace(&before).unwrap();
    let now = folder.load(None);
    assert_eq!(now.server_name.as_deref(), Some("muster.example.com"));
    assert_eq!(now.roots, [FIRST.root.certificate_der().clone()]);
}

#[test]
fn an_answer_that_was_not_asked_for_is_refused() {
    let folder = Folder::with(&format!("contexts:\n{}", FIRST.context("dev")));
    let context = folder.load(None);
    let (mine, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let of = |user: &str, key: &KeyPair, chain, roots| Issued::of(&context, user, &key.public_key(), chain, roots);
    let (chain, roots) = FIRST.answer("alice", &mine.public_key());
    assert!(of("alice", &mine, chain.clone(), roots.clone()).is_ok());
    for wrong in [
        of("alice", &other, chain.clone(), roots.clone()),
        of("bob", &mine, chain.clone(), roots.clone()),
        of("alice", &mine, Vec::new(), roots.clone()),
        of("alice", &mine, chain.clone(), Vec::new()),
        of("alice", &mine, chain.clone(), vec![vec![1]]),
        of("alice", &mine, vec![vec![1]], roots),
    ] {
        assert!(wrong.is_err());
    }
}

/// Texts that YAML could take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[-#:|>'\"\\\\ \n\t{}&*!%@`a]{0,12}",
        Just("~".to_owned()),
        Just("on".to_owned()),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_again(texts in prop::collection::vec(text(), 7), current in text()) {
        let [name, server, trust_domain, server_name, roots, certificates, key] = &texts[..] else { unreachable!() };
        let entry = context_file::Entry {
            is_protected: false,
            name,
            server,
            trust_domain,
            server_name: Some(server_name),
            roots,
            credentials: context_file::Credentials::Certificate {
                certificates,
                key: Some(key),
            },
        };
        let with_key = context_file::Entry {
            credentials: context_file::Credentials::ApiKey(key),
            ..entry
        };
        let written = context_file::render(HEADER, Some(&current), &[entry, with_key]);
        let file = parse(Path::new("x"), &written).map_err(|problem| TestCaseError::fail(problem.why.clone()))?;
        prop_assert_eq!(file.current.as_ref(), Some(&current));
        prop_assert_eq!(file.contexts.len(), 2);
        for read in &file.contexts {
            let read = [&read.name, &read.server, &read.trust_domain, read.server_name.as_ref().unwrap(), &read.ca];
            prop_assert_eq!(read, [name, server, trust_domain, server_name, roots]);
        }
        let secrets = |at: usize| {
            let read: &super::super::Entry = &file.contexts[at];
            (read.certificate.clone(), read.key.as_deref().cloned(), read.api_key.as_deref().cloned())
        };
        prop_assert_eq!(secrets(0), (Some(certificates.clone()), Some(key.clone()), None));
        prop_assert_eq!(secrets(1), (None, None, Some(key.clone())));
    }
}
