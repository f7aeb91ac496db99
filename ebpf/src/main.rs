//! The kernel programs: one module a hook, plus what the hooks share.
#![no_std]
#![no_main]
// Inline assembly on BPF is unstable; the target has no compare-and-swap in `core::sync::atomic`.
#![feature(asm_experimental_arch)]

mod programs;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets programs use helpers that the kernel gives only to GPL-compatible ones.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
