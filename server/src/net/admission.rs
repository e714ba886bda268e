//! Counts the connections that are not yet links, in all and by source, and says no when there are too many. Knows
//! nothing of sockets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Total,
    Source,
}

impl Refusal {
    /// The label of its counter.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Refusal::Total => "total",
            Refusal::Source => "per_source",
        }
    }
}

#[derive(Debug)]
pub(super) struct Admission {
    max_total: usize,
    max_per_source: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Admission {
    pub(super) fn new(max_total: usize, max_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            max_total,
            max_per_source,
            counts: Mutex::default(),
        })
    }

    /// A place for one more connection from `addr`; it is free again when the slot is dropped.
    pub(super) fn admit(self: &Arc<Self>, addr: IpAddr) -> Result<Slot, Refusal> {
        let mut slot = self.admit_unknown()?;
        slot.comes_from(addr)?;
        Ok(slot)
    }

    /// The same for one whose source is not known yet: until it is, only the total counts it.
    pub(super) fn admit_unknown(self: &Arc<Self>) -> Result<Slot, Refusal> {
        let mut counts = self.counts();
        if counts.total >= self.max_total {
            return Err(Refusal::Total);
        }
        counts.total += 1;
        Ok(Slot {
            admission: Arc::clone(self),
            source: None,
        })
    }

    // A panic between lock and unlock is not possible here, and if it were the numbers would still be good.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
}

impl Slot {
    /// The source of a connection whose source was not known.
    pub(super) fn comes_from(&mut self, addr: IpAddr) -> Result<(), Refusal> {
        let source = source_of(addr);
        let mut counts = self.admission.counts();
        let of_source = counts.by_source.entry(source).or_default();
        if *of_source >= self.admission.max_per_source {
            return Err(Refusal::Source);
        }
        *of_source += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.total -= 1;
        if let Some(source) = self.source
            && let Some(n) = counts.by_source.get_mut(&source)
        {
            *n -= 1;
            if *n == 0 {
                counts.by_source.remove(&source);
            }
        }
    }
}

/// One customer is one source: of IPv6 it has at least a /64.
pub fn source_of(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_that_is_full_does_not_keep_others_out() {
        let admission = Admission::new(10, 2);
        let _one = admission.admit(ip("192.0.2.1")).unwrap();
        let two = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).unwrap_err(), Refusal::Source);
        let _other = admission.admit(ip("192.0.2.2")).unwrap();
        drop(two);
        admission.admit(ip("192.0.2.1")).unwrap();
    }

    #[test]
    fn the_total_counts_every_source() {
        let admission = Admission::new(2, 2);
        let _one = admission.admit(ip("192.0.2.1")).unwrap();
        let _two = admission.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.3")).unwrap_err(), Refusal::Total);
    }

    #[test]
    fn a_source_that_is_learned_later_counts_from_then_on() {
        let admission = Admission::new(3, 1);
        let mut proxied = [admission.admit_unknown().unwrap(), admission.admit_unknown().unwrap()];
        assert_eq!(proxied[0].comes_from(ip("192.0.2.1")), Ok(()));
        assert_eq!(proxied[1].comes_from(ip("192.0.2.1")), Err(Refusal::Source));
        assert_eq!(proxied[1].comes_from(ip("192.0.2.2")), Ok(()));
        let third = admission.admit_unknown().unwrap();
        assert_eq!(admission.admit_unknown().unwrap_err(), Refusal::Total);
        drop(proxied);
        drop(third);
        let counts = admission.counts();
        assert_eq!((counts.total, counts.by_source.len()), (0, 0));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let admission = Admission::new(10, 1);
        let _one = admission.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(admission.admit(ip("2001:db8::2")).unwrap_err(), Refusal::Source);
        let _two = admission.admit(ip("2001:db8:0:1::1")).unwrap();
        let _v4 = admission.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).unwrap_err(), Refusal::Source);
    }

    #[test]
    fn nothing_is_kept_of_a_source_that_has_left() {
        let admission = Admission::new(10, 10);
        drop(admission.admit(ip("192.0.2.1")).unwrap());
        assert_eq!(admission.counts().by_source.len(), 0);
        assert_eq!(admission.counts().total, 0);
    }
}
