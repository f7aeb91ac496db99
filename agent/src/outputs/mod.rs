//! Pure functions of the model.

pub mod prometheus;
