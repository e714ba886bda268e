//! Policies that somebody else may have changed meanwhile.

use std::time::SystemTime;

use muster_proto::v1::policy::Spec;

use super::*;
use crate::store::Source;

const NOW: Micros = 20_000 * crate::clock::DAY;

struct Rig {
    policies: Policies,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.muster".parse().unwrap();
        let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        let changes = Changes::new(db.clone()).await.unwrap();
        Rig {
            policies: Policies::load(db, changes, pki).await.unwrap(),
            _folder: folder,
        }
    }

    /// The revision that the policy has then.
    async fn apply(&self, selector: &str, revision: i64) -> Result<i64, Error> {
        let check = v1::Check {
            selector: selector.to_owned(),
            run: Some(v1::Run {
                memory: Some(v1::MemoryRun::default()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let policy = v1::Policy {
            metadata: Some(v1::PolicyMetadata {
                name: "memory".to_owned(),
                revision,
                ..Default::default()
            }),
            spec: Some(Spec::Check(check)),
            ..Default::default()
        };
        let applied = self
            .policies
            .apply(vec![policy], &Scopes::all(), "user/anna", NOW)
            .await?;
        Ok(applied[0].0.revision)
    }
}

fn conflict<T>(answer: Result<T, Error>) -> Option<(i64, i64)> {
    match answer {
        Err(Error::Conflict { seen, is, .. }) => Some((seen, is)),
        _ => None,
    }
}

#[tokio::test]
async fn a_policy_is_changed_by_who_knows_its_revision_or_names_none() {
    let rig = Rig::new().await;
    assert_eq!(conflict(rig.apply("*", 7).await), Some((7, 0)), "there is none yet");
    let first = rig.apply("*", 0).await.unwrap();
    assert_eq!(rig.apply("*", first).await.unwrap(), first, "as it is");
    let second = rig.apply("env=prod", first).await.unwrap();
    assert!(second > first);
    assert_eq!(conflict(rig.apply("env=dev", first).await), Some((first, second)));
    // Also where nothing would change.
    assert_eq!(conflict(rig.apply("env=prod", first).await), Some((first, second)));
    assert!(rig.apply("env=dev", 0).await.is_ok());
}

#[tokio::test]
async fn a_policy_is_deleted_by_who_knows_its_revision_or_names_none() {
    let rig = Rig::new().await;
    let (key, all) = (Key::check("memory"), Scopes::all());
    let first = rig.apply("*", 0).await.unwrap();
    let second = rig.apply("env=prod", 0).await.unwrap();
    let refused = rig.policies.delete(&key, first, &all, "user/anna", NOW).await;
    assert_eq!(conflict(refused), Some((first, second)));
    assert!(rig.policies.delete(&key, second, &all, "user/anna", NOW).await.is_ok());
    rig.apply("*", 0).await.unwrap();
    assert!(rig.policies.delete(&key, 0, &all, "user/anna", NOW).await.is_ok());
}
