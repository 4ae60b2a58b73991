//! From single checks to a verdict: so many alike in a row.

use meshgate_config::HealthCheck;

use super::Health;

/// How an endpoint's last checks went.
#[derive(Debug, Default)]
pub(super) struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// Notes a check of an endpoint in this state; the state that it is in now. The first check of a new endpoint decides
    /// by itself: nothing is known that it could contradict.
    pub(super) fn note(&mut self, before: Health, good: bool, settings: &HealthCheck) -> Health {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
        }
        match before {
            Health::Pending if good => Health::Healthy,
            Health::Pending => Health::Unhealthy,
            Health::Unhealthy if self.good >= settings.healthy_threshold => Health::Healthy,
            Health::Unchecked if good => Health::Healthy,
            Health::Healthy | Health::Unchecked if self.bad >= settings.unhealthy_threshold => {
                Health::Unhealthy
            }
            unchanged => unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshgate_config::Probe;
    use proptest::prelude::*;

    use super::*;

    fn settings(healthy: u32, unhealthy: u32) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp { send: String::new(), expect: String::new() },
            port: None,
            interval: Duration::from_secs(1),
            unhealthy_interval: Duration::from_secs(1),
            no_traffic_interval: Duration::from_secs(1),
            jitter: 0,
            timeout: Duration::from_secs(1),
            healthy_threshold: healthy,
            unhealthy_threshold: unhealthy,
            ends_ejection: true,
        }
    }

    /// The states after each of these checks, `+` and `-`, from this one on.
    fn states(from: Health, checks: &str) -> String {
        let (mut streak, mut health) = (Streak::default(), from);
        let settings = settings(2, 3);
        let next = checks.chars().map(|check| {
            health = streak.note(health, check == '+', &settings);
            match health {
                Health::Unchecked => '.',
                health => health.word().chars().next().unwrap_or('?'),
            }
        });
        next.collect()
    }

    #[test]
    fn so_many_in_a_row_change_the_state() {
        assert_eq!(states(Health::Pending, "+--+---+-++"), "hhhhhhuuuuh");
        assert_eq!(states(Health::Pending, "-+-++--+---"), "uuuuhhhhhhu");
        assert_eq!(states(Health::Unhealthy, "+++"), "uhh");
        assert_eq!(states(Health::Unchecked, "--+"), "..h");
        assert_eq!(states(Health::Unchecked, "---"), "..u");
    }

    proptest! {
        #[test]
        fn a_change_takes_as_many_as_it_says(checks in "[+-]{0,200}", healthy in 1u32..5, unhealthy in 1u32..5) {
            let settings = settings(healthy, unhealthy);
            let (mut streak, mut health) = (Streak::default(), Health::Healthy);
            let mut run = (' ', 0);
            for check in checks.chars() {
                run = if run.0 == check { (check, run.1 + 1) } else { (check, 1) };
                let next = streak.note(health, check == '+', &settings);
                let expected = match (health, check) {
                    (Health::Healthy, '-') if run.1 >= unhealthy => Health::Unhealthy,
                    (Health::Unhealthy, '+') if run.1 >= healthy => Health::Healthy,
                    _ => health,
                };
                prop_assert_eq!(next, expected);
                health = next;
            }
        }
    }
}
