//! What is done to a swarm: links that are cut, a controller that is killed. Decides when, by the time since it began.

use std::{sync::Arc, time::Duration};

use super::{agent::Agent, cli::ChaosArgs, progress::say, target::Target};

#[derive(Debug)]
pub struct Chaos {
    /// Cuts in a second.
    rate: f64,
    cuts: u64,
    every: Option<Duration>,
    restarts: u32,
}

impl Chaos {
    pub fn new(args: &ChaosArgs, agents: usize) -> Self {
        Self {
            rate: args.cut.unwrap_or(0.0) / 100.0 * agents as f64,
            cuts: 0,
            every: args.restart_controller,
            restarts: 0,
        }
    }

    /// As many links as are due by now, any.
    pub fn cut(&mut self, agents: &[Arc<Agent>], elapsed: Duration) {
        for _ in 0..self.due(elapsed) {
            let index = (rand::random::<f64>() * agents.len() as f64) as usize;
            if let Some(agent) = agents.get(index) {
                agent.cut();
            }
        }
    }

    fn due(&mut self, elapsed: Duration) -> u64 {
        let wanted = (elapsed.as_secs_f64() * self.rate) as u64;
        let due = wanted.saturating_sub(self.cuts);
        self.cuts += due;
        due
    }

    pub fn is_restart_due(&mut self, elapsed: Duration) -> bool {
        let is_due = self.every.is_some_and(|every| elapsed >= every * (self.restarts + 1));
        self.restarts += u32::from(is_due);
        is_due
    }

    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    pub fn restarts(&self) -> u32 {
        self.restarts
    }
}

/// `kill -9`, and another start.
pub fn restart(target: &mut Target) -> anyhow::Result<()> {
    say("the controller is killed and started again");
    target.kill();
    target.launch()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_links_are_cut_as_the_time_asks_for() {
        let args = ChaosArgs {
            cut: Some(1.0),
            restart_controller: Some(Duration::from_secs(2)),
            skew: Duration::ZERO,
            outage: None,
        };
        let mut chaos = Chaos::new(&args, 250);
        let due: Vec<u64> = (0..=20)
            .map(|tenths| chaos.due(Duration::from_millis(tenths * 100)))
            .collect();
        assert_eq!(due.iter().sum::<u64>(), 5);
        assert!(due.iter().all(|due| *due <= 1), "{due:?}");
        let restarts: Vec<bool> = [1, 2, 3, 4, 4]
            .map(|at| chaos.is_restart_due(Duration::from_secs(at)))
            .into();
        assert_eq!(restarts, [false, true, false, true, false]);
    }
}
