//! The `tailgauge` command.

fn main() {}
