//! The testbed: namespaces, adjustable links and a miniature tailnet of real TUN devices.

pub mod programs;
