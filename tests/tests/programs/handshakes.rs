//! Handshakes of either opener and family, with everything that can come between.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailgauge_ebpf::layout::{LEG_PEER, LEG_REMOTE, OPENER_HOST, OPENER_PEER};
use tailgauge_testbed::programs::Sizes;

use crate::flow::{Change, Flow, SLOT, SYN_ACK_SEQUENCE, SYN_SEQUENCE, assert_sample, flows, one, with_peer};
use crate::inner::{ACK, FIN, RST, SYN, Segment, ip, tcp_body};

/// Plays `story` on every flow and compares what it changed; `samples` are of the responder's and the opener's leg.
fn each(test: &str, story: impl Fn(&Flow<'_>), expected: impl Fn(usize) -> (Change, [u64; 2])) {
    let Some(programs) = with_peer(test, Sizes::default()) else { return };
    for flow in flows(&programs) {
        let before = flow.tcp();
        story(&flow);
        let (mut change, samples) = expected(flow.opener);
        change.samples[flow.responder_leg()] = samples[0];
        change.samples[flow.opener_leg()] = samples[1];
        assert_eq!(Change::between(&before, &flow.tcp()), change, "{:?} opens, {}", flow.opener, flow.peer);
    }
}

#[test]
fn both_legs_are_timed_whoever_opens() {
    let Some(programs) = with_peer("both_legs_are_timed", Sizes::default()) else { return };
    for flow in flows(&programs) {
        let before = flow.tcp();
        let syn = flow.syn();
        sleep(Duration::from_millis(3));
        let syn_ack = flow.syn_ack();
        sleep(Duration::from_millis(8));
        let ack = flow.ack();
        let after = flow.tcp();
        let expected = Change { opened: one(flow.opener), samples: [1, 1, 0], ..Change::default() };
        assert_eq!(Change::between(&before, &after), expected);
        // The far server answers a peer's SYN; the peer answers this side's.
        let (first, second) =
            if flow.opener == OPENER_PEER { (LEG_REMOTE, LEG_PEER) } else { (LEG_PEER, LEG_REMOTE) };
        assert_eq!((first, second), (flow.responder_leg(), flow.opener_leg()));
        assert_sample(&before.handshake[first], &after.handshake[first], &syn.until(syn_ack), 1_000);
        assert_sample(&before.handshake[second], &after.handshake[second], &syn_ack.until(ack), 1_000);
    }
}

#[test]
fn data_may_be_the_acknowledgement() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.syn_ack();
        flow.data(SYN_SEQUENCE + 1);
        flow.data(SYN_SEQUENCE + 501);
    };
    each("data_may_be_the_acknowledgement", story, |opener| {
        (Change { opened: one(opener), ..Change::default() }, [1, 1])
    });
}

#[test]
fn a_retransmitted_syn_makes_the_responders_leg_ambiguous() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.syn();
        flow.syn();
        flow.syn_ack();
        flow.ack();
    };
    each("a_retransmitted_syn", story, |opener| {
        let mut change = Change { opened: one(opener), ambiguous: 1, ..Change::default() };
        change.syn_retransmits[opener] = 2;
        (change, [0, 1])
    });
}

#[test]
fn a_retransmitted_syn_ack_makes_the_openers_leg_ambiguous() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.syn_ack();
        flow.syn_ack();
        flow.ack();
    };
    each("a_retransmitted_syn_ack", story, |opener| {
        let change = Change {
            opened: one(opener),
            ambiguous: 1,
            syn_ack_retransmits: one(opener),
            ..Change::default()
        };
        (change, [1, 0])
    });
}

#[test]
fn a_syn_again_after_its_answer_spoils_nothing_that_was_measured() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.syn_ack();
        flow.syn();
        flow.ack();
    };
    each("a_syn_again_after_its_answer", story, |opener| {
        (Change { opened: one(opener), syn_retransmits: one(opener), ..Change::default() }, [1, 1])
    });
}

#[test]
fn copies_that_come_after_the_handshake_open_nothing() {
    let story = |flow: &Flow<'_>| {
        flow.establish();
        flow.syn();
        flow.syn_ack();
        flow.ack();
    };
    each("copies_that_come_after_the_handshake", story, |opener| {
        let change = Change {
            opened: one(opener),
            syn_retransmits: one(opener),
            syn_ack_retransmits: one(opener),
            ..Change::default()
        };
        (change, [1, 1])
    });
}

#[test]
fn answers_that_acknowledge_something_else_are_not_believed() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.responder(SYN | ACK, SYN_ACK_SEQUENCE, SYN_SEQUENCE);
        flow.responder(SYN | ACK, SYN_ACK_SEQUENCE, SYN_SEQUENCE + 5_000);
        flow.responder(RST | ACK, 0, SYN_SEQUENCE + 5_000);
        flow.responder(RST, 0, 0);
        flow.opener(ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE.wrapping_add(1));
        flow.syn_ack();
        flow.opener(ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE);
        flow.opener(ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE.wrapping_add(2));
        flow.responder(ACK, SYN_SEQUENCE + 1, SYN_ACK_SEQUENCE.wrapping_add(1));
    };
    each("answers_that_acknowledge_something_else", story, |_| (Change::default(), [1, 0]));
}

#[test]
fn data_on_the_syn_may_be_acknowledged() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.responder(SYN | ACK, SYN_ACK_SEQUENCE, SYN_SEQUENCE + 1 + 600);
        flow.opener(ACK, SYN_SEQUENCE + 601, SYN_ACK_SEQUENCE.wrapping_add(1));
    };
    each("data_on_the_syn", story, |opener| (Change { opened: one(opener), ..Change::default() }, [1, 1]));
}

#[test]
fn a_closed_port_refuses_once() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.refuse();
        flow.refuse();
    };
    each("a_closed_port_refuses_once", story, |opener| {
        (Change { refused: one(opener), ..Change::default() }, [0, 0])
    });
}

#[test]
fn a_scan_that_resets_the_answer_is_refused_not_opened() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.syn_ack();
        flow.opener(RST, SYN_SEQUENCE + 1, 0);
        flow.ack();
    };
    each("a_scan_that_resets_the_answer", story, |opener| {
        (Change { refused: one(opener), ..Change::default() }, [1, 0])
    });
}

#[test]
fn another_sequence_number_on_the_same_ports_is_another_attempt() {
    let story = |flow: &Flow<'_>| {
        flow.opener(SYN, 77, 0);
        flow.syn();
        flow.responder(SYN | ACK, 5, 78);
        flow.syn_ack();
        flow.ack();
    };
    each("another_sequence_number_on_the_same_ports", story, |opener| {
        (Change { opened: one(opener), timed_out: one(opener), ..Change::default() }, [1, 1])
    });
}

#[test]
fn what_was_given_up_and_completes_late_is_opened_without_a_sample() {
    let Some(mut programs) = with_peer("what_was_given_up_and_completes_late", Sizes::default()) else {
        return;
    };
    let keys: Vec<_> = flows(&programs)
        .iter()
        .map(|flow| {
            flow.syn();
            flow.key()
        })
        .collect();
    // As the agent's sweep does it.
    let mut handshakes = programs.handshakes().unwrap();
    for key in &keys {
        let mut handshake = handshakes.get(key, 0).unwrap();
        handshake.timed_out = 1;
        handshakes.insert(key, handshake, 2).unwrap();
    }
    for flow in flows(&programs) {
        let before = flow.tcp();
        flow.syn();
        flow.syn_ack();
        flow.ack();
        let change =
            Change { opened: one(flow.opener), syn_retransmits: one(flow.opener), ..Change::default() };
        assert_eq!(Change::between(&before, &flow.tcp()), change);
    }
}

#[test]
fn a_simultaneous_open_is_one_connection_without_samples() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.responder(SYN, SYN_ACK_SEQUENCE, 0);
        flow.syn_ack();
        flow.opener(SYN | ACK, SYN_SEQUENCE, SYN_ACK_SEQUENCE.wrapping_add(1));
        flow.data(SYN_SEQUENCE + 1);
    };
    each("a_simultaneous_open", story, |opener| {
        (Change { opened: one(opener), ambiguous: 2, ..Change::default() }, [0, 0])
    });
}

#[test]
fn a_responder_that_starts_over_is_timed_from_the_answer_that_was_acknowledged() {
    let story = |flow: &Flow<'_>| {
        flow.syn();
        flow.responder(SYN | ACK, 12_345, SYN_SEQUENCE + 1);
        flow.syn_ack();
        flow.ack();
    };
    each("a_responder_that_starts_over", story, |opener| {
        (Change { opened: one(opener), ..Change::default() }, [1, 1])
    });
}

#[test]
fn the_peer_that_sent_the_syn_owns_the_handshake() {
    let Some(mut programs) = with_peer("the_peer_that_sent_the_syn", Sizes::default()) else { return };
    flows(&programs)[0].syn();
    programs.add_peer_v4("100.64.0.1".parse().unwrap(), SLOT + 1).unwrap();
    let flow = flows(&programs)[0];
    flow.syn_ack();
    flow.ack();
    assert_eq!(flow.tcp().opened, one(flow.opener));
    assert_eq!(programs.tcp(SLOT + 1).unwrap().opened, [0, 0]);
}

#[test]
fn headers_that_are_not_where_they_usually_are_are_read_too() {
    let Some(programs) = with_peer("headers_that_are_not_where_they_usually_are", Sizes::default()) else {
        return;
    };
    let run = |direction: u32, packet: &[u8]| {
        programs.run(direction, packet, 0).unwrap();
    };
    for flow in flows(&programs).into_iter().filter(|flow| flow.opener == OPENER_PEER) {
        let before = flow.tcp();
        let (first, between) =
            if flow.peer.is_ipv6() { (60, vec![6, 0, 1, 4, 0, 0, 0, 0]) } else { (6, vec![1; 8]) };
        let segment = |from_peer: bool, flags, sequence, acknowledgement| {
            let (from, to) = if from_peer { (flow.peer, flow.other) } else { (flow.other, flow.peer) };
            let segment = Segment { flags, sequence, acknowledgement, options: 20, payload: 0 };
            ip(from.ip(), to.ip(), first, &between, &tcp_body(from.port(), to.port(), segment))
        };
        run(0, &segment(true, SYN, 9, 0));
        run(1, &segment(false, SYN | ACK, 99, 10));
        run(0, &segment(true, ACK, 10, 100));
        let expected = Change { opened: one(OPENER_PEER), samples: [1, 1, 0], ..Change::default() };
        assert_eq!(Change::between(&before, &flow.tcp()), expected);
    }
}

#[test]
fn a_syn_with_fin_is_no_handshake() {
    let story = |flow: &Flow<'_>| {
        flow.opener(SYN | FIN, SYN_SEQUENCE, 0);
        flow.ack();
    };
    each("a_syn_with_fin", story, |_| (Change::default(), [0, 0]));
}

/// Thousands at once: more than the filter and a small table can tell apart, and still no sample is wrong.
#[test]
fn crowding_loses_samples_and_says_so_but_no_connection() {
    let sizes = Sizes { flows: 16_384, ..Sizes::default() };
    let Some(programs) = with_peer("crowding_loses_samples", sizes) else { return };
    let flow = flows(&programs)[OPENER_HOST];
    let mut random = StdRng::seed_from_u64(0x6761_7567);
    // Every flow with a number of its own: what another one left in the cell does not fit.
    let crowd: Vec<_> = (0..4000u32)
        .map(|number| {
            let address = [192, 0, (number >> 8) as u8, number as u8];
            let other = SocketAddr::from((address, random.random_range(1024..=u16::MAX)));
            (Flow { other, ..flow }, 1000 * (number + 1))
        })
        .collect();
    for (flow, _) in &crowd {
        flow.syn();
    }
    for (flow, sequence) in &crowd {
        flow.responder(SYN | ACK, *sequence, SYN_SEQUENCE + 1);
    }
    for (flow, sequence) in &crowd {
        flow.opener(ACK, SYN_SEQUENCE + 1, sequence + 1);
    }
    // An ACK that the filter missed is made up for by the FIN.
    for (flow, sequence) in &crowd {
        flow.responder(FIN | ACK, sequence + 1, SYN_SEQUENCE + 1);
    }
    let tcp = flow.tcp();
    assert_eq!(tcp.opened, [0, 4000]);
    assert_eq!(tcp.closed_fin, 4000);
    assert_eq!(tcp.handshake[LEG_PEER].count, 4000);
    assert_eq!(tcp.handshake[LEG_REMOTE].count + tcp.lost, 4000);
    assert_eq!(tcp.duration.count + tcp.lost, 4000);
    assert!(tcp.lost > 0 && tcp.lost < 400, "{} of 4000 shared a cell", tcp.lost);
}

#[test]
fn a_handshake_that_was_forgotten_before_its_acknowledgement_is_lost_once() {
    let Some(mut programs) = with_peer("a_handshake_that_was_forgotten", Sizes::default()) else { return };
    for place in 0..4 {
        let (key, before) = {
            let flow = flows(&programs)[place];
            flow.syn();
            flow.responder(SYN | ACK, 7000, SYN_SEQUENCE + 1);
            (flow.key(), flow.tcp())
        };
        programs.handshakes().unwrap().remove(&key).unwrap();
        let flow = flows(&programs)[place];
        for acknowledgement in [7002, 7001, 7001, 7501] {
            flow.opener(ACK, SYN_SEQUENCE + 1, acknowledgement);
        }
        flow.responder(FIN | ACK, 7501, SYN_SEQUENCE + 1);
        assert_eq!(Change::between(&before, &flow.tcp()), Change { lost: 1, ..Change::default() });
        // One that completes is not.
        let before = flow.tcp();
        flow.syn();
        flow.responder(SYN | ACK, 7000, SYN_SEQUENCE + 1);
        for _ in 0..3 {
            flow.opener(ACK, SYN_SEQUENCE + 1, 7001);
        }
        let expected = Change { opened: one(flow.opener), samples: [1, 1, 0], ..Change::default() };
        assert_eq!(Change::between(&before, &flow.tcp()), expected);
    }
}

#[test]
fn every_handshake_that_a_small_table_forgot_is_lost() {
    let sizes = Sizes { flows: 128, ..Sizes::default() };
    let Some(programs) = with_peer("every_handshake_that_a_small_table_forgot", sizes) else { return };
    let flow = flows(&programs)[OPENER_PEER];
    let numbers = || (0..2000u16).map(|place| (10_000 + place, 7000 * (u32::from(place) + 1)));
    for (port, sequence) in numbers() {
        flow.with_port(port).syn();
        flow.with_port(port).responder(SYN | ACK, sequence, SYN_SEQUENCE + 1);
    }
    for (port, sequence) in numbers() {
        flow.with_port(port).opener(ACK, SYN_SEQUENCE + 1, sequence + 1);
    }
    let tcp = flow.tcp();
    let known = tcp.opened[OPENER_PEER] + tcp.lost;
    assert!(tcp.opened[OPENER_PEER] <= 128 && known <= 2000, "{tcp:?}");
    assert!(known >= 1900, "{} of 2000 shared a cell of the filter", 2000 - known);
}

#[test]
fn a_full_table_loses_samples_and_says_so() {
    let sizes = Sizes { flows: 128, ..Sizes::default() };
    let Some(programs) = with_peer("a_full_table_loses_samples", sizes) else { return };
    let flow = flows(&programs)[OPENER_PEER];
    for port in 0..2000 {
        flow.with_port(10_000 + port).syn();
    }
    for port in 0..2000 {
        flow.with_port(10_000 + port).syn_ack();
    }
    let tcp = flow.tcp();
    assert_eq!(tcp.handshake[LEG_REMOTE].count + tcp.lost, 2000);
    assert!(tcp.lost >= 1800, "{} of 2000 did not fit into 128", tcp.lost);
}
