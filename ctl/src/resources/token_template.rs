//! `musterctl tokentemplate`: how tokens are made by a name. They are made and changed by manifests.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::{manifest, v1};
use serde_json::Value;

use super::{LimitArgs, labels};
use crate::{
    age,
    app::Session,
    output::{
        Row,
        page::Page,
        table::{Cell, Column},
    },
    paging,
    problem::{Problem, status::Asked},
    verbs::export,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List token templates
    #[command(after_help = "Examples:\n  musterctl tokentemplate list\n  musterctl tokentemplate list -o wide")]
    List(ListArgs),
    /// Show one token template
    ///
    /// With -o yaml it is a manifest, which musterctl apply takes back.
    #[command(
        after_help = "Examples:\n  musterctl tokentemplate get web\n  musterctl tokentemplate get web -o yaml > web.yaml"
    )]
    Get(NameArgs),
    /// Delete a token template
    ///
    /// The tokens that were made with it stay.
    #[command(after_help = "Examples:\n  musterctl tokentemplate delete web")]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
pub struct NameArgs {
    #[arg(value_name = "TEMPLATE")]
    name: String,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[arg(value_name = "TEMPLATE")]
    name: String,
    /// Only if this is still the revision of the template
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
}

pub async fn run(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::List(args) => list(args, session).await,
        Command::Get(args) => get(args, session).await,
        Command::Delete(args) => delete(args, session).await,
    }
}

async fn list(args: ListArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("list token templates");
    let client = session.connect(&asked).await?;
    let list = paging::collect(args.limit.count(), |page_size, page_token| {
        let request = v1::ListTokenTemplatesRequest { page_size, page_token };
        client.call(
            &asked,
            async |request| client.token_templates().list_token_templates(request).await,
            request,
        )
    })
    .await?;
    session.printer.list(&list.items, list.revision)?;
    Ok(())
}

async fn get(args: NameArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("get", &args.name);
    let client = session.connect(&asked).await?;
    let call = async |request| client.token_templates().get_token_template(request).await;
    let request = v1::GetTokenTemplateRequest { name: args.name };
    let response = client.call(&asked, call, request).await?;
    let template = response.template.unwrap_or_default();
    session
        .printer
        .item(&template, |page, now| describe(page, &template, now))?;
    Ok(())
}

async fn delete(args: DeleteArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = naming("delete", &args.name);
    let client = session.connect(&asked).await?;
    let request = v1::DeleteTokenTemplateRequest {
        name: args.name.clone(),
        revision: args.revision.unwrap_or(0),
    };
    let call = async |request| client.token_templates().delete_token_template(request).await;
    client.call(&asked, call, request).await?;
    super::deleted("token template", "name", &args.name, session)
}

fn naming(verb: &str, name: &str) -> Asked {
    Asked::new(format!("{verb} token template {name}")).listed_by("musterctl tokentemplate list")
}

impl Row for v1::TokenTemplate {
    const COLUMNS: &'static [Column] = &[
        Column::new("TEMPLATE"),
        Column::new("TTL"),
        Column::new("USES"),
        Column::cut("AGENTS' LABELS"),
        Column::sparse("SCOPE"),
        Column::cut("DESCRIPTION"),
        Column::wide("SOURCE"),
        Column::wide("OWNER"),
        Column::wide("LABELS"),
        Column::wide("CHANGED"),
        Column::wide("MADE BY"),
        Column::wide("REVISION"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let spec = self.spec.clone().unwrap_or_default();
        vec![
            Cell::new(&self.name),
            Cell::new(ttl(&spec)),
            Cell::new(uses(&spec)),
            Cell::new(labels(&spec.labels)),
            Cell::new(&self.scope),
            Cell::new(&spec.description),
            Cell::new(&spec.source),
            Cell::new(&self.owner),
            Cell::new(labels(&self.labels)),
            age::since(now, self.update_time.as_ref()).into(),
            Cell::new(&self.creator),
            Cell::new(self.revision.to_string()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        manifest::render(&export::of_template(self.clone()))
    }
}

fn describe(page: &mut Page, template: &v1::TokenTemplate, now: Timestamp) {
    let spec = template.spec.clone().unwrap_or_default();
    let on_clone = match spec.on_clone() {
        v1::OnClone::Unspecified => "",
        v1::OnClone::Refuse => "refuse",
        v1::OnClone::Fork => "fork",
    };
    page.field("Template", &template.name)
        .field("Description", &spec.description)
        .field("Good for", ttl(&spec))
        .field("Uses", uses(&spec))
        .field("Agents get", labels(&spec.labels))
        .field("Source", &spec.source)
        .field("Re-enroll", if spec.allow_reenroll { "allowed" } else { "" })
        .field(
            "Ephemeral",
            spec.ephemeral.as_ref().map(age::span_of).unwrap_or_default(),
        )
        .field("Copies", on_clone)
        .field("Scope", &template.scope)
        .field("Labels", labels(&template.labels))
        .field("Owner", &template.owner)
        .field("Made by", &template.creator)
        .field(
            "Made",
            age::dated(now, template.create_time.as_ref()).unwrap_or_default(),
        )
        .field(
            "Changed",
            age::dated(now, template.update_time.as_ref()).unwrap_or_default(),
        )
        .field("Revision", template.revision.to_string());
}

/// What a token has that nobody says another of.
fn ttl(spec: &v1::TokenTemplateSpec) -> String {
    spec.ttl.as_ref().map_or_else(|| "1d".to_owned(), age::span_of)
}

fn uses(spec: &v1::TokenTemplateSpec) -> String {
    spec.uses.max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    fn template() -> v1::TokenTemplate {
        let labels = |pairs: &[(&str, &str)]| {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(own).collect()
        };
        v1::TokenTemplate {
            name: "web".to_owned(),
            labels: labels(&[("team", "base")]),
            owner: "team-base".to_owned(),
            scope: "env=prod".to_owned(),
            spec: Some(v1::TokenTemplateSpec {
                ttl: Some(prost_types::Duration {
                    seconds: 5_400,
                    nanos: 0,
                }),
                uses: 10,
                labels: labels(&[("env", "prod"), ("role", "web")]),
                description: "web machines".to_owned(),
                source: "10.1.0.0/16".to_owned(),
                allow_reenroll: true,
                ephemeral: None,
                on_clone: v1::OnClone::Fork.into(),
            }),
            creator: "user/mira".to_owned(),
            revision: 42,
            ..Default::default()
        }
    }

    #[test]
    fn a_template_shows_what_its_tokens_are() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let plain = v1::TokenTemplate {
            name: "plain".to_owned(),
            ..Default::default()
        };
        let rows: Vec<_> = [template(), plain].iter().map(|it| it.cells(now)).collect();
        let mut page = Page::default();
        describe(&mut page, &template(), now);
        let shown =
            table::render(v1::TokenTemplate::COLUMNS, &rows, true, None, false) + "\n" + &page.render(None, false);
        insta::assert_snapshot!(shown);
    }
}
