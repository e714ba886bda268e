//! For which agents a permission counts. A scope is a selector over labels that do not rest on an agent's word; what a caller
//! has of one permission is the sum of the scopes of its grants.

use std::fmt;

use muster_proto::selector::{self, Selector};

/// Facts and the labels of `agent.yaml` are claims of the machine.
const FACT: &str = "fact.";

/// Of a grant, or of what was made under one. All agents unless it says which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(Option<Selector>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("{0}")]
    Selector(#[from] selector::Error),
    #[error(
        "has {0}: facts are what machines say of themselves; a scope is made of labels that tokens or operators give"
    )]
    Fact(String),
}

impl Scope {
    pub const ALL: Self = Self(None);

    /// Empty, or `*`: all agents.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        let selector = Selector::parse(text)?;
        if let Some(fact) = selector.keys().find(|key| key.starts_with(FACT)) {
            return Err(Invalid::Fact(fact.to_owned()));
        }
        Ok(Self(Some(selector).filter(|selector| !selector.is_all())))
    }

    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it has an agent with these authoritative labels in it.
    pub fn covers<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.as_ref().is_none_or(|selector| selector.matches(label))
    }

    /// What selects the agents in it. None: all are.
    pub fn selector(&self) -> Option<&Selector> {
        self.0.as_ref()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(Selector::keys)
    }

    /// Whether nothing but this value of the label is in it.
    pub fn pins(&self, key: &str, value: &str) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.pins(key, value))
    }
}

/// Empty for all agents; otherwise the shortest way to write the selector, which is how it is kept.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some(selector) => selector.fmt(f),
        }
    }
}

/// What a caller reaches with one permission: agents in any of these. None: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

/// Why nothing can be made in the scope that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// It is none of the caller's.
    Foreign,
    /// It was not said, and the caller has several.
    Several,
}

impl Scopes {
    pub fn all() -> Self {
        Self::of(Scope::ALL)
    }

    pub fn of(scope: Scope) -> Self {
        Self(vec![scope])
    }

    pub fn add(&mut self, scope: Scope) {
        if self.is_all() || self.0.contains(&scope) {
            return;
        }
        if scope.is_all() {
            self.0.clear();
        }
        self.0.push(scope);
    }

    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    pub fn is_all(&self) -> bool {
        self.0.iter().any(Scope::is_all)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    pub fn covers<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().any(|scope| scope.covers(&label))
    }

    /// Whether what was made in this scope is there for the caller: in exactly one of its own, since one that is merely narrower
    /// may have been made by somebody else for somebody else.
    pub fn has(&self, scope: &Scope) -> bool {
        self.is_all() || self.0.contains(scope)
    }

    /// The scope of what the caller makes now: as it says, or the only one it has.
    pub fn for_new(&self, asked: &Scope) -> Result<Scope, Unclear> {
        match self.0.as_slice() {
            // Who has everything may make it in any scope.
            [only] if only.is_all() => Ok(asked.clone()),
            [only] if asked.is_all() => Ok(only.clone()),
            several if asked.is_all() && several.len() > 1 => Err(Unclear::Several),
            _ if self.0.contains(asked) => Ok(asked.clone()),
            _ => Err(Unclear::Foreign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).expect("a scope")
    }

    fn scopes(texts: &[&str]) -> Scopes {
        let mut scopes = Scopes::default();
        texts.iter().for_each(|text| scopes.add(scope(text)));
        scopes
    }

    #[test]
    fn a_scope_is_kept_in_one_way_of_writing_it_and_has_no_facts() {
        assert_eq!(scope("env in (dev)"), scope("env=dev"));
        assert_eq!(scope(" env = dev ").to_string(), "env=dev");
        assert_eq!((scope(""), scope("*")), (Scope::ALL, Scope::ALL));
        assert_eq!(Scope::ALL.to_string(), "");
        assert!(matches!(Scope::parse("env=dev,fact.os.id=debian"), Err(Invalid::Fact(fact)) if fact == "fact.os.id"));
        assert!(matches!(Scope::parse("env="), Err(Invalid::Selector(_))));
    }

    #[test]
    fn only_a_value_that_stands_alone_is_pinned() {
        assert!(scope("env=dev,team").pins("env", "dev"));
        for (text, key, value) in [
            ("env=dev", "env", "prod"),
            ("env in (dev,test)", "env", "dev"),
            ("env!=prod", "env", "dev"),
            ("env", "env", "dev"),
            ("", "env", "dev"),
        ] {
            assert!(!scope(text).pins(key, value), "{text}");
        }
    }

    #[test]
    fn several_add_up_and_everything_takes_the_rest_in() {
        let both = scopes(&["env=dev", "team=web", "env=dev"]);
        assert_eq!(both.iter().count(), 2);
        let is_covered = |scopes: &Scopes, env, team| {
            scopes.covers(|key| match key {
                "env" => env,
                "team" => team,
                _ => None,
            })
        };
        assert!(is_covered(&both, Some("dev"), None) && is_covered(&both, None, Some("web")));
        assert!(!is_covered(&both, Some("prod"), Some("db")));
        assert!(!is_covered(&Scopes::default(), Some("dev"), Some("web")));
        let all = scopes(&["env=dev", "", "team=web"]);
        assert!(all.is_all() && all.iter().count() == 1 && is_covered(&all, None, None));
    }

    #[test]
    fn what_was_made_in_a_scope_is_there_for_who_has_exactly_that() {
        let own = scopes(&["env=dev"]);
        assert!(own.has(&scope("env=dev")));
        assert!(!own.has(&scope("env=dev,team=web")) && !own.has(&Scope::ALL));
        assert!(Scopes::all().has(&scope("env=dev")));
    }

    #[test]
    fn something_new_has_the_only_scope_or_the_one_that_was_said() {
        assert_eq!(Scopes::all().for_new(&Scope::ALL), Ok(Scope::ALL));
        assert_eq!(Scopes::all().for_new(&scope("env=dev")), Ok(scope("env=dev")));
        let one = scopes(&["env=dev"]);
        assert_eq!(one.for_new(&Scope::ALL), Ok(scope("env=dev")));
        assert_eq!(one.for_new(&scope("env=prod")), Err(Unclear::Foreign));
        let two = scopes(&["env=dev", "team=web"]);
        assert_eq!(two.for_new(&Scope::ALL), Err(Unclear::Several));
        assert_eq!(two.for_new(&scope("team=web")), Ok(scope("team=web")));
        assert_eq!(Scopes::default().for_new(&Scope::ALL), Err(Unclear::Foreign));
    }
}
