//! The machine that figures come from, read from `/proc` and by timing the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Instant,
};

use serde::Serialize;

use crate::figure::{median, rounded};

/// Appends that are timed to tell what a durable write costs; enough for a stable median in a fraction of a second.
const DISK_WRITES: usize = 50;
/// One page of a database.
const PAGE: [u8; 4096] = [0x5a; 4096];

/// A machine. What cannot be read is empty or zero.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The CPU's model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Median time of a 4 KiB append with fdatasync, milliseconds, where the databases are kept. Well under 0.05 ms
    /// means that nothing is made durable there.
    pub fdatasync_ms: f64,
    /// The load average of the last minute before the run: above 0.5, others were at work too.
    pub load_before: f64,
}

impl Machine {
    /// Reads the machine, and times the disk under `folder`.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        Ok(Self {
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_default().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: kib(&file("/proc/meminfo"), "MemTotal").unwrap_or(0) / 1024,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            fdatasync_ms: time_disk(folder)?,
            load_before: first_number(&file("/proc/loadavg")).unwrap_or(0.0),
        })
    }
}

/// The value of `name` in lines of `name: value`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// The value of `name` in lines of `name: value kB`, in KiB.
pub fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim().parse().ok()
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn time_disk(folder: &Path) -> io::Result<f64> {
    let path = folder.join("disk");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(DISK_WRITES);
    for _ in 0..DISK_WRITES {
        let start = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    fs::remove_file(path)?;
    Ok(rounded(median(&times)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let status = "Name:\tmeshwork\nVmHWM:\t  70000 kB\nVmRSS:\t   65536 kB\nThreads:\t4\n";
        assert_eq!(kib(status, "VmRSS"), Some(65536));
        assert_eq!(field("processor\t: 0\nmodel name\t: Xeon @ 2.0: fast\n", "model name"), Some("Xeon @ 2.0: fast"));
        assert_eq!(kib(status, "Threads"), None);
        assert_eq!(kib("", "VmRSS"), None);
        assert_eq!(first_number("0.52 0.58 0.59 3/602 29770\n"), Some(0.52));
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::read(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(machine.cores > 0 && machine.memory_mb > 0 && !machine.kernel.is_empty() && machine.fdatasync_ms > 0.0);
    }
}
