//! The readable description of one thing, as `get` prints it: fields in a column, then sections.

use super::{
    style::Tone,
    table::{self, Cell, Column},
    text,
};

#[derive(Debug, Default)]
pub struct Page {
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Fields(Vec<(String, String, Tone)>),
    Section(String),
    Table(&'static [Column], Vec<Vec<Cell>>),
    Lines(Vec<String>),
}

impl Page {
    /// A named value; empty ones are left out.
    pub fn field(&mut self, name: &str, value: impl AsRef<str>) -> &mut Page {
        self.toned(name, value, Tone::Plain)
    }

    pub fn toned(&mut self, name: &str, value: impl AsRef<str>, tone: Tone) -> &mut Page {
        let value = text::line(value.as_ref());
        if value.is_empty() {
            return self;
        }
        let field = (text::line(name), value, tone);
        match self.blocks.last_mut() {
            Some(Block::Fields(fields)) => fields.push(field),
            _ => self.blocks.push(Block::Fields(vec![field])),
        }
        self
    }

    /// A title; what follows it is indented.
    pub fn section(&mut self, title: impl Into<String>) -> &mut Page {
        self.blocks.push(Block::Section(title.into()));
        self
    }

    pub fn table(&mut self, columns: &'static [Column], rows: Vec<Vec<Cell>>) -> &mut Page {
        self.blocks.push(Block::Table(columns, rows));
        self
    }

    /// Lines as they are, but for control characters.
    pub fn lines(&mut self, content: &str) -> &mut Page {
        self.blocks.push(Block::Lines(text::lines(content)));
        self
    }

    pub fn render(&self, limit: Option<usize>, colour: bool) -> String {
        let mut page = String::new();
        let mut indent = "";
        for block in &self.blocks {
            let content = match block {
                Block::Section(title) => {
                    if !page.is_empty() {
                        page.push('\n');
                    }
                    page.push_str(&Tone::Strong.paint(title, colour));
                    page.push('\n');
                    indent = "  ";
                    continue;
                }
                Block::Fields(fields) => fields_text(fields, colour),
                Block::Table(columns, rows) => {
                    let limit = limit.map(|limit| limit.saturating_sub(indent.len()));
                    table::render(columns, rows, false, limit, colour)
                }
                Block::Lines(lines) => lines.join("\n"),
            };
            for line in content.lines() {
                if !line.is_empty() {
                    page.push_str(indent);
                    page.push_str(line);
                }
                page.push('\n');
            }
        }
        page
    }
}

fn fields_text(fields: &[(String, String, Tone)], colour: bool) -> String {
    let width = fields.iter().map(|(name, _, _)| text::width(name)).max().unwrap_or(0);
    fields
        .iter()
        .map(|(name, value, tone)| {
            let pad = " ".repeat(width - text::width(name) + 2);
            format!("{name}{pad}{}\n", tone.paint(value, colour))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned_and_sections_indented() {
        let mut page = Page::default();
        page.field("Name", "db-01")
            .field("Nothing", "")
            .field("Last seen", "4s ago\u{1b}[2J");
        const COLUMNS: &[Column] = &[Column::new("KEY"), Column::new("VALUE")];
        page.section("Labels")
            .table(COLUMNS, vec![vec![Cell::new("role"), Cell::new("db")]]);
        page.section("Warnings").lines("one\n\ntwo");
        assert_eq!(
            page.render(None, false),
            "Name       db-01\nLast seen  4s ago [2J\n\nLabels\n  KEY   VALUE\n  role  db\n\nWarnings\n  one\n\n  two\n"
        );
    }
}
