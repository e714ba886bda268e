//! What a plan says is what apply does.

use std::{collections::BTreeMap, time::Duration, time::SystemTime};

use muster_proto::manifest;
use proptest::prelude::*;

use super::*;
use crate::{
    access::{rights::Subject, scope::Scope},
    admin,
    agents::{Agents, Entry},
    clock::{self, DAY},
    pki::Pki,
    policies::Key,
    store::{NewAgent, Source},
};

const NOW: Micros = 20_000 * DAY;

struct Rig {
    manifests: Arc<Manifests>,
    agents: Arc<Agents>,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// Twelve agents: env is dev or prod, role is web or db, some do not know HTTP checks.
    async fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.muster".parse().unwrap();
        let pki = Arc::new(Pki::create(&folder.path().join("pki"), &domain, SystemTime::now()).unwrap());
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        for name in ["anna", "mira"] {
            admin::create(&db, &pki, name, Duration::from_secs(3_600), SystemTime::now())
                .await
                .unwrap();
        }
        let changes = Changes::new(db.clone()).await.unwrap();
        let agents = Arc::new(Agents::load(db.clone(), changes.clone(), NOW).await.unwrap());
        for number in 0..12 {
            agents.inserted(agent(number));
        }
        let policies = Arc::new(Policies::load(db.clone(), changes.clone(), pki.clone()).await.unwrap());
        let rights = Arc::new(Grants::load(&db).await.unwrap());
        let users = Arc::new(
            Users::load(db.clone(), changes.clone(), pki, rights.clone(), clock::now())
                .await
                .unwrap(),
        );
        let grants = Arc::new(Grants::new(db.clone(), changes.clone(), rights, users.clone()));
        let api_keys = Arc::new(ApiKeys::load(db.clone(), changes.clone(), users.clone()).await.unwrap());
        let manifests = Manifests::new(db, changes, agents.clone(), policies, users, grants, api_keys);
        Rig {
            manifests: Arc::new(manifests),
            agents,
            _folder: folder,
        }
    }

    async fn anna(&self) -> By {
        let subject = Subject::User("anna".to_owned());
        By {
            rights: self.manifests.grants.refreshed(&subject).await.unwrap(),
            subject: Some(subject),
            ended: None,
        }
    }

    async fn plan(&self, wanted: Wanted) -> Result<Plan, Error> {
        self.manifests.plan(wanted, &everything(), 100, clock::now()).await
    }

    async fn apply(&self, wanted: Wanted, digest: &str) -> Result<Plan, Error> {
        let by = self.anna().await;
        self.manifests
            .apply(wanted, &everything(), digest, |_| (), &by, clock::now())
            .await
    }

    /// All that there is, by kind and name, as it is on file.
    async fn documents(&self) -> BTreeMap<(String, String), v1::Manifest> {
        let db = &self.manifests.db;
        let on_file = Grants::load(db).await.unwrap();
        let roles = on_file.roles().into_iter().filter(|role| !role.built_in);
        let policies = self.manifests.policies.current();
        let grants = on_file.grants();
        let templates = token_templates::list(db).await.unwrap();
        let all = policies.policies.values().map(|policy| document::policy(policy));
        let all = all.chain(roles.map(|role| document::role(&role)));
        let all = all.chain(grants.iter().map(document::grant));
        let all = all.chain(templates.iter().map(document::token_template));
        all.map(|document| {
            let name = document.metadata.as_ref().map(|metadata| metadata.name.clone());
            ((document.kind.clone(), name.unwrap_or_default()), document)
        })
        .collect()
    }

    /// The versions that each agent shall have, by its name.
    fn sets(&self) -> BTreeMap<String, BTreeMap<Key, i64>> {
        let compiled = self.manifests.policies.current();
        let mut sets = BTreeMap::new();
        self.agents.each(|agent| {
            let set = compiled.set_for(agent);
            let versions = set.policies.iter().map(|(key, policy)| (key.clone(), policy.version));
            sets.insert(agent.name.clone(), versions.collect());
        });
        sets
    }
}

fn agent(number: u32) -> Entry {
    let name = format!("host-{number:02}");
    let mut entry = Entry::from(&NewAgent {
        id: AgentId::random(),
        name: &name,
        agent_labels: "{}",
        token_labels: "{}",
        version: "",
        now: NOW,
        revision: 1,
    });
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    entry.operator_labels = BTreeMap::from([
        label("env", if number.is_multiple_of(2) { "dev" } else { "prod" }),
        label("role", if number.is_multiple_of(3) { "db" } else { "web" }),
    ]);
    if number.is_multiple_of(4) {
        entry.facts.insert("agent.features".into(), "check,run.memory".into());
    }
    entry
}

fn everything() -> Reach {
    use crate::access::permission::{GRANTS_WRITE, POLICIES_WRITE, ROLES_WRITE, TOKENS_WRITE};
    Reach {
        policies: Scopes::all(),
        roles: true,
        grants: true,
        token_templates: Scopes::all(),
        agents: Scopes::all(),
        needed: Needed {
            policies: POLICIES_WRITE,
            roles: ROLES_WRITE,
            grants: GRANTS_WRITE,
            token_templates: TOKENS_WRITE,
        },
    }
}

fn one(text: &str) -> Vec<v1::Manifest> {
    let parsed = manifest::parse("test", text).unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
    parsed.into_iter().map(|manifest| manifest.document).collect()
}

fn check(name: &str, selector: &str, run: &str, interval: u32, owner: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name}, owner: \"{owner}\" }}\nspec:\n  selector: \"{selector}\"\n  \
         schedule: {{ interval: {interval}s }}\n  run: {run}\n"
    )
}

fn role(name: &str, permission: &str, owner: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Role\nmetadata: {{ name: {name}, owner: \"{owner}\" }}\nspec: {{ permissions: [{permission}] }}\n"
    )
}

fn template(name: &str, uses: i32, labels: &str, scope: &str, owner: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: TokenTemplate\nmetadata: {{ name: {name}, owner: \"{owner}\", scope: \"{scope}\" }}\n\
         spec: {{ uses: {uses}, ttl: 1h, labels: {labels} }}\n"
    )
}

/// The same with labels for people.
fn labelled(text: &str, team: &str) -> String {
    text.replacen("metadata: {", &format!("metadata: {{ labels: {{ team: {team} }},"), 1)
}

fn grant(role: &str, scope: &str, owner: &str) -> String {
    format!(
        "apiVersion: muster/v1\nkind: Grant\nmetadata: {{ owner: \"{owner}\" }}\nspec: {{ user: mira, role: {role}, scope: \"{scope}\" }}\n"
    )
}

fn wanted(texts: &[String], owner: &str, prune: bool) -> Wanted {
    Wanted {
        manifests: texts.iter().flat_map(|text| one(text)).collect(),
        owner: owner.to_owned(),
        prune,
        ..Wanted::default()
    }
}

/// What is compared of a plan and of what was done.
fn told(plan: &Plan) -> Vec<String> {
    let of = |change: &Change| {
        format!(
            "{}/{} {:?} {:?} +{} -{} ~{} !{}",
            change.kind,
            change.name,
            change.action,
            change.fields,
            change.starts,
            change.stops,
            change.updates,
            change.unsupported
        )
    };
    plan.changes.iter().map(of).collect()
}

/// Tries one change both ways and looks at every agent before and after.
async fn what_is_planned_is_done(rig: &Rig, wanted: Wanted) {
    let (before, documents) = (rig.sets(), rig.documents().await);
    let plan = match rig.plan(wanted.clone()).await {
        Ok(plan) => plan,
        Err(refused) => {
            let also = rig
                .apply(wanted, "")
                .await
                .expect_err("it was refused when it was planned");
            assert_eq!(also.to_string(), refused.to_string());
            assert_eq!(rig.sets(), before, "nothing was done");
            assert_eq!(rig.documents().await, documents, "nothing was done");
            return;
        }
    };
    assert_eq!(rig.sets(), before, "a plan changes nothing");
    assert_eq!(rig.documents().await, documents, "a plan changes nothing");
    let done = rig.apply(wanted.clone(), &plan.digest).await.expect("it is done");
    assert_eq!(told(&done), told(&plan));
    let after = rig.sets();
    let now = rig.documents().await;
    for change in &plan.changes {
        let key = (change.kind.clone(), change.name.clone());
        let fields = document::differences(documents.get(&key), now.get(&key));
        assert_eq!(fields, change.fields, "{key:?}");
    }
    for change in plan.changes.iter().filter(|change| change.kind == manifest::CHECK) {
        let key = Key::check(&change.name);
        let mut effects = BTreeMap::new();
        for (agent, had) in &before {
            let effect = match (had.get(&key), after[agent].get(&key)) {
                (None, Some(_)) => PlannedEffect::Start,
                (Some(_), None) => PlannedEffect::Stop,
                (Some(was), Some(is)) if was != is => PlannedEffect::Update,
                _ => continue,
            };
            effects.insert(agent.clone(), effect);
        }
        let said: BTreeMap<String, PlannedEffect> = change
            .agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.effect))
            .collect();
        assert_eq!(said, effects, "{}", change.name);
        assert_eq!(change.starts + change.stops + change.updates, effects.len());
    }
    let touched = before.iter().filter(|(agent, had)| after[*agent] != **had).count();
    assert_eq!(plan.agents_touched, touched);
    let again = rig.plan(wanted).await.expect("a plan");
    assert!(
        again.changes.iter().all(|change| !change.is_change()),
        "{:?}",
        told(&again)
    );
}

fn any_manifest() -> impl Strategy<Value = String> {
    let owner = prop_oneof![Just(""), Just("team-a"), Just("team-b")];
    let selector = prop_oneof![
        Just("*"),
        Just("env=dev"),
        Just("env=prod,role=web"),
        Just("role!=db"),
        Just("env=none")
    ];
    let run = prop_oneof![Just("{ memory: {} }"), Just("{ http: { url: 'http://127.0.0.1/' } }")];
    let scope = prop_oneof![Just(""), Just("env=dev")];
    let agents_labels = prop_oneof![Just("{}"), Just("{ env: dev }"), Just("{ env: prod, role: web }")];
    let manifest = prop_oneof![
        4 => ("c[0-5]", selector, run, 30u32..32, owner.clone())
            .prop_map(|(name, selector, run, interval, owner)| check(&name, selector, run, interval, owner)),
        1 => ("r[0-2]", prop_oneof![Just("agents.read"), Just("states.*")], owner.clone())
            .prop_map(|(name, permission, owner)| role(&name, permission, owner)),
        1 => ("r[0-2]", scope.clone(), owner.clone()).prop_map(|(role, scope, owner)| grant(&role, scope, owner)),
        2 => ("t[0-3]", 1..3, agents_labels, scope, owner)
            .prop_map(|(name, uses, labels, scope, owner)| template(&name, uses, labels, scope, owner)),
    ];
    (manifest, prop_oneof![Just(""), Just("a"), Just("b")]).prop_map(|(text, team)| match team {
        "" => text,
        team => labelled(&text, team),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]
    #[test]
    fn what_plan_says_is_what_apply_does_in_a_thousand_changes(
        changes in proptest::collection::vec(
            (proptest::collection::vec(any_manifest(), 0..4), prop_oneof![Just("team-a"), Just("team-b")], 0..5),
            50,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            for (texts, owner, way) in changes {
                let change = match way {
                    0 | 1 => wanted(&texts, owner, true),
                    2 => Wanted { delete: true, ..wanted(&texts, "", false) },
                    _ => wanted(&texts, "", false),
                };
                what_is_planned_is_done(&rig, change).await;
            }
        });
    }
}

#[tokio::test]
async fn a_plan_that_would_do_something_else_by_now_is_refused() {
    let rig = Rig::new().await;
    let change = wanted(&[check("memory", "env=dev", "{ memory: {} }", 60, "")], "", false);
    let plan = rig.plan(change.clone()).await.unwrap();
    assert_eq!(
        (plan.changes[0].starts, plan.agents_touched, plan.agents_total),
        (6, 6, 12)
    );
    // Another agent that it would touch.
    rig.agents.inserted(agent(12));
    let refused = rig.apply(change.clone(), &plan.digest).await;
    assert!(matches!(refused, Err(Error::Outdated)), "{refused:?}");
    // One that it does not touch changes nothing about it.
    let plan = rig.plan(change.clone()).await.unwrap();
    rig.agents.inserted(agent(13));
    assert!(rig.apply(change, &plan.digest).await.is_ok());
}

#[tokio::test]
async fn a_plan_names_the_agents_that_lack_what_a_check_needs() {
    let rig = Rig::new().await;
    let http = check("site", "*", "{ http: { url: 'http://127.0.0.1/' } }", 60, "");
    let plan = rig.plan(wanted(&[http], "", false)).await.unwrap();
    let change = &plan.changes[0];
    assert_eq!((change.starts, change.unsupported), (12, 3));
    let lacking = change.agents.iter().filter(|agent| !agent.missing_features.is_empty());
    assert_eq!(
        lacking.map(|agent| agent.name.as_str()).collect::<Vec<_>>(),
        ["host-00", "host-04", "host-08"]
    );
}

#[tokio::test]
async fn labels_and_owner_of_a_check_touch_no_agent() {
    let rig = Rig::new().await;
    let memory = |owner: &str| check("memory", "*", "{ memory: {} }", 60, owner);
    rig.apply(wanted(&[memory("")], "", false), "").await.unwrap();
    let before = rig.sets();
    let done = rig.apply(wanted(&[memory("team-a")], "", false), "").await.unwrap();
    assert_eq!(done.changes[0].action, PlannedAction::Update);
    assert_eq!(done.changes[0].fields[0].path, "metadata.owner");
    assert_eq!((done.agents_touched, rig.sets()), (0, before));
    // Who names no owner keeps it.
    let again = rig.plan(wanted(&[memory("")], "", false)).await.unwrap();
    assert!(!again.changes[0].is_change());
}

#[tokio::test]
async fn what_a_resource_was_stays_on_file_with_who_made_it_that() {
    let rig = Rig::new().await;
    for interval in [30, 40, 50] {
        let text = check("memory", "*", "{ memory: {} }", interval, "team-a");
        rig.apply(wanted(&[text], "", false), "").await.unwrap();
    }
    rig.apply(wanted(&[], "team-a", true), "").await.unwrap();
    let versions = rig
        .manifests
        .versions(manifest::CHECK, "memory", i64::MAX, 10)
        .await
        .unwrap();
    let actions: Vec<PlannedAction> = versions.iter().map(|version| version.action()).collect();
    assert_eq!(
        actions,
        [
            PlannedAction::Delete,
            PlannedAction::Update,
            PlannedAction::Update,
            PlannedAction::Create
        ]
    );
    assert!(versions.iter().all(|version| version.caller == "user/anna"));
    assert!(versions[0].manifest.is_none() && versions[1].manifest.is_some());
    let page = rig
        .manifests
        .versions(manifest::CHECK, "memory", versions[1].revision, 1)
        .await;
    assert_eq!(page.unwrap()[0], versions[2]);
}

#[tokio::test]
async fn no_more_than_a_hundred_versions_are_kept() {
    let rig = Rig::new().await;
    for interval in 0..=versions::KEPT as u32 {
        let text = check("memory", "*", "{ memory: {} }", 60 + interval, "");
        rig.apply(wanted(&[text], "", false), "").await.unwrap();
    }
    let kept = rig.manifests.versions(manifest::CHECK, "memory", i64::MAX, 1_000).await;
    assert_eq!(kept.unwrap().len() as i64, versions::KEPT);
}

#[tokio::test]
async fn nobody_applies_what_it_does_not_have() {
    let rig = Rig::new().await;
    let reach = Reach {
        roles: false,
        ..everything()
    };
    let role = wanted(&[role("on-call", "agents.read", "")], "", false);
    let refused = rig.manifests.plan(role.clone(), &reach, 0, NOW).await;
    assert!(matches!(refused, Err(Error::Missing(permission)) if permission.name == "roles.write"));
    // With the permission to make roles, and without what the role gives.
    let nobody = By {
        subject: Some(Subject::User("mira".to_owned())),
        rights: Arc::default(),
        ended: None,
    };
    let mut told = 0;
    let before = |drafts: &[Draft]| told = drafts.len();
    let refused = rig.manifests.apply(role, &everything(), "", before, &nobody, NOW).await;
    assert_eq!(told, 1, "also of what is refused");
    assert!(
        matches!(refused, Err(Error::Grants(grants::Error::Escalation(_)))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_role_and_its_grant_come_and_go_together_and_the_last_admin_stays() {
    let rig = Rig::new().await;
    let both = [role("on-call", "agents.read", ""), grant("on-call", "env=dev", "")];
    let done = rig.apply(wanted(&both, "team-a", false), "").await.unwrap();
    assert_eq!(done.changes.len(), 2);
    // A role that is granted does not go alone.
    let refused = rig.apply(wanted(&both[1..], "team-a", true), "").await;
    assert!(
        matches!(refused, Err(Error::Grants(grants::Error::InUse { count: 1, .. }))),
        "{refused:?}"
    );
    let done = rig.apply(wanted(&[], "team-a", true), "").await.unwrap();
    assert!(done.changes.iter().all(|change| change.action == PlannedAction::Delete));
    assert!(rig.manifests.grants.rights().role("on-call").is_none());
    // What there was before manifests can be taken into them, and the last admin cannot be lost by that.
    let admin = |user: &str| {
        format!(
            "apiVersion: muster/v1\nkind: Grant\nmetadata: {{ owner: admins }}\nspec: {{ user: {user}, role: admin }}\n"
        )
    };
    rig.apply(wanted(&[admin("anna"), admin("mira")], "", false), "")
        .await
        .unwrap();
    let refused = rig.apply(wanted(&[], "admins", true), "").await;
    assert!(
        matches!(refused, Err(Error::Grants(grants::Error::LastAdmin))),
        "{refused:?}"
    );
    assert!(rig.apply(wanted(&[admin("anna")], "admins", true), "").await.is_ok());
}

#[tokio::test]
async fn a_template_is_there_for_its_scope_and_gives_no_labels_beyond_it() {
    let rig = Rig::new().await;
    let dev = Reach {
        token_templates: Scopes::of(Scope::parse("env=dev").unwrap()),
        ..everything()
    };
    let apply = async |reach: &Reach, text: String| {
        let by = rig.anna().await;
        let wanted = wanted(&[text], "", false);
        rig.manifests.apply(wanted, reach, "", |_| (), &by, NOW).await
    };
    for labels in ["{}", "{ env: prod }"] {
        let refused = apply(&dev, template("web", 1, labels, "", "")).await;
        assert!(
            matches!(
                refused,
                Err(Error::TokenTemplates(token_templates::Error::Labels { .. }))
            ),
            "{refused:?}"
        );
    }
    let elsewhere = apply(&dev, template("web", 1, "{ env: prod }", "env=prod", "")).await;
    assert!(
        matches!(
            elsewhere,
            Err(Error::TokenTemplates(token_templates::Error::Foreign(_)))
        ),
        "{elsewhere:?}"
    );
    let done = apply(&dev, template("web", 1, "{ env: dev }", "", "")).await.unwrap();
    assert!(
        done.changes[0]
            .fields
            .iter()
            .any(|field| field.path == "metadata.scope" && field.after == "\"env=dev\"")
    );
    // Somebody of another scope gets nothing but that the name is taken, and prunes it not.
    let prod = Reach {
        token_templates: Scopes::of(Scope::parse("env=prod").unwrap()),
        ..everything()
    };
    let taken = apply(&prod, template("web", 1, "{ env: prod }", "", "")).await;
    assert!(
        matches!(taken, Err(Error::TokenTemplates(token_templates::Error::Taken(_)))),
        "{taken:?}"
    );
    apply(&dev, template("web", 1, "{ env: dev }", "", "team-a"))
        .await
        .unwrap();
    let pruned = rig
        .manifests
        .plan(wanted(&[], "team-a", true), &prod, 0, NOW)
        .await
        .unwrap();
    assert!(pruned.changes.is_empty(), "{pruned:?}");
    let pruned = rig
        .manifests
        .plan(wanted(&[], "team-a", true), &dev, 0, NOW)
        .await
        .unwrap();
    assert_eq!(pruned.changes.len(), 1);
}
