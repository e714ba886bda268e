//! Soft and hard: how often a problem must be seen in a row before it is believed. Follows Nagios and Icinga; knows
//! nothing of time, freshness or who is told.

use crate::v1::CheckState;

/// Where a check stands after a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    pub state: CheckState,
    /// Which consecutive problem this is; 1 without a problem. Never more than the attempts that were asked for.
    pub attempt: u32,
    pub hard: bool,
}

/// What a new result makes of the standing before it, for a check that asks for `max` attempts.
///
/// Without a problem the standing is hard at once. Problems count up also when one problem turns into another (warning
/// into critical), are hard when `max` of them came in a row, and then stay hard until there is none, even if `max` is
/// raised meanwhile.
pub fn next(previous: Option<Attempts>, new: CheckState, max: u32) -> Attempts {
    let max = max.max(1);
    if !is_problem(new) {
        return Attempts {
            state: new,
            attempt: 1,
            hard: true,
        };
    }
    let (before, was_hard) = match previous {
        Some(previous) if is_problem(previous.state) => (previous.attempt, previous.hard),
        _ => (0, false),
    };
    let attempt = before.saturating_add(1).min(max);
    Attempts {
        state: new,
        attempt,
        hard: was_hard || attempt == max,
    }
}

/// Pending is none: there is no result yet that could be one.
pub fn is_problem(state: CheckState) -> bool {
    match state {
        CheckState::Ok | CheckState::Pending => false,
        CheckState::Warning | CheckState::Critical | CheckState::Unknown | CheckState::Unspecified => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CheckState::{Critical as C, Ok as O, Pending as P, Unknown as U, Warning as W};

    fn run(max: u32, states: &[CheckState]) -> String {
        let mut standing = None;
        let mut seen = Vec::new();
        for state in states {
            let now = next(standing, *state, max);
            seen.push(format!("{}{}", now.attempt, if now.hard { "h" } else { "s" }));
            standing = Some(now);
        }
        seen.join(" ")
    }

    #[test]
    fn problems_are_hard_after_as_many_in_a_row_as_asked_for() {
        // The situations of Icinga's own tests for 1, 2 and 3 attempts. Where it starts to count anew at a hard problem, we
        // keep the count, as Nagios does, so that 3/3 can be shown.
        let table: &[(u32, &[CheckState], &str)] = &[
            (1, &[O, U, O], "1h 1h 1h"),
            (2, &[O, U, C, C, O], "1h 1s 2h 2h 1h"),
            (2, &[O, C, O, C, O], "1h 1s 1h 1s 1h"),
            (3, &[O, U, C, C, C, O], "1h 1s 2s 3h 3h 1h"),
            (3, &[O, W, O, W, W, W], "1h 1s 1h 1s 2s 3h"),
        ];
        for (max, states, expected) in table {
            assert_eq!(run(*max, states), *expected, "max {max}, {states:?}");
        }
    }

    #[test]
    fn changing_from_one_problem_to_another_goes_on_counting() {
        assert_eq!(run(4, &[W, C, U, W, C]), "1s 2s 3s 4h 4h");
    }

    #[test]
    fn the_first_result_ever_counts_as_the_first_attempt() {
        assert_eq!(run(3, &[C]), "1s");
        assert_eq!(run(1, &[C]), "1h");
        assert_eq!(run(3, &[P, C]), "1h 1s");
    }

    #[test]
    fn zero_attempts_means_one() {
        assert_eq!(run(0, &[C]), "1h");
    }

    #[test]
    fn a_hard_problem_stays_hard_when_more_attempts_are_asked_for() {
        let hard = next(None, C, 1);
        assert_eq!(
            next(Some(hard), C, 5),
            Attempts {
                state: C,
                attempt: 2,
                hard: true
            }
        );
    }

    #[test]
    fn a_soft_problem_is_hard_with_the_next_result_when_fewer_attempts_are_asked_for() {
        let soft = Attempts {
            state: C,
            attempt: 4,
            hard: false,
        };
        assert_eq!(
            next(Some(soft), W, 2),
            Attempts {
                state: W,
                attempt: 2,
                hard: true
            }
        );
    }
}
