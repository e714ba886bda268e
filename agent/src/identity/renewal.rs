//! When a certificate is renewed: pure rules over its life, by the controller's clock as far as that is known. The work is
//! done in `renewer`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_certs::ca::BACKDATE;
use tokio::sync::watch;

use super::Identity;
use crate::clock;

/// Microseconds since 1970, by the controller's clock.
pub type Micros = i64;

/// Parts of a life: renewed between the first two, spread so that a fleet that enrolled at once does not renew at once;
/// behind from the third on.
const EARLIEST: f64 = 0.45;
const LATEST: f64 = 0.55;
const BEHIND: f64 = 0.75;

/// After a refusal that only a person can mend.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));
/// No attempt follows another faster than this, however short a certificate lives.
const PAUSE: Duration = Duration::from_secs(1);

/// What the offset of two clocks differs by from one time to the next while nobody sets them: the way of the message.
const JITTER: Micros = 500_000;

/// The controller's clock, as far from ours as it was when it was last told.
#[derive(Debug, Clone, Default)]
pub struct ControllerClock(Arc<watch::Sender<Micros>>);

impl ControllerClock {
    pub fn told(&self, controller: Micros, now: SystemTime) {
        // What is not told is 0.
        if controller > 0 {
            let ahead = controller - clock::unix_micros(now);
            self.0.send_if_modified(|known| {
                let is_set = (ahead - *known).abs() > JITTER;
                *known = ahead;
                is_set
            });
        }
    }

    /// Told when one of the clocks was set, or the controller's is known for the first time.
    pub fn follow(&self) -> watch::Receiver<Micros> {
        self.0.subscribe()
    }

    pub fn at(&self, now: SystemTime) -> Micros {
        clock::unix_micros(now).saturating_add(self.ahead())
    }

    /// How far it is before ours.
    pub fn ahead(&self) -> Micros {
        *self.0.borrow()
    }
}

/// From when a certificate was issued until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub issued: Micros,
    pub ends: Micros,
}

impl Life {
    pub fn of_identity(identity: &Identity) -> Life {
        Life::of(identity.file().not_before(), identity.expires())
    }

    /// Certificates begin before they are issued, for the sake of slow clocks; that part is not of their life.
    pub fn of(not_before: SystemTime, not_after: SystemTime) -> Life {
        let (begins, ends) = (clock::unix_micros(not_before), clock::unix_micros(not_after));
        let issued = begins.saturating_add(BACKDATE.as_micros() as i64);
        Life {
            issued: if issued < ends { issued } else { begins.min(ends) },
            ends,
        }
    }

    fn part(&self, part: f64) -> Micros {
        self.issued + ((self.ends - self.issued) as f64 * part) as i64
    }

    /// When it is renewed: a point that `random`, in `0..1`, chooses; sooner when the controller wants it so. What it wanted of
    /// an earlier certificate does not count.
    pub fn due(&self, random: f64, wanted: Micros) -> Micros {
        let due = self.part(EARLIEST + (LATEST - EARLIEST) * random.clamp(0.0, 1.0));
        if wanted > 0 { due.min(wanted) } else { due }
    }

    pub fn is_behind(&self, now: Micros) -> bool {
        now >= self.behind_from()
    }

    pub fn behind_from(&self) -> Micros {
        self.part(BEHIND)
    }

    /// How long to wait after an attempt that came to nothing: `usual`, but no longer than a twentieth of the life.
    pub fn patience(&self, usual: Duration) -> Duration {
        let twentieth = Duration::from_micros((self.ends - self.issued).max(0) as u64 / 20);
        usual.min(twentieth.max(PAUSE))
    }

    /// As `patience`, when only a person can mend it.
    pub fn patience_when_refused(&self, random: f64) -> Duration {
        let (least, most) = REFUSED;
        self.patience(least + (most - least).mul_f64(random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(hours: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * 3_600) + Duration::from_secs(hours as u64 * 3_600)
    }

    fn life_of_a_day() -> Life {
        Life::of(at(0) - BACKDATE, at(24))
    }

    #[test]
    fn a_certificate_is_renewed_around_the_half_of_the_life_that_counts_from_its_issue() {
        let life = life_of_a_day();
        assert_eq!(life.issued, clock::unix_micros(at(0)));
        let after = |random| (life.due(random, 0) - life.issued) as f64 / HOUR as f64;
        assert!((after(0.0) - 10.8).abs() < 1e-6, "{}", after(0.0));
        assert!((after(0.5) - 12.0).abs() < 1e-6, "{}", after(0.5));
        assert!((after(1.0) - 13.2).abs() < 1e-6, "{}", after(1.0));
    }

    #[test]
    fn the_controller_can_have_it_sooner_and_not_later() {
        let life = life_of_a_day();
        assert_eq!(life.due(0.5, life.issued + HOUR), life.issued + HOUR);
        assert_eq!(life.due(0.5, life.issued + 20 * HOUR), life.due(0.5, 0));
    }

    #[test]
    fn it_is_behind_from_three_quarters_of_its_life() {
        let life = life_of_a_day();
        assert!(!life.is_behind(life.issued + 18 * HOUR - 1));
        assert!(life.is_behind(life.issued + 18 * HOUR));
    }

    #[test]
    fn a_certificate_of_seconds_has_a_life_too_and_is_asked_for_often() {
        let life = Life::of(at(0) - BACKDATE, at(0) + Duration::from_secs(20));
        let due = life.due(0.5, 0) - life.issued;
        assert_eq!(due, 10_000_000);
        assert_eq!(life.patience(Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(
            life_of_a_day().patience(Duration::from_secs(60)),
            Duration::from_secs(60)
        );
        assert_eq!(life_of_a_day().patience_when_refused(1.0), Duration::from_secs(300));
    }

    #[test]
    fn one_that_was_not_backdated_in_full_has_its_validity_for_a_life() {
        let life = Life::of(at(0), at(0) + Duration::from_secs(20));
        assert_eq!((life.ends - life.issued) / 1_000_000, 20);
    }

    #[test]
    fn a_clock_that_is_wrong_is_put_right_by_what_the_controller_says() {
        let clock = ControllerClock::default();
        let now = at(5);
        assert_eq!(clock.at(now), clock::unix_micros(now));
        clock.told(clock::unix_micros(at(6)), now);
        assert_eq!(clock.at(at(7)), clock::unix_micros(at(8)));
        clock.told(0, now);
        assert_eq!(clock.ahead(), HOUR, "nothing was told");
    }

    #[test]
    fn whoever_waits_by_the_clock_hears_of_it_when_it_was_set_and_not_of_each_message() {
        let clock = ControllerClock::default();
        let mut follower = clock.follow();
        let now = at(5);
        let told = |ahead: i64| clock.told(clock::unix_micros(now) + ahead, now);
        told(HOUR);
        assert!(follower.has_changed().unwrap_or(false), "it was not known before");
        follower.mark_unchanged();
        told(HOUR + JITTER);
        assert!(
            !follower.has_changed().unwrap_or(true),
            "no more than the way of a message"
        );
        assert_eq!(clock.ahead(), HOUR + JITTER);
        told(0);
        assert!(follower.has_changed().unwrap_or(false), "it was set");
    }
}
