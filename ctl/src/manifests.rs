//! All manifests of one call: read together, checked together, and found again when the controller complains. How one is
//! read is `muster_proto::manifest`.

mod files;
mod findings;

use std::{collections::BTreeMap, io::Read};

use muster_proto::{manifest, v1};

use crate::{count, exit::Exit, problem::Problem};
use files::Source;
use findings::Finding;

/// As many as one call may hold.
const MOST: usize = 1_000;
/// So many mistakes are shown; a reader learns nothing from the next hundred.
const MOST_SHOWN: usize = 50;

/// Where manifests are, as the verbs are told that work with them.
#[derive(Debug, Clone, clap::Args)]
pub struct Filenames {
    /// A file, a folder with all *.yaml and *.yml below it, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub filenames: Vec<String>,
}

impl Filenames {
    /// Whether it is read from where answers would come from.
    pub fn is_stdin(&self) -> bool {
        self.filenames.iter().any(|name| name == "-")
    }
}

/// Manifests with the texts that they were read from.
#[derive(Debug, Default)]
pub struct Batch {
    manifests: Manifests,
    sources: Vec<Source>,
}

impl Batch {
    /// `what`: of the command, for its errors; `undone`: what has not been done, "applied".
    /// `or_none`: nothing at all is right too.
    pub fn read(
        names: &[String],
        input: &mut dyn Read,
        what: &str,
        undone: &str,
        or_none: bool,
    ) -> Result<Batch, Problem> {
        let sources = files::read(names, input).map_err(|error| unreadable(&error, undone).what(what))?;
        let manifests = Manifests::read(&sources).map_err(|findings| wrong(&sources, &findings, undone).what(what))?;
        if !(or_none && manifests.documents.is_empty()) {
            check_number(manifests.documents.len(), undone).map_err(|problem| problem.what(what))?;
        }
        Ok(Batch { manifests, sources })
    }

    pub fn documents(&self) -> &[v1::Manifest] {
        &self.manifests.documents
    }

    /// How many texts they came from.
    pub fn files(&self) -> usize {
        self.sources.len()
    }

    /// Puts the places of mistakes that the controller found, which names fields of the request, in terms of lines.
    pub fn located(&self, mut problem: Problem, undone: &str) -> Problem {
        let findings: Vec<Finding> = problem
            .fields
            .iter()
            .filter_map(|(field, description)| self.manifests.locate(field, description))
            .collect();
        if !findings.is_empty() {
            problem.headline.push_str(&format!("; nothing was {undone}"));
            "the controller refuses what is named above".clone_into(&mut problem.why);
            problem.steps = vec!["correct the lines above and run the same command again".to_owned()];
            show(&mut problem, &self.sources, &findings);
        }
        problem
    }
}

fn unreadable(error: &files::Error, undone: &str) -> Problem {
    Problem::new(
        Exit::Usage,
        format!("the manifests cannot be read; nothing was {undone}"),
    )
    .why(error.to_string())
    .step("-f takes a file, a folder with .yaml or .yml files, or - for standard input")
}

fn check_number(number: usize, undone: &str) -> Result<(), Problem> {
    Err(match number {
        0 => Problem::new(Exit::Usage, format!("nothing can be {undone}"))
            .why("what was read holds comments and blank lines only")
            .step("write a manifest; musterctl apply --help shows one"),
        1..=MOST => return Ok(()),
        _ => Problem::new(
            Exit::Usage,
            format!("too many manifests for one call; nothing was {undone}"),
        )
        .why(format!(
            "{} were read, and {} go together",
            count::grouped(number as i64),
            count::grouped(MOST as i64)
        ))
        .step("take the folders one after the other"),
    })
}

fn wrong(sources: &[Source], findings: &[Finding], undone: &str) -> Problem {
    let mut files: Vec<usize> = findings.iter().map(|finding| finding.source).collect();
    files.dedup();
    let mut problem = Problem::new(
        Exit::Usage,
        format!(
            "{} in {}; nothing was {undone}",
            count::of(findings.len() as i64, "mistake", "mistakes"),
            count::of(files.len() as i64, "manifest file", "manifest files")
        ),
    )
    .why("manifests go together: all that is given has to be right")
    .step("correct the lines above and run the same command again");
    show(&mut problem, sources, findings);
    problem
}

fn show(problem: &mut Problem, sources: &[Source], findings: &[Finding]) {
    problem.details = findings
        .iter()
        .take(MOST_SHOWN)
        .map(|finding| findings::render(finding, sources))
        .collect();
    if let Some(more @ 1..) = findings.len().checked_sub(MOST_SHOWN) {
        problem.details.push(format!(
            "... and {}",
            count::of(more as i64, "more mistake", "more mistakes")
        ));
    }
}

/// "Check/disk-root".
pub fn reference(document: &v1::Manifest) -> String {
    let name = document.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    format!("{}/{name}", manifest::kind(document))
}

#[derive(Debug, Default)]
struct Manifests {
    /// In the order in which they are sent.
    documents: Vec<v1::Manifest>,
    /// For each its source and its places there.
    origins: Vec<(usize, manifest::Manifest)>,
}

impl Manifests {
    /// All of them, or everything that is wrong with any of them.
    fn read(sources: &[Source]) -> Result<Manifests, Vec<Finding>> {
        let mut manifests = Manifests::default();
        let mut findings = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            match manifest::parse(&source.name, &source.text) {
                Ok(parsed) => manifests
                    .origins
                    .extend(parsed.into_iter().map(|manifest| (index, manifest))),
                Err(errors) => findings.extend(errors.into_iter().map(|error| Finding {
                    source: index,
                    line: error.line,
                    column: error.column,
                    message: error.message,
                    suggestion: error.suggestion,
                })),
            }
        }
        findings.extend(manifests.repeated(sources));
        if !findings.is_empty() {
            findings.sort();
            findings.dedup();
            return Err(findings);
        }
        manifests.documents = manifests
            .origins
            .iter()
            .map(|(_, manifest)| manifest.document.clone())
            .collect();
        Ok(manifests)
    }

    /// One resource in two files: which is meant cannot be known. Within a file it has been noticed already.
    fn repeated(&self, sources: &[Source]) -> Vec<Finding> {
        let mut first: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut findings = Vec::new();
        for (source, manifest) in &self.origins {
            let reference = reference(&manifest.document);
            // A grant without a name is what it says; what is said twice the controller finds out.
            if reference.ends_with('/') {
                continue;
            }
            let place = manifest.place("metadata.name");
            match first.get(&reference) {
                Some((other, line)) if other != source => findings.push(Finding {
                    source: *source,
                    line: place.line,
                    column: place.column,
                    message: format!("{reference} is in {}:{line} already", sources[*other].name),
                    suggestion: None,
                }),
                Some(_) => {}
                None => drop(first.insert(reference, (*source, place.line))),
            }
        }
        findings
    }

    /// The place that a path of the request, such as `manifests[3].check.selector`, came from.
    fn locate(&self, field: &str, description: &str) -> Option<Finding> {
        let (index, path) = field.strip_prefix("manifests[")?.split_once(']')?;
        let (source, manifest) = self.origins.get(index.parse::<usize>().ok()?)?;
        let path = path.strip_prefix('.').unwrap_or(path);
        let place = manifest.place(path);
        // In a manifest the message of the kind is called spec.
        let name = match path.split_once('.') {
            Some(("metadata", _)) | None => path,
            Some((_, inner)) => inner,
        };
        let message = if name.is_empty() {
            description.to_owned()
        } else {
            format!("{name}: {description}")
        };
        Some(Finding {
            source: *source,
            line: place.line,
            column: place.column,
            message,
            suggestion: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, selector: &str) -> String {
        format!(
            "apiVersion: muster/v1\nkind: Check\nmetadata: {{ name: {name} }}\nspec:\n  selector: \"{selector}\"\n  \
             run: {{ load: {{ warning: \"5\", critical: \"10\" }} }}\n"
        )
    }

    fn sources(texts: &[String]) -> Vec<Source> {
        let name = |index| format!("{index}.yaml");
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| Source {
                name: name(index),
                text: text.clone(),
            })
            .collect()
    }

    #[test]
    fn the_mistakes_of_all_files_are_found_at_once() {
        let findings = Manifests::read(&sources(&[
            text("a", "env=prod").replace("selector", "selctor"),
            text("b", "*"),
            text("c", "env="),
            "a: [".to_owned(),
        ]))
        .unwrap_err();
        let places: Vec<_> = findings.iter().map(|finding| (finding.source, finding.line)).collect();
        assert!(
            places.contains(&(0, 5)) && places.iter().any(|place| place.0 == 3),
            "{findings:#?}"
        );
        assert!(!places.iter().any(|place| place.0 == 1), "{findings:#?}");
        assert_eq!(findings[0].suggestion.as_deref(), Some("selector"));
    }

    #[test]
    fn a_policy_in_two_files_is_a_mistake_of_the_second() {
        let findings = Manifests::read(&sources(&[text("a", "*"), text("b", "*"), text("a", "*")])).unwrap_err();
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].source, findings[0].line), (2, 3));
        assert_eq!(findings[0].message, "Check/a is in 0.yaml:3 already");
    }

    #[test]
    fn a_field_of_the_request_is_found_in_its_file() {
        let manifests =
            Manifests::read(&sources(&[text("a", "*"), text("b", "*") + "---\n" + &text("c", "*")])).unwrap();
        assert_eq!(manifests.documents.len(), 3);
        let finding = manifests
            .locate("manifests[2].check.selector", "no such thing")
            .unwrap();
        assert_eq!((finding.source, finding.line, finding.column), (1, 12, 13));
        assert_eq!(finding.message, "selector: no such thing");
        let finding = manifests.locate("manifests[1].check.run.load.perCpu", "wrong").unwrap();
        assert_eq!(
            finding.line, 6,
            "what is not written is shown at what it would stand in"
        );
        let finding = manifests.locate("manifests[0].metadata.name", "wrong").unwrap();
        assert_eq!(
            (finding.source, finding.line, &*finding.message),
            (0, 3, "metadata.name: wrong")
        );
    }

    #[test]
    fn a_field_that_is_in_no_manifest_has_no_place() {
        let manifests = Manifests::read(&sources(&[text("a", "*")])).unwrap();
        for field in [
            "manifests",
            "manifests[1].check",
            "manifests[x].check",
            "selector",
            "manifests[0",
        ] {
            assert_eq!(manifests.locate(field, ""), None, "{field}");
        }
        assert_eq!(manifests.locate("manifests[0]", "wrong").unwrap().message, "wrong");
    }
}
