//! A device that drops whatever it receives, and counts it as its driver does.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Commands of bpf(2) and what they are given (include/uapi/linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// `r0 = XDP_DROP`, `exit`.
const DROP: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// As much of `union bpf_attr` as is needed to load a program.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: *const [u8; 8],
    license: *const libc::c_char,
    log: [u32; 4],
    more: [u32; 8],
}

/// As much of `union bpf_attr` as is needed to attach it.
#[repr(C)]
struct Attach {
    program: i32,
    device: u32,
    hook: u32,
    flags: u32,
    more: [u32; 8],
}

/// Drops every packet that the device with this number receives, until the guard is dropped. Needs root.
///
/// # Errors
/// The kernel refuses.
pub fn drop_all(device: u32) -> io::Result<OwnedFd> {
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions: DROP.len() as u32,
        code: DROP.as_ptr(),
        license: c"GPL".as_ptr(),
        log: [0; 4],
        more: [0; 8],
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    bpf(
        BPF_LINK_CREATE,
        &Attach { program: program.as_raw_fd(), device, hook: BPF_XDP, flags: 0, more: [0; 8] },
    )
}

fn bpf<T>(command: libc::c_long, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is of the kernel's layout, zero where nothing is said, and what it points to is static.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(outcome as i32) })
}
