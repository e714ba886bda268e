//! Which endpoint the link tries next: those that it was sent to, then all that are known in their order, and the one that
//! it was sent away from last. Knows no socket and no time.

use crate::{
    config::Endpoint,
    endpoints::{Candidate, Source},
};

/// Where the link has been, as far as that matters.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// How many were tried since the last one that held.
    turn: usize,
    /// Come first, until one has held.
    named: Vec<Endpoint>,
    left: Option<Endpoint>,
}

impl Route {
    /// None: no endpoint is known at all.
    pub fn next(&self, known: &[Candidate]) -> Option<Candidate> {
        let order = self.order(known);
        order.get(self.turn % order.len().max(1)).cloned()
    }

    fn order(&self, known: &[Candidate]) -> Vec<Candidate> {
        let named = self.named.iter().map(|endpoint| {
            let known = known.iter().find(|it| it.endpoint == *endpoint).cloned();
            known.unwrap_or_else(|| Candidate {
                endpoint: endpoint.clone(),
                source: Source::Drain,
            })
        });
        let mut order: Vec<Candidate> = Vec::new();
        for candidate in named.chain(known.iter().cloned()) {
            if order.iter().all(|it| it.endpoint != candidate.endpoint) {
                order.push(candidate);
            }
        }
        // False before true, and else as it was.
        order.sort_by_key(|it| self.left.as_ref() == Some(&it.endpoint));
        order
    }

    /// No link came of it.
    pub fn failed(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// There was a link, and now there is none.
    pub fn held(&mut self) {
        *self = Route::default();
    }

    /// `left` has sent the agent to these.
    pub fn drained(&mut self, left: &Endpoint, named: Vec<Endpoint>) {
        *self = Route {
            turn: 0,
            left: (!named.contains(left)).then(|| left.clone()),
            named,
        };
    }

    /// It is known to answer.
    pub fn go(&mut self, to: Endpoint) {
        *self = Route {
            named: vec![to],
            ..Route::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(endpoints: &[&str]) -> Vec<Candidate> {
        let candidate = |text: &&str| Candidate {
            endpoint: endpoint(text),
            source: Source::File,
        };
        endpoints.iter().map(candidate).collect()
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    /// The endpoints of so many attempts that fail.
    fn tries(route: &mut Route, known: &[Candidate], count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let next = route.next(known).unwrap();
                route.failed();
                next.endpoint.to_string()
            })
            .collect()
    }

    #[test]
    fn all_are_tried_in_turn_and_after_one_that_held_from_the_first() {
        let known = known(&["a:1", "b:1", "c:1"]);
        let mut route = Route::default();
        assert_eq!(tries(&mut route, &known, 4), ["a:1", "b:1", "c:1", "a:1"]);
        route.held();
        assert_eq!(tries(&mut route, &known, 1), ["a:1"]);
        assert_eq!(Route::default().next(&[]), None);
    }

    #[test]
    fn who_is_sent_away_goes_where_it_was_sent_then_elsewhere_and_back_last() {
        let known = known(&["a:1", "b:1", "c:1"]);
        let mut route = Route::default();
        route.drained(&endpoint("a:1"), vec![endpoint("d:1"), endpoint("c:1")]);
        assert_eq!(route.next(&known).unwrap().source, Source::Drain);
        assert_eq!(tries(&mut route, &known, 5), ["d:1", "c:1", "b:1", "a:1", "d:1"]);
        route.held();
        assert_eq!(tries(&mut route, &known, 1), ["a:1"], "it was for this once");
    }

    #[test]
    fn who_is_sent_away_to_nowhere_takes_the_next_one_or_comes_back() {
        let two = known(&["a:1", "b:1"]);
        let mut route = Route::default();
        route.drained(&endpoint("a:1"), Vec::new());
        assert_eq!(tries(&mut route, &two, 2), ["b:1", "a:1"]);
        route.drained(&endpoint("b:1"), Vec::new());
        assert_eq!(tries(&mut route, &two, 2), ["a:1", "b:1"]);
        route.drained(&endpoint("a:1"), vec![endpoint("a:1")]);
        assert_eq!(tries(&mut route, &two, 2), ["a:1", "b:1"], "it was named");
        let one = known(&["a:1"]);
        route.drained(&endpoint("a:1"), Vec::new());
        assert_eq!(tries(&mut route, &one, 2), ["a:1", "a:1"]);
    }

    #[test]
    fn the_way_back_leads_to_the_one_that_answers() {
        let known = known(&["a:1", "b:1", "c:1"]);
        let mut route = Route::default();
        route.go(endpoint("b:1"));
        assert_eq!(tries(&mut route, &known, 3), ["b:1", "a:1", "c:1"]);
    }
}
