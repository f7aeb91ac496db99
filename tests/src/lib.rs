//! The testbed: namespaces, adjustable links and a miniature tailnet of real TUN devices.

pub mod leftovers;
pub mod needs;
pub mod netns;
pub mod process;
