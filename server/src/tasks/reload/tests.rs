use muster_certs::{ca::Ca, tls::ServerCertificate};

use super::*;
use crate::store::{EventFilter, Source};

struct Rig {
    folder: tempfile::TempDir,
    reload: Reload,
}

async fn rig(with_api: bool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    file::create_private_dir(&data).unwrap();
    let now = SystemTime::now();
    let pki = Arc::new(Pki::create(&data.join("pki"), &"example.muster".parse().unwrap(), now).unwrap());
    let own = pki.issue_controller("controller1", now).unwrap();
    let own = ServerCertificate::new(own.chain, &own.key).unwrap();
    let files = ApiCertificate {
        certificate: folder.path().join("api.pem"),
        key: folder.path().join("api-key.pem"),
    };
    Rig {
        reload: Reload {
            db: Db::open(&Source::Sqlite(data)).await.unwrap(),
            pki,
            telemetry: Telemetry::new(),
            api: with_api.then(|| Api::new(files, tls::ApiCertificate::new(&own))),
        },
        folder,
    }
}

impl Rig {
    async fn look(&mut self) -> Vec<String> {
        self.reload.look(SystemTime::now()).await;
        let filter = EventFilter::newest(100);
        let mut rows = self.reload.db.event_list(&filter).await.unwrap();
        rows.reverse();
        rows.into_iter()
            .map(|row| format!("{} {}", row.reason, row.message))
            .collect()
    }

    fn put(&self, name: &str, text: &str) {
        file::write_secret(&self.folder.path().join(name), text.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_is_no_good_is_told_at_the_second_look_and_once() {
    let mut rig = rig(true).await;
    assert!(rig.look().await.is_empty(), "the other file may come a moment later");
    let told = rig.look().await;
    assert!(
        matches!(told.as_slice(), [one] if one.starts_with("API_CERTIFICATE_FAILED") && one.contains("api.pem")),
        "{told:?}"
    );
    assert_eq!(rig.look().await.len(), 1, "once");
    // Another mistake is another word.
    rig.put("api.pem", "nothing");
    rig.put("api-key.pem", "nothing");
    rig.look().await;
    let told = rig.look().await;
    assert!(
        matches!(told.as_slice(), [_, two] if two.contains("the certificate cannot be read")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_key_that_others_may_read_is_not_taken() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut rig = rig(true).await;
    rig.put("api.pem", "nothing");
    rig.put("api-key.pem", "nothing");
    let key = rig.folder.path().join("api-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    rig.look().await;
    let told = rig.look().await;
    assert!(told[0].contains("chmod 600"), "{told:?}");
}

#[tokio::test]
async fn a_ca_that_was_brought_is_an_event_and_damage_is_one_too() {
    let mut rig = rig(false).await;
    assert!(rig.look().await.is_empty());
    let now = SystemTime::now();
    let root = Ca::create_root(&"corp.example".parse().unwrap(), now).unwrap();
    let issuing = Ca::create_issuing(&root, now).unwrap();
    rig.put("ca-key.pem", &issuing.key_pem());
    let all = [issuing.certificate_der(), root.certificate_der()];
    rig.put("ca.pem", &pem::encode_certificates(all));
    let at = |name: &str| rig.folder.path().join(name);
    let host = Pki::load(rig.reload.pki.dir()).unwrap();
    let chain = crate::pki::import::read(host.trust_domain(), &at("ca.pem"), &at("ca-key.pem"), now).unwrap();
    host.import(chain, now).unwrap();

    let told = rig.look().await;
    assert!(
        matches!(told.as_slice(), [one] if one.starts_with("CA_PREPARED") && one.contains(&issuing.id())),
        "{told:?}"
    );
    assert_eq!(rig.look().await.len(), 1);
    file::write_secret(&rig.reload.pki.dir().join("root.pem"), b"damaged").unwrap();
    let told = rig.look().await;
    assert!(
        matches!(told.as_slice(), [_, two] if two.starts_with("CA_RELOAD_FAILED") && two.contains("root.pem")),
        "{told:?}"
    );
    assert_eq!(rig.look().await.len(), 2, "once");
}
