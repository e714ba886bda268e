//! How results are shown: table, wide, JSON, YAML or names on stdout, notes on stderr. What a resource looks like in each
//! is said by the resource, through [`Row`]; no file under here knows one.

pub mod document;
pub mod page;
pub mod style;
pub mod table;
pub mod text;
pub mod watch;

use std::io;

use jiff::Timestamp;
use serde_json::Value;

use crate::terminal::Terminal;
use page::Page;
use style::Tone;
use table::{Cell, Column};

/// What `-o` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// A table with every column, nothing cut.
    Wide,
    /// The API's messages; lists are {"items": [...], "revision": "..."}.
    Json,
    /// The same messages, one a line; of a list its items.
    Jsonl,
    /// The same as json, as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

impl Output {
    pub fn format(self) -> Format {
        match self {
            Output::Table => Format::Table,
            Output::Wide => Format::Wide,
            Output::Json | Output::Jsonl => Format::Json,
            Output::Yaml => Format::Yaml,
            Output::Name => Format::Name,
        }
    }
}

/// What is written. Whether JSON is one object a line is the printer's affair, and nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl Format {
    /// Read by people, so notes belong to it.
    pub fn is_table(self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}

/// One resource in every format.
pub trait Row {
    const COLUMNS: &'static [Column];

    /// One cell for each of `COLUMNS`.
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
    /// What other commands take to mean this one.
    fn name(&self) -> String;
    fn json(&self) -> Value;
}

#[derive(Debug)]
pub struct Printer {
    pub format: Format,
    /// Of JSON: one object a line.
    pub lines: bool,
    pub terminal: Terminal,
}

impl Printer {
    pub fn new(output: Output, terminal: Terminal) -> Printer {
        Printer {
            format: output.format(),
            lines: output == Output::Jsonl,
            terminal,
        }
    }

    pub fn list<R: Row>(&mut self, items: &[R], revision: i64) -> io::Result<()> {
        let list = || document::List {
            items,
            document: R::json,
            revision,
        };
        match self.format {
            Format::Table | Format::Wide => self.table(items),
            Format::Json if self.lines => {
                let lines: String = items.iter().map(|item| document::json_line(&item.json())).collect();
                self.terminal.out.write(&lines)
            }
            Format::Json => self.terminal.out.write(&document::json(&list())),
            Format::Yaml => self.terminal.out.write(&document::yaml(&list())),
            Format::Name => self.names(items.iter().map(Row::name)),
        }
    }

    /// One resource; in a table it is the page that `describe` makes.
    pub fn item<R: Row>(&mut self, item: &R, describe: impl FnOnce(&mut Page, Timestamp)) -> io::Result<()> {
        match self.format {
            Format::Table => {
                let mut page = Page::default();
                describe(&mut page, self.terminal.now());
                self.page(&page)
            }
            Format::Wide => self.table(std::slice::from_ref(item)),
            Format::Json | Format::Yaml => self.document(&item.json()),
            Format::Name => self.names([item.name()]),
        }
    }

    pub fn table<R: Row>(&mut self, items: &[R]) -> io::Result<()> {
        let now = self.terminal.now();
        let rows: Vec<Vec<Cell>> = items.iter().map(|item| item.cells(now)).collect();
        let wide = self.format == Format::Wide;
        let text = table::render(R::COLUMNS, &rows, wide, self.terminal.width, self.terminal.out.colour);
        self.terminal.out.write(&text)
    }

    pub fn page(&mut self, page: &Page) -> io::Result<()> {
        let text = page.render(self.terminal.width, self.terminal.out.colour);
        self.terminal.out.write(&text)
    }

    /// A document that is no list.
    pub fn document(&mut self, value: &Value) -> io::Result<()> {
        let text = match self.format {
            Format::Yaml => document::yaml(value),
            // Of a list its items.
            _ if self.lines => match value.get("items").and_then(Value::as_array) {
                Some(items) => items.iter().map(document::json_line).collect(),
                None => document::json_line(value),
            },
            _ => document::json(value),
        };
        self.terminal.out.write(&text)
    }

    pub fn names(&mut self, names: impl IntoIterator<Item = String>) -> io::Result<()> {
        let text: String = names.into_iter().map(|name| text::line(&name) + "\n").collect();
        self.terminal.out.write(&text)
    }

    /// Something that is not the data: on stderr, and only where a person reads.
    pub fn note(&mut self, note: &str) -> io::Result<()> {
        if !self.format.is_table() || note.is_empty() {
            return Ok(());
        }
        let line = Tone::Faint.paint(&text::line(note), self.terminal.err.colour);
        self.terminal.err.write(&(line + "\n"))
    }
}
