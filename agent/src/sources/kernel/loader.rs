//! A loader that has not read the kernel's BTF.
//!
//! aya's only constructor reads and parses /sys/kernel/btf/vmlinux: 5 MiB of it, a third of the agent's time to start
//! and most of its memory, for relocations that the object does not have. Without the file it does without, so the
//! loader is made on a thread that cannot open files.

use std::{io, thread};

use aya::EbpfLoader;

/// A loader without BTF, or with it where threads cannot be confined: that costs time and memory, no more.
pub(super) fn without_btf() -> EbpfLoader<'static> {
    let confined = thread::Builder::new().name("loader".to_owned()).spawn(|| {
        if let Err(error) = forbid_opening_files() {
            tracing::debug!(%error, "the kernel's BTF will be read in vain");
        }
        EbpfLoader::new()
    });
    let made = confined.ok().and_then(|thread| thread.join().ok());
    let mut loader = made.unwrap_or_default();
    loader.btf(None);
    loader
}

/// From now on the calling thread, and no other, gets EACCES when it opens a file.
fn forbid_opening_files() -> io::Result<()> {
    let step =
        |code: u32, skip_else: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: skip_else, k };
    let mut steps = [
        // The number of the system call is the first field of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_openat as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // What the kernel asks of those who confine themselves without privileges.
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the filter points to `len` live steps, which the kernel copies.
    let outcome =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_the_confined_thread_cannot_open_files() {
        let confined = thread::spawn(|| {
            forbid_opening_files().unwrap();
            File::open("/dev/null").map(drop).map_err(|error| error.kind())
        });
        assert_eq!(confined.join().unwrap(), Err(io::ErrorKind::PermissionDenied));
        File::open("/dev/null").unwrap();
    }
}
