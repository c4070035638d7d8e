//! What shoppers do besides buying, and what the staff do, over HTTP too.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    shelf::Basket,
    storefront::{Items, LOOK, PATIENCE, Proof, Storefront, Surprise, Visit, answered},
};

/// Development's member of staff.
const STAFF: (&str, &str) = ("staff@example.com", "staff-demo");

impl Storefront {
    /// Fills a cart as a guest, then logs in and takes it along.
    pub(crate) async fn come_as_guest(&self, number: usize, basket: &Basket) -> Result<Visit<'_>, Surprise> {
        let guest = self.guest(number).await?;
        for line in &basket.lines {
            guest.add(line).await?;
        }
        let visit = self.register(number).await?;
        if let Proof::CartSession(session) = &guest.proof {
            let request = visit.request(Method::POST, "/api/cart/merge").header("X-Cart-Session", session);
            answered::<Value>(request, StatusCode::OK).await?;
        }
        Ok(visit)
    }

    async fn by_staff(&self, path: &str, body: &Value) -> Result<RequestBuilder, Surprise> {
        Ok(self.as_staff(Method::POST, path).await?.json(body))
    }

    async fn as_staff(&self, method: Method, path: &str) -> Result<RequestBuilder, Surprise> {
        let credentials = json!({ "email": STAFF.0, "password": STAFF.1 });
        let token = self.staff.get_or_try_init(|| self.token(&credentials)).await?;
        Ok(self.request(method, path).bearer_auth(token))
    }

    /// How the first dispute over an order stands, as soon as the shop has heard of one.
    pub(crate) async fn dispute(&self, order_id: Uuid) -> Result<Option<String>, Surprise> {
        #[derive(Deserialize)]
        struct Disputed {
            disputes: Vec<Dispute>,
        }
        #[derive(Deserialize)]
        struct Dispute {
            status: String,
        }
        let (begun, path) = (Instant::now(), format!("/api/orders/{order_id}"));
        loop {
            let Disputed { disputes } = answered(self.as_staff(Method::GET, &path).await?, StatusCode::OK).await?;
            if !disputes.is_empty() || begun.elapsed() >= PATIENCE {
                return Ok(disputes.into_iter().next().map(|dispute| dispute.status));
            }
            sleep(LOOK).await;
        }
    }

    /// Packs all of an order, hands it to the courier, and hears that it has arrived.
    pub(crate) async fn deliver(&self, order_id: Uuid) -> Result<(), Surprise> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Parcel {
            shipment_id: Uuid,
        }
        let label = json!({ "courierService": "Blue Dart", "trackingNumber": format!("BD-{order_id}") });
        let request = self.by_staff(&format!("/api/orders/{order_id}/shipments"), &label).await?;
        let Parcel { shipment_id } = answered(request, StatusCode::CREATED).await?;
        for status in ["SHIPPED", "DELIVERED"] {
            let report = json!({ "status": status });
            let request = self.by_staff(&format!("/api/shipments/{shipment_id}/status"), &report).await?;
            answered::<Value>(request, StatusCode::OK).await?;
        }
        Ok(())
    }

    /// Gives a part of an order's money back.
    pub(crate) async fn refund_part(&self, order_id: Uuid, amount: &str) -> Result<(), Surprise> {
        let body = json!({ "orderId": order_id, "amount": amount, "reason": "scratched on arrival" });
        let request = self.by_staff("/api/payments/refund", &body).await?;
        let request = request.header("Idempotency-Key", format!("part-{order_id}"));
        answered::<Value>(request, StatusCode::ACCEPTED).await.map(drop)
    }
}

impl Visit<'_> {
    /// Calls an order off.
    pub(crate) async fn cancel(&self, order_id: Uuid) -> Result<(), Surprise> {
        let request = self
            .request(Method::POST, &format!("/api/orders/{order_id}/cancel"))
            .header("Idempotency-Key", format!("cancel-{order_id}"))
            .json(&json!({ "reason": "ordered by mistake" }));
        answered::<Value>(request, StatusCode::ACCEPTED).await.map(drop)
    }

    /// Saves an address; returns its id.
    pub(crate) async fn save_address(&self) -> Result<Uuid, Surprise> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Saved {
            address_id: Uuid,
        }
        let request = self.request(Method::POST, "/api/addresses").json(&self.address());
        Ok(answered::<Saved>(request, StatusCode::CREATED).await?.address_id)
    }

    /// The event of the first e-mail to this shopper, as soon as there is one.
    pub(crate) async fn first_mail(&self) -> Result<Option<String>, Surprise> {
        #[derive(Deserialize)]
        struct Mail {
            event: String,
        }
        let (begun, path) = (Instant::now(), format!("/api/dev/mailbox?to=shopper-{}@demo.example", self.number));
        loop {
            let mails: Items<Mail> = answered(self.shop.request(Method::GET, &path), StatusCode::OK).await?;
            if !mails.items.is_empty() || begun.elapsed() >= PATIENCE {
                return Ok(mails.items.into_iter().next().map(|mail| mail.event));
            }
            sleep(LOOK).await;
        }
    }
}
