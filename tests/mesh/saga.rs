//! The order saga from the outside: what becomes of an order, and why.

use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    order::v1::{OrderState, RejectionReason},
    r#type::v1::Money,
};
use tonic::Code;
use uuid::Uuid;

use crate::shop::{Shop, usd};

on_both_stores!(
    flavor = "multi_thread";
    an_order_within_the_limit_is_approved_and_reserves_its_credit,
    an_order_is_rejected_for_its_reason_and_reserves_nothing,
    a_cancelled_order_gives_its_credit_back_once,
    an_order_that_is_cancelled_while_it_waits_holds_no_credit,
    a_rejected_order_cannot_be_cancelled,
);

async fn an_order_within_the_limit_is_approved_and_reserves_its_credit(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let customer = shop.customer(usd(1500)).await;
    let order = shop.settled_order(&customer.customer_id, usd(1234)).await;
    assert_eq!((order.state(), order.rejection_reason()), (OrderState::Approved, RejectionReason::Unspecified));
    assert_eq!(shop.get_customer(&customer.customer_id).await.available_credit, Some(usd(266)));
    shop.fleet.stop().await;
}

async fn an_order_is_rejected_for_its_reason_and_reserves_nothing(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let customer = shop.customer(usd(1500)).await;
    let yen = Money { currency_code: "JPY".into(), units: 5, nanos: 0 };
    let nobody = Uuid::now_v7().to_string();
    let cases = [
        (&customer.customer_id, usd(12_340), RejectionReason::InsufficientCredit),
        (&customer.customer_id, yen, RejectionReason::CurrencyMismatch),
        (&nobody, usd(1), RejectionReason::UnknownCustomer),
    ];
    for (customer_id, total, reason) in cases {
        let order = shop.settled_order(customer_id, total).await;
        assert_eq!((order.state(), order.rejection_reason()), (OrderState::Rejected, reason));
    }
    assert_eq!(shop.get_customer(&customer.customer_id).await.available_credit, Some(usd(1500)));
    shop.fleet.stop().await;
}

async fn a_cancelled_order_gives_its_credit_back_once(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(1500)).await;
    let order = shop.settled_order(&customer.customer_id, usd(1234)).await;
    for _ in 0..3 {
        let cancelled = shop.cancel(&order.order_id).await.expect("cancelled, and again the same");
        assert_eq!(cancelled.state(), OrderState::Cancelled);
    }
    shop.wait_for_credit(&customer.customer_id, &usd(1500)).await;
    let second = shop.settled_order(&customer.customer_id, usd(1500)).await;
    assert_eq!(second.state(), OrderState::Approved, "the credit can be used again");
    shop.fleet.stop().await;
}

async fn an_order_that_is_cancelled_while_it_waits_holds_no_credit(engine: Engine) {
    let shop = Shop::open(&engine, 2).await;
    let customer = shop.customer(usd(1500)).await;
    for _ in 0..20 {
        let order = shop.order(&customer.customer_id, usd(1000)).await;
        let cancelled = shop.cancel(&order.order_id).await.expect("cancelled, wherever its saga stood");
        assert_eq!(cancelled.state(), OrderState::Cancelled);
    }
    shop.wait_for_credit(&customer.customer_id, &usd(1500)).await;
    shop.fleet.stop().await;
}

async fn a_rejected_order_cannot_be_cancelled(engine: Engine) {
    let shop = Shop::open(&engine, 1).await;
    let order = shop.settled_order(&Uuid::now_v7().to_string(), usd(1)).await;
    let status = shop.cancel(&order.order_id).await.expect_err("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    shop.fleet.stop().await;
}
