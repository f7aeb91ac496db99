//! Collectors `ethtool` and `driver`: what network devices say of themselves beyond their counters.
//!
//! Settings come by generic netlink (Documentation/networking/ethtool-netlink.rst). Names and statistics of drivers do not:
//! the kernel has their values only by ioctl, and netlink could not list the names of a large driver either, since
//! an attribute ends at 64 KiB.

mod devices;
mod driver;
mod features;
mod genetlink;
mod ioctl;
mod settings;
mod statistics;

pub(super) use driver::DriverCollector;
pub(super) use settings::EthtoolCollector;
