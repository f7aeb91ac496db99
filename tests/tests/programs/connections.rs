//! Established connections, and how they end.

use std::thread::sleep;
use std::time::Duration;

use tailgauge_testbed::programs::Sizes;

use crate::flow::{Change, SLOT, SYN_ACK_SEQUENCE, SYN_SEQUENCE, assert_sample, flows, one, with_peer};
use crate::inner::{ACK, RST, SYN};

#[test]
fn the_first_fin_of_either_side_closes_once_and_gives_the_duration() {
    let Some(programs) = with_peer("the_first_fin_of_either_side", Sizes::default()) else { return };
    for opener_first in [true, false] {
        for flow in flows(&programs) {
            let before = flow.tcp();
            let [_, _, established] = flow.establish();
            sleep(Duration::from_millis(5));
            let closed = if opener_first { flow.fin_of_opener() } else { flow.fin_of_responder() };
            let after = flow.tcp();
            assert_sample(&before.duration, &after.duration, &established.until(closed), 1_000_000);
            flow.fin_of_responder();
            flow.fin_of_opener();
            flow.opener(RST, SYN_SEQUENCE + 2, 0);
            flow.ack();
            let expected =
                Change { opened: one(flow.opener), closed_fin: 1, samples: [1, 1, 1], ..Change::default() };
            assert_eq!(Change::between(&before, &flow.tcp()), expected);
        }
    }
}

#[test]
fn a_reset_of_either_side_closes_once() {
    let Some(programs) = with_peer("a_reset_of_either_side", Sizes::default()) else { return };
    for by_opener in [true, false] {
        for flow in flows(&programs) {
            let before = flow.tcp();
            flow.establish();
            flow.data(SYN_SEQUENCE + 1);
            if by_opener {
                flow.opener(RST, SYN_SEQUENCE + 501, 0);
            } else {
                flow.responder(RST | ACK, SYN_ACK_SEQUENCE.wrapping_add(1), SYN_SEQUENCE + 501);
            }
            flow.opener(RST, SYN_SEQUENCE + 501, 0);
            flow.fin_of_responder();
            let expected =
                Change { opened: one(flow.opener), closed_reset: 1, samples: [1, 1, 1], ..Change::default() };
            assert_eq!(Change::between(&before, &flow.tcp()), expected);
        }
    }
}

#[test]
fn the_acknowledgement_may_come_with_the_fin() {
    let Some(programs) = with_peer("the_acknowledgement_may_come_with_the_fin", Sizes::default()) else {
        return;
    };
    for flow in flows(&programs) {
        let before = flow.tcp();
        flow.syn();
        flow.syn_ack();
        flow.fin_of_opener();
        let expected =
            Change { opened: one(flow.opener), closed_fin: 1, samples: [1, 1, 1], ..Change::default() };
        assert_eq!(Change::between(&before, &flow.tcp()), expected);
    }
}

#[test]
fn an_end_without_a_beginning_counts_nothing() {
    let Some(programs) = with_peer("an_end_without_a_beginning", Sizes::default()) else { return };
    for flow in flows(&programs) {
        let before = flow.tcp();
        flow.fin_of_opener();
        flow.fin_of_responder();
        flow.opener(RST, 1, 0);
        flow.responder(RST | ACK, 0, 1);
        flow.data(5);
        flow.syn();
        flow.fin_of_opener();
        assert_eq!(Change::between(&before, &flow.tcp()), Change::default());
        flow.refuse();
    }
}

#[test]
fn ports_are_used_again_before_and_after_the_end_was_seen() {
    let Some(programs) = with_peer("ports_are_used_again", Sizes::default()) else { return };
    for flow in flows(&programs) {
        let before = flow.tcp();
        flow.establish();
        flow.fin_of_opener();
        flow.establish();
        // Neither FIN nor RST was seen of that one: the host slept, or it went another way.
        flow.opener(SYN, 777, 0);
        flow.responder(SYN | ACK, 888, 778);
        flow.opener(ACK, 778, 889);
        flow.opener(RST, 778, 0);
        let mut expected = Change { closed_fin: 1, closed_reset: 1, samples: [3, 3, 2], ..Change::default() };
        expected.opened[flow.opener] = 3;
        assert_eq!(Change::between(&before, &flow.tcp()), expected);
    }
}

#[test]
fn a_refused_attempt_on_the_ports_of_a_living_connection_leaves_it_alone() {
    let Some(programs) = with_peer("a_refused_attempt_on_the_ports", Sizes::default()) else { return };
    for flow in flows(&programs) {
        let before = flow.tcp();
        flow.establish();
        flow.opener(SYN, 777, 0);
        flow.responder(RST | ACK, 0, 778);
        flow.data(SYN_SEQUENCE + 1);
        flow.fin_of_opener();
        let expected = Change {
            opened: one(flow.opener),
            refused: one(flow.opener),
            closed_fin: 1,
            samples: [1, 1, 1],
            ..Change::default()
        };
        assert_eq!(Change::between(&before, &flow.tcp()), expected);
    }
}

#[test]
fn plain_segments_of_a_connection_change_nothing() {
    let Some(mut programs) = with_peer("plain_segments_of_a_connection", Sizes::default()) else { return };
    for flow in flows(&programs) {
        flow.establish();
    }
    let before = programs.tcp(SLOT).unwrap();
    for flow in flows(&programs) {
        for step in 1..50 {
            flow.data(SYN_SEQUENCE + step * 500);
            flow.responder(ACK, SYN_ACK_SEQUENCE.wrapping_add(1), SYN_SEQUENCE + step * 500);
        }
    }
    assert_eq!(programs.tcp(SLOT).unwrap(), before);
    assert_eq!(programs.connections().unwrap().keys().count(), 4);
    assert_eq!(programs.handshakes().unwrap().keys().count(), 0);
}
