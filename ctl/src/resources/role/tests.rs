//! Roles and permissions as people see them.

use jiff::Timestamp;

use super::*;
use crate::output::{Row, page::Page, table};

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap()
}

fn roles() -> [v1::Role; 2] {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    [
        v1::Role {
            name: "viewer".to_owned(),
            description: "seeing agents".to_owned(),
            permissions: vec!["agents.read".to_owned(), "states.read".to_owned()],
            built_in: true,
            ..Default::default()
        },
        v1::Role {
            name: "deployer".to_owned(),
            permissions: vec!["policies.*".to_owned()],
            creator: "user/alice".to_owned(),
            create_time: time(1_794_900_000),
            update_time: time(1_794_999_000),
            revision: 42,
            ..Default::default()
        },
    ]
}

fn render<R: Row>(items: &[R], wide: bool) -> String {
    let rows: Vec<_> = items.iter().map(|item| item.cells(now())).collect();
    table::render(R::COLUMNS, &rows, wide, None, false)
}

#[test]
fn a_table_of_roles() {
    insta::assert_snapshot!(render(&roles(), false));
}

#[test]
fn a_wide_table_of_roles() {
    insta::assert_snapshot!(render(&roles(), true));
}

#[test]
fn the_page_of_a_role() {
    let mut page = Page::default();
    row::describe(&mut page, &roles()[1], now());
    insta::assert_snapshot!(page.render(None, false));
}

#[test]
fn permissions_say_whether_a_scope_gives_them_and_what_they_open() {
    let permission = |name: &str, scoped, method: &str| v1::Permission {
        name: name.to_owned(),
        description: "see something".to_owned(),
        methods: vec![format!("/muster.v1.{method}")],
        scoped,
    };
    let all = [
        permission("agents.read", true, "AgentService/ListAgents"),
        permission("ca.write", false, "CaService/PrepareCa"),
    ];
    insta::assert_snapshot!(render(&all, true));
}
