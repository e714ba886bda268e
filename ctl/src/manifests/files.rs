//! The texts behind `-f`: a file, every manifest of a folder, or standard input. Reads, bounds, and understands nothing.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// More than anybody writes by hand, and less than memory.
const LARGEST: u64 = 1024 * 1024;
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 32;

/// One text with the name that errors call it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {}: {source}", name)]
    Read { name: String, source: io::Error },
    #[error("{} is longer than {} KiB, which no manifest is", name, LARGEST / 1024)]
    TooLong { name: String },
    #[error("{} is not UTF-8 text", name)]
    NotText { name: String },
    #[error("{} has more than {MOST_FILES} manifests", path.display())]
    TooMany { path: PathBuf },
    #[error("{} goes deeper than {DEEPEST} folders", path.display())]
    TooDeep { path: PathBuf },
    #[error("no .yaml or .yml file is in {}", path.display())]
    Empty { path: PathBuf },
    #[error("- is given more than once; standard input can be read once only")]
    StdinTwice,
}

/// In the order given; the files of a folder in the order of their paths.
pub fn read(names: &[String], input: &mut dyn Read) -> Result<Vec<Source>, Error> {
    if names.iter().filter(|name| *name == "-").count() > 1 {
        return Err(Error::StdinTwice);
    }
    let mut sources = Vec::new();
    for name in names {
        if name == "-" {
            sources.push(text("standard input", input)?);
            continue;
        }
        let path = Path::new(name);
        let metadata = fs::metadata(path).map_err(|source| Error::Read {
            name: name.clone(),
            source,
        })?;
        if !metadata.is_dir() {
            sources.push(file(path)?);
            continue;
        }
        let mut files = Vec::new();
        manifests(path, 0, &mut files)?;
        if files.is_empty() {
            return Err(Error::Empty { path: path.to_owned() });
        }
        files.sort();
        for path in files {
            sources.push(file(&path)?);
        }
    }
    Ok(sources)
}

/// Every *.yaml and *.yml below a folder. Hidden entries are left out: they are what editors and version control leave
/// behind. A link to a file is followed, one to a folder is not, as it may lead round in a circle.
fn manifests(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read {
        name: folder.display().to_string(),
        source,
    };
    if depth > DEEPEST {
        return Err(Error::TooDeep {
            path: folder.to_owned(),
        });
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            manifests(&path, depth + 1, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
            && !path.is_dir()
        {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(Error::TooMany {
                path: folder.to_owned(),
            });
        }
    }
    Ok(())
}

fn file(path: &Path) -> Result<Source, Error> {
    let name = path.display().to_string();
    let mut file = fs::File::open(path).map_err(|source| Error::Read {
        name: name.clone(),
        source,
    })?;
    text(&name, &mut file)
}

fn text(name: &str, input: &mut dyn Read) -> Result<Source, Error> {
    let name = name.to_owned();
    let mut bytes = Vec::new();
    if let Err(source) = input.take(LARGEST + 1).read_to_end(&mut bytes) {
        return Err(Error::Read { name, source });
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Error::TooLong { name });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(_) => Err(Error::NotText { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: &[Source], root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        sources.iter().map(|source| source.name.replace(&root, "")).collect()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("web/deep")).unwrap();
        fs::create_dir(root.join(".git")).unwrap();
        for name in [
            "b.yaml",
            "a.yml",
            "web/c.yaml",
            "web/deep/d.yaml",
            "README.md",
            ".hidden.yaml",
            ".git/x.yaml",
        ] {
            fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a.yml"), root.join("linked.yaml")).unwrap();
        std::os::unix::fs::symlink(root, root.join("web/circle.yaml")).unwrap();
        folder
    }

    fn read_one(path: &Path) -> Result<Vec<Source>, Error> {
        read(&[path.display().to_string()], &mut io::empty())
    }

    #[test]
    fn a_folder_gives_its_manifests_in_the_order_of_their_paths() {
        let folder = folder();
        let sources = read_one(folder.path()).unwrap();
        assert_eq!(
            names(&sources, folder.path()),
            ["a.yml", "b.yaml", "linked.yaml", "web/c.yaml", "web/deep/d.yaml"]
        );
    }

    #[test]
    fn a_file_is_read_whatever_it_is_called() {
        let folder = folder();
        assert_eq!(read_one(&folder.path().join("README.md")).unwrap()[0].text, "README.md");
    }

    #[test]
    fn standard_input_is_read_once() {
        let sources = read(&["-".to_owned()], &mut "kind: Check".as_bytes()).unwrap();
        assert_eq!(
            (sources[0].name.as_str(), sources[0].text.as_str()),
            ("standard input", "kind: Check")
        );
        assert!(matches!(
            read(&["-".to_owned(), "-".to_owned()], &mut io::empty()),
            Err(Error::StdinTwice)
        ));
    }

    #[test]
    fn a_folder_without_manifests_and_a_file_that_is_missing_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_one(folder.path()), Err(Error::Empty { .. })));
        let error = read_one(&folder.path().join("no.yaml")).unwrap_err().to_string();
        assert!(error.contains("no.yaml: No such file"), "{error}");
    }

    #[test]
    fn a_text_that_is_too_long_or_no_text_is_refused() {
        let mut endless = io::repeat(b'#');
        assert!(matches!(
            read(&["-".to_owned()], &mut endless),
            Err(Error::TooLong { .. })
        ));
        let mut binary: &[u8] = b"\xff\xfe";
        assert!(matches!(
            read(&["-".to_owned()], &mut binary),
            Err(Error::NotText { .. })
        ));
    }
}
