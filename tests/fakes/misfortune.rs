//! What goes wrong, by script or at random.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// Starts a payment.
    Initiate,
    /// Reads.
    Find,
    /// Takes money, or sets it aside.
    Capture,
    /// Lets go of it.
    Cancel,
    /// Gives it back.
    Refund,
    /// Gets an access token.
    Authenticate,
    /// Has a webhook checked.
    Verify,
}

/// Which calls a script is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Calls {
    Any,
    #[serde(untagged)]
    Of(Class),
}

impl Calls {
    /// Whether this is to befall such a call. Whoever means any call means those that it can befall.
    fn include(self, kind: Kind, class: Class, has_key: bool) -> bool {
        match self {
            Calls::Any => kind.befalls(class, has_key),
            Calls::Of(own) => own == class,
        }
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// It has its effect, and the connection ends without an answer.
    LoseAnswer,
    /// The connection ends before anybody has read it.
    LoseRequest,
    /// It takes long; its key is in flight meanwhile.
    Delay,
    /// 500, and nothing has happened.
    ServerError,
    /// 500, and it has happened.
    ServerErrorAfterEffect,
    /// Too many calls.
    RateLimit,
    /// Somebody else is at the same thing.
    InFlight,
    /// The credentials are not good, for the moment.
    WrongCredentials,
    /// There is too little money to give any back.
    NoBalance,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::LoseAnswer,
        Kind::LoseRequest,
        Kind::Delay,
        Kind::ServerError,
        Kind::ServerErrorAfterEffect,
        Kind::RateLimit,
        Kind::InFlight,
        Kind::WrongCredentials,
        Kind::NoBalance,
    ];

    /// Whether it can befall such a call at all.
    fn befalls(self, class: Class, has_key: bool) -> bool {
        match self {
            Kind::NoBalance => class == Class::Refund,
            Kind::InFlight => has_key,
            Kind::LoseAnswer
            | Kind::LoseRequest
            | Kind::Delay
            | Kind::ServerError
            | Kind::ServerErrorAfterEffect
            | Kind::RateLimit
            | Kind::WrongCredentials => true,
        }
    }
}

/// What befalls one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfortune {
    pub(crate) kind: Kind,
    pub(crate) delay: Duration,
}

/// What is to go wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Script {
    /// The next so many calls of a class.
    #[serde(rename_all = "camelCase")]
    Next {
        operation: Calls,
        kind: Kind,
        #[serde(default = "once")]
        times: u32,
        #[serde(default = "default_delay")]
        delay_ms: u64,
    },
    /// So many of a hundred calls, until it is zero.
    #[serde(rename_all = "camelCase")]
    Random {
        percent: u32,
        #[serde(default)]
        seed: u64,
        /// All kinds, if none is named.
        #[serde(default)]
        kinds: Vec<Kind>,
        #[serde(default = "default_delay")]
        delay_ms: u64,
    },
    /// Nothing any more.
    Clear { clear: bool },
}

fn once() -> u32 {
    1
}

fn default_delay() -> u64 {
    500
}

#[derive(Debug)]
struct Planned {
    calls: Calls,
    misfortune: Misfortune,
    left: u32,
}

#[derive(Debug)]
struct Dice {
    percent: u32,
    kinds: Vec<Kind>,
    delay: Duration,
    random: StdRng,
}

/// All that is still to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Misfortunes {
    planned: Vec<Planned>,
    dice: Option<Dice>,
}

impl Misfortunes {
    pub(crate) fn plan(&mut self, script: Script) {
        match script {
            Script::Next { operation, kind, times, delay_ms } => {
                let misfortune = Misfortune { kind, delay: Duration::from_millis(delay_ms) };
                self.planned.push(Planned { calls: operation, misfortune, left: times });
            }
            Script::Random { percent: 0, .. } => self.dice = None,
            Script::Random { percent, seed, kinds, delay_ms } => {
                let kinds = if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds };
                let (delay, random) = (Duration::from_millis(delay_ms), StdRng::seed_from_u64(seed));
                self.dice = Some(Dice { percent, kinds, delay, random });
            }
            Script::Clear { clear: true } => *self = Misfortunes::default(),
            Script::Clear { clear: false } => {}
        }
    }

    /// What befalls this call, if anything does. What was planned comes first, in the order of the plans.
    pub(crate) fn deal(&mut self, class: Class, has_key: bool) -> Option<Misfortune> {
        let due =
            |planned: &&mut Planned| planned.left > 0 && planned.calls.include(planned.misfortune.kind, class, has_key);
        if let Some(planned) = self.planned.iter_mut().find(due) {
            planned.left -= 1;
            return Some(planned.misfortune);
        }
        let dice = self.dice.as_mut()?;
        if dice.random.random_range(0..100) >= dice.percent {
            return None;
        }
        let possible: Vec<Kind> = dice.kinds.iter().copied().filter(|kind| kind.befalls(class, has_key)).collect();
        if possible.is_empty() {
            return None;
        }
        let kind = possible.get(dice.random.random_range(0..possible.len())).copied()?;
        Some(Misfortune { kind, delay: dice.delay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> Script {
        serde_json::from_str(script).expect("a script")
    }

    #[test]
    fn a_plan_befalls_so_many_calls_of_its_class() {
        let mut misfortunes = Misfortunes::default();
        misfortunes.plan(read(r#"{"operation":"refund","kind":"lose-answer","times":2}"#));
        assert_eq!(misfortunes.deal(Class::Capture, true), None);
        for left in [true, true, false] {
            assert_eq!(misfortunes.deal(Class::Refund, true).is_some(), left);
        }
        misfortunes.plan(read(r#"{"operation":"any","kind":"delay","delayMs":7}"#));
        let delay = Duration::from_millis(7);
        assert_eq!(misfortunes.deal(Class::Find, false), Some(Misfortune { kind: Kind::Delay, delay }));
        misfortunes.plan(read(r#"{"operation":"any","kind":"in-flight"}"#));
        assert_eq!(misfortunes.deal(Class::Find, false), None);
        assert!(misfortunes.deal(Class::Initiate, true).is_some());
    }

    #[test]
    fn dice_with_one_seed_fall_alike_deal_every_kind_and_only_what_can_be() {
        let script = read(r#"{"percent":50,"seed":7}"#);
        let deal = |class| {
            let mut misfortunes = Misfortunes::default();
            misfortunes.plan(script.clone());
            (0..500).map(|_| misfortunes.deal(class, true).map(|dealt| dealt.kind)).collect::<Vec<_>>()
        };
        let refunds = deal(Class::Refund);
        assert_eq!(refunds, deal(Class::Refund));
        assert!(Kind::ALL.iter().all(|kind| refunds.contains(&Some(*kind))));
        assert!(refunds.contains(&None));
        assert!(!deal(Class::Capture).contains(&Some(Kind::NoBalance)));
    }
}
