//! The client under measure against others, at each number of calls in flight.

use std::path::Path;

use meshwork_caller::Slice;

use super::{Bench, Error, proxy::Proxy};
use crate::{
    clients::{
        Peer,
        ratios::{Ratios, median_of, ratio},
    },
    echo::SERVICE,
};

/// How many times as many pairs there are against the client of "before": a few percent take more of them than tens to tell.
const BEFORE_PAIRS: u64 = 2;

impl Bench<'_> {
    pub(super) async fn against_before(&mut self, before: &Path) -> Result<(), Error> {
        let mut mesh = self.meshwork("meshwork", SERVICE)?;
        let mut old = Peer::meshwork(before, "before", self.echo, SERVICE)?;
        let mut again = Peer::meshwork(before, "before_again", self.echo, SERVICE)?;
        let (mut throughput, mut itself, mut cpu) = (Ratios::default(), Ratios::default(), Ratios::default());
        let pairs = self.args.slices * BEFORE_PAIRS;
        for in_flight in self.args.in_flight() {
            let peers = [&mut mesh, &mut old, &mut again];
            let [mesh, old, again] = self.alternate(pairs, in_flight, peers).await?;
            for (name, ratios, ratio) in [
                ("throughput_vs_before", &mut throughput, ratio(&mesh, &old, Slice::calls_per_s)),
                ("before_vs_itself", &mut itself, ratio(&again, &old, Slice::calls_per_s)),
                ("client_cpu_vs_before", &mut cpu, ratio(&mesh, &old, Slice::cpu_us)),
            ] {
                ratios.add(ratio);
                self.found.figures.add(format!("{name}_{in_flight}"), ratio);
            }
        }
        let figures = &mut self.found.figures;
        figures.add("throughput_vs_before_worst", throughput.lowest());
        figures.add("before_vs_itself_worst", itself.lowest());
        figures.add("client_cpu_vs_before", cpu.mean());
        figures.add("client_cpu_vs_before_worst", cpu.highest());
        Ok(())
    }

    pub(super) async fn against_tonic(&mut self, addresses: &[String]) -> Result<(), Error> {
        let program = &self.callers.now;
        let mut mesh = self.meshwork("meshwork", SERVICE)?;
        let mut balance = Peer::tonic_balance(program, "tonic_balance", addresses)?;
        let mut again = Peer::tonic_balance(program, "tonic_balance_again", addresses)?;
        let mut single = Peer::tonic_channel(program, "tonic_channel", &addresses[0])?;
        let (mut throughput, mut cpu) = (Ratios::default(), Ratios::default());
        for in_flight in self.args.in_flight() {
            let peers = [&mut mesh, &mut balance, &mut again, &mut single];
            let [mesh, balance, again, single] = self.alternate(self.args.slices, in_flight, peers).await?;
            let faster = ratio(&mesh, &balance, Slice::calls_per_s);
            let cost = ratio(&mesh, &balance, Slice::cpu_us);
            throughput.add(faster);
            cpu.add(cost);
            let figures = &mut self.found.figures;
            figures.add(format!("throughput_vs_tonic_balance_{in_flight}"), faster);
            figures.add(format!("tonic_vs_itself_{in_flight}"), ratio(&again, &balance, Slice::calls_per_s));
            figures.add(format!("throughput_vs_tonic_channel_{in_flight}"), ratio(&mesh, &single, Slice::calls_per_s));
            figures.add(format!("client_cpu_vs_tonic_balance_{in_flight}"), cost);
            for (name, slices) in [("meshwork", &mesh), ("tonic_balance", &balance), ("tonic_channel", &single)] {
                figures.add(format!("{name}_per_s_{in_flight}"), median_of(slices, Slice::calls_per_s));
                figures.add(format!("{name}_p50_us_{in_flight}"), median_of(slices, Slice::p50_us));
                figures.add(format!("{name}_p99_us_{in_flight}"), median_of(slices, Slice::p99_us));
                figures.add(format!("{name}_cpu_us_{in_flight}"), median_of(slices, Slice::cpu_us));
            }
        }
        let figures = &mut self.found.figures;
        figures.add("throughput_vs_tonic_balance", throughput.mean());
        figures.add("throughput_vs_tonic_balance_worst", throughput.lowest());
        figures.add("client_cpu_vs_tonic_balance", cpu.mean());
        Ok(())
    }

    pub(super) async fn against_proxies(&mut self, addresses: &[String], scratch: &Path) -> Result<(), Error> {
        for proxy in Proxy::ALL {
            let name = proxy.name();
            let Some(running) = proxy.start(addresses, scratch).await? else {
                eprintln!("{name} is not on PATH: not measured");
                continue;
            };
            let mut mesh = self.meshwork("meshwork", SERVICE)?;
            let mut through = Peer::tonic_channel(&self.callers.now, name, &running.address)?;
            let [mesh, through] = self.alternate(self.args.slices, 1, [&mut mesh, &mut through]).await?;
            self.found.figures.add(format!("{name}_p50_us_1"), median_of(&through, Slice::p50_us));
            self.found.figures.add(format!("{name}_p50_over_meshwork_p50"), ratio(&through, &mesh, Slice::p50_us));
        }
        Ok(())
    }
}
