//! The one revision of the controller and the table of changes that watches follow.

use sqlx::FromRow;

use super::{
    Db, Error, Tx,
    pool::{Row, args},
};

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Agent,
    Policy,
    /// The id is `<agent>/<check>`.
    State,
    Token,
    TokenTemplate,
    Role,
    Grant,
    ApiKey,
}

impl ChangeKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Policy => "policy",
            Self::State => "state",
            Self::Token => "token",
            Self::TokenTemplate => "tokentemplate",
            Self::Role => "role",
            Self::Grant => "grant",
            Self::ApiKey => "apikey",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::Agent,
            Self::Policy,
            Self::State,
            Self::Token,
            Self::TokenTemplate,
            Self::Role,
            Self::Grant,
            Self::ApiKey,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    Delete,
}

/// One change of configuration or inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: i64,
    pub kind: ChangeKind,
    pub id: String,
    pub op: Op,
}

#[derive(FromRow)]
struct ChangeRow {
    revision: i64,
    kind: String,
    id: String,
    op: String,
}

#[derive(FromRow)]
struct Number {
    n: i64,
}

impl Tx {
    /// Takes a revision for each change and notes them, in order; returns the revision of the first. Called before the
    /// changed rows are written, since they carry their revision. The lock on the row is held until the commit, so that
    /// the order of commits is the order of revisions.
    pub async fn changes_add(&mut self, now: i64, changes: &[(ChangeKind, String, Op)]) -> Result<i64, Error> {
        let count = changes.len() as i64;
        let last = self
            .fetch_optional::<Number>("UPDATE revision SET n = n + $1 WHERE id = 1 RETURNING n", args![count])
            .await?
            .ok_or_else(missing_revision)?
            .n;
        let first = last - count + 1;
        let rows = changes
            .iter()
            .enumerate()
            .map(|(index, (kind, id, op))| {
                let op = if *op == Op::Put { "put" } else { "delete" };
                args![first + index as i64, now, kind.as_str(), id, op]
            })
            .collect();
        self.with_rows("INSERT INTO changes (revision, at, kind, id, op)", rows, "")
            .await?;
        Ok(first)
    }

    /// A single change; returns its revision.
    pub async fn change_add(&mut self, now: i64, kind: ChangeKind, id: &str, op: Op) -> Result<i64, Error> {
        self.changes_add(now, &[(kind, id.to_owned(), op)]).await
    }
}

impl Db {
    pub async fn revision_current(&self) -> Result<i64, Error> {
        let row = self
            .control
            .fetch_optional::<Number>("SELECT n FROM revision WHERE id = 1", args![])
            .await?;
        Ok(row.ok_or_else(missing_revision)?.n)
    }

    /// The oldest revision of which the change is still on file; one above the current revision when there is none.
    pub async fn changes_oldest(&self) -> Result<i64, Error> {
        let sql = "SELECT COALESCE(MIN(revision), (SELECT n + 1 FROM revision WHERE id = 1)) AS n FROM changes";
        Ok(self
            .control
            .fetch_optional::<Number>(sql, args![])
            .await?
            .ok_or_else(missing_revision)?
            .n)
    }

    /// Changes after `revision`, oldest first.
    pub async fn changes_after(&self, revision: i64, limit: i64) -> Result<Vec<Change>, Error> {
        let sql = "SELECT revision, kind, id, op FROM changes WHERE revision > $1 ORDER BY revision LIMIT $2";
        let rows: Vec<ChangeRow> = self.control.fetch_all(sql, args![revision, limit]).await?;
        // A kind that this version does not know is a later version's: nobody here watches it.
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let kind = ChangeKind::parse(&row.kind)?;
                let op = if row.op == "delete" { Op::Delete } else { Op::Put };
                Some(Change {
                    revision: row.revision,
                    kind,
                    id: row.id,
                    op,
                })
            })
            .collect())
    }

    /// Forgets changes from before `at`, and all before those: what is left has no hole, even after a clock was set back.
    pub async fn changes_trim(&self, at: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let sql = "DELETE FROM changes WHERE revision <= (SELECT MAX(revision) FROM changes WHERE at < $1)";
        let removed = tx.execute(sql, args![at]).await?;
        tx.commit().await?;
        Ok(removed)
    }

    /// Keeps no more than about this many changes, the latest: how many there are is also for agents to say, whose states
    /// may change with every result.
    pub async fn changes_trim_to(&self, count: i64) -> Result<u64, Error> {
        let mut tx = self.begin_control().await?;
        let sql = "DELETE FROM changes WHERE revision <= (SELECT n FROM revision WHERE id = 1) - $1";
        let removed = tx.execute(sql, args![count]).await?;
        tx.commit().await?;
        Ok(removed)
    }

    pub(super) async fn control_all<T: Row>(&self, sql: &'static str) -> Result<Vec<T>, Error> {
        self.control.fetch_all(sql, args![]).await
    }
}

pub(super) fn missing_revision() -> Error {
    Error::Corrupt {
        table: "revision",
        id: "1".into(),
        problem: "the row is missing".into(),
    }
}
