//! The records of one lane under one spool id, in order: segments, of which the last grows. Sequence numbers start at 1 and
//! are never given twice.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_proto::v1;
use prost::Message as _;

use super::segment::{Salvage, Segment};

/// What a record costs in a frame of the link beside itself: its tag and its length.
const RECORD_OVERHEAD: usize = 4;

/// What a file takes of the disk at least.
const BLOCK: usize = 4096;

#[derive(Debug)]
pub struct Spool {
    id: Arc<str>,
    segments: VecDeque<Segment>,
    next_seq: u64,
    /// The highest number that was ever in a frame.
    sent: u64,
    /// All through this one are stored by the controller, or were given up.
    through: u64,
}

/// Consecutive records.
#[derive(Debug, PartialEq)]
pub struct Batch {
    pub spool: Arc<str>,
    pub first_seq: u64,
    pub last_seq: u64,
    pub bytes: usize,
    pub records: Vec<v1::Record>,
}

/// Records that were given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub spool: Arc<str>,
    pub first_seq: u64,
    pub last_seq: u64,
    /// When the first and the last of them were recorded, in microseconds since 1970.
    pub from: i64,
    pub to: i64,
}

impl Loss {
    pub fn records(&self) -> u64 {
        self.last_seq - self.first_seq + 1
    }
}

impl Spool {
    pub fn new(id: Arc<str>) -> Self {
        Self::of(id, VecDeque::new())
    }

    /// Segments that an earlier process left, in order; what is missing between them is gone.
    pub fn of(id: Arc<str>, segments: VecDeque<Segment>) -> Self {
        let next_seq = segments.back().map_or(1, |last| last.last_seq() + 1);
        let through = segments.front().map_or(0, |first| first.first_seq - 1);
        Self {
            id,
            segments,
            next_seq,
            // Whatever the controller says of it is true of it.
            sent: next_seq - 1,
            through,
        }
    }

    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Of all segments, whole.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// What they take of the disk.
    pub fn footprint(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes.max(BLOCK)).sum()
    }

    pub fn volatile_bytes(&self) -> usize {
        let volatile = self.segments.iter().filter(|segment| segment.is_volatile());
        volatile.map(|segment| segment.bytes).sum()
    }

    /// Not acknowledged: records, bytes.
    pub fn waiting(&self) -> (u64, usize) {
        let acknowledged = self
            .segments
            .front()
            .map_or(0, |first| first.bytes_before(self.through + 1));
        let records = self.segments.iter().map(|segment| segment.count).sum::<u64>();
        let before = self.segments.front().map_or(0, |first| {
            (self.through + 1).saturating_sub(first.first_seq).min(first.count)
        });
        (records - before, self.bytes() - acknowledged)
    }

    /// When the oldest of those that wait was recorded, or one before it.
    pub fn oldest_at(&self) -> Option<i64> {
        let first = self.segments.iter().find(|segment| segment.last_seq() > self.through)?;
        Some(first.oldest_at)
    }

    /// First and last sequence number not yet acknowledged.
    pub fn range(&self) -> Option<(u64, u64)> {
        let first = self.next_after(self.through)?;
        Some((first, self.next_seq - 1))
    }

    /// The segment that grows, if there is one that is not full.
    pub fn tail(&mut self, segment_bytes: usize) -> Option<&mut Segment> {
        self.segments.back_mut().filter(|last| last.bytes < segment_bytes)
    }

    /// The segment that takes the next record from now on.
    pub fn add_segment(&mut self, segment: Segment) {
        if let Some(full) = self.segments.back_mut() {
            full.unload();
        }
        self.segments.push_back(segment);
    }

    /// To the last segment, which is there.
    pub fn append(&mut self, at: i64, record: &[u8]) -> io::Result<()> {
        let Some(tail) = self.segments.back_mut() else {
            return Ok(());
        };
        self.next_seq += 1;
        tail.append(at, record)
    }

    /// The records after `seq`, as many as follow each other without a gap and fit into `max_bytes`, but at least one.
    /// They count as sent.
    pub fn take_batch(&mut self, seq: u64, max_bytes: usize) -> io::Result<Option<Batch>> {
        let Some(first_seq) = self.next_after(seq) else {
            return Ok(None);
        };
        // That it can be read at all, before anything is made of it.
        self.get(first_seq)?;
        let mut batch = Batch {
            spool: self.id.clone(),
            first_seq,
            last_seq: first_seq,
            bytes: 0,
            records: Vec::new(),
        };
        for next in first_seq.. {
            // A segment that cannot be read is the next batch's trouble.
            let Ok(Some(record)) = self.get(next) else { break };
            let size = record.len() + RECORD_OVERHEAD;
            if !batch.records.is_empty() && batch.bytes + size > max_bytes {
                break;
            }
            batch.records.push(v1::Record::decode(record).unwrap_or_default());
            batch.bytes += size;
            batch.last_seq = next;
        }
        self.sent = self.sent.max(batch.last_seq);
        Ok(Some(batch))
    }

    /// What the next record after `seq` would take of a window.
    pub fn next_size(&mut self, seq: u64) -> io::Result<Option<usize>> {
        let Some(next) = self.next_after(seq) else {
            return Ok(None);
        };
        Ok(self.get(next)?.map(|record| record.len() + RECORD_OVERHEAD))
    }

    /// Forgets what the controller has stored. The number of records that it stored by this.
    pub fn ack(&mut self, through: u64, keep_tail_below: usize) -> u64 {
        let before = self.waiting().0;
        self.through = self.through.max(through.min(self.next_seq - 1));
        while self
            .segments
            .front()
            .is_some_and(|first| first.last_seq() <= self.through)
        {
            // One that still grows is worth keeping until it has grown a little: a file for each record would be many.
            let is_young_tail = self.segments.len() == 1 && self.segments[0].bytes < keep_tail_below;
            if is_young_tail {
                break;
            }
            self.remove_first();
        }
        before - self.waiting().0
    }

    /// Gives up the oldest records. None: there are none, or all in them were acknowledged.
    pub fn drop_oldest(&mut self) -> Option<Loss> {
        let first = self.segments.front()?;
        let loss = Loss {
            spool: self.id.clone(),
            first_seq: first.first_seq.max(self.through + 1),
            last_seq: first.last_seq(),
            from: first.oldest_at,
            to: first.newest_at,
        };
        self.remove_first();
        self.through = self.through.max(loss.last_seq);
        (loss.first_seq <= loss.last_seq).then_some(loss)
    }

    /// The same with what memory alone has.
    pub fn drop_oldest_volatile(&mut self) -> Option<Loss> {
        let index = self.segments.iter().position(Segment::is_volatile)?;
        let mut kept = self.segments.split_off(index);
        std::mem::swap(&mut kept, &mut self.segments);
        let through = self.through;
        let loss = self.drop_oldest();
        if !kept.is_empty() {
            // What is older is still there.
            self.through = through;
        }
        kept.append(&mut self.segments);
        self.segments = kept;
        loss
    }

    /// Gives up what cannot be read of the segment of the record after `seq`. None: nothing is wrong with it by now.
    pub fn drop_after(&mut self, seq: u64) -> Option<Loss> {
        let next = self.next_after(seq)?;
        let index = self.segments.partition_point(|segment| segment.last_seq() < next);
        let segment = self.segments.get_mut(index)?;
        let mut loss = Loss {
            spool: self.id.clone(),
            first_seq: next,
            last_seq: segment.last_seq(),
            from: segment.oldest_at,
            to: segment.newest_at,
        };
        let found = segment.salvage();
        if found == Salvage::Whole {
            return None;
        }
        if found == Salvage::Part && segment.last_seq() >= next {
            loss.first_seq = segment.last_seq() + 1;
            loss.from = segment.newest_at;
        } else if let Some(segment) = self.segments.remove(index) {
            segment.remove();
        }
        Some(loss)
    }

    /// When the newest record of the oldest segment was recorded.
    pub fn oldest_segment_at(&self) -> Option<i64> {
        self.segments.front().map(|first| first.newest_at)
    }

    pub fn segments_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.segments.iter_mut()
    }

    /// Gives its files the names that they should have. One that cannot be renamed keeps no other from it.
    pub fn rename(&mut self, dir: &Path) -> io::Result<()> {
        let id = &self.id;
        let renamed = self.segments.iter_mut().map(|segment| {
            let path = file_path(dir, id, segment.first_seq);
            segment.rename(&path)
        });
        renamed.fold(Ok(()), Result::and)
    }

    /// Writes to disk what memory alone has.
    pub fn settle(&mut self, dir: &Path) -> io::Result<()> {
        let full = self.segments.len().saturating_sub(1);
        for (index, segment) in self.segments.iter_mut().enumerate() {
            if segment.is_volatile() {
                segment.settle(file_path(dir, &self.id, segment.first_seq))?;
                if index < full {
                    segment.unload();
                }
            }
        }
        Ok(())
    }

    /// Nothing waits in it.
    pub fn is_empty(&self) -> bool {
        self.range().is_none()
    }

    pub fn acknowledged(&self) -> u64 {
        self.through
    }

    /// Leaves nothing but what waits, also in the files, which lie in this directory.
    pub fn forget_acknowledged(&mut self, dir: Option<&Path>) -> io::Result<()> {
        while self.segments.front().is_some_and(|it| it.last_seq() <= self.through) {
            self.remove_first();
        }
        let next = self.through + 1;
        match self.segments.front_mut() {
            Some(first) if first.first_seq < next => {
                let path = dir.map(|dir| file_path(dir, &self.id, next));
                first.forget_before(next, path)
            }
            _ => Ok(()),
        }
    }

    /// What is in it, which all waits, under another id and numbered anew. The files are still to be renamed.
    pub fn renumber(&mut self, id: Arc<str>) {
        self.id = id;
        self.next_seq = 1;
        for segment in &mut self.segments {
            segment.first_seq = self.next_seq;
            self.next_seq += segment.count;
        }
        self.sent = 0;
        self.through = 0;
    }

    pub fn remove(self) {
        self.segments.into_iter().for_each(Segment::remove);
    }

    fn next_after(&self, seq: u64) -> Option<u64> {
        let seq = seq.max(self.through);
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.count > 0 && segment.last_seq() > seq)?;
        Some(segment.first_seq.max(seq + 1))
    }

    fn get(&mut self, seq: u64) -> io::Result<Option<&[u8]>> {
        let index = self.segments.partition_point(|segment| segment.last_seq() < seq);
        match self.segments.get_mut(index) {
            Some(segment) => segment.get(seq),
            None => Ok(None),
        }
    }

    fn remove_first(&mut self) {
        if let Some(first) = self.segments.pop_front() {
            first.remove();
        }
    }
}

/// The file of a segment, in the directory of its lane.
pub fn file_path(lane: &Path, spool: &str, first_seq: u64) -> PathBuf {
    lane.join(format!("{spool}.{first_seq:020}.seg"))
}

/// The opposite of [`file_path`].
pub fn parse_file_name(path: &Path) -> Option<(&str, u64)> {
    let (spool, first_seq) = path.file_name()?.to_str()?.strip_suffix(".seg")?.split_once('.')?;
    let is_number = first_seq.len() == 20 && first_seq.bytes().all(|byte| byte.is_ascii_digit());
    // The controller counts no further, and nobody comes so far.
    let is_possible = |seq: &u64| (1..1 << 62).contains(seq);
    let first_seq = first_seq.parse().ok().filter(|seq| is_number && is_possible(seq))?;
    super::generation(spool).map(|_| (spool, first_seq))
}
