//! The parser of selectors: one pass, no recursion, bounded by the length of the text.

use std::collections::BTreeSet;

use super::{Condition, Error, MAX_BYTES, MAX_TERMS, Selector, Term};
use crate::{excerpt::excerpt, label};

/// Bytes that a value outside quotes may consist of.
pub(super) fn is_bare_value_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'+' | b'%')
}

pub(super) fn selector(text: &str) -> Result<Selector, Error> {
    let mut parser = Parser { text, position: 0 };
    if text.len() > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes, found {}", text.len());
        return Err(parser.error_at(text.floor_char_boundary(MAX_BYTES), 1, message, None));
    }
    parser.skip_blanks();
    if parser.rest().is_empty() {
        let hint = "write `*` for every agent, or a label such as `env=prod`";
        return Err(parser.expected("a selector", Some(hint)));
    }
    if parser.eat("*") {
        parser.skip_blanks();
        return if parser.rest().is_empty() {
            Ok(Selector::all())
        } else {
            Err(parser.expected(
                "nothing after `*`",
                Some("`*` is every agent and stands alone; leave it out"),
            ))
        };
    }
    let mut terms = Vec::new();
    loop {
        if terms.len() == MAX_TERMS {
            let message = format!("expected at most {MAX_TERMS} terms, found more");
            return Err(parser.error_at(parser.position, 1, message, Some("`key in (a,b,c)` is one term")));
        }
        terms.push(parser.term()?);
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Ok(Selector { terms });
        }
        parser.separator()?;
        parser.skip_blanks();
        if parser.rest().is_empty() {
            return Err(parser.expected("another term after `,`", Some("take the last comma away")));
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    fn term(&mut self) -> Result<Term, Error> {
        if self.eat("!") {
            self.skip_blanks();
            let key = self.key()?;
            self.skip_blanks();
            let meant = match self.rest() {
                rest if rest.starts_with(['=', '!']) => "!=...",
                rest if starts_with_word(rest, "in") => " notin (...)",
                _ => "",
            };
            if !meant.is_empty() {
                let hint = format!("did you mean `{key}{meant}`? `!{key}` alone is: without that label");
                return Err(self.expected("`,` or the end", Some(&hint)));
            }
            return Ok(Term {
                key,
                condition: Condition::NotExists,
            });
        }
        let key = self.key()?;
        let after_key = self.position;
        self.skip_blanks();
        let condition = if self.eat("!=") {
            Condition::NotIn(BTreeSet::from([self.value()?]))
        } else if self.eat("==") || self.rest().starts_with('=') && !self.rest().starts_with("=~") && self.eat("=") {
            Condition::In(BTreeSet::from([self.value()?]))
        } else if self.eat_word("in") {
            Condition::In(self.values("in")?)
        } else if self.eat_word("notin") {
            Condition::NotIn(self.values("notin")?)
        } else if self.rest().is_empty() || self.rest().starts_with(',') {
            Condition::Exists
        } else {
            return Err(self.no_operator(&key, after_key));
        };
        Ok(Term { key, condition })
    }

    fn separator(&mut self) -> Result<(), Error> {
        if self.eat(",") {
            Ok(())
        } else {
            Err(self.no_separator())
        }
    }

    fn no_separator(&self) -> Error {
        let rest = self.rest();
        let hint = if rest.starts_with(['&', ';']) || starts_with_word(rest, "and") {
            "terms are separated by `,`, which means and".to_owned()
        } else if rest.starts_with('|') || starts_with_word(rest, "or") {
            "there is no or between terms; for several values of one label write `key in (a,b)`".to_owned()
        } else if rest.starts_with('*') {
            "a value is compared as a whole; there are no wildcards".to_owned()
        } else if rest.starts_with('=') {
            "a value with `=` in it stands in double quotes".to_owned()
        } else if rest.starts_with(label_start) {
            "separate terms by `,`, and put a value with blanks into double quotes".to_owned()
        } else {
            "put a value with other characters than letters, digits and `. _ - / : @ + %` into double quotes".to_owned()
        };
        self.expected("`,` or the end", Some(&hint))
    }

    fn key(&mut self) -> Result<String, Error> {
        let start = self.position;
        let length = self
            .rest()
            .bytes()
            .take_while(|byte| label::is_key_byte(*byte) || *byte == b'/')
            .count();
        if length == 0 {
            let rest = self.rest();
            let hint = match rest.chars().next() {
                Some('*') => Some("`*` is every agent and stands alone; leave it out"),
                Some('"' | '\'') => Some("only values stand in quotes, keys do not"),
                Some(',') => Some("take one comma away"),
                Some('=' | '!') => Some("the key comes first: `env=prod`"),
                Some('(') => Some("there are no groups of terms; for several values of one label write `key in (a,b)`"),
                _ => None,
            };
            return Err(self.expected("a label key", hint));
        }
        self.position += length;
        let key = &self.text[start..self.position];
        if let Some(problem) = label::key_problem(key) {
            return Err(self.error_at(
                start,
                length,
                format!("expected a label key, found `{}`", excerpt(key)),
                Some(problem),
            ));
        }
        Ok(key.to_owned())
    }

    fn values(&mut self, operator: &str) -> Result<BTreeSet<String>, Error> {
        self.skip_blanks();
        let open = self.position;
        if !self.eat("(") {
            let hint = format!("write the values in parentheses: `{operator} (a,b)`");
            return Err(self.expected("`(`", Some(&hint)));
        }
        let mut values = BTreeSet::new();
        loop {
            self.skip_blanks();
            if values.is_empty() && self.rest().starts_with(')') {
                return Err(self.expected("a value", Some("at least one value is needed")));
            }
            values.insert(self.value()?);
            self.skip_blanks();
            if self.eat(")") {
                return Ok(values);
            }
            if self.rest().is_empty() {
                let hint = format!("the `(` at byte {open} is never closed");
                return Err(self.expected("`,` or `)`", Some(&hint)));
            }
            if !self.eat(",") {
                return Err(self.expected("`,` or `)`", Some("values are separated by `,`")));
            }
        }
    }

    fn value(&mut self) -> Result<String, Error> {
        self.skip_blanks();
        let start = self.position;
        if self.rest().starts_with('"') {
            let value = self.quoted()?;
            return self.checked(value, start);
        }
        let length = self.rest().bytes().take_while(|byte| is_bare_value_byte(*byte)).count();
        if length == 0 {
            let hint = match self.rest().chars().next() {
                None | Some(',' | ')') => "the empty value is written `\"\"`",
                Some('\'') => "use double quotes",
                Some('(') => "for several values write `key in (a,b)`",
                Some('*') => "there are no wildcards; `key` alone matches any value",
                Some('=' | '!' | '<' | '>') => "the operators are `=`, `!=`, `in` and `notin`",
                Some('$' | '{') => "selectors know no variables",
                _ => "put a value with other characters than letters, digits and `. _ - / : @ + %` into double quotes",
            };
            return Err(self.expected("a value", Some(hint)));
        }
        self.position += length;
        self.checked(self.text[start..self.position].to_owned(), start)
    }

    fn quoted(&mut self) -> Result<String, Error> {
        let start = self.position;
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.position = start + index + 1;
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    Some((_, other)) => {
                        let message = format!("expected `\\\"` or `\\\\`, found `\\{}`", excerpt(&other.to_string()));
                        let hint = Some("a backslash in quotes is written twice");
                        return Err(self.error_at(start + index, 1 + other.len_utf8(), message, hint));
                    }
                    None => break,
                },
                other => value.push(other),
            }
        }
        self.position = self.text.len();
        let hint = format!("the quote at byte {start} is never closed");
        Err(self.expected("`\"`", Some(&hint)))
    }

    fn checked(&self, value: String, start: usize) -> Result<String, Error> {
        match label::value_problem(&value) {
            Some(problem) => {
                let message = "expected the value of a label, found what none can have".to_owned();
                Err(self.error_at(start, self.position - start, message, Some(problem)))
            }
            None => Ok(value),
        }
    }

    /// What follows a key is nothing that can follow it: the most telling errors.
    fn no_operator(&self, key: &str, after_key: usize) -> Error {
        let rest = self.rest();
        let word: String = rest.chars().take_while(char::is_ascii_alphanumeric).take(16).collect();
        let expected = "`=`, `!=`, `in`, `notin` or `,`";
        let hint = if rest.starts_with("=~") || rest.starts_with('~') {
            "there are no regular expressions; did you mean `=`, or `in (a,b)`?".to_owned()
        } else if rest.starts_with(':') {
            "did you mean `=`?".to_owned()
        } else if rest.starts_with('!') {
            "did you mean `!=`?".to_owned()
        } else if rest.starts_with(['<', '>']) {
            "values have no order; the operators are `=`, `!=`, `in` and `notin`".to_owned()
        } else if rest.starts_with('(') {
            format!("did you mean `{key} in (...)`?")
        } else if rest.starts_with('*') {
            "there are no wildcards in keys".to_owned()
        } else if word.eq_ignore_ascii_case("not") || word.eq_ignore_ascii_case("notin") {
            "did you mean `notin`?".to_owned()
        } else if word.eq_ignore_ascii_case("in") {
            "did you mean `in`? It is written in lower case".to_owned()
        } else if matches!(&*word, "is" | "eq" | "equals") {
            "did you mean `=`?".to_owned()
        } else if matches!(&*word, "ne" | "isnt") {
            "did you mean `!=`?".to_owned()
        } else if self.position > after_key && !word.is_empty() && word != "and" && word != "or" {
            format!("did you mean `{key}={word}` or `{key},{word}`?")
        } else {
            return self.no_separator();
        };
        self.expected(expected, Some(&hint))
    }

    fn expected(&self, what: &str, hint: Option<&str>) -> Error {
        let rest = self.rest();
        let (found, length) = match rest.chars().next() {
            None => ("the end".to_owned(), 1),
            Some(first) => {
                let word = rest.bytes().take_while(|byte| is_bare_value_byte(*byte)).count();
                let length = word.max(first.len_utf8());
                (format!("`{}`", excerpt(&rest[..length])), length)
            }
        };
        self.error_at(self.position, length, format!("expected {what}, found {found}"), hint)
    }

    fn error_at(&self, position: usize, length: usize, message: String, hint: Option<&str>) -> Error {
        Error {
            position,
            length,
            message,
            hint: hint.map(str::to_owned),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.position += token.len();
        }
        found
    }

    /// A word that is not the start of a longer one.
    fn eat_word(&mut self, word: &str) -> bool {
        starts_with_word(self.rest(), word) && self.eat(word)
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| !rest.bytes().next().is_some_and(label::is_key_byte))
}

fn label_start(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '!'
}
