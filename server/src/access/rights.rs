//! What each caller may do, ready for use: roles and grants as they are on file, summed up for whoever calls. Changing them is
//! the business of `roles` and `grants`; which method needs which permission stands in the table.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio_util::sync::CancellationToken;

use super::{
    permission::{Permission, Permissions, Reach},
    scope::{Scope, Scopes},
};
use crate::clock::Micros;

/// Whom something can be granted to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// By name.
    User(String),
    /// By id.
    ApiKey(String),
}

impl Subject {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::ApiKey(_) => "apikey",
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::ApiKey(name) => name,
        }
    }

    pub fn of(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "user" => Some(Self::User(name.to_owned())),
            "apikey" => Some(Self::ApiKey(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub description: String,
    pub permissions: Permissions,
    pub built_in: bool,
    pub creator: String,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub revision: i64,
    /// Who looks after it; empty: nobody in particular.
    pub owner: String,
    /// For people.
    pub labels: BTreeMap<String, String>,
}

pub const ADMIN: &str = "admin";

impl Role {
    /// Those that there always are.
    pub fn built_in() -> [Self; 3] {
        let role = |name: &str, description: &str, permissions: &[&str]| Self {
            name: name.to_owned(),
            description: description.to_owned(),
            permissions: Permissions::of_file(permissions.iter().map(|name| (*name).to_owned())),
            built_in: true,
            creator: String::new(),
            created_at: 0,
            updated_at: 0,
            revision: 0,
            owner: String::new(),
            labels: BTreeMap::new(),
        };
        [
            role(ADMIN, "everything", &["*"]),
            role(
                "operator",
                "agents, tokens and policies, and seeing all that they report; not who may do what, nor the CA",
                &[
                    "agents.*",
                    "ca.read",
                    "controller.read",
                    "events.*",
                    "logs.*",
                    "metrics.*",
                    "policies.*",
                    "results.*",
                    "states.*",
                    "tokens.*",
                ],
            ),
            role(
                "viewer",
                "seeing agents, policies and what is reported",
                &[
                    "agents.read",
                    "ca.read",
                    "controller.read",
                    "events.read",
                    "logs.read",
                    "metrics.read",
                    "policies.read",
                    "results.read",
                    "states.read",
                ],
            ),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub id: String,
    pub subject: Subject,
    pub role: String,
    pub scope: Scope,
    pub creator: String,
    pub created_at: Micros,
    pub revision: i64,
    /// Who looks after it; empty: nobody in particular.
    pub owner: String,
    /// For people.
    pub labels: BTreeMap<String, String>,
}

/// What one subject may do.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// In order of role and scope.
    pub grants: Vec<Grant>,
    of: Vec<(Permissions, Scope)>,
    /// Cancelled when they are no longer these.
    changed: CancellationToken,
}

impl Rights {
    fn new(grants: Vec<Grant>, roles: &BTreeMap<String, Role>) -> Self {
        let of = grants
            .iter()
            .filter_map(|grant| Some((roles.get(&grant.role)?.permissions.clone(), grant.scope.clone())));
        Self {
            of: of.collect(),
            grants,
            changed: CancellationToken::new(),
        }
    }

    /// For what the permission counts. None: it is not given.
    pub fn scopes(&self, permission: &Permission) -> Scopes {
        let mut scopes = Scopes::default();
        for (permissions, scope) in &self.of {
            if permissions.allow(permission) && (permission.reach == Reach::Scoped || scope.is_all()) {
                scopes.add(scope.clone());
            }
        }
        scopes
    }

    /// The first of these permissions that the subject does not have for everything. Nobody gives away what it does not have.
    pub fn lack(&self, permissions: &Permissions) -> Option<&'static Permission> {
        permissions
            .allowed()
            .find(|permission| !self.scopes(permission).is_all())
    }

    /// The first permission that others have, wherever, and this subject has not for everything.
    pub fn lacks_of(&self, others: &Rights) -> Option<&'static str> {
        let theirs = super::permission::ALL.iter().filter(|it| !others.scopes(it).is_none());
        theirs.copied().find(|it| !self.scopes(it).is_all()).map(|it| it.name)
    }

    pub fn changed(&self) -> &CancellationToken {
        &self.changed
    }
}

/// Those of all subjects, as committed.
#[derive(Debug, Default)]
pub struct RightsOfAll(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    roles: BTreeMap<String, Role>,
    grants: BTreeMap<String, Grant>,
    of: HashMap<Subject, Arc<Rights>>,
}

impl RightsOfAll {
    /// The roles are those on file; the built-in ones are there anyway.
    pub fn new(roles: Vec<Role>, grants: Vec<Grant>) -> Self {
        let all = Self::default();
        all.replace(
            |state| {
                let named = |role: Role| (role.name.clone(), role);
                state.roles = roles.into_iter().chain(Role::built_in()).map(named).collect();
                state.grants = grants.into_iter().map(|grant| (grant.id.clone(), grant)).collect();
            },
            |_| true,
        );
        all
    }

    pub fn of(&self, subject: &Subject) -> Arc<Rights> {
        self.read().of.get(subject).cloned().unwrap_or_default()
    }

    pub fn role(&self, name: &str) -> Option<Role> {
        self.read().roles.get(name).cloned()
    }

    /// The built-in ones first, then by name.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles: Vec<Role> = self.read().roles.values().cloned().collect();
        roles.sort_by_key(|role| !role.built_in);
        roles
    }

    pub fn grant(&self, id: &str) -> Option<Grant> {
        self.read().grants.get(id).cloned()
    }

    /// By subject, then role and scope.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants: Vec<Grant> = self.read().grants.values().cloned().collect();
        grants.sort_by_cached_key(|grant| (grant.subject.clone(), grant.role.clone(), grant.scope.to_string()));
        grants
    }

    /// Label keys that the scope of any grant looks at: whoever changes such a label changes who may reach an agent.
    pub fn is_reserved(&self, key: &str) -> bool {
        self.read()
            .grants
            .values()
            .any(|grant| grant.scope.keys().any(|reserved| reserved == key))
    }

    /// After a commit.
    pub fn put_role(&self, role: Role) {
        let name = role.name.clone();
        self.replace(
            |state| drop(state.roles.insert(role.name.clone(), role)),
            |grant| grant.role == name,
        );
    }

    pub fn remove_role(&self, name: &str) {
        self.replace(|state| drop(state.roles.remove(name)), |grant| grant.role == name);
    }

    pub fn put_grant(&self, grant: Grant) {
        let subject = grant.subject.clone();
        self.replace(
            |state| drop(state.grants.insert(grant.id.clone(), grant)),
            |grant| grant.subject == subject,
        );
    }

    /// All grants of a subject that is gone, or some of them.
    pub fn remove_grants(&self, subject: &Subject, is_meant: impl Fn(&Grant) -> bool) {
        self.replace(
            |state| {
                state
                    .grants
                    .retain(|_, grant| grant.subject != *subject || !is_meant(grant))
            },
            |grant| grant.subject == *subject,
        );
        if self.read().grants.values().all(|grant| grant.subject != *subject)
            && let Some(rights) = self.write().of.remove(subject)
        {
            rights.changed.cancel();
        }
    }

    /// Changes what is on file and sums up anew the rights of all subjects that have such a grant afterwards.
    fn replace(&self, change: impl FnOnce(&mut State), concerns: impl Fn(&Grant) -> bool) {
        let mut state = self.write();
        change(&mut state);
        let mut concerned: BTreeMap<Subject, Vec<Grant>> = BTreeMap::new();
        for grant in state.grants.values() {
            let of_subject = concerned.entry(grant.subject.clone()).or_default();
            of_subject.push(grant.clone());
        }
        concerned.retain(|_, grants| grants.iter().any(&concerns));
        for (subject, mut grants) in concerned {
            grants.sort_by_cached_key(|grant| (grant.role.clone(), grant.scope.to_string()));
            let rights = Arc::new(Rights::new(grants, &state.roles));
            if let Some(before) = state.of.insert(subject, rights) {
                before.changed.cancel();
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::permission::*, *};

    fn alice() -> Subject {
        Subject::User("alice".into())
    }

    fn grant(id: &str, role: &str, scope: &str) -> Grant {
        Grant {
            id: id.into(),
            subject: alice(),
            role: role.into(),
            scope: Scope::parse(scope).expect("a scope"),
            creator: String::new(),
            created_at: 0,
            revision: 0,
            owner: String::new(),
            labels: BTreeMap::new(),
        }
    }

    fn labels<'a>(of: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
        move |key| of.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    #[test]
    fn grants_add_up_and_those_with_a_scope_give_nothing_that_is_about_the_whole() {
        let all = RightsOfAll::new(
            Vec::new(),
            vec![grant("1", "operator", "env=dev"), grant("2", "viewer", "")],
        );
        let rights = all.of(&alice());
        assert!(rights.scopes(AGENTS_READ).is_all(), "by viewer");
        let label = rights.scopes(AGENTS_LABEL);
        assert!(label.covers(labels(&[("env", "dev")])) && !label.covers(labels(&[("env", "prod")])));
        assert!(rights.scopes(CONTROLLER_READ).is_all());
        assert!(rights.scopes(USERS_READ).is_none());
        let scoped = RightsOfAll::new(Vec::new(), vec![grant("1", ADMIN, "env=dev")]);
        let rights = scoped.of(&alice());
        assert!(rights.scopes(USERS_WRITE).is_none() && rights.scopes(CA_WRITE).is_none());
        assert!(!rights.scopes(TOKENS_WRITE).is_none());
    }

    #[test]
    fn nobody_lacks_what_it_has_for_everything_and_a_scope_is_not_everything() {
        let viewer = Permissions::parse(["states.read"]).expect("known");
        let rights = |grants| RightsOfAll::new(Vec::new(), grants).of(&alice());
        assert_eq!(rights(vec![grant("1", "viewer", "")]).lack(&viewer), None);
        assert_eq!(
            rights(vec![grant("1", "viewer", "env=dev")]).lack(&viewer),
            Some(STATES_READ)
        );
        let all = Permissions::parse(["*"]).expect("known");
        assert_eq!(rights(vec![grant("1", ADMIN, "")]).lack(&all), None);
        assert!(rights(vec![grant("1", "operator", "")]).lack(&all).is_some());
    }

    #[test]
    fn whoever_loses_or_gets_a_right_is_told_and_nobody_else() {
        let all = RightsOfAll::new(Vec::new(), vec![grant("1", "viewer", "")]);
        let bob = Subject::User("bob".into());
        all.put_grant(Grant {
            subject: bob.clone(),
            ..grant("2", "viewer", "")
        });
        let (of_alice, of_bob) = (all.of(&alice()), all.of(&bob));
        all.put_grant(grant("3", "operator", "env=dev"));
        assert!(of_alice.changed().is_cancelled() && !of_bob.changed().is_cancelled());
        let of_alice = all.of(&alice());
        assert!(!of_alice.scopes(TOKENS_WRITE).is_none());
        all.remove_grants(&alice(), |_| true);
        assert!(of_alice.changed().is_cancelled() && all.of(&alice()).scopes(AGENTS_READ).is_none());
        assert!(!of_bob.changed().is_cancelled());
    }

    #[test]
    fn a_role_that_changes_changes_what_its_grants_give() {
        let role = |permissions: &[&str]| Role {
            name: "deploy".into(),
            permissions: Permissions::parse(permissions).expect("known"),
            built_in: false,
            ..Role::built_in()[0].clone()
        };
        let all = RightsOfAll::new(vec![role(&["policies.*"])], vec![grant("1", "deploy", "")]);
        let before = all.of(&alice());
        assert!(before.scopes(POLICIES_WRITE).is_all());
        all.put_role(role(&["policies.read"]));
        assert!(before.changed().is_cancelled());
        assert!(all.of(&alice()).scopes(POLICIES_WRITE).is_none());
    }

    #[test]
    fn labels_that_a_scope_looks_at_are_reserved() {
        let all = RightsOfAll::new(Vec::new(), vec![grant("1", "viewer", "env=dev,!spot")]);
        assert!(all.is_reserved("env") && all.is_reserved("spot") && !all.is_reserved("team"));
        all.remove_grants(&alice(), |grant| grant.id == "1");
        assert!(!all.is_reserved("env"));
    }
}
