//! What an operator with a scope may make of labels. They decide who reaches an agent, so nobody leads one out of the own scope,
//! or into the scope of somebody else.

use std::collections::BTreeMap;

use super::{rights::RightsOfAll, scope::Scopes};

/// Why labels may not become what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("with these labels it would not be in the scope {0}")]
    Outside(String),
    #[error("the label {0} decides who may reach an agent, and is set only by who has no scope")]
    Reserved(String),
}

/// `before`: of an agent that is there; labels that do not rest on its word, as `after`.
pub fn check(
    scopes: &Scopes,
    rights: &RightsOfAll,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    if scopes.is_all() {
        return Ok(());
    }
    let value = |key: &str| after.get(key).map(String::as_str);
    let within: Vec<_> = scopes.iter().filter(|scope| scope.covers(value)).collect();
    if within.is_empty() {
        let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        return Err(Refusal::Outside(names.join(" or ")));
    }
    let keys = before.keys().chain(after.keys());
    for key in keys.filter(|key| before.get(*key) != after.get(*key) && rights.is_reserved(key)) {
        // What the scope itself wants can be nothing else.
        let is_pinned = value(key).is_some_and(|value| within.iter().any(|scope| scope.pins(key, value)));
        if !is_pinned {
            return Err(Refusal::Reserved(key.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            rights::{Grant, Subject},
            scope::Scope,
        },
        *,
    };

    fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn scopes(texts: &[&str]) -> Scopes {
        let mut scopes = Scopes::default();
        texts
            .iter()
            .for_each(|text| scopes.add(Scope::parse(text).expect("a scope")));
        scopes
    }

    /// Somebody else has a scope of `team`, and the caller one of `env`.
    fn rights() -> RightsOfAll {
        let grant = |id: &str, scope: &str| Grant {
            id: id.into(),
            subject: Subject::User(id.into()),
            role: "operator".into(),
            scope: Scope::parse(scope).expect("a scope"),
            creator: String::new(),
            created_at: 0,
            revision: 0,
            owner: String::new(),
            labels: BTreeMap::new(),
        };
        RightsOfAll::new(
            Vec::new(),
            vec![grant("a", "team=web"), grant("b", "env=dev,zone in (eu,us)")],
        )
    }

    #[test]
    fn labels_may_change_as_long_as_the_agent_stays_where_it_is() {
        let own = scopes(&["env=dev"]);
        let before = map(&[("env", "dev"), ("team", "web"), ("rack", "1")]);
        let ok = |after: &[(&str, &str)]| check(&own, &rights(), &before, &map(after));
        assert_eq!(ok(&[("env", "dev"), ("team", "web"), ("rack", "2")]), Ok(()));
        let outside = Refusal::Outside("env=dev".into());
        assert_eq!(ok(&[("env", "prod"), ("team", "web")]), Err(outside.clone()));
        assert_eq!(ok(&[("team", "web")]), Err(outside));
        assert_eq!(
            ok(&[("env", "dev"), ("team", "db")]),
            Err(Refusal::Reserved("team".into()))
        );
        assert_eq!(
            ok(&[("env", "dev")]),
            Err(Refusal::Reserved("team".into())),
            "nor taken away"
        );
    }

    #[test]
    fn what_the_own_scope_wants_is_set_by_who_has_it_and_what_it_leaves_open_is_not() {
        let none = BTreeMap::new();
        let own = scopes(&["env=dev,zone in (eu,us)"]);
        let zone = check(&own, &rights(), &none, &map(&[("env", "dev"), ("zone", "eu")]));
        assert_eq!(zone, Err(Refusal::Reserved("zone".into())));
        let own = scopes(&["env=dev"]);
        assert_eq!(check(&own, &rights(), &none, &map(&[("env", "dev")])), Ok(()));
        let into_another = check(&own, &rights(), &none, &map(&[("env", "dev"), ("team", "web")]));
        assert_eq!(into_another, Err(Refusal::Reserved("team".into())));
    }

    #[test]
    fn from_one_of_several_scopes_into_another_is_no_way_for_what_is_reserved() {
        let own = scopes(&["env=dev", "team=web"]);
        let moved = check(&own, &rights(), &map(&[("env", "dev")]), &map(&[("team", "web")]));
        assert_eq!(moved, Err(Refusal::Reserved("env".into())));
        let both = check(
            &own,
            &rights(),
            &map(&[("env", "dev")]),
            &map(&[("env", "dev"), ("team", "web")]),
        );
        assert_eq!(both, Ok(()), "it is in both then, and both are the caller's");
    }

    #[test]
    fn who_has_no_scope_sets_what_it_likes() {
        let all = Scopes::all();
        assert_eq!(
            check(&all, &rights(), &map(&[("team", "web")]), &BTreeMap::new()),
            Ok(())
        );
        assert!(check(&Scopes::default(), &rights(), &BTreeMap::new(), &BTreeMap::new()).is_err());
    }
}
