//! What this machine runs in, by the words of systemd-detect-virt: a container, else a virtual machine, else "none".

use std::fs;
use std::path::Path;

/// What a container manager leaves, in order.
const CONTAINER_FILES: [(&str, &str); 2] = [("run/.containerenv", "podman"), (".dockerenv", "docker")];

/// Parts of the DMI vendor or product name.
const MACHINES: [(&str, &str); 12] = [
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("Virtual Machine", "microsoft"),
];

pub(super) fn kind() -> Option<String> {
    detect(Path::new("/"))
}

/// None when nothing says.
fn detect(root: &Path) -> Option<String> {
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    // systemd keeps here what its own container manager, and others that follow it, said.
    if let Some(kind) = read("run/systemd/container")
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
    {
        return Some(kind);
    }
    for (file, kind) in CONTAINER_FILES {
        if root.join(file).exists() {
            return Some(kind.to_owned());
        }
    }
    let dmi = [
        "sys/class/dmi/id/product_name",
        "sys/class/dmi/id/sys_vendor",
        "sys/class/dmi/id/board_vendor",
    ];
    let dmi: Vec<String> = dmi.iter().filter_map(|file| read(file)).collect();
    for (part, kind) in MACHINES {
        if dmi.iter().any(|text| text.contains(part)) {
            return Some(kind.to_owned());
        }
    }
    let is_guest = read("proc/cpuinfo")?
        .lines()
        .find(|line| line.starts_with("flags"))
        .map(|flags| flags.split_ascii_whitespace().any(|flag| flag == "hypervisor"))?;
    Some(if is_guest { "vm-other" } else { "none" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(files: &[(&str, &str)]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        detect(root.path())
    }

    #[test]
    fn the_innermost_is_told() {
        let dmi = ("sys/class/dmi/id/sys_vendor", "QEMU\n");
        let guest = ("proc/cpuinfo", "processor: 0\nflags\t: fpu hypervisor lm\n");
        let metal = ("proc/cpuinfo", "processor: 0\nflags\t: fpu vmx lm\n");
        let cases = [
            (vec![("run/systemd/container", "lxc\n"), dmi], Some("lxc")),
            (vec![("run/.containerenv", ""), dmi], Some("podman")),
            (vec![(".dockerenv", ""), dmi], Some("docker")),
            (vec![dmi, guest], Some("qemu")),
            (
                vec![("sys/class/dmi/id/product_name", "VMware Virtual Platform\n"), guest],
                Some("vmware"),
            ),
            (
                vec![("sys/class/dmi/id/product_name", "PowerEdge R740\n"), metal],
                Some("none"),
            ),
            (vec![guest], Some("vm-other")),
            (vec![], None),
        ];
        for (files, expected) in cases {
            assert_eq!(kind(&files).as_deref(), expected, "{files:?}");
        }
    }
}
