//! Messages that nobody would send, through the programs: each is counted as what the formats say that it is.

use tailgauge_ebpf::layout::{Kind, PATH_DIRECT_IPV4, PATH_PEER_RELAY_IPV4, RECEIVE, UNATTRIBUTED};
use tailgauge_ebpf::message::HEAD;
use tailgauge_testbed::programs::{BOTH, Programs};

use crate::formats::{messages, reference, relayed};
use crate::messages::{PEER, pass, with_peer};
use crate::random::Random;

const CASES: u64 = 20_000;
const SEED: u64 = 20_261_125;

/// Messages by direction: of each kind, and transport messages directly and by a relay.
fn counted(programs: &Programs) -> [([u64; 9], [u64; 2]); 2] {
    let seen = programs.messages().unwrap().seen;
    BOTH.map(|direction| {
        let mut data = [0; 2];
        for slot in [UNATTRIBUTED, PEER] {
            let path = programs.peer_underlay(slot, direction).unwrap().path;
            data[0] += path[PATH_DIRECT_IPV4].data;
            data[1] += path[PATH_PEER_RELAY_IPV4].data;
        }
        (seen[direction as usize], data)
    })
}

#[test]
fn spoilt_messages_are_counted_as_what_they_are() {
    let Some(programs) = with_peer("spoilt messages") else { return };
    let mut expected = counted(&programs);
    for case in 0..CASES {
        let random = &mut Random::new(SEED, case);
        let (sender, receiver, counter) = (random.next() as u32, random.below(20) as u32, random.below(1000));
        let mut message = *random.pick(&messages(sender, receiver, counter));
        if random.chance(3) {
            message = relayed(message, *random.pick(&[0x11, 0x12, 0x13]), random.below(9) as u32);
        }
        let (head, length) = message;
        let mut payload = head.to_vec();
        payload.resize(length as usize, 0xee);
        random.spoil(&mut payload);
        let direction = *random.pick(&BOTH);
        pass(&programs, direction, &payload);

        let (seen, data) = &mut expected[direction as usize];
        let mut head = [0; HEAD];
        head.iter_mut().zip(&payload).for_each(|(to, byte)| *to = *byte);
        let message = reference(&head, payload.len() as u32);
        match message.kind {
            Kind::Data => data[usize::from(message.relay != 0)] += 1,
            // A single byte is appended for some kernels.
            _ if payload.len() < 2 => {}
            kind => seen[kind as usize] += 1,
        }
        assert_eq!(counted(&programs), expected, "case {case}, {direction}: {payload:x?}");
    }
    assert!(expected[RECEIVE as usize].1.iter().all(|data| *data > 100), "{expected:?}");
}
