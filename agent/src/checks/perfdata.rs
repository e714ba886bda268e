//! Performance data of the Nagios plugin API: `'label'=value[UOM];[warn];[crit];[min];[max]`, separated by white space.
//! Takes what follows the API and leaves out the rest, value by value. Does not interpret units or ranges.

use muster_proto::v1::Perfdata;

/// More values than this are left out of the parsed form, so that a record stays small; the text keeps them.
pub const MAX_VALUES: usize = 500;

/// The values of `text` that follow the API, in their order.
pub fn parse(text: &str) -> Vec<Perfdata> {
    Tokens { rest: text }
        .filter_map(|(label, fields)| value(label, fields))
        .take(MAX_VALUES)
        .collect()
}

/// The text that a plugin would print for `values`.
pub fn render(values: &[Perfdata]) -> String {
    values.iter().map(render_one).collect::<Vec<_>>().join(" ")
}

fn render_one(value: &Perfdata) -> String {
    let label = if value
        .label
        .contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '=' | '|'))
    {
        format!("'{}'", value.label.replace('\'', "''"))
    } else {
        value.label.clone()
    };
    let number = |n: Option<f64>| n.map(|n| n.to_string()).unwrap_or_default();
    let first = match value.value {
        Some(number) => format!("{number}{}", value.unit),
        None => "U".to_owned(),
    };
    let fields = [
        first,
        value.warning.clone(),
        value.critical.clone(),
        number(value.min),
        number(value.max),
    ]
    .join(";");
    format!("{label}={}", fields.trim_end_matches(';'))
}

/// Splits into label and the text after `=`. What has no label is skipped up to the next white space.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (String, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() {
                return None;
            }
            let Some((label, after)) = quoted_label(self.rest).or_else(|| plain_label(self.rest)) else {
                self.rest = split_word(self.rest).1;
                continue;
            };
            let (fields, rest) = split_word(after);
            self.rest = rest;
            return Some((label, fields));
        }
    }
}

/// The text up to the next white space, and the text from there.
fn split_word(text: &str) -> (&str, &str) {
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// `label=`, and what follows it.
fn plain_label(text: &str) -> Option<(String, &str)> {
    let label = split_word(text)
        .0
        .split('=')
        .next()
        .filter(|label| !label.is_empty() && !label.starts_with('\''))?;
    Some((label.to_owned(), text[label.len()..].strip_prefix('=')?))
}

/// `'a label'=`, with `''` for a quote within, and what follows it.
fn quoted_label(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut label = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        if let Some(after) = after.strip_prefix('\'') {
            label.push('\'');
            rest = after;
        } else {
            return Some((label, after.strip_prefix('=')?)).filter(|(label, _)| !label.is_empty());
        }
    }
}

fn value(label: String, fields: &str) -> Option<Perfdata> {
    let mut fields = fields.split(';');
    let first = fields.next()?;
    let (value, unit) = if first == "U" {
        (None, "")
    } else {
        let (number, unit) = first.split_at(number_length(first)?);
        if !unit_is_plausible(unit) {
            return None;
        }
        (Some(finite(number)?), unit)
    };
    let mut text = || fields.next().unwrap_or_default();
    let (warning, critical, min, max) = (text(), text(), text(), text());
    Some(Perfdata {
        label,
        value,
        unit: unit.to_owned(),
        warning: range(warning),
        critical: range(critical),
        min: finite(min),
        max: finite(max),
    })
}

/// `1,5` is a number with the unit `,5` to a careless reader: a plugin that ignores LC_ALL. Digits and signs never are
/// part of a unit.
fn unit_is_plausible(unit: &str) -> bool {
    unit.chars()
        .all(|c| c.is_alphabetic() || matches!(c, '%' | '°' | '/' | '_' | '²' | '³'))
}

/// A range as printed, if it is one: `[@][start:][end]` with `~` for minus infinity.
fn range(text: &str) -> String {
    let inner = text.strip_prefix('@').unwrap_or(text);
    let (start, end) = inner.split_once(':').unwrap_or(("", inner));
    let bound = |text: &str| text.is_empty() || finite(text).is_some();
    if (start == "~" || bound(start)) && bound(end) {
        text.to_owned()
    } else {
        String::new()
    }
}

/// The whole of `text` as a number, if it is one.
fn finite(text: &str) -> Option<f64> {
    if number_length(text)? != text.len() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Bytes of the number that `text` starts with: sign, digits with a point somewhere, exponent. Neither "inf" nor "nan",
/// which `f64` would take.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        let exponent = bytes.get(at + 1 + sign..).map_or(0, |_| digits(at + 1 + sign));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Perfdata {
        let mut values = parse(text);
        assert_eq!(values.len(), 1, "{text}: {values:?}");
        values.remove(0)
    }

    fn labels(text: &str) -> Vec<String> {
        parse(text).into_iter().map(|value| value.label).collect()
    }

    #[test]
    fn all_fields_are_read() {
        let value = one("/=24318574592B;243497277849;257024904396;0;270552530944");
        assert_eq!(
            (value.label.as_str(), value.value, value.unit.as_str()),
            ("/", Some(24318574592.0), "B")
        );
        assert_eq!(
            (value.warning.as_str(), value.critical.as_str()),
            ("243497277849", "257024904396")
        );
        assert_eq!((value.min, value.max), (Some(0.0), Some(270552530944.0)));
    }

    #[test]
    fn trailing_semicolons_and_empty_fields_are_fine() {
        assert_eq!(one("load1=2.300;;;0; ").min, Some(0.0));
        assert_eq!(one("a=1;").value, Some(1.0));
        assert_eq!(one("a=1").max, None);
    }

    #[test]
    fn quoted_labels_may_hold_spaces_quotes_and_equals_signs() {
        assert_eq!(
            labels("'free space'=1 'it''s'=2 'a=b'=3 plain=4"),
            ["free space", "it's", "a=b", "plain"]
        );
    }

    #[test]
    fn the_undetermined_value_is_kept_without_a_number() {
        assert_eq!(one("temp=U;1;2").value, None);
        assert_eq!(one("temp=U;1;2").critical, "2");
    }

    #[test]
    fn values_have_signs_exponents_and_units() {
        for (text, number, unit) in [
            ("a=-1.5s", -1.5, "s"),
            ("a=+.5ms", 0.5, "ms"),
            ("a=5.", 5.0, ""),
            ("a=1e3c", 1000.0, "c"),
            ("a=2.5E-1", 0.25, ""),
            ("a=3EB", 3.0, "EB"),
            ("a=4e", 4.0, "e"),
            ("a=20%", 20.0, "%"),
            ("a=7KB/s", 7.0, "KB/s"),
            ("a=21°C", 21.0, "°C"),
        ] {
            let value = one(text);
            assert_eq!((value.value, value.unit.as_str()), (Some(number), unit), "{text}");
        }
    }

    #[test]
    fn ranges_stay_as_printed_and_what_is_no_range_is_left_out() {
        for range in [
            "10",
            "10:",
            "~:10",
            "10:20",
            "@10:20",
            "-1:1",
            "18446743269476925440",
            "",
        ] {
            assert_eq!(one(&format!("a=1;{range}")).warning, range);
        }
        for wrong in ["1,5", "a", "1:2:3", "10%", "~"] {
            assert_eq!(
                one(&format!("a=1;{wrong};2")),
                Perfdata {
                    critical: "2".to_owned(),
                    ..one("a=1")
                },
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_decimal_comma_and_other_nonsense_is_left_out_and_its_neighbours_are_kept() {
        let text =
            "good=1 load=0,15;5,0;10,0;0 nan=nan inf=inf hex=0x1F =5 word a=b=5 'open=3 twice=1.2.3 empty= last=2";
        assert_eq!(labels(text), ["good", "last"]);
    }

    #[test]
    fn values_on_several_lines_are_separate() {
        assert_eq!(labels("a=1;2\nb=2\tc=3\r\nd=4"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn there_is_a_limit_to_the_number_of_values() {
        assert_eq!(parse(&"a=1 ".repeat(MAX_VALUES + 1)).len(), MAX_VALUES);
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), -1e15..1e15f64, any::<i32>().prop_map(f64::from)]
    }

    fn any_value() -> impl Strategy<Value = Perfdata> {
        let range = prop_oneof![Just(""), Just("10"), Just("@5:"), Just("~:3.5")].prop_map(str::to_owned);
        let unit = prop_oneof![Just(""), Just("B"), Just("%"), Just("ms")].prop_map(str::to_owned);
        let label = "[ -~äß]{1,12}".prop_filter("a label is not blank", |label| !label.trim().is_empty());
        (
            label,
            number(),
            unit,
            range.clone(),
            range,
            prop::option::of(number()),
            prop::option::of(number()),
        )
            .prop_map(|(label, value, unit, warning, critical, min, max)| Perfdata {
                label,
                value: Some(value),
                unit,
                warning,
                critical,
                min,
                max,
            })
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(values in prop::collection::vec(any_value(), 0..6)) {
            prop_assert_eq!(parse(&render(&values)), values);
        }

        #[test]
        fn any_text_is_survived_and_gives_labels_and_finite_numbers(text in "[a-z0-9'=;.,:~@%| \\-+eU\n\\PC]{0,80}") {
            for value in parse(&text) {
                prop_assert!(!value.label.is_empty());
                prop_assert!(value.value.is_none_or(f64::is_finite));
                prop_assert_eq!(parse(&render(std::slice::from_ref(&value))), vec![value]);
            }
        }
    }
}
