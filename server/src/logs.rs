//! Log entries as people look for them: newest first, some of them, page by page. What an agent keeps and sends of its own log is
//! its own business.

use muster_proto::ids::AgentId;

use crate::{
    clock::Micros,
    history::Place,
    store::{self, Db, LogFilter, LogRow},
};

/// Rows that are read at a time.
const STEP: usize = 1_000;
/// Rows and bytes that are looked through for one page at most: whoever looks for what is rare asks for the next one.
const MAX_ROWS: usize = 20_000;
const MAX_BYTES: i64 = 8 << 20;

/// Which entries, and how many.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// None: of all agents.
    pub agent: Option<AgentId>,
    /// By the agents' time.
    pub since: Micros,
    pub until: Micros,
    /// Where the page before has ended.
    pub after: Option<Place>,
    pub size: usize,
}

/// A page of those that `is_wanted`, newest first, and where the next one begins, if there may be more.
pub async fn page(
    db: &Db,
    wanted: Wanted,
    mut is_wanted: impl FnMut(&LogRow) -> bool,
) -> Result<(Vec<LogRow>, Option<Place>), store::Error> {
    let (mut found, mut place, mut rows, mut bytes) = (Vec::new(), wanted.after, 0, 0);
    let agent_id = wanted.agent.map(|id| id.to_string()).unwrap_or_default();
    loop {
        let filter = LogFilter {
            agent_id: agent_id.clone(),
            since: wanted.since,
            until: place.map_or(wanted.until, |place| place.at.saturating_add(1).min(wanted.until)),
            skip: place.map_or(0, |place| place.skip),
            limit: STEP as i64,
        };
        let step = db.log_page(&filter).await?;
        let is_last = step.len() < STEP;
        for row in step {
            if found.len() == wanted.size || rows == MAX_ROWS || bytes >= MAX_BYTES {
                return Ok((found, place));
            }
            place = Some(Place::behind(place, row.at));
            rows += 1;
            bytes += row.bytes();
            if is_wanted(&row) {
                found.push(row);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
}

/// `text` in lower case. Without regard to case, as people remember what they have read.
pub fn contains(message: &str, text: &str) -> bool {
    text.is_empty() || message.to_lowercase().contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_upper_and_lower_case() {
        assert!(contains("The Disk is full", "disk is"));
        assert!(contains("anything", ""));
        assert!(!contains("The Disk is full", "disks"));
    }
}
