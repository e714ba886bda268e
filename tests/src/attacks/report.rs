//! What a run of the attacks has found: cases by category, what each got, and how the controller was after each category.
//! As a table for people and as JSON for scripts. Decides nothing but whether a case held.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

/// One kind of attack, made once or many times.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// Every answer with how often it came.
    pub got: BTreeMap<String, u64>,
    /// What the answers may begin with.
    pub accepted: Vec<String>,
}

/// The cases of one category, in the order in which they were made.
#[derive(Debug)]
pub struct Category {
    pub name: &'static str,
    pub cases: Vec<Case>,
    /// How the controller was afterwards; an error says what had not recovered in time.
    pub after: Result<Recovery, String>,
}

/// The controller after a category, at base again.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    pub base_mib: u64,
    /// Anonymous memory, also what is swapped out.
    pub mib: u64,
    /// Of one core, over a second.
    pub cpu_percent: u64,
    pub open_files: usize,
    /// From the end of the last attack.
    pub seconds: u64,
}

#[derive(Debug)]
pub struct Report {
    pub form: &'static str,
    pub categories: Vec<Category>,
}

impl Case {
    pub fn held(&self) -> bool {
        let is_accepted = |got: &String| self.accepted.iter().any(|accepted| got.starts_with(accepted));
        !self.got.is_empty() && self.got.keys().all(is_accepted)
    }

    pub fn attempts(&self) -> u64 {
        self.got.values().sum()
    }
}

impl Category {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            cases: Vec::new(),
            after: Err("not looked at yet".to_owned()),
        }
    }

    /// Notes what an attack got. It held when every answer begins with one of `accepted`.
    pub fn case(&mut self, name: impl Into<String>, got: impl IntoIterator<Item = String>, accepted: &[&str]) {
        let mut answers = BTreeMap::new();
        for answer in got {
            *answers.entry(answer).or_insert(0) += 1;
        }
        self.cases.push(Case {
            name: name.into(),
            got: answers,
            accepted: accepted.iter().map(|&text| text.to_owned()).collect(),
        });
    }

    /// The same for an attack that is made once.
    pub fn one(&mut self, name: impl Into<String>, got: String, accepted: &[&str]) {
        self.case(name, [got], accepted);
    }

    pub fn held(&self) -> bool {
        !self.cases.is_empty() && self.after.is_ok() && self.cases.iter().all(Case::held)
    }

    /// All answers of the category with how often each came.
    fn answers(&self) -> BTreeMap<&str, u64> {
        let mut answers = BTreeMap::new();
        for (answer, count) in self.cases.iter().flat_map(|case| &case.got) {
            *answers.entry(answer.as_str()).or_insert(0) += count;
        }
        answers
    }
}

impl Report {
    pub fn held(&self) -> bool {
        !self.categories.is_empty() && self.categories.iter().all(Category::held)
    }

    /// In one line.
    pub fn verdict(&self) -> String {
        let cases: usize = self.categories.iter().map(|category| category.cases.len()).sum();
        let attempts: u64 = self
            .categories
            .iter()
            .flat_map(|category| &category.cases)
            .map(Case::attempts)
            .sum();
        let verdict = if self.held() { "all held" } else { "NOT HELD" };
        let count = self.categories.len();
        format!(
            "{} form: {cases} cases in {count} categories, {attempts} attempts: {verdict}",
            self.form
        )
    }

    pub fn to_json(&self) -> Value {
        let case = |case: &Case| json!({ "name": case.name, "attempts": case.attempts(), "got": case.got, "accepted": case.accepted, "held": case.held() });
        let after = |after: &Result<Recovery, String>| match after {
            Ok(after) => json!({
                "baseMib": after.base_mib, "mib": after.mib, "cpuPercent": after.cpu_percent,
                "openFiles": after.open_files, "seconds": after.seconds,
            }),
            Err(error) => json!({ "error": error }),
        };
        let categories: Vec<Value> = self
            .categories
            .iter()
            .map(|category| {
                json!({
                    "name": category.name,
                    "cases": category.cases.iter().map(case).collect::<Vec<_>>(),
                    "attempts": category.cases.iter().map(Case::attempts).sum::<u64>(),
                    "after": after(&category.after),
                    "held": category.held(),
                })
            })
            .collect();
        json!({ "form": self.form, "categories": categories, "held": self.held() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for category in &self.categories {
            writeln!(f, "{category}")?;
        }
        f.write_str(&self.verdict())
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.cases.iter().filter(|case| case.held()).count();
        writeln!(f, "{}: {} cases, {held} held", self.name, self.cases.len())?;
        for (answer, count) in self.answers() {
            writeln!(f, "  {count:>7} x {answer}")?;
        }
        for case in self.cases.iter().filter(|case| !case.held()) {
            writeln!(
                f,
                "  NOT HELD: {}: got {:?}, accepted {:?}",
                case.name, case.got, case.accepted
            )?;
        }
        match &self.after {
            Ok(after) => writeln!(
                f,
                "  after {} s: agents report, {} MiB (base {} MiB), {} % of a core, {} open files",
                after.seconds, after.mib, after.base_mib, after.cpu_percent, after.open_files
            ),
            Err(error) => writeln!(f, "  NOT RECOVERED: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_holds_only_when_every_answer_was_accepted() {
        let mut category = Category::new("x");
        let answers = ["closed".to_owned(), "OK".to_owned()];
        category.case("two answers", answers.clone(), &["closed"]);
        assert!(!category.cases[0].held());
        category.case("both accepted", answers, &["closed", "OK"]);
        assert!(category.cases[1].held());
        category.case("none made", [], &["closed"]);
        assert!(!category.cases[2].held());
    }

    #[test]
    fn a_category_that_did_not_recover_is_told() {
        let mut category = Category::new("x");
        category.one("a case", "closed".to_owned(), &["closed"]);
        category.after = Err("300 MiB".to_owned());
        let report = Report {
            form: "small",
            categories: vec![category],
        };
        assert!(!report.held());
        assert!(report.to_string().contains("NOT RECOVERED: 300 MiB"), "{report}");
        assert_eq!(report.to_json()["held"], false);
    }
}
