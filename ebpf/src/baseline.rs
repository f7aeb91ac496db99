//! What `cargo xtask bench` compares the programs with: an empty classifier, and the least that a per-address
//! counter can be; and what gives them another WireGuard message each time. Not part of the product.
#![no_std]
#![no_main]

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY},
    macros::map,
    maps::{PerCpuHashMap, ProgramArray},
    programs::TcContext,
};

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The same licence as the programs themselves.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Packets and bytes by source address, IPv4 as ::ffff:a.b.c.d.
#[map]
static ADDRESSES: PerCpuHashMap<[u32; 4], [u64; 2]> = PerCpuHashMap::with_max_entries(16_384, 0);

const NEXT: i32 = -1;

/// Does nothing: what a classifier costs at least.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn empty(_skb: *mut __sk_buff) -> i32 {
    NEXT
}

/// Looks the source address up and adds twice; inserts it when it is new.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn minimal(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed; the packet within the bounds that are compared.
    unsafe {
        let (start, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if start + 20 > end {
            return NEXT;
        }
        let address = match *(start as *const u8) >> 4 {
            4 => [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), *((start + 12) as *const u32)],
            6 if start + 40 <= end => [
                *((start + 8) as *const u32),
                *((start + 12) as *const u32),
                *((start + 16) as *const u32),
                *((start + 20) as *const u32),
            ],
            _ => return NEXT,
        };
        let length = u64::from((*skb).len);
        if let Some(counter) = ADDRESSES.get_ptr_mut(&address) {
            let counter = counter.cast::<u64>();
            ptr::write(counter, ptr::read(counter) + 1);
            ptr::write(counter.add(1), ptr::read(counter.add(1)) + length);
        } else {
            let _ = ADDRESSES.insert(&address, &[1, length], u64::from(BPF_ANY));
        }
    }
    NEXT
}

/// The program that [`advance`] goes on to.
#[map]
static SUBJECT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Bytes before the UDP payload: Ethernet, IPv4 without options, UDP.
const HEADERS: u32 = 14 + 20 + 8;
/// Where the counter is in a transport message.
const COUNTER: u32 = 8;
/// Messages of a packet, and bytes up to the last counter, at most: what a test run takes is a page.
const MESSAGES: u32 = 64;
const REACH: u32 = 4095;

/// Counts the transport messages of a packet on to those that come after them, and goes on to the program under test:
/// a test run repeats the same packet, and a counter that was seen is no message that came. With [`empty`] as that
/// program, it shows what this costs by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn advance(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context that the kernel passed; the packet within the bounds that are compared.
    unsafe {
        let (start, end) = ((*skb).data as usize, (*skb).data_end as usize);
        let (length, gso_size) = ((*skb).len.saturating_sub(HEADERS), (*skb).gso_size);
        let size = if gso_size == 0 { length.max(1) } else { gso_size };
        let messages = u64::from(length.div_ceil(size));
        let mut at = HEADERS + COUNTER;
        let mut message = 0;
        while message < MESSAGES && at <= REACH {
            let counter = start + at as usize;
            if counter + 8 > end {
                break;
            }
            let counter = counter as *mut u64;
            ptr::write(counter, ptr::read(counter) + messages);
            at += size;
            message += 1;
        }
        SUBJECT.tail_call(&TcContext::new(skb), 0);
    }
    // Nothing was measured; the caller sees it in the counts of the program.
    NEXT
}
