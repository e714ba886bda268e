//! How an API key looks: what is printed when it is made, a row, a page.

use jiff::Timestamp;
use muster_proto::{json, v1};
use serde_json::Value;

use crate::{
    age,
    output::{
        Row,
        page::Page,
        style::Tone,
        table::{Cell, Column},
    },
    resources::grant,
};

/// The key, what it may do, and how it is used. `granted`: role and scope.
pub fn block(
    response: &v1::CreateApiKeyResponse,
    (role, scope): &(String, String),
    now: Timestamp,
    colour: bool,
) -> String {
    let key = response.api_key.clone().unwrap_or_default();
    let mut page = Page::default();
    page.field("API key", &response.secret).field("Id", &key.id);
    let end = age::moment(key.expire_time.as_ref()).unwrap_or_default();
    let left = age::until(now, key.expire_time.as_ref()).map(|left| format!(" (in {left})"));
    page.field("Expires", end + &left.unwrap_or_default())
        .field("Role", role)
        .field("Scope", if scope.is_empty() { "everything" } else { scope })
        .field("From", key.sources.join(", "))
        .field("For", &key.description);
    // The widths of a terminal play no part: a key that is cut cannot be copied.
    let mut text = page.render(None, colour);
    if !response.secret.is_empty() {
        text.push_str(
            "\nIt is shown this once. musterctl takes it from a file that you alone can read (--api-key-file FILE), from \
             MUSTER_API_KEY,\nor as `api_key` in a context; other programs send it as \"authorization: Bearer mk_...\".\n",
        );
    }
    text
}

impl Row for v1::ApiKey {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("STATUS"),
        Column::new("AGE"),
        Column::new("ENDS"),
        Column::new("LAST USED"),
        Column::sparse("FROM"),
        Column::cut("DESCRIPTION"),
        Column::wide("MADE BY"),
        Column::wide("REVOKED"),
    ];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        let (word, tone) = standing(self);
        let ends = match age::until(now, self.expire_time.as_ref()) {
            Some(left) => format!("in {left}"),
            None => "ended".to_owned(),
        };
        vec![
            Cell::new(&self.id),
            Cell::toned(word, tone),
            age::since(now, self.create_time.as_ref()).into(),
            Cell::new(ends),
            age::since(now, self.last_used_time.as_ref()).into(),
            Cell::new(self.sources.join(",")),
            Cell::new(&self.description),
            Cell::new(&self.creator),
            age::since(now, self.revoke_time.as_ref()).into(),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        json::to_json(self)
    }
}

pub fn describe(page: &mut Page, key: &v1::ApiKey, grants: &[v1::Grant], now: Timestamp) {
    let (word, tone) = standing(key);
    let dated = |time: &Option<prost_types::Timestamp>| age::dated(now, time.as_ref()).unwrap_or_default();
    page.field("API key", &key.id)
        .toned("Status", word, tone)
        .field("Description", &key.description)
        .field("Made by", &key.creator)
        .field("Made", dated(&key.create_time))
        .field("Ends", age::moment(key.expire_time.as_ref()).unwrap_or_default())
        .field("Revoked", dated(&key.revoke_time))
        .field("Last used", dated(&key.last_used_time))
        .field("From", key.sources.join(", "));
    if !grants.is_empty() {
        let rows = grants.iter().map(|grant| grant::cells(grant, now)).collect();
        page.section("Grants").table(grant::COLUMNS, rows);
    }
}

fn standing(key: &v1::ApiKey) -> (&'static str, Tone) {
    match key.status() {
        v1::ApiKeyStatus::Unspecified => ("unknown", Tone::Doubtful),
        v1::ApiKeyStatus::Active => ("active", Tone::Good),
        v1::ApiKeyStatus::Expired => ("expired", Tone::Faint),
        v1::ApiKeyStatus::Revoked => ("revoked", Tone::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table;

    fn now() -> Timestamp {
        Timestamp::from_second(1_795_000_000).unwrap()
    }

    fn key() -> v1::ApiKey {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::ApiKey {
            id: "5f1e0c7b8d213a4b".to_owned(),
            description: "nightly job".to_owned(),
            status: v1::ApiKeyStatus::Active.into(),
            sources: vec!["10.1.0.0/16".to_owned(), "192.0.2.7/32".to_owned()],
            creator: "user/alice".to_owned(),
            create_time: time(1_794_900_000),
            expire_time: time(1_795_086_400),
            last_used_time: time(1_794_999_960),
            ..Default::default()
        }
    }

    #[test]
    fn the_block_of_a_new_key() {
        let response = v1::CreateApiKeyResponse {
            api_key: Some(key()),
            secret: "mk_5f1e0c7b8d213a4b_secret".to_owned(),
        };
        let granted = ("viewer".to_owned(), "env=dev".to_owned());
        insta::assert_snapshot!(block(&response, &granted, now(), false));
        let kept = v1::CreateApiKeyResponse {
            secret: String::new(),
            ..response
        };
        let text = block(&kept, &granted, now(), false);
        assert!(
            !text.contains("shown this once") && text.contains("5f1e0c7b8d213a4b"),
            "{text}"
        );
    }

    #[test]
    fn a_table_of_keys_shows_networks_when_one_has_any() {
        let revoked = v1::ApiKey {
            status: v1::ApiKeyStatus::Revoked.into(),
            sources: Vec::new(),
            last_used_time: None,
            ..key()
        };
        let rows = |keys: &[v1::ApiKey]| keys.iter().map(|key| key.cells(now())).collect::<Vec<_>>();
        let render = |keys: &[v1::ApiKey]| table::render(v1::ApiKey::COLUMNS, &rows(keys), false, None, false);
        insta::assert_snapshot!(render(&[key(), revoked.clone()]));
        assert!(!render(&[revoked]).contains("FROM"));
    }

    #[test]
    fn the_page_of_a_key_has_its_grants() {
        let grant = v1::Grant {
            id: "g1".to_owned(),
            role: "viewer".to_owned(),
            ..Default::default()
        };
        let mut page = Page::default();
        describe(&mut page, &key(), &[grant], now());
        insta::assert_snapshot!(page.render(None, false));
    }
}
