//! What disks, machines and databases do to the two ends, and which records may be missing for it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use muster_agent::link::queue::Lanes;
use muster_proto::v1::Lane;

use super::{AGENT, LANES, LIMITS, World, lanes_at, number};

impl World<'_> {
    pub fn lose_power(&mut self, part: f64) {
        let before = self.held();
        for lane in ["results", "metrics", "logs"] {
            let dir = self.disk.path().join("queue").join(AGENT).join(lane);
            let newest = fs::read_dir(dir)
                .expect("the lane")
                .map(|entry| entry.expect("a file").path())
                .filter(|path| path.is_file());
            let newest = newest.max_by_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
            if let Some(path) = newest {
                let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
                let length = file.metadata().expect("its length").len();
                file.set_len((length as f64 * part) as u64).expect("it is cut");
            }
        }
        let spool = self.next_spool(0);
        self.lanes = lanes_at(self.disk.path(), &spool);
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
    }

    pub fn put_back(&mut self) {
        let Some((copy, generation)) = self.snapshot.take() else {
            return;
        };
        let before = self.held();
        // It is another disk; what was on the first one takes room as long as somebody has it open.
        self.disk_has_room();
        self.lanes = Lanes::in_memory("none", LIMITS);
        fs::remove_dir_all(self.disk.path().join("queue")).expect("the disk is empty");
        copy_dir(copy.path(), self.disk.path());
        self.generation = generation;
        self.snapshot = Some((copy, generation));
        self.start_agent();
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
        // The connection has not been used for looking.
        self.connect();
    }

    pub fn restore(&mut self) {
        let Some(backup) = &self.backup else { return };
        let kept: BTreeSet<i64> = backup.stored.iter().copied().collect();
        self.excused
            .extend(self.database.stored.iter().filter(|number| !kept.contains(number)));
        self.database = backup.clone();
        self.kill_controller();
    }

    /// It is killed, and starts again with what its disk has.
    pub fn kill_agent(&mut self) {
        let before = self.held();
        self.start_agent();
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
        // The connection has not been used for looking.
        self.connect();
    }

    pub fn kill_controller(&mut self) {
        self.jobs.clear();
        self.lost.clear();
        self.old = None;
        self.connect();
    }

    /// All of it is taken by others.
    pub fn disk_fills(&mut self) {
        if let Some(disk) = self.small {
            disk.leave_free(0.0);
        }
    }

    pub fn disk_has_room(&mut self) {
        if let Some(disk) = self.small {
            disk.make_room();
        }
    }

    pub fn sync_fails(&mut self, lane: Lane) {
        self.lanes
            .lane_mut(lane)
            .disk_failed(&io::Error::other("it does not sync"));
    }

    /// Of those that are not written any longer, so that what is lost is what was in it.
    pub fn damage_file(&mut self, which: usize, is_gone: bool) {
        let growing = format!("{}.", self.lanes.spool_id());
        let lanes = self.disk.path().join("queue").join(AGENT);
        let mut files: Vec<PathBuf> = ["results", "metrics", "logs"]
            .into_iter()
            .flat_map(|lane| fs::read_dir(lanes.join(lane)).expect("the lane"))
            .map(|entry| entry.expect("a file").path())
            .filter(|path| {
                path.is_file()
                    && !path
                        .file_name()
                        .expect("a name")
                        .to_string_lossy()
                        .starts_with(&growing)
            })
            .collect();
        files.sort();
        let Some(path) = files.get(which % files.len().max(1)) else {
            return;
        };
        let before = self.waiting();
        let length = fs::metadata(path).expect("the file").len();
        if is_gone {
            fs::remove_file(path).expect("removed");
            // There may be no room for it.
            let _ = fs::create_dir(path);
        } else {
            let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
            let middle = length / 2;
            file.write_all_at(&[0x55; 16], middle.min(length.saturating_sub(16)))
                .expect("it is there already");
        }
        let after = self.waiting();
        self.excused.extend(before.difference(&after));
    }

    /// Numbers of all records of the agent, on its disk or not. It is about to lose its memory: reading them makes them count
    /// as sent.
    fn held(&mut self) -> BTreeSet<i64> {
        let mut found = numbers(&mut self.lanes);
        found.extend(self.waiting());
        found
    }

    /// Numbers of all records on the agent's disk, acknowledged or not.
    fn waiting(&self) -> BTreeSet<i64> {
        let spool = format!("{}-look", self.generation + 1_000_000);
        numbers(&mut lanes_at(self.disk.path(), &spool))
    }
}

fn numbers(lanes: &mut Lanes) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for lane in LANES {
        let lane = lanes.lane_mut(lane);
        let spools: Vec<_> = lane.spools().map(|spool| spool.id().clone()).collect();
        for spool in spools {
            let mut seq = 0;
            while let Some(batch) = lane.take_batch(&spool, seq, 1 << 20) {
                seq = batch.last_seq;
                found.extend(batch.records.iter().map(number));
            }
        }
    }
    found
}

pub fn copy_dir(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("a directory");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("its mode");
            copy_dir(&entry.path(), &target);
        } else if entry.path().is_file() {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}
