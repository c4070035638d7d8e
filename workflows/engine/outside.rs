//! What lies outside and may fall silent: how many calls may be inside one dependency at a time, and
//! whether it is asked at all.
//!
//! A call is admitted before it is intended. One that is not goes back without a slot and without a
//! failed attempt; when it comes again is spread, so that a thousand do not come back in one instant.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};

use crate::limits;

/// Unknown outcomes in a row after which a dependency counts as silent.
const SILENCES: u32 = 5;
/// How long a silent dependency is left alone at first; doubles up to [`LONGEST`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest it is left alone, and the longest a call is put off at once.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two calls that come back to a silent dependency: 25 a second.
const PACE: Duration = Duration::from_millis(40);

/// Something outside that calls depend on, such as `gateway/sandbox`. Its name is a label of metrics:
/// there are as many as adapters, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dependency {
    kind: &'static str,
    name: &'static str,
}

impl Dependency {
    /// The dependency of this kind and name.
    pub const fn new(kind: &'static str, name: &'static str) -> Self {
        Dependency { kind, name }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// How a call that was admitted went, as far as its dependency is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered, be it with a refusal.
    Answered,
    /// Nobody knows.
    Silent,
    /// It asked to be left alone for so long.
    AskedForPeace(Duration),
    /// It was not reached, for reasons of our own.
    NotAsked,
}

/// Why a call is not admitted, and when it may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutOff {
    pub(crate) why: &'static str,
    pub(crate) until: DateTime<Utc>,
}

/// Whether a dependency is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    /// Left alone; opened so many times since it last answered.
    Open {
        until: DateTime<Utc>,
        times: u32,
    },
    /// One call finds out.
    HalfOpen {
        times: u32,
    },
}

#[derive(Debug)]
struct Line {
    circuit: Circuit,
    silences: u32,
    /// Calls inside, by queue.
    inside: HashMap<&'static str, usize>,
    /// When the last of those that were put off comes again.
    tail: DateTime<Utc>,
    /// How long a call takes, of late.
    mean: Duration,
}

/// Every dependency of this process.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Calls of one queue inside one dependency at the same time.
    share: usize,
    lines: Mutex<HashMap<Dependency, Line>>,
}

/// A call that is inside. Dropped without an outcome, it never reached its dependency.
#[derive(Debug)]
pub(crate) struct Pass {
    outside: Arc<Outside>,
    dependency: Dependency,
    queue: &'static str,
    is_probe: bool,
    since: DateTime<Utc>,
    is_settled: bool,
}

impl Outside {
    pub(crate) fn new(share: usize) -> Arc<Self> {
        Arc::new(Outside { share: share.max(1), lines: Mutex::default() })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Dependency, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a call, or says when it may come again.
    pub(crate) fn enter(
        self: &Arc<Self>,
        dependency: Dependency,
        queue: &'static str,
        now: DateTime<Utc>,
    ) -> Result<Pass, PutOff> {
        let mut lines = self.lines();
        let line = lines.entry(dependency).or_insert_with(|| Line::new(now));
        let is_probe = match line.circuit {
            Circuit::Closed => false,
            Circuit::Open { until, times } if until <= now => {
                line.turn(dependency, Circuit::HalfOpen { times });
                true
            }
            Circuit::Open { until, .. } => return Err(line.put_off(dependency, "silent", until, now, PACE)),
            Circuit::HalfOpen { .. } => return Err(line.put_off(dependency, "silent", now + PAUSE, now, PACE)),
        };
        let inside = line.inside.entry(queue).or_default();
        if !is_probe && *inside >= self.share {
            let pace = line.mean / u32::try_from(self.share).unwrap_or(u32::MAX);
            return Err(line.put_off(dependency, "full", now, now, pace.max(Duration::from_millis(1))));
        }
        *inside += 1;
        Ok(Pass { outside: Arc::clone(self), dependency, queue, is_probe, since: now, is_settled: false })
    }
}

impl Line {
    fn new(now: DateTime<Utc>) -> Self {
        let mean = Duration::from_millis(100);
        Line { circuit: Circuit::Closed, silences: 0, inside: HashMap::new(), tail: now, mean }
    }

    /// Each comes `pace` after the one before it, and none before `earliest`.
    fn put_off(
        &mut self,
        dependency: Dependency,
        why: &'static str,
        earliest: DateTime<Utc>,
        now: DateTime<Utc>,
        pace: Duration,
    ) -> PutOff {
        metrics::counter!("cart_engine_calls_deferred_total", "dependency" => dependency.to_string(), "why" => why)
            .increment(1);
        let longest = earliest.max(now + LONGEST);
        self.tail = (self.tail.max(earliest) + pace).min(longest);
        // The line is longer than anybody waits: those at its end are spread over the later half.
        let is_full = self.tail == longest && longest > earliest;
        let spread = if is_full { (longest - earliest).to_std().unwrap_or_default() / 2 } else { pace };
        let until = if is_full { longest - spread } else { self.tail };
        PutOff { why, until: until + spread.mul_f64(rand::random()) }
    }

    fn turn(&mut self, dependency: Dependency, circuit: Circuit) {
        let state = match circuit {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen { .. } => 1.0,
            Circuit::Open { .. } => 2.0,
        };
        match (self.circuit, circuit) {
            (Circuit::Closed, Circuit::Open { until, .. }) => {
                tracing::warn!(%dependency, %until, "does not answer; calls wait, one at a time finds out");
            }
            (Circuit::Open { .. } | Circuit::HalfOpen { .. }, Circuit::Closed) => {
                tracing::info!(%dependency, "answers again");
            }
            (_, Circuit::Closed | Circuit::Open { .. } | Circuit::HalfOpen { .. }) => {}
        }
        metrics::gauge!("cart_engine_dependency_state", "dependency" => dependency.to_string()).set(state);
        self.circuit = circuit;
    }

    fn settle(&mut self, pass: &Pass, outcome: Outcome, now: DateTime<Utc>) {
        let leave_alone = |times: u32| {
            let pause = PAUSE.saturating_mul(1 << times.min(5)).min(LONGEST);
            Circuit::Open { until: now + pause.mul_f64(0.75 + rand::random::<f64>() / 4.0), times: times + 1 }
        };
        match (outcome, self.circuit) {
            (Outcome::Answered, circuit) => {
                self.silences = 0;
                let took = (now - pass.since).to_std().unwrap_or_default();
                self.mean = (self.mean * 7 + took.min(LONGEST)) / 8;
                if circuit != Circuit::Closed {
                    self.turn(pass.dependency, Circuit::Closed);
                }
            }
            (Outcome::Silent, Circuit::HalfOpen { times }) if pass.is_probe => {
                self.turn(pass.dependency, leave_alone(times));
            }
            (Outcome::Silent, Circuit::Closed) => {
                self.silences += 1;
                if self.silences >= SILENCES {
                    self.silences = 0;
                    self.turn(pass.dependency, leave_alone(0));
                }
            }
            // Those that were inside when it opened say nothing new.
            (Outcome::Silent, Circuit::Open { .. } | Circuit::HalfOpen { .. }) => {}
            (Outcome::AskedForPeace(peace), circuit) => {
                let asked = now + peace.min(limits::PUT_OFF);
                let until = if let Circuit::Open { until, .. } = circuit { until.max(asked) } else { asked };
                self.turn(pass.dependency, Circuit::Open { until, times: 0 });
            }
            // Nothing was found out: the next one does.
            (Outcome::NotAsked, Circuit::HalfOpen { times }) if pass.is_probe => {
                self.turn(pass.dependency, Circuit::Open { until: now, times });
            }
            (Outcome::NotAsked, Circuit::Closed | Circuit::Open { .. } | Circuit::HalfOpen { .. }) => {}
        }
    }
}

impl Pass {
    pub(crate) fn settle(mut self, outcome: Outcome, now: DateTime<Utc>) {
        self.leave(outcome, now);
    }

    fn leave(&mut self, outcome: Outcome, now: DateTime<Utc>) {
        self.is_settled = true;
        let mut lines = self.outside.lines();
        let Some(line) = lines.get_mut(&self.dependency) else { return };
        if let Some(inside) = line.inside.get_mut(self.queue) {
            *inside = inside.saturating_sub(1);
        }
        line.settle(self, outcome, now);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leave(Outcome::NotAsked, self.since);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const GATEWAY: Dependency = Dependency::new("gateway", "test");
    const SECOND: TimeDelta = TimeDelta::seconds(1);

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn silence(outside: &Arc<Outside>, now: DateTime<Utc>) {
        for _ in 0..SILENCES {
            outside.enter(GATEWAY, "checkout", now).expect("admitted").settle(Outcome::Silent, now);
        }
    }

    #[test]
    fn only_a_share_of_a_queue_is_inside_one_dependency() {
        let (outside, now) = (Outside::new(2), start());
        let one = outside.enter(GATEWAY, "checkout", now).expect("admitted");
        let _two = outside.enter(GATEWAY, "checkout", now).expect("admitted");
        let put_off = outside.enter(GATEWAY, "checkout", now).expect_err("full");
        assert!(put_off.why == "full" && put_off.until > now && put_off.until < now + SECOND, "{put_off:?}");
        outside.enter(GATEWAY, "refund", now).expect("another queue has its own share");
        outside.enter(Dependency::new("smtp", "smtp"), "checkout", now).expect("and so has another dependency");
        one.settle(Outcome::Answered, now);
        outside.enter(GATEWAY, "checkout", now).expect("there is room again");
    }

    #[test]
    fn a_silent_dependency_is_left_alone_and_one_call_at_a_time_finds_out() {
        let (outside, now) = (Outside::new(8), start());
        silence(&outside, now);
        let put_off = outside.enter(GATEWAY, "checkout", now).expect_err("silent");
        assert!(put_off.why == "silent" && put_off.until > now, "{put_off:?}");
        let later = now + SECOND;
        let probe = outside.enter(GATEWAY, "checkout", later).expect("the one that finds out");
        outside.enter(GATEWAY, "checkout", later).expect_err("the others wait for it");
        probe.settle(Outcome::Silent, later);
        outside.enter(GATEWAY, "checkout", later + SECOND).expect_err("left alone for longer");
        let probe = outside.enter(GATEWAY, "checkout", later + SECOND * 2).expect("another finds out");
        probe.settle(Outcome::Answered, later + SECOND * 2);
        outside.enter(GATEWAY, "checkout", later + SECOND * 2).expect("it answers");
    }

    #[test]
    fn a_probe_that_never_reached_it_leaves_the_question_to_the_next() {
        let (outside, now) = (Outside::new(8), start());
        silence(&outside, now);
        drop(outside.enter(GATEWAY, "checkout", now + SECOND).expect("the probe"));
        outside.enter(GATEWAY, "checkout", now + SECOND).expect("the next one");
    }

    #[test]
    fn an_answer_between_silences_keeps_it_open_for_calls() {
        let (outside, now) = (Outside::new(8), start());
        for nth in 0..SILENCES * 3 {
            let outcome = if nth % SILENCES == 0 { Outcome::Answered } else { Outcome::Silent };
            outside.enter(GATEWAY, "checkout", now).expect("admitted").settle(outcome, now);
        }
    }

    #[test]
    fn who_asks_for_peace_gets_it() {
        let (outside, now) = (Outside::new(8), start());
        let pass = outside.enter(GATEWAY, "checkout", now).expect("admitted");
        pass.settle(Outcome::AskedForPeace(Duration::from_secs(20)), now);
        let put_off = outside.enter(GATEWAY, "checkout", now + SECOND).expect_err("peace");
        assert!(put_off.until >= now + SECOND * 20, "{put_off:?}");
        outside.enter(GATEWAY, "checkout", now + SECOND * 20).expect("it is over");
    }

    #[test]
    fn those_put_off_come_back_one_after_the_other_and_none_too_late() {
        let (outside, now) = (Outside::new(8), start());
        silence(&outside, now);
        let times: Vec<_> =
            (0..2_000).map(|_| outside.enter(GATEWAY, "checkout", now).expect_err("silent").until).collect();
        let in_first_second = times.iter().filter(|until| **until < now + SECOND * 2).count();
        assert!(in_first_second <= 60, "{in_first_second} come back at once");
        let latest = now + LONGEST + PACE;
        assert!(times.iter().all(|until| *until <= latest), "{:?}", times.iter().max());
    }
}
