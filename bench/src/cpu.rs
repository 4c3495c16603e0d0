//! CPU time of this process: user and system, over all its threads, to the nanosecond.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that this process has used since its start. Unlike `/proc/self/stat` it does not tick in steps of 10 ms.
pub(crate) fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process has not used negative time")
}

#[cfg(test)]
mod tests {
    use std::{hint::black_box, time::Instant};

    use super::*;

    #[test]
    fn work_costs_time() {
        let before = process_time();
        let until = Instant::now() + Duration::from_millis(20);
        while Instant::now() < until {
            black_box(0);
        }
        assert!(process_time() > before);
    }
}
