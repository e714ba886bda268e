//! Where the queue lies on disk: `queue/<agent>/<lane>/<spool>.<first sequence number>.seg`. What another agent has left here,
//! as in a copied image, is not ours to send and is removed.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_certs::file;
use muster_proto::v1;

use super::{
    Lanes, Limits,
    lane::{Lane, Why},
    lane_name,
    segment::Segment,
    spool::{Loss, Spool, parse_file_name},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Create(#[from] file::Error),
    #[error("failed to read the queue in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// The directory of the queue.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The lanes of an agent, with what its earlier starts have left. `spool_id` must never have been used before.
    pub fn open(&self, agent: &str, spool_id: &str, limits: impl Fn(v1::Lane) -> Limits) -> Result<Lanes, Error> {
        let spool_id: Arc<str> = spool_id.into();
        file::create_private_dir(&self.0)?;
        self.remove_others(agent);
        let own = self.0.join(agent);
        file::create_private_dir(&own)?;
        let open = |lane: v1::Lane| -> Result<Lane, Error> {
            let dir = own.join(lane_name(lane));
            file::create_private_dir(&dir)?;
            let (earlier, losses) = read(&dir).map_err(|source| Error::Read {
                path: dir.clone(),
                source,
            })?;
            let mut lane = Lane::on_disk(spool_id.clone(), limits(lane), dir, earlier);
            losses.into_iter().for_each(|loss| lane.lost(loss, Why::Unreadable));
            Ok(lane)
        };
        Ok(Lanes {
            results: open(v1::Lane::Results)?,
            metrics: open(v1::Lane::Metrics)?,
            logs: open(v1::Lane::Logs)?,
            spool_id,
        })
    }

    /// The same while the disk does not take anything: in memory until it does.
    pub fn open_broken(
        &self,
        agent: &str,
        spool_id: &str,
        limits: impl Fn(v1::Lane) -> Limits,
        error: &io::Error,
    ) -> Lanes {
        let spool_id: Arc<str> = spool_id.into();
        let open = |lane: v1::Lane| {
            let dir = self.0.join(agent).join(lane_name(lane));
            let mut lane = Lane::on_disk(spool_id.clone(), limits(lane), dir, Vec::new());
            lane.disk_failed(error);
            lane
        };
        Lanes {
            results: open(v1::Lane::Results),
            metrics: open(v1::Lane::Metrics),
            logs: open(v1::Lane::Logs),
            spool_id: spool_id.clone(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn remove_others(&self, agent: &str) {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for other in entries.filter(|entry| entry.file_name() != *agent) {
            let path = other.path();
            tracing::warn!(path = %path.display(), "removing the queue of another agent");
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "it could not be removed");
            }
        }
    }
}

/// What lies in the directory of a lane: its spools, oldest first, and what is missing between their segments.
fn read(dir: &Path) -> io::Result<(Vec<Spool>, Vec<Loss>)> {
    let mut files: BTreeMap<(u64, Arc<str>), BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some((spool, first_seq)) = parse_file_name(&path) else {
            tracing::warn!(path = %path.display(), "this file is not of the queue; it is left alone");
            continue;
        };
        let key = (super::generation(spool).unwrap_or(0), Arc::from(spool));
        files.entry(key).or_default().insert(first_seq, path);
    }
    let (mut spools, mut losses) = (Vec::new(), Vec::new());
    for ((_, id), paths) in files {
        let mut segments: VecDeque<Segment> = VecDeque::new();
        // Of a file that is there and of no use, when nothing is before it.
        let mut missing = None;
        for (first_seq, path) in paths {
            let (segment, torn) = match Segment::open(path.clone(), first_seq) {
                Ok(opened) => opened,
                Err(error) => {
                    // The others are not to wait for it.
                    tracing::error!(path = %path.display(), %error, "a file of the queue cannot be read; it is left alone");
                    missing = missing.or(Some(first_seq));
                    continue;
                }
            };
            if let Some(torn) = torn {
                tracing::warn!(path = %path.display(), bytes = torn.bytes, "the end of a file was torn; it is cut off");
            }
            if segment.count == 0 {
                segment.remove();
                missing = missing.or(Some(first_seq));
                continue;
            }
            // The agent was killed when it was about to leave out of the one before what the controller has.
            if segments
                .back()
                .is_some_and(|before| before.last_seq() >= segment.last_seq())
            {
                segment.remove();
                continue;
            }
            let before = match segments.back() {
                Some(before) => Some((before.last_seq() + 1, before.newest_at)),
                None => missing.map(|first_seq| (first_seq, segment.oldest_at)),
            };
            if let Some((missing, from)) = before
                && missing < first_seq
            {
                losses.push(Loss {
                    spool: id.clone(),
                    first_seq: missing,
                    last_seq: first_seq - 1,
                    from,
                    to: segment.oldest_at,
                });
            }
            segments.push_back(segment);
        }
        if !segments.is_empty() {
            spools.push(Spool::of(id, segments));
        }
    }
    Ok((spools, losses))
}
