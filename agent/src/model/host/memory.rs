//! Memory and paging.

/// /proc/meminfo, in bytes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// `MemAvailable`: what programs could get without swapping.
    pub available: Option<u64>,
    /// `Cached`.
    pub cached: u64,
    /// `AnonPages`: memory of programs that is not backed by files.
    pub anonymous: Option<u64>,
    /// `Slab`: kernel objects, conntrack entries among them.
    pub slab: u64,
    /// `SReclaimable`: the part of `slab` that can be freed.
    pub slab_reclaimable: Option<u64>,
    /// `Dirty`: waits to be written.
    pub dirty: u64,
    /// `SwapTotal`.
    pub swap_total: u64,
    /// `SwapFree`.
    pub swap_free: u64,
    /// `Committed_AS`.
    pub committed: u64,
}

/// /proc/vmstat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// Pages read from swap (`pswpin`).
    pub swap_in_pages: Option<u64>,
    /// Pages written to swap (`pswpout`).
    pub swap_out_pages: Option<u64>,
    /// Page faults that had to read from a disk (`pgmajfault`).
    pub major_faults: Option<u64>,
    /// Pages that tasks looked at to free memory for themselves (`pgscan_direct`).
    pub direct_reclaim_scanned_pages: Option<u64>,
    /// Pages that the kernel looked at to free memory in time (`pgscan_kswapd`).
    pub background_reclaim_scanned_pages: Option<u64>,
    /// Times that a task had to free memory before it got some (`allocstall_…`, all zones).
    pub allocation_stalls: Option<u64>,
    /// Processes killed for want of memory (`oom_kill`).
    pub oom_kills: Option<u64>,
}
