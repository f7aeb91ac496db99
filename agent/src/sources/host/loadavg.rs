//! Collector `loadavg`: /proc/loadavg.

use std::time::Duration;

use procfs::{FromRead, LoadAverage};

use super::proc_file::{Bad, ProcFile};
use super::rest::Rest;
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Load};

/// The kernel itself looks every 5 s only (`LOAD_FREQ` in include/linux/sched/loadavg.h).
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps /proc/loadavg open.
#[derive(Default)]
pub(super) struct LoadavgCollector {
    file: ProcFile,
    rest: Rest,
}

impl Collector for LoadavgCollector {
    const NAME: &'static str = "loadavg";
    const HELP: &'static str = "load averages from /proc/loadavg every 5 s, as often as they change";
    type Output = Load;

    fn field(host: &mut Host) -> &mut Option<Load> {
        &mut host.load
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Load>, HostError> {
        let load = self.file.parse_whole(&paths.procfs, "loadavg", parse)?;
        self.rest.begin(INTERVAL);
        Ok(Some(load))
    }
}

fn parse(text: &str) -> Result<Load, Bad> {
    let load = LoadAverage::from_read(text.as_bytes()).ok();
    // "nan" and "inf" are numbers to `f32`.
    let is_load = |load: &f32| load.is_finite() && *load >= 0.0;
    let load = load.filter(|load| [load.one, load.five, load.fifteen].iter().all(is_load));
    let load =
        load.ok_or(Bad::Line(1, "three load averages, running/total tasks and the last process id"))?;
    Ok(Load { one: decimal(load.one), five: decimal(load.five), fifteen: decimal(load.fifteen) })
}

/// The kernel prints two decimals; through `f32` they would come out as 0.9599999785423279.
fn decimal(value: f32) -> f64 {
    (f64::from(value) * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_decimals_come_back() {
        let load = parse("0.10 0.96 1.05 1/91 19623\n").unwrap();
        assert_eq!(load, Load { one: 0.10, five: 0.96, fifteen: 1.05 });
    }

    #[test]
    fn a_bad_line_is_named() {
        for text in ["", "1 2", "x 1 2 1/2 3", "1 nan 2 1/2 3", "1 2 inf 1/2 3", "-1 2 3 1/2 3"] {
            assert!(matches!(parse(text), Err(Bad::Line(1, _))), "{text:?}");
        }
    }
}
