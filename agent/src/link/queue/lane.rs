//! One lane: the spools that earlier starts of the agent left, oldest first, and the one that grows. Bounded; what has no
//! room is dropped from the oldest on, and every loss is told. On disk as long as that takes records, in memory otherwise.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::Arc,
};

use muster_proto::v1;
use prost::Message as _;

use super::{
    Limits, NeverSent,
    frame::{self, HEADER},
    segment::{Segment, Synced, may_pass},
    spool::{Batch, Loss, Spool, file_path},
};

/// A segment that all of is acknowledged is given up when it has grown to this.
const YOUNG: usize = 64 * 1024;

#[derive(Debug)]
pub struct Lane {
    limits: Limits,
    /// Never empty: the last one grows.
    spools: VecDeque<Spool>,
    home: Home,
    /// Of records that could not be told of yet.
    losses: Vec<(Loss, Why)>,
    /// Records cannot be read now, and it is not known that they never can.
    is_held_up: bool,
    dropped: u64,
    rejected: u64,
    acknowledged: u64,
}

#[derive(Debug)]
enum Home {
    Memory,
    Disk {
        dir: PathBuf,
        /// Why records stay in memory.
        broken: Option<String>,
        /// The directory has another file than it was last synced with.
        is_new: bool,
    },
}

/// Why records were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Full,
    Old,
    Unreadable,
}

/// How full a lane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    pub records: u64,
    pub bytes: usize,
    pub dropped: u64,
    pub rejected: u64,
    /// Records that the controller has taken or refused.
    pub acknowledged: u64,
    /// Microseconds.
    pub oldest_age: i64,
    /// Why they are in memory alone, where they should be on disk.
    pub broken: Option<String>,
}

impl Lane {
    pub fn in_memory(id: Arc<str>, limits: Limits) -> Self {
        Self::of(vec![Spool::new(id)].into(), limits, Home::Memory)
    }

    /// In this directory, which is there, after what earlier starts have left in it.
    pub fn on_disk(id: Arc<str>, limits: Limits, dir: PathBuf, earlier: Vec<Spool>) -> Self {
        let mut spools = VecDeque::from(earlier);
        spools.push_back(Spool::new(id));
        let home = Home::Disk {
            dir,
            broken: None,
            is_new: false,
        };
        Self::of(spools, limits, home)
    }

    fn of(spools: VecDeque<Spool>, limits: Limits, home: Home) -> Self {
        Self {
            limits,
            spools,
            home,
            losses: Vec::new(),
            is_held_up: false,
            dropped: 0,
            rejected: 0,
            acknowledged: 0,
        }
    }

    /// A record that no frame could carry is dropped at once and takes no number. Gives the failure of the disk by which
    /// this record and those after it stay in memory.
    pub fn push(&mut self, record: &v1::Record, now: i64) -> Option<io::Error> {
        let record = record.encode_to_vec();
        let size = record.len() + HEADER;
        if record.len() > frame::MAX_RECORD || size > self.limits.bytes {
            self.dropped += 1;
            tracing::warn!(
                bytes = record.len(),
                "a record was dropped: it is larger than any record may be"
            );
            return None;
        }
        self.make_room(size);
        self.append(now, &record)
    }

    /// The spool of the next record is another one. Those of before are sent under their own ids, behind it.
    pub fn start_spool(&mut self, id: Arc<str>) {
        if self.live().is_empty() {
            if let Some(unused) = self.spools.pop_back() {
                unused.remove();
            }
        } else {
            for segment in self.live().segments_mut() {
                segment.unload();
            }
        }
        self.spools.push_back(Spool::new(id));
    }

    /// As `start_spool`, for a spool whose numbers somebody else has used too: what waits in it is numbered anew. Its files are
    /// renamed, so that a kill leaves each record in one of them; those that are not renamed by then are taken for what the other
    /// has stored, as after any kill before it is known that there is another. Gives the failure of the disk as `push` does.
    pub fn renumber(&mut self, id: Arc<str>) -> Option<io::Error> {
        let dir = match &self.home {
            Home::Disk { dir, .. } => Some(dir.clone()),
            Home::Memory => None,
        };
        let mut is_second = false;
        while let Err(error) = self.live().forget_acknowledged(dir.as_deref()) {
            let acknowledged = self.live().acknowledged();
            let index = self.spools.len() - 1;
            if !self.give_up(index, acknowledged, &error) && std::mem::replace(&mut is_second, true) {
                // The controller will say once more that the numbers are not ours.
                return None;
            }
        }
        self.live().renumber(id);
        let failure = self.put().err()?;
        self.disk_failed(&failure).then_some(failure)
    }

    /// In the order in which they are to be sent: the one that grows, then the others, oldest first.
    pub fn spools(&self) -> impl Iterator<Item = &Spool> {
        self.spools
            .back()
            .into_iter()
            .chain(self.spools.iter().take(self.spools.len() - 1))
    }

    /// Of the spool that grows.
    pub fn live_id(&self) -> &str {
        self.spools.back().map_or("", |live| live.id())
    }

    pub fn has(&self, spool: &str) -> bool {
        self.spools.iter().any(|it| &**it.id() == spool)
    }

    /// What waits in the spool that grows.
    pub fn live_bytes(&self) -> usize {
        self.spools.back().map_or(0, |live| live.waiting().1)
    }

    fn live(&mut self) -> &mut Spool {
        self.spools.back_mut().expect("a lane has a spool that grows")
    }

    /// What the next record of this spool after `seq` would take of a window.
    pub fn next_size(&mut self, spool: &str, seq: u64) -> Option<usize> {
        self.reading(spool, seq, |spool| spool.next_size(seq))
    }

    pub fn take_batch(&mut self, spool: &str, seq: u64, max_bytes: usize) -> Option<Batch> {
        self.reading(spool, seq, |spool| spool.take_batch(seq, max_bytes))
    }

    /// Forgets what the controller has stored. One that acknowledges more of the spool that grows than was sent speaks of
    /// another one than this, so nothing is forgotten.
    pub fn ack(&mut self, spool: &str, through: u64) -> Result<(), NeverSent> {
        let Some(index) = self.spools.iter().position(|it| &**it.id() == spool) else {
            return Ok(());
        };
        let is_live = index + 1 == self.spools.len();
        let found = &mut self.spools[index];
        if is_live && through > found.sent() {
            return Err(NeverSent {
                through,
                sent: found.sent(),
            });
        }
        self.acknowledged += found.ack(through, if is_live { YOUNG } else { 0 });
        self.forget_empty(index);
        Ok(())
    }

    pub fn count_rejected(&mut self) {
        self.rejected += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.spools.iter().all(Spool::is_empty)
    }

    pub fn depth(&self, now: i64) -> Depth {
        let waiting = self.spools.iter().map(Spool::waiting);
        let (records, bytes) = waiting.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let oldest_at = self.spools.iter().filter_map(Spool::oldest_at).min();
        Depth {
            records,
            bytes,
            dropped: self.dropped,
            rejected: self.rejected,
            acknowledged: self.acknowledged,
            oldest_age: oldest_at.map_or(0, |at| now.saturating_sub(at).max(0)),
            broken: match &self.home {
                Home::Disk { broken, .. } => broken.clone(),
                Home::Memory => None,
            },
        }
    }

    /// What it takes, of its limit and of the disk: a file of one record takes a block.
    pub fn bytes(&self) -> usize {
        self.spools.iter().map(Spool::footprint).sum()
    }

    /// What the lane may hold from now on.
    pub fn set_limit(&mut self, bytes: usize) {
        self.limits.bytes = bytes;
        self.make_room(0);
    }

    /// Gives up what was recorded before `before`, whole segments.
    pub fn drop_older(&mut self, before: i64) {
        while self.spools[0].oldest_segment_at().is_some_and(|at| at < before) {
            self.drop_of(0, Why::Old);
        }
    }

    /// What was lost and not told yet.
    pub fn take_losses(&mut self) -> Vec<(Loss, Why)> {
        std::mem::take(&mut self.losses)
    }

    pub fn lost(&mut self, loss: Loss, why: Why) {
        self.dropped += loss.records();
        self.losses.push((loss, why));
    }

    /// Files that were written to since the last time, and the directory if there are new ones in it: what a power failure must
    /// not take.
    pub fn written(&mut self) -> Vec<Arc<File>> {
        let segments = self.spools.iter_mut().flat_map(|spool| spool.segments_mut());
        let mut files: Vec<_> = segments.filter_map(Segment::take_unsynced).collect();
        if let Home::Disk { dir, is_new, .. } = &mut self.home
            && *is_new
            && let Ok(dir) = File::open(&*dir)
        {
            *is_new = false;
            files.push(Arc::new(dir));
        }
        files
    }

    /// What became of the files of [`Self::written`].
    pub fn synced(&mut self, how: Synced) {
        for segment in self.spools.iter_mut().flat_map(|spool| spool.segments_mut()) {
            segment.synced(how);
        }
        if let Home::Disk { is_new, .. } = &mut self.home {
            *is_new |= how != Synced::All;
        }
    }

    /// From now on records stay in memory. True: until now they did not.
    pub fn disk_failed(&mut self, error: &io::Error) -> bool {
        match &mut self.home {
            Home::Disk { broken, .. } => broken.replace(error.to_string()).is_none(),
            Home::Memory => false,
        }
    }

    /// Tries the disk again, with all that memory alone has. True: it takes records again.
    pub fn settle(&mut self) -> bool {
        if !matches!(&self.home, Home::Disk { broken: Some(_), .. }) {
            return false;
        }
        let put = self.put();
        if let Home::Disk { broken, .. } = &mut self.home {
            *broken = put.as_ref().err().map(ToString::to_string);
        }
        put.is_ok()
    }

    /// All records into the files that they belong in.
    fn put(&mut self) -> io::Result<()> {
        let Home::Disk { dir, is_new, .. } = &mut self.home else {
            return Ok(());
        };
        // In case that nothing could be made of it when the agent started.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        *is_new = true;
        // Names first: for them even a full disk has room.
        let renamed = self.spools.iter_mut().map(|spool| spool.rename(dir));
        let renamed = renamed.fold(Ok(()), Result::and);
        renamed.and(self.spools.iter_mut().try_for_each(|spool| spool.settle(dir)))
    }

    fn append(&mut self, at: i64, record: &[u8]) -> Option<io::Error> {
        let segment_bytes = self.limits.segment();
        let mut failure = None;
        if self.live().tail(segment_bytes).is_none() {
            let first_seq = self.live().next_seq();
            let segment = match &mut self.home {
                Home::Disk {
                    dir,
                    broken: None,
                    is_new,
                } => {
                    let path = file_path(dir, self.spools[self.spools.len() - 1].id(), first_seq);
                    *is_new = true;
                    Segment::create(path, first_seq).unwrap_or_else(|error| {
                        failure = Some(error);
                        Segment::in_memory(first_seq)
                    })
                }
                _ => Segment::in_memory(first_seq),
            };
            self.live().add_segment(segment);
        }
        if let Err(error) = self.live().append(at, record) {
            failure = Some(error);
        }
        if let Some(error) = &failure {
            self.disk_failed(error);
        }
        failure
    }

    fn make_room(&mut self, size: usize) {
        while self.bytes() + size > self.limits.bytes && self.bytes() > 0 {
            self.drop_of(0, Why::Full);
        }
        if matches!(self.home, Home::Disk { .. }) {
            let volatile = |lane: &Self| lane.spools.iter().map(Spool::volatile_bytes).sum::<usize>();
            while volatile(self) + size > self.limits.memory {
                let Some(index) = self.spools.iter().position(|spool| spool.volatile_bytes() > 0) else {
                    break;
                };
                if let Some(loss) = self.spools[index].drop_oldest_volatile() {
                    self.lost(loss, Why::Full);
                }
                self.forget_empty(index);
            }
        }
    }

    fn drop_of(&mut self, index: usize, why: Why) {
        if let Some(loss) = self.spools[index].drop_oldest() {
            self.lost(loss, why);
        }
        self.forget_empty(index);
    }

    /// One from before of which nothing is left would stand before the others for ever. True: it did.
    fn forget_empty(&mut self, index: usize) -> bool {
        let is_done = index + 1 < self.spools.len() && self.spools[index].is_empty();
        if is_done {
            self.forget(index);
        }
        is_done
    }

    fn forget(&mut self, index: usize) {
        if let Some(done) = self.spools.remove(index) {
            done.remove();
        }
    }

    /// Reads what follows `seq`. What cannot be read is given up, segment by segment, so that the rest can go on.
    fn reading<T>(
        &mut self,
        spool: &str,
        seq: u64,
        mut read: impl FnMut(&mut Spool) -> io::Result<Option<T>>,
    ) -> Option<T> {
        let index = self.spools.iter().position(|it| &**it.id() == spool)?;
        loop {
            match read(&mut self.spools[index]) {
                Ok(found) => {
                    self.is_held_up = false;
                    return found;
                }
                Err(error) => {
                    if !self.give_up(index, seq, &error) || self.forget_empty(index) {
                        return None;
                    }
                }
            }
        }
    }

    /// After records that follow `seq` could not be read. False: nothing is given up, since it is not known that they never can.
    fn give_up(&mut self, index: usize, seq: u64, error: &io::Error) -> bool {
        let spool = &mut self.spools[index];
        let id = spool.id().clone();
        let loss = match may_pass(error) {
            true => None,
            false => spool.drop_after(seq),
        };
        let Some(loss) = loss else {
            if !std::mem::replace(&mut self.is_held_up, true) {
                tracing::warn!(spool = &*id, %error, "records of the queue cannot be read now; it is tried again");
            }
            return false;
        };
        tracing::error!(spool = &*id, %error, "records of the queue cannot be read; they are given up");
        self.lost(loss, Why::Unreadable);
        true
    }
}
