//! Who asks, and the things they ask for, new for each route.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    patience::eventually,
    server::{Checkout, Server, Shopper, payment},
};

pub(super) struct Cast {
    guest: Shopper,
    owner: Shopper,
    other: Shopper,
    service: Shopper,
    staff: Shopper,
    admin: Shopper,
    /// One login for each caller, where the route is about logins.
    logins: Vec<Value>,
    /// What stands for `{…}` in the path, and for fields of that name in a body.
    things: Vec<(&'static str, String)>,
}

impl Cast {
    /// With whatever a route of this path is about.
    pub(super) async fn gather(server: &Server, path: &str) -> Cast {
        let crowd = server.crowd(2).await;
        let [owner, other] = <[Shopper; 2]>::try_from(crowd).ok().expect("two");
        let mut cast = Cast {
            guest: Shopper::guest(server.door.clone()).await,
            owner,
            other,
            service: server.service(&["inventory", "events:read"]).await,
            staff: server.staff().await,
            admin: server.admin().await,
            logins: Vec::new(),
            things: Vec::new(),
        };
        if ["/api/auth/login", "/api/auth/refresh", "/api/auth/logout"].contains(&path) {
            let account = json!({ "email": format!("{}@example.com", Uuid::now_v7()), "password": "a-long-password" });
            server.door.post("/api/auth/register", &account).await.ok();
            for _ in super::CALLERS {
                cast.logins.push(server.door.post("/api/auth/login", &account).await.ok());
            }
        }
        if path.starts_with("/api/schedules/") {
            cast.schedules_are_known().await;
        }
        cast.provide(path).await;
        cast
    }

    async fn provide(&mut self, path: &str) {
        if path.starts_with("/api/cart") || path == "/api/checkout" || path == "/api/coupons/validate" {
            for shopper in [&self.guest, &self.owner, &self.other, &self.staff, &self.admin] {
                shopper.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await;
                shopper.add("LAP-001", 1).await;
            }
        }
        let about_orders =
            ["/api/orders/", "/api/dev/gateway", "/api/payments/", "/api/refunds", "/api/shipments/", "/api/returns/"];
        if about_orders.into_iter().any(|start| path.starts_with(start)) {
            let order = self.buy("tok_ok").await;
            assert_eq!(self.owner.end(&order).await["status"], "COMPLETED");
            self.things.push(("/api/orders/{id}", order.order_id.clone()));
            self.things.push(("orderId", order.order_id));
        }
        if path.starts_with("/api/refunds/") {
            let part = json!({ "orderId": self.thing("orderId"), "amount": "1.00", "reason": "Scratched" });
            self.staff.post("/api/payments/refund", &part).await.ok();
            let refunds = self.staff.get("/api/refunds?limit=1").await.ok();
            self.things.push(("/api/refunds/{id}", text(&refunds["items"][0], "refundId")));
        }
        if path.starts_with("/api/shipments/") {
            let parcel = json!({ "courierService": "Blue Dart", "trackingNumber": "BD123456789IN" });
            let shipments = format!("/api/orders/{}/shipments", self.thing("orderId"));
            let shipment = self.staff.post(&shipments, &parcel).await.ok();
            self.things.push(("/api/shipments/{id}", text(&shipment, "shipmentId")));
        }
        if path.contains("/returns") {
            let order = format!("/api/orders/{}", self.thing("orderId"));
            for status in ["PROCESSING", "SHIPPED", "DELIVERED"] {
                self.staff.post(&format!("{order}/status"), &json!({ "status": status })).await.ok();
            }
            if path.starts_with("/api/returns/") {
                let goods =
                    json!({ "items": [{ "variantId": "LAP-001", "quantity": 1 }], "reason": "The screen is dead" });
                let asked = self.owner.post(&format!("{order}/returns"), &goods).await.ok();
                let id = text(&asked, "returnId");
                if path.ends_with("/receive") {
                    self.staff.post(&format!("/api/returns/{id}/approve"), &json!({})).await.ok();
                }
                self.things.push(("/api/returns/{id}", id));
            }
        }
        if path.starts_with("/api/categories/") {
            let name = json!({ "name": format!("Shelf {}", Uuid::now_v7()) });
            let category = self.made("/api/categories", &name, "categoryId").await;
            self.things.push(("/api/categories/{id}", category));
        }
        if path.starts_with("/api/addresses/") {
            let address = self.owner.post("/api/addresses", &payment("tok_ok")["shippingAddress"]).await.ok();
            self.things.push(("/api/addresses/{id}", text(&address, "addressId")));
        }
        if path.starts_with("/api/users/") {
            let email = json!({ "email": format!("{}@example.com", Uuid::now_v7()), "password": "a-long-password" });
            let user = text(&self.staff.post("/api/auth/register", &email).await.ok(), "userId");
            self.things.push(("/api/users/{id}", user));
        }
        if path.starts_with("/api/api-keys/") {
            let key = json!({ "name": Uuid::now_v7(), "scopes": ["inventory"] });
            let key = text(&self.admin.post("/api/api-keys", &key).await.ok(), "keyId");
            self.things.push(("/api/api-keys/{id}", key));
        }
        if path == "/api/inventory/release" {
            let hold = json!({ "items": [{ "variantId": "LAP-001", "quantity": 1 }], "ttlSeconds": 60 });
            let hold = self.service.post("/api/inventory/reserve", &hold).await.ok();
            self.things.push(("reservationId", text(&hold, "reservationId")));
        }
        if path.starts_with("/api/checkout/") {
            let checkout = self.buy("tok_3ds").await;
            self.owner.payment_page(&checkout).await;
            self.things.push(("{workflowId}", checkout.workflow_id));
        }
    }

    /// A new thing by the staff's own route.
    async fn made(&self, path: &str, body: &Value, id: &str) -> String {
        text(&self.staff.post(path, body).await.ok(), id)
    }

    async fn schedules_are_known(&self) {
        eventually("a scheduler has run", async || {
            let known = self.staff.get("/api/schedules").await.ok();
            known["items"].as_array().is_some_and(|items| !items.is_empty())
        })
        .await;
    }

    async fn buy(&self, token: &str) -> Checkout {
        self.owner.add("LAP-001", 1).await;
        Checkout::of(self.owner.ask(&payment(token)).await)
    }

    pub(super) fn caller(&self, name: &str) -> Option<&Shopper> {
        match name {
            "guest" => Some(&self.guest),
            "owner" => Some(&self.owner),
            "other" => Some(&self.other),
            "service" => Some(&self.service),
            "staff" => Some(&self.staff),
            "admin" => Some(&self.admin),
            _ => None,
        }
    }

    /// A guest's session beside a login, where the route asks for both.
    pub(super) fn session(&self, path: &str, caller: &str) -> Option<(&str, &str)> {
        let is_both = path == "/api/cart/merge" && !["anonymous", "guest"].contains(&caller);
        is_both.then_some(self.guest.header())
    }

    /// The path with everything filled in.
    pub(super) fn target(&self, path: &str) -> String {
        let mut target = path.to_owned();
        for (name, value) in &self.things {
            if let Some((parent, parameter)) = name.rsplit_once('/') {
                if path.starts_with(parent) {
                    target = target.replacen(parameter, value, 1);
                }
            } else {
                target = target.replace(name, value);
            }
        }
        let target = target
            .replace("/api/products/{id}", "/api/products/LAP-001-P")
            .replace("{variantId}", "LAP-001")
            .replace("/api/variants/{id}", "/api/variants/LAP-001")
            .replace("{code}", "SAVE20")
            .replace("/api/schedules/{name}", "/api/schedules/retention")
            .replace("{gateway}", "sandbox");
        // A parameter that is named as a thing is, which has been filled in within its braces.
        let target = if path.ends_with("{orderId}") { target.replace(['{', '}'], "") } else { target };
        assert!(!target.contains('{'), "{target}: nothing stands for the parameter");
        match path {
            "/api/inventory/check" => format!("{target}?sku=LAP-001"),
            "/api/dev/gateway/payments" => format!("{target}?orderId={}", self.thing("orderId")),
            _ => target,
        }
    }

    fn thing(&self, name: &str) -> &str {
        self.things.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).expect(name)
    }

    /// The route's own example, about things that exist; each caller's names are his own.
    pub(super) fn body(&self, path: &str, operation: &Value, caller: usize) -> Option<Value> {
        let content = operation.pointer("/requestBody/content")?.as_object()?.values().next()?;
        let mut body = content["example"].clone();
        let members = body.as_object_mut()?;
        for (name, value) in members.iter_mut() {
            if let Some((_, thing)) = self.things.iter().find(|(known, _)| known == name) {
                *value = json!(thing);
            }
        }
        for (name, domain) in [("email", "@example.com"), ("sku", "")] {
            if let Some(unique) = members.get_mut(name) {
                *unique = json!(format!("{caller}-{}{domain}", Uuid::now_v7()));
            }
        }
        if path == "/api/coupons" {
            members.insert("code".to_owned(), json!(format!("CODE{caller}")));
        }
        if let Some(login) = self.logins.get(caller) {
            for (name, value) in [("email", &login["user"]["email"]), ("refreshToken", &login["refreshToken"])] {
                if let Some(member) = members.get_mut(name) {
                    *member = value.clone();
                }
            }
        }
        Some(body)
    }
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}")).to_owned()
}
