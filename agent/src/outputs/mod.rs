//! Pure functions of the model, and the HTTP server that hands them out.

pub mod compat;
pub mod http;
pub mod own;
pub mod prometheus;
