//! What a file system says of its room. Knows no limits.

use std::{io, path::Path};

/// Bytes, as `df` counts them: what only root could use is neither free nor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub size: u64,
    pub free: u64,
}

impl Space {
    /// Of the file system that `path` is on.
    pub fn of(path: &Path) -> io::Result<Self> {
        let answer = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
        let used = answer.f_blocks.saturating_sub(answer.f_bfree);
        Ok(Self {
            size: bytes(used.saturating_add(answer.f_bavail)),
            free: bytes(answer.f_bavail),
        })
    }

    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        match self.size {
            0 => 0.0,
            size => self.free as f64 / size as f64,
        }
    }

    /// "1.2 GiB of 20.0 GiB (6.0 %)".
    pub fn to_text(self) -> String {
        format!(
            "{} of {} ({:.1} %)",
            size_text(self.free),
            size_text(self.size),
            self.ratio() * 100.0
        )
    }
}

/// A size as people read it.
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_file_system_answers() {
        let space = Space::of(Path::new("/")).expect("an answer");
        assert!(
            space.size >= space.free && (0.0..=1.0).contains(&space.ratio()),
            "{space:?}"
        );
        Space::of(Path::new("/no/such/path")).expect_err("there is none");
    }

    #[test]
    fn sizes_are_read_by_people() {
        assert_eq!(size_text(0), "0 B");
        assert_eq!(size_text(1536), "1.5 KiB");
        assert_eq!(size_text(u64::MAX), "16384.0 PiB");
        let space = Space { size: 2048, free: 512 };
        assert_eq!(space.to_text(), "512 B of 2.0 KiB (25.0 %)");
        assert_eq!(Space { size: 0, free: 0 }.ratio(), 0.0);
    }
}
