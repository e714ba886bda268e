//! The last head that this controller has signed, in a file of its data directory. Whoever can write to the database and not to that
//! file cannot make the log anew without its being seen at the next start.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use muster_certs::{file, sign};
use muster_proto::{
    audit, policy_set,
    v1::{AuditHeadPayload, Signed},
};
use prost::Message as _;
use tracing::warn;

use crate::{
    pki::Pki,
    store::{self, Db},
};

const NAME: &str = "audit-head";
const MAX_BYTES: usize = 4_096;

#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

impl Kept {
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(NAME))
    }

    pub fn write(&self, head: &Signed) {
        let text = BASE64_STANDARD.encode(head.encode_to_vec());
        if let Err(error) = file::write_secret(&self.0, text.as_bytes()) {
            warn!(
                error = &error as &dyn std::error::Error,
                "failed to keep the head of the audit log"
            );
        }
    }

    /// What the database says against it, in words for people.
    pub async fn contradiction(&self, db: &Db, pki: &Pki) -> Result<Option<String>, store::Error> {
        if !self.0.exists() {
            return Ok(None);
        }
        let Some(head) = self.read(pki) else {
            let text = format!("{} holds no head that this controller has signed", self.0.display());
            return Ok(Some(text));
        };
        let found = db.audit_from(head.seq, 1).await?.into_iter().next();
        let is_it = |row: &store::AuditRow| row.seq == head.seq && row.hash == head.hash;
        let first = db.audit_from(0, 1).await?.into_iter().next();
        Ok(match found {
            Some(row) if is_it(&row) => None,
            // Retention has removed it, and says so itself.
            Some(_) if first.is_some_and(|first| first.seq > head.seq) => None,
            _ => Some(format!(
                "the audit log in the database is not the one of which entry {} was signed; it was edited, or restored from a backup",
                head.seq
            )),
        })
    }

    fn read(&self, pki: &Pki) -> Option<AuditHeadPayload> {
        let text = file::read_secret_text(&self.0, MAX_BYTES).ok()?;
        let signed = Signed::decode(BASE64_STANDARD.decode(text.trim()).ok()?.as_slice()).ok()?;
        let kind = policy_set::dsse_type(audit::HEAD);
        sign::verify(&pki.policy_public_key(), &kind, &signed.payload, &signed.signature).ok()?;
        AuditHeadPayload::decode(signed.payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use muster_proto::v1::AuditEntry;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{audit::Keeper, store::Source};

    #[tokio::test]
    async fn a_log_that_was_made_anew_is_seen_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.muster".parse().unwrap();
        let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        let kept = Kept::new(folder.path());
        let write = async |caller: &str| {
            let keep = std::time::Duration::from_secs(3_600);
            let (keeper, audit) = Keeper::load(db.clone(), pki.clone(), keep, kept.clone()).await.unwrap();
            let stop = CancellationToken::new();
            let run = keeper.run(stop.clone());
            let entry = AuditEntry {
                caller: caller.to_owned(),
                ..AuditEntry::default()
            };
            let write = async {
                audit.write(entry).await.unwrap();
                stop.cancel();
            };
            tokio::join!(run, write);
        };
        write("user/alice").await;
        assert_eq!(kept.contradiction(&db, &pki).await.unwrap(), None);
        write("user/bob").await;
        assert_eq!(kept.contradiction(&db, &pki).await.unwrap(), None);

        let honest = std::fs::read(&kept.0).unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.audit_trim(i64::MAX).await.unwrap();
        tx.commit().await.unwrap();
        assert!(
            kept.contradiction(&db, &pki).await.unwrap().is_some(),
            "all of it is gone"
        );
        write("user/eve").await;
        write("user/eve").await;
        write("user/eve").await;
        assert_eq!(
            kept.contradiction(&db, &pki).await.unwrap(),
            None,
            "it was told, and goes on"
        );
        file::write_secret(&kept.0, &honest).unwrap();
        assert!(
            kept.contradiction(&db, &pki).await.unwrap().is_some(),
            "another one in its place"
        );
        file::write_secret(&kept.0, b"AAAA").unwrap();
        let text = kept.contradiction(&db, &pki).await.unwrap();
        assert!(text.is_some_and(|text| text.contains("no head")));
    }
}
