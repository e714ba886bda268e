//! Modes, replacement in one step, and what is left after a failure.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_secret_is_written_for_its_owner_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    write_secret(&path, b"secret").unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(&**read_secret(&path, 100).unwrap(), b"secret");
    assert_eq!(names(dir.path()), ["key.pem"]);
}

#[test]
fn a_public_file_is_written_for_everyone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca.pem");
    write_public(&path, b"public").unwrap();
    assert_eq!(mode(&path), 0o644);
    assert_eq!(fs::read(&path).unwrap(), b"public");
}

#[test]
fn writing_replaces_the_file_and_its_looser_mode() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    fs::write(&path, "a longer text that was there before").unwrap();
    chmod(&path, 0o644);
    write_secret(&path, b"new").unwrap();
    assert_eq!(&**read_secret(&path, 100).unwrap(), b"new");
}

#[test]
fn who_still_has_the_old_file_open_does_not_see_the_new_secret() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    fs::write(&path, "old").unwrap();
    let mut old = File::open(&path).unwrap();
    write_secret(&path, b"new").unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
}

#[test]
fn a_failed_write_leaves_all_as_it_was() {
    let dir = TempDir::new().unwrap();
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("inside"), "x").unwrap();
    assert!(matches!(write_secret(&taken, b"secret"), Err(Error::Write { .. })));
    assert_eq!(names(dir.path()), ["taken"]);
    assert!(matches!(
        write_secret(&dir.path().join("no/such/dir"), b"secret"),
        Err(Error::Write { .. })
    ));
    assert!(matches!(
        write_secret(Path::new("/"), b"secret"),
        Err(Error::Write { .. })
    ));
}

#[test]
fn a_secret_that_others_can_reach_is_refused_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    write_secret(&path, b"secret").unwrap();
    for good in [0o600, 0o400, 0o700] {
        chmod(&path, good);
        read_secret(&path, 100).unwrap();
    }
    for bad in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777, 0o660] {
        chmod(&path, bad);
        let error = read_secret(&path, 100).unwrap_err();
        assert!(
            matches!(error, Error::FileTooOpen { mode, .. } if mode == bad),
            "{bad:o}: {error}"
        );
        assert!(
            error
                .to_string()
                .ends_with(&format!("run: chmod 600 {}", path.display())),
            "{error}"
        );
    }
}

#[test]
fn a_link_is_judged_by_what_it_leads_to() {
    let dir = TempDir::new().unwrap();
    let (path, link) = (dir.path().join("key.pem"), dir.path().join("link"));
    write_secret(&path, b"secret").unwrap();
    symlink(&path, &link).unwrap();
    assert_eq!(&**read_secret(&link, 100).unwrap(), b"secret");
    chmod(&path, 0o644);
    assert!(matches!(read_secret(&link, 100), Err(Error::FileTooOpen { .. })));
}

#[test]
fn only_files_of_a_fitting_size_are_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    write_secret(&path, b"12345").unwrap();
    assert_eq!(read_secret(&path, 5).unwrap().len(), 5);
    assert!(matches!(read_secret(&path, 4), Err(Error::TooLong { max: 4, .. })));
    assert!(matches!(read_secret(dir.path(), 5), Err(Error::NotAFile { .. })));
    // Opening this one for reading would go well; reading it would never end.
    assert!(matches!(
        read_secret(Path::new("/dev/zero"), 5),
        Err(Error::NotAFile { .. })
    ));
    assert!(matches!(
        read_secret(&dir.path().join("none"), 5),
        Err(Error::Read { .. })
    ));
    write_secret(&path, b"\xff").unwrap();
    assert!(matches!(read_secret_text(&path, 5), Err(Error::NotText { .. })));
}

#[test]
fn a_private_directory_is_made_with_those_above_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b");
    create_private_dir(&path).unwrap();
    assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
    create_private_dir(&path).unwrap();
}

#[test]
fn a_directory_that_others_can_reach_is_refused_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("state");
    fs::create_dir(&path).unwrap();
    for bad in [0o755, 0o750, 0o701, 0o1777] {
        chmod(&path, bad);
        for error in [
            create_private_dir(&path).unwrap_err(),
            check_private_dir(&path).unwrap_err(),
        ] {
            assert!(
                matches!(error, Error::DirectoryTooOpen { mode, .. } if mode == bad),
                "{bad:o}: {error}"
            );
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("run: chmod 700 {}", path.display())),
                "{error}"
            );
        }
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(create_private_dir(&file).is_err());
    assert!(matches!(check_private_dir(&file), Err(Error::NotADirectory { .. })));
    assert!(matches!(
        check_private_dir(&dir.path().join("none")),
        Err(Error::Read { .. })
    ));
}

#[test]
fn what_a_killed_writer_left_goes_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key.pem");
    write_secret(&path, b"secret").unwrap();
    let left = temporary_name("key.pem".as_ref()).unwrap();
    fs::write(dir.path().join(&left), "half a sec").unwrap();
    let others = [
        ".key.pem.tmp",
        ".key.pem.0123456789abcdeg.tmp",
        ".key.pem.0123456789abcdef",
        ".other.0123456789abcdef.tmp",
        "key.pem.0123456789abcdef.tmp",
    ];
    for name in others {
        fs::write(dir.path().join(name), "not ours").unwrap();
    }
    remove_leftovers(&path).unwrap();
    let mut expected: Vec<_> = others.iter().chain(&["key.pem"]).collect();
    expected.sort();
    assert_eq!(names(dir.path()).iter().collect::<Vec<_>>(), expected);
    remove_leftovers(&dir.path().join("none/key.pem")).unwrap();
}
