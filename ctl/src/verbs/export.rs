//! `musterctl export`: the configuration as manifests, which `apply` takes back.

use clap::Args;
use muster_proto::{manifest, v1};
use serde_json::Value;

use crate::{
    app::Session,
    client::Client,
    count,
    output::{Format, document},
    paging,
    problem::{Problem, status::Asked},
};

/// Print the configuration as manifests
///
/// Checks, roles, grants and token templates, as `musterctl apply` takes them: without versions, times and what is built in, so that
/// two exports differ only in what differs. With an owner, only what belongs to it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl export > muster.yaml\n  musterctl export check > checks.yaml\n  musterctl export --owner team-web | musterctl --context staging plan -f -"
)]
pub struct ExportArgs {
    /// check, role, grant, tokentemplate [default: all]
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kinds: Vec<String>,
    /// Only what has this owner
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

/// As people write kinds: "checks", "Role", "token-template".
pub fn parse_kind(text: &str) -> Result<String, String> {
    let singular = text.to_lowercase().replace('-', "");
    let singular = singular.strip_suffix('s').unwrap_or(&singular);
    match manifest::KINDS
        .into_iter()
        .find(|kind| kind.eq_ignore_ascii_case(singular) || (singular == "policy" && *kind == manifest::CHECK))
    {
        Some(kind) => Ok(kind.to_owned()),
        None => Err("the kinds are check, role, grant and tokentemplate".to_owned()),
    }
}

pub async fn run(args: ExportArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("export the configuration");
    let client = session.connect(&asked).await?;
    let is_meant = |kind: &str| args.kinds.is_empty() || args.kinds.iter().any(|it| it == kind);
    let mut documents = Vec::new();
    if is_meant(manifest::CHECK) {
        documents.extend(checks(&client, &asked).await?);
    }
    if is_meant(manifest::ROLE) {
        documents.extend(roles(&client, &asked).await?);
    }
    if is_meant(manifest::GRANT) {
        documents.extend(grants(&client, &asked).await?);
    }
    if is_meant(manifest::TOKEN_TEMPLATE) {
        documents.extend(token_templates(&client, &asked).await?);
    }
    if let Some(owner) = &args.owner {
        documents.retain(|document| {
            document
                .metadata
                .as_ref()
                .is_some_and(|metadata| metadata.owner == *owner)
        });
    }
    let values: Vec<Value> = documents.iter().map(clean).collect();
    let printer = &mut session.printer;
    match printer.format {
        Format::Name => printer.names(documents.iter().map(crate::manifests::reference))?,
        Format::Table | Format::Wide | Format::Yaml => {
            let texts: Vec<String> = values.iter().map(document::yaml).collect();
            printer.terminal.out.write(&texts.join("---\n"))?;
            printer.note(&format!("{}.", count::of(values.len() as i64, "manifest", "manifests")))?;
        }
        _ => printer.document(&document::list(values, 0))?,
    }
    Ok(())
}

/// Without what the controller adds.
pub fn clean(document: &v1::Manifest) -> Value {
    let mut value = manifest::render(document);
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for added in ["version", "revision", "createTime", "updateTime"] {
            metadata.remove(added);
        }
    }
    value
}

async fn checks(client: &Client, asked: &Asked) -> Result<Vec<v1::Manifest>, Problem> {
    let list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListPoliciesRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        client.call(
            asked,
            async |request| client.policies().list_policies(request).await,
            request,
        )
    });
    Ok(list.await?.items.iter().map(manifest::of_policy).collect())
}

async fn roles(client: &Client, asked: &Asked) -> Result<Vec<v1::Manifest>, Problem> {
    let list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListRolesRequest { page_size, page_token };
        client.call(asked, async |request| client.roles().list_roles(request).await, request)
    });
    let role = |role: v1::Role| v1::Manifest {
        kind: manifest::ROLE.to_owned(),
        metadata: Some(v1::PolicyMetadata {
            name: role.name,
            labels: role.labels,
            owner: role.owner,
            ..Default::default()
        }),
        spec: Some(v1::manifest::Spec::Role(v1::RoleSpec {
            description: role.description,
            permissions: role.permissions,
        })),
    };
    let own = list.await?.items.into_iter().filter(|role| !role.built_in);
    Ok(own.map(role).collect())
}

async fn grants(client: &Client, asked: &Asked) -> Result<Vec<v1::Manifest>, Problem> {
    let list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListGrantsRequest {
            page_size,
            page_token,
            ..Default::default()
        };
        client.call(
            asked,
            async |request| client.grants().list_grants(request).await,
            request,
        )
    });
    let grant = |grant: v1::Grant| v1::Manifest {
        kind: manifest::GRANT.to_owned(),
        metadata: Some(v1::PolicyMetadata {
            name: grant.id,
            labels: grant.labels,
            owner: grant.owner,
            ..Default::default()
        }),
        spec: Some(v1::manifest::Spec::Grant(v1::GrantSpec {
            subject: grant.subject.map(|subject| match subject {
                v1::grant::Subject::User(name) => v1::grant_spec::Subject::User(name),
                v1::grant::Subject::ApiKey(id) => v1::grant_spec::Subject::ApiKey(id),
            }),
            role: grant.role,
            scope: grant.scope,
        })),
    };
    Ok(list.await?.items.into_iter().map(grant).collect())
}

async fn token_templates(client: &Client, asked: &Asked) -> Result<Vec<v1::Manifest>, Problem> {
    let list = paging::collect(None, |page_size, page_token| {
        let request = v1::ListTokenTemplatesRequest { page_size, page_token };
        client.call(
            asked,
            async |request| client.token_templates().list_token_templates(request).await,
            request,
        )
    });
    Ok(list.await?.items.into_iter().map(of_template).collect())
}

/// A template as a manifest.
pub fn of_template(template: v1::TokenTemplate) -> v1::Manifest {
    v1::Manifest {
        kind: manifest::TOKEN_TEMPLATE.to_owned(),
        metadata: Some(v1::PolicyMetadata {
            name: template.name,
            labels: template.labels,
            scope: template.scope,
            owner: template.owner,
            revision: template.revision,
            create_time: template.create_time,
            update_time: template.update_time,
            ..Default::default()
        }),
        spec: Some(v1::manifest::Spec::TokenTemplate(template.spec.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_as_people_write_them() {
        for (text, kind) in [
            ("check", "Check"),
            ("Checks", "Check"),
            ("policy", "Check"),
            ("ROLE", "Role"),
            ("grants", "Grant"),
            ("tokentemplates", "TokenTemplate"),
            ("token-template", "TokenTemplate"),
            ("TokenTemplate", "TokenTemplate"),
        ] {
            assert_eq!(parse_kind(text).as_deref(), Ok(kind), "{text}");
        }
        assert!(parse_kind("agent").is_err());
    }
}
