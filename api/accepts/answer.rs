//! What a request for a checkout is answered: where to look for it, or why it is refused.

use domain::pricing::PricingError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use workflows::checkout::accept::{Accepted, Refusal};

use crate::error::{ApiError, FieldError};

/// A checkout that has been accepted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedView {
    workflow_id: Uuid,
    /// RUNNING, or what has become of an equal request made before.
    status: &'static str,
    /// Of the order to be: it cannot be read until the run has written it.
    order_id: Uuid,
    order_number: String,
    links: Links,
}

#[derive(Serialize, ToSchema)]
struct Links {
    /// How the checkout stands.
    #[serde(rename = "self")]
    this: String,
    order: String,
    /// The run, for operators.
    workflow: String,
}

impl From<Accepted> for AcceptedView {
    fn from(accepted: Accepted) -> Self {
        let Accepted { workflow_id, order_id, order_number, status } = accepted;
        AcceptedView {
            workflow_id,
            status: status.as_str(),
            order_id: order_id.into(),
            order_number: order_number.into(),
            links: Links {
                this: format!("/api/checkout/{workflow_id}"),
                order: format!("/api/orders/{order_id}"),
                workflow: format!("/api/workflows/{workflow_id}"),
            },
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (code, detail, data) = (refusal.code().to_owned(), refusal.detail(), refusal.data());
        let problem = match refusal {
            Refusal::Database(error) => return error.into(),
            Refusal::Failure(failure) => return ApiError::internal(failure),
            Refusal::CartNotFound => ApiError::not_found(code, detail),
            Refusal::GatewayUnknown { .. } => ApiError::unprocessable(code, detail.clone())
                .with_errors(vec![FieldError::new("/paymentGateway", detail)]),
            Refusal::AddressNotFound | Refusal::ContactMissing | Refusal::Unpriceable(PricingError::TooLarge) => {
                ApiError::unprocessable(code, detail)
            }
            Refusal::CartEmpty
            | Refusal::CartNotActive(_)
            | Refusal::OutOfStock { .. }
            | Refusal::PriceChanged { .. }
            | Refusal::CouponInvalid { .. }
            | Refusal::MinimumOrderValue { .. }
            | Refusal::CartInCheckout { .. }
            | Refusal::Unpriceable(
                PricingError::NoQuantity(_) | PricingError::InvalidPrice(_) | PricingError::InvalidTaxRate(_),
            )
            | Refusal::CurrencyMismatch { .. }
            | Refusal::PaymentUnsupported(_)
            | Refusal::CodLimit { .. } => ApiError::conflict(code, detail),
        };
        let members = data.as_ref().and_then(Value::as_object).into_iter().flatten();
        members.fold(problem, |problem, (name, value)| problem.with(name, value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_says_what_to_act_on() {
        let refusal = Refusal::CouponInvalid { code: "SAVE20".to_owned(), reason: "expired".to_owned() };
        let problem = ApiError::from(refusal);
        assert_eq!((problem.status(), problem.code()), (StatusCode::CONFLICT, "coupon-invalid"));
        assert_eq!(ApiError::from(Refusal::CartNotFound).status(), StatusCode::NOT_FOUND);
        let unknown = Refusal::GatewayUnknown { name: "cash".to_owned() };
        assert_eq!(ApiError::from(unknown).status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            ApiError::from(Refusal::Database(sqlx::Error::PoolTimedOut)).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
}
