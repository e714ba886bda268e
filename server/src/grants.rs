//! Roles and grants: made, changed and taken back. Nobody gives away what it does not have, and there is always somebody who may
//! do everything. What they add up to is in `access::rights`, how requests look in `api`.

mod rows;

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{error::FieldViolation, ids};

use crate::{
    access::{
        permission::{self, Permission, Permissions},
        rights::{Grant, Rights, RightsOfAll, Role, Subject},
        scope::{self, Scope},
    },
    changes::Changes,
    clock::Micros,
    idempotency::{self, Done, Once, Turn},
    store::{self, ChangeKind, Db, Op},
    users::{self, By, Issued, Users},
};

use rows::role_of;
pub use rows::{grant_of, id_of, insert, insert_as, put_role, remove, remove_of, remove_role, set_metadata};

const MAX_DESCRIPTION: usize = 1_024;
const MAX_PERMISSIONS: usize = 256;
const NAME_RULE: &str =
    "must be 1 to 63 characters of a-z, 0-9, \"-\", \"_\" and \".\", starting and ending with a letter or digit";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the request is not valid")]
    Invalid(Vec<FieldViolation>),
    #[error("there is no role {0}")]
    NoRole(String),
    #[error("there is no grant {0}")]
    NoGrant(String),
    #[error("there is no {0}")]
    NoSubject(Subject),
    #[error("there is a role {0} already")]
    Exists(String),
    #[error("role {0} is built in")]
    BuiltIn(String),
    #[error("role {name} is granted to {count} subjects")]
    InUse { name: String, count: usize },
    /// The caller would give what it does not have.
    #[error("the caller does not have {0} for everything")]
    Escalation(&'static str),
    #[error("the revision is {is} and not {seen}")]
    Conflict { seen: i64, is: i64 },
    #[error("nobody else may do everything")]
    LastAdmin,
    #[error("the caller was revoked meanwhile")]
    CallerRevoked,
    #[error("failed to tell whether it is the same call again")]
    Once(#[from] idempotency::Error),
    #[error("failed to look up the user")]
    Users(#[from] users::Error),
    #[error("failed to store the change")]
    Store(#[from] store::Error),
}

/// What a role shall be.
#[derive(Clone, Debug)]
pub struct NewRole {
    pub name: String,
    pub description: String,
    pub permissions: Vec<String>,
}

#[derive(Debug)]
pub struct Grants {
    db: Db,
    changes: Changes,
    rights: Arc<RightsOfAll>,
    users: Arc<Users>,
}

impl Grants {
    pub fn new(db: Db, changes: Changes, rights: Arc<RightsOfAll>, users: Arc<Users>) -> Self {
        Self {
            db,
            changes,
            rights,
            users,
        }
    }

    pub fn rights(&self) -> &RightsOfAll {
        &self.rights
    }

    /// All that is on file, for a controller that starts.
    pub async fn load(db: &Db) -> Result<RightsOfAll, store::Error> {
        let roles: Result<Vec<Role>, _> = db.role_list().await?.into_iter().map(role_of).collect();
        let grants: Result<Vec<Grant>, _> = db.grant_list().await?.into_iter().map(grant_of).collect();
        Ok(RightsOfAll::new(roles?, grants?))
    }

    /// What a subject may do, read again: another process may have granted it something.
    pub async fn refreshed(&self, subject: &Subject) -> Result<Arc<Rights>, store::Error> {
        // With no change under way, so that nothing comes back that is taken away just now.
        let _settled = self.users.settled().await;
        for row in self.db.grant_list_of(subject.kind(), subject.name()).await? {
            let grant = grant_of(row)?;
            if self.rights.grant(&grant.id).is_none() {
                self.rights.put_grant(grant);
            }
        }
        Ok(self.rights.of(subject))
    }

    pub async fn create_role<A>(
        &self,
        new: NewRole,
        once: Once<Role, A>,
        by: &By,
        now: Micros,
    ) -> Result<Done<A>, Error> {
        let permissions = validate(&new).map_err(Error::Invalid)?;
        let _writing = self.users.begin(by).await?;
        refuse_escalation(&permissions, by)?;
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        if let Turn::Again(answer, _) = once.begin(&mut tx, now).await? {
            return Ok(Done::again(answer));
        }
        if self.rights.role(&new.name).is_some() {
            return Err(Error::Exists(new.name));
        }
        let role = Role {
            name: new.name,
            description: new.description,
            permissions,
            built_in: false,
            creator: by.to_string(),
            created_at: now,
            updated_at: now,
            revision: 0,
            owner: String::new(),
            labels: BTreeMap::new(),
        };
        let revision = tx.change_add(now, ChangeKind::Role, &role.name, Op::Put).await?;
        let role = rows::put_role(&mut tx, role, None, revision, by, now).await?;
        let done = once.end(&mut tx, &role).await?;
        tx.commit().await?;
        self.rights.put_role(role);
        self.changes.committed();
        Ok(done)
    }

    /// `seen`: the revision that the caller knows; 0: whatever it is.
    pub async fn update_role(&self, new: NewRole, seen: i64, by: &By, now: Micros) -> Result<Role, Error> {
        let permissions = validate(&new).map_err(Error::Invalid)?;
        let _writing = self.users.begin(by).await?;
        let before = self.changeable(&new.name, seen)?;
        refuse_escalation(&permissions, by)?;
        let role = Role {
            description: new.description,
            permissions,
            updated_at: now,
            ..before.clone()
        };
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Role, &role.name, Op::Put).await?;
        let role = rows::put_role(&mut tx, role, Some(&before), revision, by, now).await?;
        tx.commit().await?;
        self.rights.put_role(role.clone());
        self.changes.committed();
        Ok(role)
    }

    pub async fn delete_role(&self, name: &str, seen: i64, by: &By, now: Micros) -> Result<(), Error> {
        let _writing = self.users.begin(by).await?;
        let role = self.changeable(name, seen)?;
        let count = self.rights.grants().iter().filter(|grant| grant.role == name).count();
        if count > 0 {
            let name = name.to_owned();
            return Err(Error::InUse { name, count });
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Role, name, Op::Delete).await?;
        rows::remove_role(&mut tx, &role, revision, by, now).await?;
        tx.commit().await?;
        self.rights.remove_role(name);
        self.changes.committed();
        Ok(())
    }

    /// The same once more is the same grant.
    pub async fn create(
        &self,
        subject: Subject,
        role: &str,
        scope: &str,
        by: &By,
        now: Micros,
    ) -> Result<Grant, Error> {
        let scope = parse_scope(scope)?;
        let _writing = self.users.begin(by).await?;
        self.grantable(role, by)?;
        if let Subject::User(name) = &subject
            && self.users.get(name).await?.row.revoked_at > 0
        {
            return Err(Error::NoSubject(subject));
        }
        let is_same = |grant: &Grant| grant.subject == subject && grant.role == role && grant.scope == scope;
        if let Some(grant) = self.rights.grants().into_iter().find(is_same) {
            return Ok(grant);
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let grant = insert(&mut tx, subject, role, scope, by, now).await?;
        tx.commit().await?;
        self.rights.put_grant(grant.clone());
        self.changes.committed();
        Ok(grant)
    }

    /// `seen`: the revision that the caller knows; 0: whatever it is.
    pub async fn delete(&self, id: &str, seen: i64, by: &By, now: Micros) -> Result<(), Error> {
        let _writing = self.users.begin(by).await?;
        let grant = self.rights.grant(id).ok_or_else(|| Error::NoGrant(id.to_owned()))?;
        is_current(seen, grant.revision)?;
        if self.users.leaves_no_admin(|it| it.id == id, now).await? {
            return Err(Error::LastAdmin);
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        let revision = tx.change_add(now, ChangeKind::Grant, id, Op::Delete).await?;
        rows::remove(&mut tx, &grant, revision, by, now).await?;
        tx.commit().await?;
        self.rights.remove_grants(&grant.subject, |it| it.id == id);
        self.changes.committed();
        Ok(())
    }

    /// A user with a first certificate and, if a role and its scope are given, a first grant. `reinstate`: also with the name of
    /// one who was revoked.
    pub async fn create_user<A>(
        &self,
        request: users::Request,
        first: Option<(String, String)>,
        reinstate: bool,
        once: Once<Issued, A>,
        by: &By,
        now: Micros,
    ) -> Result<Done<A>, Error> {
        let first = match first {
            Some((role, scope)) => Some((role, parse_scope(&scope)?)),
            None => None,
        };
        let key = users::check(&request)?;
        let _writing = self.users.begin(by).await?;
        if let Some((role, _)) = &first {
            self.grantable(role, by)?;
        }
        let _held = self.changes.hold().await;
        let mut tx = self.db.begin().await?;
        if let Turn::Again(answer, _) = once.begin(&mut tx, now).await? {
            return Ok(Done::again(answer));
        }
        self.users.is_free(&request.name, reinstate).await?;
        let signed = self.users.sign(&request, &key, now)?;
        let grant = match first {
            None => None,
            Some((role, scope)) => {
                let subject = Subject::User(request.name.clone());
                Some(insert(&mut tx, subject, &role, scope, by, now).await?)
            }
        };
        users::put(&mut tx, &request.name, &signed, &by.to_string(), now).await?;
        let issued = self.users.issued(&mut tx, &request.name, &signed).await?;
        let done = once.end(&mut tx, &issued).await?;
        tx.commit().await?;
        self.users.open(&request.name, signed);
        if let Some(grant) = grant {
            self.rights.put_grant(grant);
            self.changes.committed();
        }
        Ok(done)
    }

    /// The permissions of a role that the caller may give away.
    pub fn grantable(&self, role: &str, by: &By) -> Result<Permissions, Error> {
        let found = self.rights.role(role).ok_or_else(|| Error::NoRole(role.to_owned()))?;
        refuse_escalation(&found.permissions, by)?;
        Ok(found.permissions)
    }

    fn changeable(&self, name: &str, seen: i64) -> Result<Role, Error> {
        let role = self.rights.role(name).ok_or_else(|| Error::NoRole(name.to_owned()))?;
        if role.built_in {
            return Err(Error::BuiltIn(name.to_owned()));
        }
        is_current(seen, role.revision)?;
        Ok(role)
    }
}

/// Whether a caller knows what there is; 0: it need not.
fn is_current(seen: i64, is: i64) -> Result<(), Error> {
    match seen > 0 && seen != is {
        true => Err(Error::Conflict { seen, is }),
        false => Ok(()),
    }
}

pub fn parse_scope(text: &str) -> Result<Scope, Error> {
    Scope::parse(text)
        .map_err(|error: scope::Invalid| Error::Invalid(vec![FieldViolation::new("scope", error.to_string())]))
}

pub fn refuse_escalation(permissions: &Permissions, by: &By) -> Result<(), Error> {
    match by.rights.lack(permissions) {
        Some(Permission { name, .. }) => Err(Error::Escalation(name)),
        None => Ok(()),
    }
}

pub fn validate(new: &NewRole) -> Result<Permissions, Vec<FieldViolation>> {
    let mut violations = Vec::new();
    if !ids::name_is_valid(&new.name) {
        violations.push(FieldViolation::new("name", NAME_RULE));
    }
    if new.description.len() > MAX_DESCRIPTION || new.description.contains('\0') {
        let text = format!("is longer than {MAX_DESCRIPTION} bytes, or contains a NUL");
        violations.push(FieldViolation::new("description", text));
    }
    if new.permissions.is_empty() || new.permissions.len() > MAX_PERMISSIONS {
        let text = format!("must be 1 to {MAX_PERMISSIONS}");
        violations.push(FieldViolation::new("permissions", text));
    }
    match Permissions::parse(&new.permissions) {
        Ok(permissions) if violations.is_empty() => Ok(permissions),
        Ok(_) => Err(violations),
        Err(error) => {
            violations.push(FieldViolation::new("permissions", error.to_string()));
            Err(violations)
        }
    }
}

/// All permissions, for those who make roles.
pub fn permissions() -> &'static [&'static Permission] {
    permission::ALL
}
