//! Joins the pages of a list into one. Which call fetches a page is the resource's business.

use muster_proto::v1;

use crate::{exit::Exit, problem::Problem};

/// The largest page that is asked for when only a few items are wanted; beyond it the controller chooses.
const PAGE: usize = 500;

/// A list response of the API.
pub trait Page {
    type Item;

    fn items(&mut self) -> &mut Vec<Self::Item>;
    fn next_page_token(&self) -> &str;
    fn set_next_page_token(&mut self, token: String);
}

/// All items, or the first `limit`, in the first page's response: so revision and counts are those of the moment before
/// the first item was read, and a watch from there misses nothing. Its page token says whether there is more.
pub async fn collect<P, F, Pending>(limit: Option<usize>, mut fetch: F) -> Result<P, Problem>
where
    P: Page,
    F: FnMut(i32, String) -> Pending,
    Pending: Future<Output = Result<P, Problem>>,
{
    let size = |left: Option<usize>| left.filter(|left| *left < PAGE).map_or(0, |left| left as i32);
    let mut joined = fetch(size(limit), String::new()).await?;
    let mut token = joined.next_page_token().to_owned();
    while !token.is_empty() && limit.is_none_or(|limit| joined.items().len() < limit) {
        let left = limit.map(|limit| limit - joined.items().len());
        let mut page = fetch(size(left), token.clone()).await?;
        if page.next_page_token() == token {
            return Err(Problem::new(Exit::Failure, "the list does not end")
                .why("the controller answered with the page token it was asked with")
                .step("this is a defect of the controller; please report it"));
        }
        token = page.next_page_token().to_owned();
        joined.items().append(page.items());
    }
    if let Some(limit) = limit {
        joined.items().truncate(limit);
    }
    joined.set_next_page_token(token);
    Ok(joined)
}

macro_rules! page {
    ($($response:ident of $item:ident),+ $(,)?) => {$(
        impl Page for v1::$response {
            type Item = v1::$item;

            fn items(&mut self) -> &mut Vec<v1::$item> {
                &mut self.items
            }

            fn next_page_token(&self) -> &str {
                &self.next_page_token
            }

            fn set_next_page_token(&mut self, token: String) {
                self.next_page_token = token;
            }
        }
    )+};
}

page! {
    ListAgentsResponse of Agent,
    ListApiKeysResponse of ApiKey,
    ListAuditEntriesResponse of AuditEntry,
    ListCertificatesResponse of Certificate,
    ListEventsResponse of Event,
    ListGrantsResponse of Grant,
    ListHistoryUsageResponse of AgentHistory,
    ListLogsResponse of StoredLog,
    ListManifestVersionsResponse of ManifestVersion,
    ListPoliciesResponse of Policy,
    ListResultsResponse of StoredResult,
    ListRolesResponse of Role,
    ListStatesResponse of State,
    ListTokenTemplatesResponse of TokenTemplate,
    ListTokensResponse of Token,
    ListUsersResponse of User,
    QueryMetricsResponse of MetricValue,
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::ready};

    use super::*;

    fn page(names: &[&str], next: &str, revision: i64) -> v1::ListAgentsResponse {
        v1::ListAgentsResponse {
            items: names
                .iter()
                .map(|name| v1::Agent {
                    name: (*name).to_owned(),
                    ..Default::default()
                })
                .collect(),
            next_page_token: next.to_owned(),
            revision,
            ..Default::default()
        }
    }

    async fn names(limit: Option<usize>) -> (Vec<String>, i64, Vec<(i32, String)>) {
        let asked = RefCell::new(Vec::new());
        let list = collect(limit, |size, token: String| {
            asked.borrow_mut().push((size, token.clone()));
            ready(Ok(match token.as_str() {
                "" => page(&["a", "b"], "2", 10),
                "2" => page(&["c", "d"], "3", 11),
                _ => page(&["e"], "", 12),
            }))
        });
        let list = list.await.unwrap();
        (
            list.items.into_iter().map(|agent| agent.name).collect(),
            list.revision,
            asked.into_inner(),
        )
    }

    #[tokio::test]
    async fn every_page_is_fetched_and_the_revision_is_that_of_the_first() {
        let (names, revision, asked) = names(None).await;
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
        assert_eq!(revision, 10);
        assert_eq!(asked.last().unwrap(), &(0, "3".to_owned()));
    }

    #[tokio::test]
    async fn a_limit_stops_at_the_page_that_fills_it() {
        let (names, _, asked) = names(Some(3)).await;
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(asked, [(3, String::new()), (1, "2".to_owned())]);
    }

    #[tokio::test]
    async fn a_token_that_comes_back_is_an_error_and_not_an_endless_loop() {
        let list = collect(None, |_, _| ready(Ok(page(&["a"], "same", 1)))).await;
        assert!(list.unwrap_err().headline.contains("does not end"));
    }
}
