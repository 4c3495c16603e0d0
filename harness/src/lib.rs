//! What the benchmarks and the fault suite share: the shop in processes, and a run's figures, failures and report.

pub mod run;

pub mod certificates;

pub mod shop_processes;

pub mod process;

pub mod direct;

pub mod report;

pub mod machine;

pub mod figure;
