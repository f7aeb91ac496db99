//! What several tests share.

mod host;
pub(crate) mod model;
pub(crate) mod reader;
mod underlay;
