use proptest::prelude::*;

use super::*;

fn range(text: &str) -> Range {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn ranges_alert_as_the_plugin_api_says() {
    // (range, values that alert, values that do not)
    let table: &[(&str, &[f64], &[f64])] = &[
        ("10", &[-0.1, 10.1], &[0.0, 5.0, 10.0]),
        ("10:", &[9.9, -1.0], &[10.0, 1e9]),
        ("~:10", &[10.1], &[10.0, -1e9]),
        ("10:20", &[9.9, 20.1], &[10.0, 20.0]),
        ("@10:20", &[10.0, 15.0, 20.0], &[9.9, 20.1]),
        ("@0:0", &[0.0], &[1.0, -1.0]),
        ("1:", &[0.0], &[1.0]),
        (":10", &[-1.0, 11.0], &[0.0, 10.0]),
        ("-5:-1", &[0.0, -6.0], &[-5.0, -1.0]),
        ("1.5:2.5e1", &[1.4, 25.1], &[1.5, 25.0]),
        ("~:", &[f64::NAN], &[-1e300, 0.0, 1e300]),
    ];
    for (text, alerts, quiet) in table {
        for value in *alerts {
            assert!(range(text).alerts(*value), "{text} and {value}");
        }
        for value in *quiet {
            assert!(!range(text).alerts(*value), "{text} and {value}");
        }
    }
}

#[test]
fn what_is_no_range_says_what_one_looks_like() {
    for text in [
        "", ":", "@", "@:", "a", "1:2:3", "20:10", "-10", "nan", "inf:", "1,5", "10%", "~", " 10", "~10", "1:~", "+1",
    ] {
        let error = text.parse::<Range>().expect_err(text).to_string();
        assert!(error.contains("expected a range like"), "{error}");
    }
}

#[test]
fn ranges_are_shown_as_one_writes_them() {
    for text in ["10", "10:", "~:10", "10:20", "@10:20", "~:", "0:", "@1:", "-5:-1"] {
        assert_eq!(range(text).to_string(), text);
    }
}

#[test]
fn amounts_are_percentages_or_bytes() {
    for (text, amount) in [
        ("20%", Amount::Percent(20.0)),
        ("0.5%", Amount::Percent(0.5)),
        ("512B", Amount::Bytes(512)),
        ("1KB", Amount::Bytes(1_000)),
        ("1KiB", Amount::Bytes(1_024)),
        ("1.5GiB", Amount::Bytes(1_610_612_736)),
        ("5 GB", Amount::Bytes(5_000_000_000)),
        ("2TiB", Amount::Bytes(2_199_023_255_552)),
        ("3TB", Amount::Bytes(3_000_000_000_000)),
        ("100MB", Amount::Bytes(100_000_000)),
        ("100MiB", Amount::Bytes(104_857_600)),
    ] {
        assert_eq!(text.parse(), Ok(amount), "{text}");
    }
}

#[test]
fn an_amount_without_its_unit_or_with_another_says_what_was_meant() {
    for (text, hint) in [
        ("20", "did you mean `20%`, or `20B`"),
        ("5G", "did you mean `5GiB`"),
        ("5gb", "did you mean `5GB`"),
        ("5kib", "did you mean `5KiB`"),
        ("120%", "at most 100"),
        ("9999999999TiB", "more than 8 EiB"),
        ("5 parsecs", "the units are"),
        ("-5%", "expected a percentage"),
        ("", "expected a percentage"),
        ("%", "expected a percentage"),
    ] {
        let error = text.parse::<Amount>().expect_err(text).to_string();
        assert!(error.contains(hint), "{text}: {error}");
    }
}

#[test]
fn an_amount_is_compared_with_what_is_free() {
    assert!(Amount::Percent(20.0).is_short(19, 100));
    assert!(!Amount::Percent(20.0).is_short(20, 100));
    assert!(
        !Amount::Percent(20.0).is_short(0, 0),
        "a file system without inodes is not short of them"
    );
    assert!(Amount::Bytes(1_024).is_short(1_023, u64::MAX));
    assert!(!Amount::Bytes(1_024).is_short(1_024, 2_048));
}

#[test]
fn load_is_three_numbers_or_one() {
    assert_eq!("15,10,5".parse(), Ok(LoadTriple([15.0, 10.0, 5.0])));
    assert_eq!("0.7".parse(), Ok(LoadTriple([0.7; 3])));
    assert_eq!("15, 10, 5".parse(), Ok(LoadTriple([15.0, 10.0, 5.0])));
    for text in ["", "1,2", "1,2,3,4", "a", "1,,2", "-1", "1;2;3", "80%"] {
        assert!(text.parse::<LoadTriple>().is_err(), "{text}");
    }
}

#[test]
fn load_is_reached_at_its_value() {
    let triple = LoadTriple([15.0, 10.0, 5.0]);
    assert!(triple.is_reached([15.0, 0.0, 0.0]));
    assert!(triple.is_reached([0.0, 0.0, 5.1]));
    assert!(!triple.is_reached([14.9, 9.9, 4.9]));
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in any::<String>(), near in "[@~:.,%0-9eEKMGTiB -]{0,20}") {
        for text in [text, near] {
            let _ = text.parse::<Range>();
            let _ = text.parse::<Amount>();
            let _ = text.parse::<LoadTriple>();
        }
    }

    #[test]
    fn a_range_is_shown_so_that_it_parses_back(start in proptest::option::of(-1e9..1e9f64), length in proptest::option::of(0.0..1e9f64), inside: bool) {
        let from = start.unwrap_or(f64::NEG_INFINITY);
        let end = length.map_or(f64::INFINITY, |length| start.unwrap_or(0.0) + length);
        let range = Range { start: from, end, inside };
        prop_assert_eq!(range.to_string().parse(), Ok(range));
    }

    #[test]
    fn an_amount_is_shown_so_that_it_parses_back(bytes in 0..(1u64 << 52), percent in 0.0..100.0f64) {
        for amount in [Amount::Bytes(bytes), Amount::Percent(percent)] {
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }
    }
}
