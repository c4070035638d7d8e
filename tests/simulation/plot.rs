//! What a history is about: left to chance alone, few orders would ever come so far as to be returned.

use domain::order::ShipmentStatus;
use rand::{RngExt as _, rngs::StdRng};

use super::{actions::Action, history::History};

/// What has happened before the history begins, and what happens more often in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plot {
    /// Nothing yet: carts, tills and money.
    Sale,
    /// A card was declined, and another may be sent.
    Declined,
    /// An order was delivered, and may come back.
    Delivered,
    /// An order waits for somebody to look at it.
    Doubtful,
    /// Money is to go back, and takes its time.
    Owed,
}

impl Plot {
    pub fn draw(rng: &mut StdRng) -> Plot {
        match rng.random_range(0..13) {
            0..6 => Plot::Sale,
            6..8 => Plot::Declined,
            8..10 => Plot::Delivered,
            10..12 => Plot::Doubtful,
            _ => Plot::Owed,
        }
    }

    /// How many times likelier this is than otherwise.
    pub fn urge(self, action: Action) -> u32 {
        let is_what_it_is_about = match self {
            Plot::Sale => false,
            Plot::Declined => matches!(action, Action::PayAgain | Action::ActAtTheBank | Action::DeliverWebhook),
            Plot::Delivered => matches!(action, Action::AskToReturn | Action::DecideOnReturn),
            Plot::Doubtful => matches!(action, Action::LookAtDoubtful),
            Plot::Owed => matches!(
                action,
                Action::RefundPart
                    | Action::EndRefunds
                    | Action::HearOfRefund
                    | Action::DecideOnRefunds
                    | Action::Dispute
                    | Action::RefundElsewhere
                    | Action::RefundComesBack
            ),
        };
        if is_what_it_is_about { 5 } else { 1 }
    }
}

impl History {
    /// What has happened before.
    pub async fn set_the_scene(&mut self) -> Result<(), String> {
        let token = match self.plot {
            Plot::Sale => return Ok(()),
            Plot::Declined => "tok_declined",
            Plot::Delivered | Plot::Owed => "tok_ok",
            Plot::Doubtful => ["tok_ok", "tok_hold", "tok_at_once"][self.rng.random_range(0..3)],
        };
        self.world.gateway.keep_refunds_pending(self.plot == Plot::Owed);
        for what in 0..self.rng.random_range(1..=2) {
            let many = self.rng.random_range(1..=3);
            self.put_into_cart(0, what, many).await;
        }
        self.buy(0, token, None, Vec::new(), self.plot == Plot::Doubtful).await?;
        let Some(bought) = self.bought.first().cloned() else { return Ok(()) };
        self.healthy().await.turn(bought.accepted.workflow_id).await.map_err(|error| error.to_string())?;
        if self.plot == Plot::Delivered {
            self.pack_of(&bought, None).await?;
            for to in [ShipmentStatus::Shipped, ShipmentStatus::Delivered] {
                self.report(0, to).await?;
            }
        }
        Ok(())
    }
}
