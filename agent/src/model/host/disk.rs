//! Disks and what is mounted of them.

/// One line of /proc/diskstats (Documentation/admin-guide/iostats.rst).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    /// Kernel name, such as `vda`.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Seconds all reads took together.
    pub read_seconds: f64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Seconds all writes took together.
    pub write_seconds: f64,
    /// Operations under way now.
    pub io_now: u64,
    /// Seconds during which at least one operation was under way.
    pub io_seconds: f64,
    /// Seconds weighted by the number of operations under way.
    pub io_weighted_seconds: f64,
}

/// Space of one mounted file system (statvfs of its first mount).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// What is mounted, such as `/dev/vda`; cleaned.
    pub device: String,
    /// Where; cleaned.
    pub mount_point: String,
    /// File system type.
    pub fstype: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Free bytes for everyone.
    pub available_bytes: u64,
    /// Inodes; 0 where the file system has no fixed number.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}
