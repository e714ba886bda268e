//! What a spec must keep to beside its schema, as far as it can be told without the controller.

use crate::{
    check,
    error::FieldViolation,
    selector::Selector,
    token,
    v1::{GrantSpec, RoleSpec, grant_spec::Subject, manifest::Spec},
};

pub(super) fn violations(spec: &Spec) -> Vec<FieldViolation> {
    match spec {
        Spec::Check(check) => check::validate(check),
        Spec::Role(role) => of_role(role),
        Spec::Grant(grant) => of_grant(grant),
        Spec::TokenTemplate(template) => token::validate(template),
    }
}

fn of_role(role: &RoleSpec) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    if role.permissions.is_empty() {
        let text = "is empty; a role has at least one, for example `agents.read`";
        violations.push(FieldViolation::new("permissions", text));
    }
    for (index, name) in role.permissions.iter().enumerate() {
        if !is_permission(name) {
            let text = format!("{name:?} is no permission, which looks like `agents.read`, `agents.*` or `*`");
            violations.push(FieldViolation::new(format!("permissions[{index}]"), text));
        }
    }
    violations
}

/// Which there are, the controller knows.
fn is_permission(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    match name.split_once('.') {
        None => name == "*",
        Some((area, verb)) => is_word(area) && (verb == "*" || is_word(verb)),
    }
}

fn of_grant(grant: &GrantSpec) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut violate = |field: &str, text: String| violations.push(FieldViolation::new(field, text));
    match &grant.subject {
        Some(Subject::User(name) | Subject::ApiKey(name)) if !name.is_empty() => {}
        _ => violate("", "has neither user nor apiKey: say who gets the role".to_owned()),
    }
    if grant.role.is_empty() {
        violate(
            "role",
            "is missing: say which role, for example `role: operator`".to_owned(),
        );
    }
    if !grant.scope.is_empty() {
        match Selector::parse(&grant.scope) {
            Err(error) => violate("scope", error.to_string()),
            Ok(scope) => {
                if let Some(fact) = scope.keys().find(|key| key.starts_with("fact.")) {
                    let text = format!("has {fact}: facts are what machines say of themselves");
                    violate("scope", text);
                }
            }
        }
    }
    violations
}
