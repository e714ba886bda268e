//! Rows of a table as lines of text: each a JSON array of its values, bytes in base64. The kinds of the values are those of the
//! columns, so that nothing depends on which database they were in.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value as Json;

use crate::store::dump::{Column, Kind, Value};

/// Adds a line.
pub fn write(row: &[Value], out: &mut Vec<u8>) {
    let values: Vec<Json> = row
        .iter()
        .map(|value| match value {
            Value::Null => Json::Null,
            Value::Text(text) => Json::from(text.as_str()),
            Value::Int(number) => Json::from(*number),
            Value::Bool(truth) => Json::from(*truth),
            Value::Bytes(bytes) => Json::from(BASE64_STANDARD.encode(bytes)),
        })
        .collect();
    // Writing to memory cannot fail, and neither can an array of such values.
    let _ = serde_json::to_writer(&mut *out, &values);
    out.push(b'\n');
}

/// All lines of a part; the error says what is wrong with which.
pub fn read(text: &[u8], columns: &[Column]) -> Result<Vec<Vec<Value>>, String> {
    let Some(text) = text.strip_suffix(b"\n") else {
        return Err("its last line is cut off".to_owned());
    };
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines
        .map(|(index, line)| row(line, columns).map_err(|problem| format!("line {}: {problem}", index + 1)))
        .collect()
}

fn row(line: &[u8], columns: &[Column]) -> Result<Vec<Value>, String> {
    let values: Vec<Json> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if values.len() != columns.len() {
        return Err(format!("it has {} values instead of {}", values.len(), columns.len()));
    }
    let pairs = values.into_iter().zip(columns);
    pairs
        .map(|(json, column)| value(json, column.kind).ok_or_else(|| format!("{} is of another kind", column.name)))
        .collect()
}

fn value(json: Json, kind: Kind) -> Option<Value> {
    Some(match (json, kind) {
        (Json::Null, _) => Value::Null,
        (Json::String(text), Kind::Text) => Value::Text(text),
        (Json::String(text), Kind::Bytes) => Value::Bytes(BASE64_STANDARD.decode(text).ok()?),
        (Json::Number(number), Kind::Int) => Value::Int(number.as_i64()?),
        (Json::Bool(truth), Kind::Bool) => Value::Bool(truth),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 4] = [
        Column {
            name: "text",
            kind: Kind::Text,
        },
        Column {
            name: "number",
            kind: Kind::Int,
        },
        Column {
            name: "truth",
            kind: Kind::Bool,
        },
        Column {
            name: "bytes",
            kind: Kind::Bytes,
        },
    ];

    fn rows() -> impl Strategy<Value = Vec<Vec<Value>>> {
        let or_null = |value: BoxedStrategy<Value>| prop_oneof![1 => Just(Value::Null), 4 => value];
        let row = (
            or_null(any::<String>().prop_map(Value::Text).boxed()),
            or_null(any::<i64>().prop_map(Value::Int).boxed()),
            or_null(any::<bool>().prop_map(Value::Bool).boxed()),
            or_null(any::<Vec<u8>>().prop_map(Value::Bytes).boxed()),
        );
        prop::collection::vec(
            row.prop_map(|(text, int, bool, bytes)| vec![text, int, bool, bytes]),
            1..8,
        )
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(rows in rows()) {
            let mut text = Vec::new();
            rows.iter().for_each(|row| write(row, &mut text));
            prop_assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), rows.len());
            prop_assert_eq!(read(&text, &COLUMNS), Ok(rows));
        }

        #[test]
        fn whatever_else_it_is_it_is_refused_or_read_and_never_a_panic(text in any::<Vec<u8>>()) {
            let _ = read(&text, &COLUMNS);
        }

        #[test]
        fn a_line_that_was_cut_off_is_refused(rows in rows(), at in any::<prop::sample::Index>()) {
            let mut text = Vec::new();
            rows.iter().for_each(|row| write(row, &mut text));
            let cut = &text[..at.index(text.len())];
            // Cut between two lines it is whole, and the count of rows tells.
            prop_assume!(!cut.ends_with(b"\n"));
            prop_assert!(read(cut, &COLUMNS).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_its_column_is_named() {
        for (line, problem) in [
            ("[1,1,true,\"\"]", "text"),
            ("[\"\",1.5,true,\"\"]", "number"),
            ("[\"\",9223372036854775808,true,\"\"]", "number"),
            ("[\"\",1,1,\"\"]", "truth"),
            ("[\"\",1,true,\"?\"]", "bytes"),
            ("[\"\",1,true]", "3 values"),
            ("{}", "line 1"),
        ] {
            let error = read(format!("{line}\n").as_bytes(), &COLUMNS).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
