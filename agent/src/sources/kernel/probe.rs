//! What this host offers to the kernel source, for `tailgauge check`.
