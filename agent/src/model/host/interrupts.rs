//! Soft interrupts.

/// /proc/softirqs (`show_softirqs` in fs/proc/softirqs.c): how often each ran on each CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Softirqs {
    /// CPU numbers, in the order of the columns.
    pub cpus: Vec<u32>,
    /// Rows in the order of the file.
    pub vectors: Vec<SoftirqVector>,
}

/// One kind of soft interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftirqVector {
    /// Kernel name, such as `NET_RX`; cleaned.
    pub name: String,
    /// Times that it ran, by column.
    pub runs: Vec<u64>,
}

/// Interrupts of one network device (/proc/interrupts), all of its queues taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInterrupts {
    /// Name of the device; cleaned.
    pub device: String,
    /// Interrupts that it has, one a queue with most drivers.
    pub lines: u64,
    /// How often one came, by CPU number, in the order of the columns. Interrupts that the device got later count from
    /// then on.
    pub by_cpu: Vec<(u32, u64)>,
}
