//! Which call a method and a path are, by the `google.api.http` of the contract.

use std::collections::BTreeMap;

use http::{Method, Uri};
use muster_proto::json::descriptor_pool;
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};

pub(super) const PACKAGE: &str = "muster.v1";
const ANNOTATION: &str = "google.api.http";

/// One way to a method.
#[derive(Debug)]
pub(super) struct Route {
    pub method: MethodDescriptor,
    pub verb: Method,
    pub template: Template,
    /// Whether the body holds what the path does not; otherwise the query does.
    pub has_body: bool,
    pub grpc_path: Uri,
}

/// "/v1/agents/{agent}:revoke".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub text: String,
    segments: Vec<Segment>,
    /// Behind the last colon.
    action: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Name of a field.
    Variable(String),
}

pub(super) type Variables = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

#[derive(Debug)]
pub(super) enum Found<'a> {
    Route(&'a Route, Variables),
    /// The path is one, for these.
    OtherMethods(Vec<Method>),
    Nothing,
}

impl Routes {
    /// Those with an action first, since their paths are also paths of the others.
    pub fn of_contract() -> Self {
        let annotation = descriptor_pool().get_extension_by_name(ANNOTATION);
        let mut routes = Vec::new();
        let services = descriptor_pool()
            .services()
            .filter(|service| service.package_name() == PACKAGE);
        for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let options = method.options();
            let Some(annotation) = annotation.as_ref().filter(|it| options.has_extension(it)) else {
                continue;
            };
            if let Value::Message(rule) = &*options.get_extension(annotation) {
                add(&mut routes, &method, rule);
            }
        }
        routes.sort_by_key(|route| route.template.action.is_none());
        Self(routes)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// "/v1/agents/a:revoke" is no path of an agent of that name, which would stand there as "a%3Arevoke".
    pub fn find(&self, verb: &Method, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        let mut is_action = false;
        for route in &self.0 {
            if is_action && route.template.action.is_none() {
                break;
            }
            let Some(variables) = route.template.matches(path) else {
                continue;
            };
            if route.verb == verb {
                return Found::Route(route, variables);
            }
            is_action |= route.template.action.is_some();
            others.push(route.verb.clone());
        }
        match others.is_empty() {
            true => Found::Nothing,
            false => Found::OtherMethods(others),
        }
    }
}

fn add(routes: &mut Vec<Route>, method: &MethodDescriptor, rule: &DynamicMessage) {
    let text = |name: &str| {
        let value = rule.get_field_by_name(name)?;
        let text = value.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let path = verbs.into_iter().find_map(|(name, verb)| Some((verb, text(name)?)));
    if let Some((verb, path)) = path {
        let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        routes.push(Route {
            method: method.clone(),
            verb,
            template: Template::parse(&path),
            has_body: text("body").is_some(),
            grpc_path: grpc_path.parse().expect("names of the contract make a path"),
        });
    }
    if let Some(Value::List(more)) = rule.get_field_by_name("additional_bindings").as_deref() {
        for rule in more.iter().filter_map(Value::as_message) {
            add(routes, method, rule);
        }
    }
}

impl Template {
    fn parse(text: &str) -> Self {
        let (path, action) = match text.rsplit_once(':') {
            Some((path, action)) => (path, Some(action.to_owned())),
            None => (text, None),
        };
        let segment = |text: &str| match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(name) => Segment::Variable(name.to_owned()),
            None => Segment::Literal(text.to_owned()),
        };
        Self {
            text: text.to_owned(),
            segments: path.split('/').skip(1).map(segment).collect(),
            action,
        }
    }

    /// The same with other names of its variables.
    pub fn with_variables<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> String {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => format!("/{literal}"),
            Segment::Variable(name) => format!("/{{{}}}", names.next().unwrap_or(name)),
        });
        let action = self.action.as_ref().map(|action| format!(":{action}"));
        segments.chain(action).collect()
    }

    /// Names of the fields that the path holds.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// What the path has for each variable. None: it is another path.
    fn matches(&self, path: &str) -> Option<Variables> {
        let path = match &self.action {
            Some(action) => path.strip_suffix(action.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let mut given = path.strip_prefix('/')?.split('/');
        let mut variables = Variables::new();
        for segment in &self.segments {
            let text = given.next()?;
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Literal(_) => return None,
                Segment::Variable(name) => {
                    let value = percent_decode_str(text).decode_utf8().ok()?;
                    if value.is_empty() {
                        return None;
                    }
                    variables.insert(name.clone(), value.into_owned());
                }
            }
        }
        given.next().is_none().then_some(variables)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn found(verb: Method, path: &str) -> Option<(String, Variables)> {
        match Routes::of_contract().find(&verb, path) {
            Found::Route(route, variables) => Some((route.method.name().to_owned(), variables)),
            _ => None,
        }
    }

    fn one(name: &str, value: &str) -> Variables {
        Variables::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_path_is_found_with_what_it_holds() {
        assert_eq!(
            found(Method::GET, "/v1/agents"),
            Some(("ListAgents".into(), Variables::new()))
        );
        assert_eq!(
            found(Method::GET, "/v1/agents/web-01"),
            Some(("GetAgent".into(), one("agent", "web-01")))
        );
        assert_eq!(
            found(Method::POST, "/v1/agents/web-01:revoke"),
            Some(("RevokeAgent".into(), one("agent", "web-01")))
        );
        assert_eq!(
            found(Method::GET, "/v1/agents:watch"),
            Some(("WatchAgents".into(), Variables::new()))
        );
        let both = Variables::from([("kind".into(), "Check".into()), ("name".into(), "disk".into())]);
        assert_eq!(
            found(Method::DELETE, "/v1/policies/Check/disk"),
            Some(("DeletePolicy".into(), both))
        );
        assert_eq!(
            found(Method::POST, "/v1/caller:renew"),
            Some(("RenewUser".into(), Variables::new()))
        );
    }

    #[test]
    fn what_is_escaped_in_a_path_is_a_name_and_nothing_else() {
        let name = found(Method::GET, "/v1/agents/a%2Fb%3Arevoke%20c");
        assert_eq!(name, Some(("GetAgent".into(), one("agent", "a/b:revoke c"))));
        assert_eq!(found(Method::GET, "/v1/agents/%ff"), None, "no text");
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "/v1",
            "/v1/",
            "/v1/agents/",
            "/v1/agents//",
            "/v1/agents/a/b",
            "/v2/agents",
            "/v1/agents:",
            "/v1/agents/a:",
        ] {
            let answer = found(Method::GET, path);
            // A name may end in a colon.
            assert!(answer.is_none() || path == "/v1/agents/a:", "{path}: {answer:?}");
        }
    }

    #[test]
    fn a_path_for_other_methods_says_which() {
        let routes = Routes::of_contract();
        let Found::OtherMethods(methods) = routes.find(&Method::PUT, "/v1/tokens") else {
            panic!("it is a path")
        };
        let methods: BTreeSet<&str> = methods.iter().map(Method::as_str).collect();
        assert_eq!(methods, BTreeSet::from(["GET", "POST"]));
        let Found::OtherMethods(methods) = routes.find(&Method::GET, "/v1/agents/a:revoke") else {
            panic!("it is no agent's")
        };
        assert_eq!(methods, [Method::POST]);
    }

    #[test]
    fn no_two_methods_have_one_way_and_every_variable_is_a_field() {
        let routes = Routes::of_contract();
        let mut ways = BTreeSet::new();
        for route in routes.iter() {
            assert!(
                ways.insert((route.verb.to_string(), route.template.text.clone())),
                "{:?}",
                route.template
            );
            for variable in route.template.variables() {
                let field = route.method.input().get_field_by_name(variable);
                assert!(
                    field.is_some_and(|field| !field.is_list()),
                    "{variable} of {}",
                    route.template.text
                );
            }
            assert!(
                route.has_body || matches!(route.verb, Method::GET | Method::DELETE),
                "{:?}",
                route.template
            );
        }
    }
}
