//! From the events of the YAML parser to trees: no recursion, everything counted before it is kept.

use std::{borrow::Cow, collections::BTreeMap};

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Error, Key, MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Value, scalar};
use crate::excerpt::{excerpt, excerpt_of};

/// What the parser says is shown up to here, in characters.
const MAX_MESSAGE: usize = 200;

pub(super) fn documents(text: &str) -> Result<Vec<Node>, Error> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes, at most {MAX_BYTES} are read", text.len());
        return Err(Error {
            line: 1,
            column: 1,
            message,
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(text, &error))?;
        builder.event(event, place(&span.start))?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    nodes: usize,
}

/// A list or a map whose end has not come yet.
struct Open {
    place: Place,
    parts: Parts,
}

enum Parts {
    Seq(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        lines: BTreeMap<String, usize>,
        key: Option<Key>,
    },
}

type Place = (usize, usize);

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Error> {
        match event {
            Event::Scalar(text, style, _, tag) => self.scalar(&text, style, tag.as_deref(), place),
            Event::SequenceStart(_, _, tag) => self.open(Parts::Seq(Vec::new()), tag, "seq", place),
            Event::MappingStart(_, _, tag) => {
                let parts = Parts::Map {
                    entries: Vec::new(),
                    lines: BTreeMap::new(),
                    key: None,
                };
                self.open(parts, tag, "map", place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) | Event::UnresolvedAlias(_) => Err(error(
                place,
                "aliases (`*name`) are not read here; write the value out, or put it into quotes if it is text",
            )),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<(), Error> {
        let tag = tag.map(|tag| known_tag(tag, place)).transpose()?;
        let (line, column) = place;
        if let Some(Parts::Map {
            lines, key: key @ None, ..
        }) = self.open.last_mut().map(|open| &mut open.parts)
        {
            if text.is_empty() {
                return Err(error(place, "a key is missing before `:`"));
            }
            if let Some(first) = lines.insert(text.to_owned(), line) {
                return Err(error(
                    place,
                    format!("`{}` stands here twice, first in line {first}", excerpt(text)),
                ));
            }
            *key = Some(Key {
                text: text.to_owned(),
                line,
                column,
            });
            return Ok(());
        }
        let is_text = style != ScalarStyle::Plain || tag.as_deref().is_some_and(|tag| tag == "str");
        let value = if is_text {
            Value::String(text.to_owned())
        } else {
            scalar::resolve(text)
        };
        let plain = (!matches!(value, Value::String(_))).then(|| text.to_owned());
        self.put(Node {
            line,
            column,
            value,
            plain,
        })
    }

    fn open(&mut self, parts: Parts, tag: Option<Cow<'_, Tag>>, kind: &str, place: Place) -> Result<(), Error> {
        if let Some(tag) = tag.map(|tag| known_tag(&tag, place)).transpose()?
            && tag != kind
        {
            return Err(error(
                place,
                format!("the tag `!!{tag}` does not fit what follows it; leave it out"),
            ));
        }
        if let Some(Parts::Map { key: None, .. }) = self.open.last().map(|open| &open.parts) {
            return Err(error(
                place,
                "a key must be text; if this is a template such as `{{ name }}`, put it into quotes",
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(error(
                place,
                format!("lists and maps are nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.open.push(Open { place, parts });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some(Open {
            place: (line, column),
            parts,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match parts {
            Parts::Seq(items) => Value::Seq(items),
            Parts::Map { entries, .. } => Value::Map(entries),
        };
        self.put(Node {
            line,
            column,
            value,
            plain: None,
        })
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(error(
                (node.line, node.column),
                format!("these are more than {MAX_NODES} values"),
            ));
        }
        match self.open.last_mut().map(|open| &mut open.parts) {
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
            Some(Parts::Seq(items)) => items.push(node),
            Some(Parts::Map { entries, key, .. }) => {
                if let Some(key) = key.take() {
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }
}

/// The name of a tag of the core schema; other tags would mean something to somebody that they do not mean to us.
fn known_tag(tag: &Tag, place: Place) -> Result<String, Error> {
    match tag.core_suffix() {
        Some(name) => Ok(name.to_owned()),
        // The lone `!`: text, whatever it looks like.
        None if tag.original() == "!" => Ok("str".to_owned()),
        None => Err(error(
            place,
            format!(
                "the tag `{}` means nothing here; put it into quotes if it is text, or leave it out",
                excerpt(&tag.original())
            ),
        )),
    }
}

fn syntax(text: &str, error: &ScanError) -> Error {
    let (line, column) = place(error.marker());
    let there = text.lines().nth(line - 1).unwrap_or_default();
    let is_tabbed = |line: &str| line[..line.len() - line.trim_start().len()].contains('\t');
    let tab = "a tab; YAML is indented by spaces alone".to_owned();
    // Of a tab after a line that could go on the parser says that it is in that line.
    let next = text.lines().nth(line).unwrap_or_default();
    let message = if is_tabbed(there) {
        tab
    } else if error.info().contains("a tab") && is_tabbed(next) {
        return Error {
            line: line + 1,
            column: 1,
            message: tab,
        };
    } else {
        let said = error.info();
        let first = there.chars().nth(column - 1);
        unquoted(first, &said).unwrap_or_else(|| excerpt_of(&said, MAX_MESSAGE))
    };
    Error { line, column, message }
}

/// Text that YAML takes for something of its own: the mistake that is made most, and what the parser says of it helps
/// only those who know its terms.
fn unquoted(first: Option<char>, said: &str) -> Option<String> {
    const TERMS: [&str; 3] = ["an anchor or alias", "a tag", "unexpected character"];
    match first {
        Some(first @ ('*' | '&' | '!' | '@' | '`' | '%')) if TERMS.iter().any(|term| said.contains(term)) => Some(
            format!("`{first}` at the start means something of its own in YAML; put the text into double quotes"),
        ),
        Some(':') if said.contains("mapping values are not allowed") => Some(
            "`: ` makes a key of what stands before it, and there can be none here; put the text into double quotes"
                .to_owned(),
        ),
        _ => None,
    }
}

fn place(marker: &Marker) -> Place {
    (marker.line().max(1), marker.col() + 1)
}

fn error((line, column): Place, message: impl Into<String>) -> Error {
    Error {
        line,
        column,
        message: message.into(),
    }
}
