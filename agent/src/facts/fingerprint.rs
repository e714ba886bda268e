//! What tells one machine, one boot and one start of the agent from another.

use std::fs;
use std::path::Path;

use muster_proto::v1::Fingerprint;

use super::host_name;

/// What the machine has of it; a field that cannot be read (the product UUID needs root) is empty. `process_nonce` is made
/// at each start of the agent.
pub fn fingerprint(process_nonce: &str) -> Fingerprint {
    Fingerprint {
        host_name: host_name(),
        ..from(Path::new("/"), process_nonce)
    }
}

fn from(root: &Path, process_nonce: &str) -> Fingerprint {
    let line = |file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_lowercase()
    };
    Fingerprint {
        // "uninitialized" while systemd prepares the first boot.
        machine_id: Some(line("etc/machine-id"))
            .filter(|id| id != "uninitialized")
            .unwrap_or_default(),
        product_uuid: line("sys/class/dmi/id/product_uuid"),
        boot_id: line("proc/sys/kernel/random/boot_id"),
        process_nonce: process_nonce.to_owned(),
        host_name: String::new(),
        was_refused: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_parts_are_read_without_white_space_and_in_lower_case() {
        let root = root(&[
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510\n"),
            ("proc/sys/kernel/random/boot_id", "b1946ac9\n"),
        ]);
        let expected = Fingerprint {
            machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
            product_uuid: "4c4c4544-0042-3510".to_owned(),
            boot_id: "b1946ac9".to_owned(),
            process_nonce: "n".to_owned(),
            host_name: String::new(),
            was_refused: false,
        };
        assert_eq!(from(root.path(), "n"), expected);
    }

    #[test]
    fn what_cannot_be_read_is_empty() {
        let root = root(&[("etc/machine-id", "uninitialized\n")]);
        let expected = Fingerprint {
            process_nonce: "n".to_owned(),
            ..Fingerprint::default()
        };
        assert_eq!(from(root.path(), "n"), expected);
    }

    #[test]
    fn two_looks_at_this_machine_are_the_same() {
        assert_eq!(fingerprint("n"), fingerprint("n"));
        assert!(!fingerprint("n").boot_id.is_empty());
    }
}
