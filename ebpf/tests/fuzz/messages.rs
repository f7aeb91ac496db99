//! Messages, spoilt.

use tailgauge_ebpf::layout::Kind;
use tailgauge_ebpf::message::{HEAD, read, read_transport};

use crate::formats::{messages, reference, relayed};
use crate::random::Random;

pub fn check(random: &mut Random) {
    let (sender, receiver, counter) = (random.next() as u32, random.next() as u32, random.next());
    let mut message = *random.pick(&messages(sender, receiver, counter));
    for _ in 0..random.below(3) {
        message = relayed(message, *random.pick(&[0x11, 0x12, 0x12, 0x13]), random.below(1 << 24) as u32);
    }
    let (mut head, mut length) = message;
    let mut bytes = head.to_vec();
    random.spoil(&mut bytes);
    head.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    length = match random.below(8) {
        0 => random.next() as u32,
        1 => random.below(200) as u32,
        2 => length.saturating_add_signed(random.below(5) as i32 - 2),
        _ => length,
    };
    let message = read(words(&head), length);
    assert_eq!(message, reference(&head, length), "{head:x?}, {length} bytes");
    // The half that is read first says the same.
    let transport = read_transport(words(&head), length);
    let is_data = message.kind == Kind::Data;
    assert_eq!((transport.relay, transport.is_data), (message.relay, u32::from(is_data)), "{head:x?}");
    if is_data {
        assert_eq!((transport.receiver, transport.counter), (message.receiver, message.counter), "{head:x?}");
        assert!(length >= 32);
    }
    assert!(message.relay <= 1 << 24);
}

/// The bytes as little-endian words.
fn words(head: &[u8; HEAD]) -> [u64; HEAD / 8] {
    let mut words = [0; HEAD / 8];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
