//! What there is to allow. A permission opens methods; roles are sets of permissions, and grants give roles. Which method needs
//! which permission stands in the table.

use std::collections::BTreeSet;

/// Whether a grant with a scope gives a permission too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// For what is in the scope; all else is not there for the caller.
    Scoped,
    /// No: it is about the controller as a whole, or about who may do what.
    Whole,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Permission {
    /// "agents.read".
    pub name: &'static str,
    pub reach: Reach,
    /// For people who make roles.
    pub description: &'static str,
}

macro_rules! permissions {
    ($($id:ident = $name:literal, $reach:ident, $description:literal;)*) => {
        $(pub const $id: &Permission = &Permission { name: $name, reach: Reach::$reach, description: $description };)*
        /// All there are, by name.
        pub const ALL: &[&Permission] = &[$($id),*];
    };
}

permissions! {
    AGENTS_DELETE = "agents.delete", Scoped, "take agents out of the inventory";
    AGENTS_ENROLL = "agents.enroll", Scoped, "pre-register machines, readmit agents, let copies fork";
    AGENTS_LABEL = "agents.label", Scoped, "set and remove labels";
    AGENTS_READ = "agents.read", Scoped, "see agents and their certificates";
    AGENTS_REVOKE = "agents.revoke", Scoped, "end the trust in agents and in single certificates";
    APIKEYS_READ = "apikeys.read", Whole, "see API keys, without their secrets";
    APIKEYS_WRITE = "apikeys.write", Whole, "make and revoke API keys";
    AUDIT_READ = "audit.read", Scoped, "see what was done and who was refused";
    AUDIT_VERIFY = "audit.verify", Whole, "export the whole audit log with its signatures";
    CA_READ = "ca.read", Whole, "see the CAs and the phase of their rotation";
    CA_WRITE = "ca.write", Whole, "rotate the CA";
    CONTROLLER_DRAIN = "controller.drain", Whole, "send all agents to other controllers";
    CONTROLLER_READ = "controller.read", Whole, "see the state and the metrics of the controller itself";
    EVENTS_READ = "events.read", Scoped, "see events";
    GRANTS_READ = "grants.read", Whole, "see who has which role";
    GRANTS_WRITE = "grants.write", Whole, "give and take roles, of permissions that one has";
    LOGS_READ = "logs.read", Scoped, "read logs of agents";
    METRICS_READ = "metrics.read", Scoped, "query metrics of agents";
    POLICIES_FREEZE = "policies.freeze", Whole, "stop the delivery of policies to all agents, and let it go on";
    POLICIES_READ = "policies.read", Scoped, "see policies";
    POLICIES_WRITE = "policies.write", Scoped, "apply and delete policies";
    RESULTS_READ = "results.read", Scoped, "see results one by one, and how much history agents have";
    ROLES_READ = "roles.read", Whole, "see roles";
    ROLES_WRITE = "roles.write", Whole, "make, change and delete roles, of permissions that one has";
    STATES_READ = "states.read", Scoped, "see the states of checks";
    TOKENS_READ = "tokens.read", Scoped, "see bootstrap tokens, without their secrets, and their templates";
    TOKENS_WRITE = "tokens.write", Scoped, "make and revoke bootstrap tokens, and apply and delete their templates";
    USERS_READ = "users.read", Whole, "see users and their certificates";
    USERS_WRITE = "users.write", Whole, "make users, give them certificates, revoke them";
}

/// As roles hold them: names, "agents.*" and "*", which include what later releases add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<String>);

/// One that is not known, and what it was probably meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission {0:?}; `musterctl role permissions` lists them")]
pub struct Unknown(String);

impl Permissions {
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, Unknown> {
        let mut found = BTreeSet::new();
        for name in names {
            let name = name.as_ref();
            if !ALL.iter().any(|known| covers(name, known.name)) {
                return Err(Unknown(name.chars().take(100).collect()));
            }
            found.insert(name.to_owned());
        }
        Ok(Self(found))
    }

    /// Those of a role that an older or a newer release has put on file: what is not known allows nothing.
    pub fn of_file(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// The name by which it is allowed, such as "agents.*".
    pub fn allowing(&self, permission: &Permission) -> Option<&str> {
        self.0
            .iter()
            .find(|name| covers(name, permission.name))
            .map(String::as_str)
    }

    pub fn allow(&self, permission: &Permission) -> bool {
        self.0.iter().any(|name| covers(name, permission.name))
    }

    /// Those that are allowed, of all there are.
    pub fn allowed(&self) -> impl Iterator<Item = &'static Permission> {
        ALL.iter().copied().filter(|permission| self.allow(permission))
    }

    /// As they were written, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        None => pattern == name,
        Some("") => true,
        Some(area) => area.ends_with('.') && name.starts_with(area),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(names: &[&str]) -> Permissions {
        Permissions::parse(names).expect("they are known")
    }

    #[test]
    fn a_name_allows_itself_an_area_all_of_its_own_and_a_star_everything() {
        let named = permissions(&["agents.read"]);
        assert!(named.allow(AGENTS_READ) && !named.allow(AGENTS_LABEL));
        let area = permissions(&["agents.*"]);
        assert!(area.allow(AGENTS_READ) && area.allow(AGENTS_LABEL) && !area.allow(APIKEYS_READ));
        assert_eq!(permissions(&["*"]).allowed().count(), ALL.len());
        assert_eq!(Permissions::default().allowed().count(), 0);
    }

    #[test]
    fn what_is_no_permission_is_refused_by_name() {
        for text in [
            "",
            "agents",
            "agents.",
            "agents*",
            "agent.*",
            "*.*",
            "**",
            "agents.read ",
            "agents.*.read",
            "Agents.read",
        ] {
            assert_eq!(Permissions::parse([text]), Err(Unknown(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_a_file_holds_that_is_not_known_allows_nothing() {
        let of_file = Permissions::of_file(["jobs.run".to_owned(), "states.read".to_owned()]);
        assert_eq!(of_file.allowed().collect::<Vec<_>>(), [STATES_READ]);
    }

    #[test]
    fn they_are_listed_in_order_and_once() {
        let names: Vec<&str> = ALL.iter().map(|permission| permission.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
