//! What a process has used of the machine, as the kernel counts it.

use std::{fs, io, time::Duration};

use rustix::param::clock_ticks_per_second;

/// User and system time so far, in steps of 10 ms.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold blanks: the state, ten fields, utime, stime.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Bytes of memory, those that it shares with others in part.
pub fn memory(pid: u32) -> io::Result<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Pss:")
}

/// The most bytes of memory that a process had while something was done, above what it had before.
#[derive(Debug)]
pub struct Peak {
    pid: u32,
    before: u64,
}

impl Peak {
    pub fn from_now(pid: u32) -> io::Result<Self> {
        // proc_pid_clear_refs(5): the peak is what it is now.
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        let before = status(pid, "VmRSS:")?;
        Ok(Self { pid, before })
    }

    pub fn grown(&self) -> io::Result<u64> {
        Ok(status(self.pid, "VmHWM:")?.saturating_sub(self.before))
    }
}

fn status(pid: u32, field: &str) -> io::Result<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status"))?, field)
}

fn kib(text: &str, field: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("the kernel does not say"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_memory_and_one_that_is_not_there_is_an_error() {
        assert!(memory(std::process::id()).expect("memory") > 100_000);
        assert!(cpu(std::process::id()).is_ok());
        assert!(cpu(u32::MAX).is_err() && memory(u32::MAX).is_err());
    }

    #[test]
    fn a_peak_is_seen_after_it_is_over() {
        let peak = Peak::from_now(std::process::id()).expect("a peak");
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        assert!(peak.grown().expect("what it has grown by") > 32 << 20);
    }
}
