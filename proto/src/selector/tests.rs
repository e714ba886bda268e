//! The grammar, its errors, and the matcher against one that is written differently.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::label;

fn selects(text: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    Selector::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .matches(|key| labels.get(key).copied())
}

fn error(text: &str) -> Error {
    Selector::parse(text).expect_err(text)
}

#[test]
fn every_form_of_term_selects_what_the_table_says() {
    let prod = [
        ("env", "prod"),
        ("role", "db"),
        ("gpu", ""),
        ("fact.os.id", "debian"),
        ("example.com/team", "a b"),
    ];
    for text in [
        "*",
        "env=prod",
        "env==prod",
        "env = prod , role = db",
        "role!=web",
        "zone!=eu",
        "env in (prod,test)",
        "env in ( prod )",
        "role notin (web,app)",
        "zone notin (eu)",
        "gpu",
        "!spot",
        "! spot",
        "fact.os.id=debian",
        "example.com/team=\"a b\"",
        "gpu=\"\"",
        "env=prod,role!=web,env in (prod),gpu,!spot",
        "\tenv=prod\n",
    ] {
        assert!(selects(text, &prod), "{text}");
    }
    for text in [
        "env=test",
        "env!=prod",
        "env notin (prod)",
        "zone",
        "zone=eu",
        "zone in (eu)",
        "!env",
        "gpu=x",
        "env=prod,zone",
        "fact.os.id=arch",
    ] {
        assert!(!selects(text, &prod), "{text}");
    }
}

#[test]
fn keys_may_be_called_like_operators() {
    assert!(selects(
        "in in (in),notin,notin notin (x)",
        &[("in", "in"), ("notin", "notin")]
    ));
    assert!(selects("inside=1,notinside=2", &[("inside", "1"), ("notinside", "2")]));
}

#[test]
fn negations_match_without_the_label() {
    assert!(selects("role!=db", &[]));
    assert!(selects("role notin (db,app)", &[]));
    assert!(!selects("role,role!=db", &[]));
}

#[test]
fn a_selector_is_shown_in_its_shortest_form() {
    for (text, shown) in [
        ("*", "*"),
        (" env == prod ,  !spot", "env=prod,!spot"),
        ("a=\"~\"", "a=\"~\""),
        ("zone in (us, eu,us)", "zone in (eu,us)"),
        ("zone in (eu)", "zone=eu"),
        ("zone notin (eu)", "zone!=eu"),
        ("a=\"b\"", "a=b"),
        ("a=\"b c\\\"\\\\\"", "a=\"b c\\\"\\\\\""),
        ("a=\"\"", "a=\"\""),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), shown);
    }
}

#[test]
fn the_keys_that_are_asked_for_can_be_listed() {
    let selector = Selector::parse("env=prod,fact.os.id in (debian,ubuntu),!spot").unwrap();
    assert_eq!(selector.keys().collect::<Vec<_>>(), ["env", "fact.os.id", "spot"]);
    assert_eq!(Selector::all().keys().count(), 0);
}

#[test]
fn errors_name_the_place_what_was_expected_and_what_was_meant() {
    let table = [
        ("", 0, "expected a selector, found the end", "write `*` for every agent"),
        ("  ", 2, "expected a selector", "write `*`"),
        (
            "env:prod",
            3,
            "expected `=`, `!=`, `in`, `notin` or `,`, found `:prod`",
            "did you mean `=`?",
        ),
        ("env~prod", 3, "expected `=`", "no regular expressions"),
        ("env=~prod.*", 3, "expected `=`", "no regular expressions"),
        ("env!prod", 3, "expected `=`", "did you mean `!=`?"),
        ("env>1", 3, "expected `=`", "values have no order"),
        ("env=>prod", 4, "expected a value", "the operators are"),
        (
            "env=",
            4,
            "expected a value, found the end",
            "the empty value is written `\"\"`",
        ),
        ("env=,a", 4, "expected a value, found `,`", "the empty value"),
        ("env='prod'", 4, "expected a value, found `'`", "use double quotes"),
        ("env=(a,b)", 4, "expected a value", "`key in (a,b)`"),
        ("env=pro*", 7, "expected `,` or the end, found `*`", "no wildcards"),
        ("env=*", 4, "expected a value", "`key` alone matches any value"),
        (
            "env=a b",
            6,
            "expected `,` or the end, found `b`",
            "separate terms by `,`",
        ),
        (
            "env=a role=b",
            6,
            "expected `,` or the end, found `role`",
            "separate terms by `,`",
        ),
        (
            "env=a && role=b",
            6,
            "expected `,` or the end",
            "separated by `,`, which means and",
        ),
        (
            "env=a and role=b",
            6,
            "expected `,` or the end, found `and`",
            "which means and",
        ),
        (
            "env=a or env=b",
            6,
            "expected `,` or the end, found `or`",
            "there is no or",
        ),
        ("gpu || spot", 4, "expected `,` or the end", "there is no or"),
        ("env=a=b", 5, "expected `,` or the end, found `=`", "in double quotes"),
        ("env=größe", 6, "expected `,` or the end, found `ö`", "double quotes"),
        ("env prod", 4, "expected `=`", "did you mean `env=prod` or `env,prod`?"),
        ("env is prod", 4, "expected `=`", "did you mean `=`?"),
        ("zone not in (a)", 5, "expected `=`", "did you mean `notin`?"),
        ("zone IN (a)", 5, "expected `=`", "written in lower case"),
        ("zone in a", 8, "expected `(`, found `a`", "`in (a,b)`"),
        ("zone in ()", 9, "expected a value, found `)`", "at least one value"),
        (
            "zone in (a b)",
            11,
            "expected `,` or `)`, found `b`",
            "separated by `,`",
        ),
        (
            "zone in (a,b",
            12,
            "expected `,` or `)`, found the end",
            "the `(` at byte 8 is never closed",
        ),
        ("zone in (a,)", 11, "expected a value, found `)`", "the empty value"),
        ("zone(a,b)", 4, "expected `=`", "did you mean `zone in (...)`?"),
        (
            "env=prod,",
            9,
            "expected another term after `,`, found the end",
            "take the last comma away",
        ),
        (",env=prod", 0, "expected a label key, found `,`", "take one comma away"),
        (
            "env=a,,gpu",
            6,
            "expected a label key, found `,`",
            "take one comma away",
        ),
        ("*,env=prod", 1, "expected nothing after `*`, found `,`", "stands alone"),
        ("env=prod,*", 9, "expected a label key, found `*`", "stands alone"),
        ("=prod", 0, "expected a label key, found `=`", "the key comes first"),
        ("!env=prod", 4, "expected `,` or the end", "did you mean `env!=...`?"),
        (
            "!zone in (a)",
            6,
            "expected `,` or the end, found `in`",
            "did you mean `zone notin (...)`?",
        ),
        ("!!env", 1, "expected a label key, found `!`", ""),
        ("(env=prod)", 0, "expected a label key, found `(`", "no groups"),
        ("\"env\"=prod", 0, "expected a label key", "keys do not"),
        (
            "-env=prod",
            0,
            "expected a label key, found `-env`",
            "starts and ends with a letter or digit",
        ),
        ("a//b=c", 0, "expected a label key, found `a//b`", ""),
        (
            "env=\"prod",
            9,
            "expected `\"`, found the end",
            "the quote at byte 4 is never closed",
        ),
        ("env=\"a\\n\"", 6, "found `\\n`", "written twice"),
        ("env=\"a\u{7}\"", 4, "found what none can have", "control character"),
        (
            "env=\" a\"",
            4,
            "found what none can have",
            "starts or ends with a blank",
        ),
        ("env=$ENV", 4, "expected a value", "no variables"),
    ];
    for (text, position, message, hint) in table {
        let error = error(text);
        assert_eq!(error.position, position, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(
            error.hint.as_deref().unwrap_or_default().contains(hint),
            "{text}: {error}"
        );
        assert!(error.length >= 1, "{text}: {error:?}");
    }
}

#[test]
fn an_error_is_one_line_with_its_place_and_its_hint() {
    assert_eq!(
        error("env:prod").to_string(),
        "expected `=`, `!=`, `in`, `notin` or `,`, found `:prod` at byte 3; did you mean `=`?"
    );
}

#[test]
fn length_and_number_of_terms_are_bounded() {
    assert!(error(&"a".repeat(MAX_BYTES + 1)).message.contains("at most 4096 bytes"));
    assert!(error(&"ä".repeat(MAX_BYTES)).message.contains("at most 4096 bytes"));
    let terms = |count: usize| vec!["a"; count].join(",");
    assert!(Selector::parse(&terms(MAX_TERMS)).is_ok());
    assert!(error(&terms(MAX_TERMS + 1)).message.contains("at most 64 terms"));
    assert!(Selector::parse(&format!("a={}", "v".repeat(253))).is_ok());
    assert!(Selector::parse(&format!("a={}", "v".repeat(254))).is_err());
    assert!(Selector::parse(&format!("{}=v", "k".repeat(64))).is_err());
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]",
        "[a-zA-Z0-9]([-_.a-z]{0,8}[a-z0-9])?",
        "[a-z]{1,5}\\.[a-z]{2}/[a-z]{1,5}",
        "fact\\.[a-z]{1,4}\\.id",
        Just("in".to_owned())
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[x-z]",
        "[a-z0-9./:@+%_-]{1,12}",
        any::<String>().prop_filter("is a value", |value| label::value_is_valid(value)),
        Just(String::new()),
        Just("a, \"b\" \\ (c)".to_owned()),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let values = || prop::collection::btree_set(value(), 1..4);
    let condition = prop_oneof![
        values().prop_map(Condition::In),
        values().prop_map(Condition::NotIn),
        Just(Condition::Exists),
        Just(Condition::NotExists),
    ];
    (key(), condition).prop_map(|(key, condition)| Term { key, condition })
}

/// The table of the documentation once more, by what each term would exclude.
fn naive(terms: &[Term], labels: &BTreeMap<String, String>) -> bool {
    for Term { key, condition } in terms {
        let excluded = match (condition, labels.get(key)) {
            (Condition::In(_) | Condition::Exists, None) => true,
            (Condition::In(values), Some(value)) => values.iter().all(|one| one != value),
            (Condition::NotIn(values), Some(value)) => values.iter().any(|one| one == value),
            (Condition::NotExists, Some(_)) => true,
            (Condition::NotIn(_) | Condition::NotExists, None) | (Condition::Exists, Some(_)) => false,
        };
        if excluded {
            return false;
        }
    }
    true
}

proptest! {
    #[test]
    fn a_selector_is_shown_so_that_it_parses_back(terms in prop::collection::vec(term(), 0..6)) {
        let selector = Selector { terms };
        let text = selector.to_string();
        let parsed = Selector::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(parsed, selector, "{}", text);
    }

    #[test]
    fn the_matcher_agrees_with_a_naive_one(
        terms in prop::collection::vec(term(), 0..4),
        labels in prop::collection::btree_map(key(), value(), 0..6),
    ) {
        let selector = Selector { terms };
        let matches = selector.matches(|key| labels.get(key).map(String::as_str));
        prop_assert_eq!(matches, naive(&selector.terms, &labels));
    }

    #[test]
    fn no_text_makes_the_parser_panic(random in any::<String>(), near in "[a-c=!,()\"\\\\*~: \tinotä]{0,40}") {
        for text in [random, near] {
            match Selector::parse(&text) {
                Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector)),
                Err(error) => {
                    prop_assert!(error.position <= text.len() && text.is_char_boundary(error.position), "{:?}", error);
                    prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error);
                }
            }
        }
    }
}
