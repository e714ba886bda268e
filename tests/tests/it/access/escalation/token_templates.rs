//! A template of tokens is no way around what holds for tokens.

use muster_proto::v1::{
    manifest::Spec, manifest_service_client::ManifestServiceClient, token_service_client::TokenServiceClient,
    token_template_service_client::TokenTemplateServiceClient,
};

use super::*;

fn template(name: &str, of: &[(&str, &str)], scope: &str) -> v1::Manifest {
    v1::Manifest {
        kind: "TokenTemplate".to_owned(),
        metadata: Some(v1::PolicyMetadata {
            name: name.to_owned(),
            scope: scope.to_owned(),
            ..v1::PolicyMetadata::default()
        }),
        spec: Some(Spec::TokenTemplate(v1::TokenTemplateSpec {
            labels: labels(of),
            ..v1::TokenTemplateSpec::default()
        })),
    }
}

async fn apply(by: &Operator, manifest: v1::Manifest) -> String {
    let request = v1::ApplyManifestsRequest {
        manifests: vec![manifest],
        ..v1::ApplyManifestsRequest::default()
    };
    outcome(&ManifestServiceClient::new(by.service()).apply_manifests(request).await)
}

async fn plan(by: &Operator, manifest: v1::Manifest) -> String {
    let request = v1::PlanManifestsRequest {
        manifests: vec![manifest],
        ..v1::PlanManifestsRequest::default()
    };
    outcome(&ManifestServiceClient::new(by.service()).plan_manifests(request).await)
}

async fn made(by: &Operator, request: v1::CreateTokenRequest) -> Result<v1::Token, String> {
    let made = TokenServiceClient::new(by.service()).create_token(request).await;
    let text = outcome(&made);
    made.map(|made| made.into_inner().token.expect("a token"))
        .map_err(|_| text)
}

fn by(template: &str) -> v1::CreateTokenRequest {
    v1::CreateTokenRequest {
        template: template.to_owned(),
        ..v1::CreateTokenRequest::default()
    }
}

async fn names(of: &Operator) -> Vec<String> {
    let request = v1::ListTokenTemplatesRequest::default();
    let listed = TokenTemplateServiceClient::new(of.service())
        .list_token_templates(request)
        .await
        .expect("a list")
        .into_inner();
    listed.items.into_iter().map(|template| template.name).collect()
}

#[test]
fn templates_give_labels_of_the_scope_alone_to_who_applies_and_to_who_uses_them() {
    on_stage(async |stage| {
        let dora = &stage.dora;
        for of in [&[][..], &[("env", "prod")], &[("env", "dev"), ("team", "web")]] {
            assert_eq!(apply(dora, template("mine", of, "")).await, OUT, "{of:?}");
            assert_eq!(plan(dora, template("mine", of, "")).await, OUT, "{of:?}");
        }
        assert_eq!(apply(dora, template("mine", &[("env", "prod")], "env=prod")).await, OUT);
        let mine = [("env", "dev"), ("rack", "7")];
        assert_eq!(apply(dora, template("mine", &mine, "")).await, "OK");
        assert_eq!(apply(dora, template("mine", &mine, "env=prod")).await, OUT, "moved");

        let token = made(dora, by("mine")).await.expect("a token");
        assert_eq!((token.scope.as_str(), token.labels), ("env=dev", labels(&mine)));
        for of in [&[("env", "prod")][..], &[("team", "web")]] {
            let request = v1::CreateTokenRequest {
                labels: labels(of),
                ..by("mine")
            };
            assert_eq!(made(dora, request).await, Err(OUT.into()), "{of:?}");
        }
        let elsewhere = v1::CreateTokenRequest {
            scope: "env=prod".to_owned(),
            ..by("mine")
        };
        assert_eq!(made(dora, elsewhere).await, Err(OUT.into()));
        let bound = v1::CreateTokenRequest {
            agent_id: stage.prod.clone(),
            ..by("mine")
        };
        assert_eq!(made(dora, bound).await, Err(GONE.into()));

        // What is made by it keeps its scope, whoever does that, unless it is said.
        let token = made(&stage.admin, by("mine")).await.expect("a token");
        assert_eq!(token.scope, "env=dev");
        let request = v1::CreateTokenRequest {
            scope: "*".to_owned(),
            ..by("mine")
        };
        assert_eq!(made(&stage.admin, request).await.expect("a token").scope, "");

        // A label that has come to decide whom somebody reaches is no longer hers to give.
        stage
            .admin
            .create_user("rick", "operator", "rack=7")
            .await
            .expect("a user");
        assert_eq!(made(dora, by("mine")).await, Err(OUT.into()));
    });
}

#[test]
fn templates_of_others_are_not_there() {
    on_stage(async |stage| {
        let dora = &stage.dora;
        for (name, scope, of) in [("whole", "", [("env", "dev")]), ("webs", "team=web", [("team", "web")])] {
            let manifest = || template(name, &of, scope);
            assert_eq!(apply(&stage.admin, manifest()).await, "OK", "{name}");
            let mut templates = TokenTemplateServiceClient::new(dora.service());
            let get = v1::GetTokenTemplateRequest { name: name.to_owned() };
            assert_eq!(outcome(&templates.get_token_template(get).await), GONE, "{name}");
            let delete = v1::DeleteTokenTemplateRequest {
                name: name.to_owned(),
                revision: 0,
            };
            assert_eq!(outcome(&templates.delete_token_template(delete).await), GONE, "{name}");
            let with_labels = v1::CreateTokenRequest {
                labels: labels(&[("env", "dev")]),
                ..by(name)
            };
            assert_eq!(made(dora, with_labels).await, Err(GONE.into()), "{name}");
            let taken = "ALREADY_EXISTS ALREADY_EXISTS";
            let own = || template(name, &[("env", "dev")], "");
            assert_eq!(apply(dora, own()).await, taken, "{name}");
            assert_eq!(plan(dora, own()).await, taken, "{name}");
            let versions = v1::ListManifestVersionsRequest {
                kind: "TokenTemplate".to_owned(),
                name: name.to_owned(),
                ..v1::ListManifestVersionsRequest::default()
            };
            let mut manifests = ManifestServiceClient::new(dora.service());
            let listed = manifests.list_manifest_versions(versions).await;
            assert_eq!(outcome(&listed), GONE, "{name}");
        }
        assert_eq!(names(dora).await, Vec::<String>::new());
        assert_eq!(names(&stage.admin).await, ["webs", "whole"]);
        assert_eq!(made(dora, by("none")).await, Err(GONE.into()));
    });
}

#[test]
fn templates_take_the_permissions_of_tokens() {
    on_stage(async |stage| {
        assert_eq!(
            apply(&stage.admin, template("whole", &[("env", "dev")], "")).await,
            "OK"
        );
        let mut roles = RoleServiceClient::new(stage.admin.service());
        for (name, permission) in [("checker", "policies.*"), ("looker", "tokens.read")] {
            roles.create_role(role(name, &[permission])).await.expect("a role");
        }
        let other = || template("whole", &[("env", "prod")], "");
        let checker = stage.admin.create_user("carl", "checker", "").await.expect("a user");
        let checker = Operator::with(&stage.controller, &checker).await;
        assert_eq!(apply(&checker, other()).await, MISSING);
        assert_eq!(plan(&checker, other()).await, MISSING);
        assert_eq!(made(&checker, by("whole")).await, Err(MISSING.into()));
        let listed = TokenTemplateServiceClient::new(checker.service())
            .list_token_templates(v1::ListTokenTemplatesRequest::default())
            .await;
        assert_eq!(outcome(&listed), MISSING);

        let looker = stage.admin.create_user("lea", "looker", "").await.expect("a user");
        let looker = Operator::with(&stage.controller, &looker).await;
        assert_eq!(names(&looker).await, ["whole"]);
        assert_eq!(plan(&looker, other()).await, "OK");
        assert_eq!(apply(&looker, other()).await, MISSING);
        assert_eq!(made(&looker, by("whole")).await, Err(MISSING.into()));
        let delete = v1::DeleteTokenTemplateRequest {
            name: "whole".to_owned(),
            revision: 0,
        };
        let deleted = TokenTemplateServiceClient::new(looker.service())
            .delete_token_template(delete)
            .await;
        assert_eq!(outcome(&deleted), MISSING);
        assert_eq!(names(&stage.admin).await, ["whole"]);
    });
}

#[test]
fn a_call_that_comes_again_is_answered_to_who_still_has_the_scope() {
    on_stage(async |stage| {
        let request = v1::CreateTokenRequest {
            labels: labels(&[("env", "dev")]),
            idempotency_key: "k".to_owned(),
            ..v1::CreateTokenRequest::default()
        };
        let first = made(&stage.dora, request.clone()).await.expect("a token");
        assert_eq!(made(&stage.dora, request.clone()).await, Ok(first));
        let mut grants = GrantServiceClient::new(stage.admin.service());
        let of_dora = v1::ListGrantsRequest {
            user: "dora".to_owned(),
            ..v1::ListGrantsRequest::default()
        };
        for old in grants.list_grants(of_dora).await.expect("grants").into_inner().items {
            let delete = v1::DeleteGrantRequest {
                id: old.id,
                revision: 0,
            };
            grants.delete_grant(delete).await.expect("it goes");
        }
        let other = grant("dora", "operator", "env=prod");
        grants.create_grant(other).await.expect("a grant");
        assert_eq!(made(&stage.dora, request).await, Err(GONE.into()));
    });
}
