//! `node_filesystem_*`: what the kernel says is mounted, and how full that is. Kinds and places that say nothing about a
//! disk are left out as in node_exporter.
//!
//! A mount that does not answer (a network file system whose server is away) has `node_filesystem_device_error` 1, with
//! the reason as label `device_error`, and no sizes; it holds up nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use procfs::process::MountInfo;

use super::families::Families;
use super::source::{self, Error};
use crate::statvfs::{self, Space};

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many mounts are asked at a time.
const CONCURRENT: usize = 8;

const IGNORED_KINDS: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

pub(super) async fn collect() -> Result<Families, Error> {
    // What the machine sees, where this process has a namespace of its own.
    let text = source::read("/proc/1/mountinfo").or_else(|_| source::read("/proc/self/mountinfo"))?;
    let answers = stream::iter(mounts(&text)).map(|mount| async move {
        let answer = statvfs::ask(Path::new(&mount.point), PATIENCE).await;
        (mount, answer)
    });
    let mut answers = answers.buffered(CONCURRENT);
    let mut families = Families::default();
    while let Some((mount, answer)) = answers.next().await {
        add(&mount, answer.map_err(|error| error.to_string()), &mut families);
    }
    Ok(families)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mount {
    device: String,
    point: String,
    kind: String,
    read_only: bool,
}

/// Those that are of interest, each once, sorted.
fn mounts(mountinfo: &str) -> BTreeSet<Mount> {
    let parsed = mountinfo.lines().filter_map(|line| MountInfo::from_line(line).ok());
    parsed.filter_map(|info| mount(&info)).collect()
}

fn mount(info: &MountInfo) -> Option<Mount> {
    let point = unescape(&info.mount_point.to_string_lossy());
    let ignored = IGNORED_KINDS.contains(&info.fs_type.as_str()) || is_ignored_point(&point);
    (!ignored).then(|| Mount {
        device: unescape(info.mount_source.as_deref().unwrap_or("none")),
        point,
        kind: info.fs_type.clone(),
        read_only: info.mount_options.contains_key("ro") || info.super_options.contains_key("ro"),
    })
}

/// `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`
fn is_ignored_point(point: &str) -> bool {
    let at_or_below = |top: &str| {
        point
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let below = |top: &str| point.strip_prefix(top).is_some_and(|rest| !rest.is_empty());
    ["/dev", "/proc", "/sys"].into_iter().any(at_or_below)
        || ["/run/credentials/", "/var/lib/docker/", "/var/lib/containers/storage/"]
            .into_iter()
            .any(below)
}

/// The kernel writes white space and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(u8::is_ascii);
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn add(mount: &Mount, answer: Result<Space, String>, families: &mut Families) {
    let error = answer.as_ref().err().map(String::as_str).unwrap_or_default();
    let labels = [
        ("device", mount.device.as_str()),
        ("mountpoint", &mount.point),
        ("fstype", &mount.kind),
        ("device_error", error),
    ];
    let flag = |set: bool| f64::from(u8::from(set));
    let mut gauge = |name: &str, value: f64| families.gauge(&format!("node_filesystem_{name}"), &labels, value);
    gauge("device_error", flag(answer.is_err()));
    gauge("readonly", flag(mount.read_only));
    if let Ok(space) = answer {
        gauge("size_bytes", space.size as f64);
        gauge("free_bytes", space.free as f64);
        gauge("avail_bytes", space.available as f64);
        gauge("files", space.files as f64);
        gauge("files_free", space.files_free as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    const TEXT: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334524k
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 0:25 / /mnt/with\\040space ro,nosuid - tmpfs none ro,size=4k
29 27 0:40 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay rw
30 27 0:41 / /var/lib/docker rw - xfs /dev/vdb rw
31 27 0:42 / /srv rw - nfs4 server:/export rw,vers=4.2
32 27 0:42 / /srv rw - nfs4 server:/export rw,vers=4.2
broken line
";

    #[test]
    fn disks_and_network_file_systems_are_taken_and_the_rest_is_left_out() {
        let mounts: Vec<_> = mounts(TEXT)
            .into_iter()
            .map(|m| (m.device, m.point, m.kind, m.read_only))
            .collect();
        let mount = |device: &str, point: &str, kind: &str, read_only| {
            (device.to_owned(), point.to_owned(), kind.to_owned(), read_only)
        };
        assert_eq!(
            mounts,
            [
                mount("/dev/vda", "/", "ext4", false),
                mount("/dev/vdb", "/var/lib/docker", "xfs", false),
                mount("none", "/mnt/with space", "tmpfs", true),
                mount("server:/export", "/srv", "nfs4", false),
            ]
        );
    }

    #[test]
    fn ignored_places_are_whole_names_of_directories() {
        for point in [
            "/dev",
            "/dev/shm",
            "/proc",
            "/sys/fs/cgroup",
            "/run/credentials/x",
            "/var/lib/docker/x",
        ] {
            assert!(is_ignored_point(point), "{point}");
        }
        for point in [
            "/",
            "/device",
            "/home",
            "/run",
            "/run/credentials",
            "/var/lib/docker",
            "/processes",
        ] {
            assert!(!is_ignored_point(point), "{point}");
        }
    }

    #[test]
    fn escapes_of_the_kernel_are_undone_and_others_are_left() {
        assert_eq!(unescape("/a\\040b\\011c\\134d"), "/a b\tc\\d");
        assert_eq!(unescape("/a\\b\\9zz\\04"), "/a\\b\\9zz\\04");
        assert_eq!(unescape("/ä\\040ö"), "/ä ö");
    }

    #[test]
    fn a_mount_has_its_sizes_or_an_error() {
        let mut families = Families::default();
        let found = mounts(TEXT).into_iter().find(|mount| mount.point == "/srv").unwrap();
        let space = Space {
            size: 6,
            free: 5,
            available: 4,
            files: 3,
            files_free: 2,
            read_only: false,
        };
        add(&found, Ok(space), &mut families);
        let labels = "device=server:/export,fstype=nfs4,mountpoint=/srv";
        let samples_of = samples(&families);
        let expected = [
            ("device_error", 0.0),
            ("readonly", 0.0),
            ("size_bytes", 6.0),
            ("free_bytes", 5.0),
            ("avail_bytes", 4.0),
            ("files", 3.0),
            ("files_free", 2.0),
        ];
        for (name, value) in expected {
            assert_eq!(
                samples_of[&format!("node_filesystem_{name}{{{labels}}}")],
                value,
                "{name}"
            );
        }
        let mut families = Families::default();
        add(&found, Err("it does not answer".to_owned()), &mut families);
        let labels = "device=server:/export,device_error=it does not answer,fstype=nfs4,mountpoint=/srv";
        let samples_of = samples(&families);
        assert_eq!(samples_of[&format!("node_filesystem_device_error{{{labels}}}")], 1.0);
        assert_eq!(samples_of.len(), 2);
    }
}
