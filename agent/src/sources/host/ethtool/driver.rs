//! Collector `driver`: what drivers say of loss and limits, above all the allowances of a cloud.

use std::io;
use std::time::{Duration, Instant};

use super::devices::{self, Device};
use super::ioctl::Ethtool;
use super::statistics::Plan;
use crate::model::host::{DriverStatistics, Host};
use crate::sources::host::rest::Rest;
use crate::sources::host::route::Route;
use crate::sources::host::{Collector, HostError, Paths};

/// How long the list of devices and the names of their statistics are used; they are read anew at once when a driver
/// has another number of them.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// A run that takes longer has a driver that asks its hardware, or waited for the lock of the network configuration; the
/// whole agent waits with it …
const PATIENCE: Duration = Duration::from_millis(50);
/// … and so rests for so many times as long, up to a minute.
const REST_FACTOR: u32 = 100;
const LONGEST_REST: Duration = Duration::from_secs(60);
const OPERATION: &str = "ask for statistics of network drivers (SIOCETHTOOL)";

/// Remembers the devices and which of their statistics are used.
#[derive(Default)]
pub(in crate::sources::host) struct DriverCollector {
    route: Route,
    ethtool: Option<Ethtool>,
    listed: Option<Instant>,
    plans: Vec<(Device, Plan)>,
    rest: Rest,
}

impl Collector for DriverCollector {
    const NAME: &'static str = "driver";
    const HELP: &'static str = "losses, limits and cloud allowances from the driver statistics of up to 16 network \
                                devices; a run of more than 50 ms is followed by a rest 100 times as long, at most 60 s";
    type Output = Vec<DriverStatistics>;

    fn field(host: &mut Host) -> &mut Option<Vec<DriverStatistics>> {
        &mut host.driver_statistics
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<DriverStatistics>>, HostError> {
        let started = Instant::now();
        let outcome = self.run(paths);
        let took = started.elapsed();
        if took > PATIENCE {
            self.rest.begin((took * REST_FACTOR).min(LONGEST_REST));
        }
        outcome.map(Some)
    }
}

impl DriverCollector {
    fn run(&mut self, paths: &Paths) -> Result<Vec<DriverStatistics>, HostError> {
        let mut ethtool = match self.ethtool.take() {
            Some(ethtool) => ethtool,
            None => Ethtool::open().map_err(failed)?,
        };
        if self.listed.is_none_or(|listed| listed.elapsed() >= LIST_INTERVAL) {
            self.list(&mut ethtool, paths)?;
        }
        let mut found = self.read(&mut ethtool)?;
        if self.listed.is_none() {
            self.list(&mut ethtool, paths)?;
            found = self.read(&mut ethtool)?;
        }
        self.ethtool = Some(ethtool);
        Ok(found)
    }

    /// Reads every device; forgets when the list was made if it is no longer right.
    fn read(&mut self, ethtool: &mut Ethtool) -> Result<Vec<DriverStatistics>, HostError> {
        let mut found = Vec::with_capacity(self.plans.len());
        for (device, plan) in &self.plans {
            // By number: another device may have its name meanwhile.
            let Some(name) = ethtool.name(device.index).map_err(failed)? else {
                self.listed = None;
                continue;
            };
            match ethtool.values(&name, plan.count) {
                Ok(Some(values)) => found.push(plan.read(&device.name, values)),
                Ok(None) => self.listed = None,
                Err(error) => skip(device, error)?,
            }
        }
        Ok(found)
    }

    fn list(&mut self, ethtool: &mut Ethtool, paths: &Paths) -> Result<(), HostError> {
        self.plans.clear();
        for device in devices::list(&mut self.route, paths)? {
            let Some(name) = ethtool.name(device.index).map_err(failed)? else { continue };
            match ethtool.names(&name).map(Plan::new) {
                Ok(plan) if plan.is_empty() => {}
                Ok(plan) => self.plans.push((device, plan)),
                Err(error) => skip(&device, error)?,
            }
        }
        self.listed = Some(Instant::now());
        Ok(())
    }
}

/// A driver that fails has no statistics this time.
fn skip(device: &Device, error: io::Error) -> Result<(), HostError> {
    if !devices::is_of_driver(&error) {
        return Err(failed(error));
    }
    tracing::debug!(device = device.name, %error, "the driver of a network device does not tell its statistics");
    Ok(())
}

fn failed(source: io::Error) -> HostError {
    HostError::Netlink { operation: OPERATION, source }
}
