//! tailgauge: sources fill the [`model`], outputs are pure functions of it.
//!
//! Data flows one way. A source knows one place outside (a kernel map, a socket, a file) and fills its own
//! part of the model; an output reads nothing but the model. [`agent`] wires them together.

pub mod agent;
pub mod check;
pub mod cli;
pub mod collectors;
pub mod listeners;
pub mod logging;
pub mod model;
pub mod outputs;
pub mod sources;
pub mod tasks;
pub mod tick;
