//! Sagas over a network that is slow, then silent, then broken: they settle, and take effect once.
//!
//! In real time, because SQLite and the writer's thread are: `tests/network` has the partitions on simulated time.

use std::{io, ops::Range, time::Duration};

use futures_util::future::join_all;
use meshwork::{Mesh, channel::Connector};
use meshwork_fixture::{Engine, on_both_stores};
use meshwork_shop::contract::shop::{
    customer::v1::customer_service_client::CustomerServiceClient,
    order::v1::{OrderState, order_service_client::OrderServiceClient},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

use crate::shop::{Shop, usd};

/// What a line holds.
const CAPACITY: usize = 64 * 1024;
/// How late each piece of data is, in milliseconds.
const JITTER_MS: Range<u64> = 0..150;
/// Orders in each kind of weather.
const ORDERS: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Slow, no more.
    Fair,
    /// Nothing gets through, and no error shows it.
    Silent,
    /// Connections break, and new ones are refused.
    Broken,
}

/// A network between services.
#[derive(Clone)]
struct Network(watch::Sender<Weather>);

impl Network {
    fn fair() -> Self {
        Self(watch::Sender::new(Weather::Fair))
    }

    fn turn(&self, weather: Weather) {
        self.0.send_replace(weather);
    }

    /// Connects over this network.
    fn connector(&self) -> Connector {
        let network = self.clone();
        Connector::new(move |target| {
            let network = network.clone();
            async move {
                network.let_through().await?;
                let stream = TcpStream::connect(&*target.address).await?;
                stream.set_nodelay(true)?;
                let (near, far) = duplex(CAPACITY);
                tokio::spawn(network.carry(far, stream));
                Ok(near)
            }
        })
    }

    /// Waits out a silence.
    async fn let_through(&self) -> io::Result<()> {
        let mut weather = self.0.subscribe();
        let weather = weather.wait_for(|weather| *weather != Weather::Silent).await.expect("the network is here");
        if *weather == Weather::Broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// One line, until either end closes it or the network breaks it.
    async fn carry(self, near: DuplexStream, far: TcpStream) {
        let (mut weather, (near_in, near_out), (far_in, far_out)) = (self.0.subscribe(), split(near), split(far));
        tokio::select! {
            _ = self.pass_on(near_in, far_out) => {}
            _ = self.pass_on(far_in, near_out) => {}
            _ = weather.wait_for(|weather| *weather == Weather::Broken) => {}
        }
    }

    async fn pass_on(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut buffer = vec![0; CAPACITY];
        while let read = from.read(&mut buffer).await?
            && read > 0
        {
            sleep(Duration::from_millis(rand::random_range(JITTER_MS))).await;
            self.let_through().await?;
            to.write_all(&buffer[..read]).await?;
        }
        Ok(())
    }
}

on_both_stores!(
    flavor = "multi_thread";
    sagas_settle_once_over_a_network_that_is_slow_then_silent_then_broken,
);

async fn sagas_settle_once_over_a_network_that_is_slow_then_silent_then_broken(engine: Engine) {
    let network = Network::fair();
    let mut shop = Shop::open_with(&engine, 2, |config| {
        config.connector = network.connector();
        // No saga may end here for want of an answer.
        config.saga_deadline = Duration::from_secs(600);
    })
    .await;
    // The callers' own network is sound: orders come in whatever happens between the services.
    let mesh = Mesh::connect(shop.fleet.registry_url()).expect("a mesh");
    shop.customers = CustomerServiceClient::new(mesh.channel("customer"));
    shop.orders = OrderServiceClient::new(mesh.channel("order"));
    let customer = shop.customer(usd(1_000_000)).await;
    let take_orders = async || join_all((0..ORDERS).map(|_| shop.order(&customer.customer_id, usd(100)))).await;

    let mut orders = take_orders().await;
    network.turn(Weather::Silent);
    orders.extend(take_orders().await);
    network.turn(Weather::Fair);
    shop.settled(&orders[0].order_id).await;

    network.turn(Weather::Broken);
    let lost = take_orders().await;
    let cancelled = take_orders().await;
    for order in &cancelled {
        shop.cancel(&order.order_id).await.expect("cancelled, wherever its saga stands");
    }
    for order in &lost {
        assert_eq!(shop.get_order(&order.order_id).await.state(), OrderState::Pending, "no credit could be asked for");
    }
    network.turn(Weather::Fair);

    for order in orders.iter().chain(&lost) {
        assert_eq!(shop.settled(&order.order_id).await.state(), OrderState::Approved);
    }
    let approved = i64::try_from(orders.len() + lost.len()).expect("few");
    shop.wait_for_credit(&customer.customer_id, &usd(1_000_000 - 100 * approved)).await;
    mesh.close().await;
    shop.fleet.stop().await;
}
