//! A machine of its own for commands that set machines up: the file system of this host under a layer that is gone
//! afterwards, with its own processes, mounts and host name. The network is this host's. Not a security boundary.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{ctl::Outcome, process, tools};

/// The exit code by which [`LAYER`] says that this host does not permit it.
const NOT_PERMITTED: i32 = 77;

/// Mounts the layer and runs the command in it. `$1` is a folder with `files`, the files to put there.
const LAYER: &str = r#"
set -eu
here=$1
layer=$here/layer
or_skip() { "$@" 2>"$here/why" || { cat "$here/why" >&2; exit 77; }; }
or_skip mount -t tmpfs -o mode=0755 tmpfs "$layer"
root=$layer/root
mkdir "$layer/upper" "$layer/work" "$root"
or_skip mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
or_skip mount -t proc proc "$root/proc"
or_skip mount --rbind /dev "$root/dev"
or_skip mount --rbind /sys "$root/sys"
or_skip mount -t tmpfs tmpfs "$root/run"
or_skip mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# Whatever this host is itself, the machine is none yet.
rm -rf "$root"/etc/muster "$root"/var/lib/muster-agent "$root"/usr/bin/muster-agent "$root"/etc/machine-id
rm -rf "$root"/etc/systemd/system/muster-agent.service* "$root"/usr/lib/systemd/system/muster-agent.service*
rm -rf "$root"/etc/cloud/cloud-init.disabled "$root"/var/lib/cloud
cp -a "$here/files/." "$root/"
exec chroot "$root" /bin/sh /main.sh
"#;

/// The machine before it is started.
#[derive(Debug)]
pub struct IsolatedRoot {
    dir: TempDir,
}

impl IsolatedRoot {
    /// `None`, and a line that says why, where this host does not permit it. `what` is what cannot be tested then.
    pub fn new(what: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("files")).expect("a directory");
        fs::create_dir(dir.path().join("layer")).expect("a directory");
        fs::write(dir.path().join("layer.sh"), LAYER).expect("a file");
        let root = Self { dir };
        if tools::find("unshare").is_none() {
            tools::skipped(what, "unshare is not installed (Debian: util-linux)");
            return None;
        }
        let trial = root.run("exit 0\n");
        if trial.code != 0 {
            tools::skipped(
                what,
                &format!("no machine in a machine is permitted here: {}", trial.stderr.trim()),
            );
            return None;
        }
        Some(root)
    }

    /// Puts a file there.
    pub fn file(&self, path: &str, mode: u32, content: impl AsRef<[u8]>) {
        let path = self.inside(path);
        fs::write(&path, content).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode is set");
    }

    /// Puts a copy of a program of this host there.
    pub fn program(&self, path: &str, from: &Path) {
        fs::copy(from, self.inside(path)).expect("the program is copied");
    }

    /// Runs commands of sh as root of the machine, to their end; whatever they leave running ends with them. The next run
    /// starts from the files that were put there, and from nothing else.
    pub fn run(&self, commands: &str) -> Outcome {
        self.file("/main.sh", 0o755, commands);
        let mut command = process::clean_command("unshare", self.dir.path());
        command
            .args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh"])
            .arg(self.dir.path().join("layer.sh"))
            .arg(self.dir.path());
        let outcome = Outcome::of(command);
        if outcome.code == NOT_PERMITTED {
            eprintln!("{outcome}");
        }
        outcome
    }

    fn inside(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join("files").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
        path
    }
}
