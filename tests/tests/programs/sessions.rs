//! The counters of WireGuard sessions, as they arrive.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tailgauge_ebpf::layout::{RECEIVE, ROLE_UNSEEN, SESSION_WAYS, Session, TRANSMIT};
use tailgauge_testbed::programs::{Programs, Sizes};
use tailgauge_testbed::underlay::messages::{initiation, response, transport};

use crate::messages::{pass, pass_joined, pass_with, with_peer};
use crate::underlay::sockets;

/// This node's index of the session.
const OURS: u32 = 0x0102_0304;

/// Programs that saw the handshake of a session with a peer whose data comes by UDP.
fn established(test: &str) -> Option<Programs> {
    let programs = with_peer(test)?;
    // The session before.
    pass(&programs, RECEIVE, &transport(OURS + 1, 1000, 64));
    pass(&programs, TRANSMIT, &initiation(OURS));
    pass(&programs, RECEIVE, &response(0x99, OURS));
    Some(programs)
}

fn arrive(programs: &Programs, counters: impl IntoIterator<Item = u64>) {
    counters.into_iter().for_each(|counter| pass(programs, RECEIVE, &transport(OURS, counter, 64)));
}

/// Received, reordered, duplicated, lost for certain, unjudged.
fn account(programs: &Programs) -> [u64; 5] {
    let Session { received, reordered, duplicated, lost, unjudged, .. } =
        programs.session(OURS).unwrap().unwrap();
    [received, reordered, duplicated, lost, unjudged]
}

#[test]
fn each_counter_is_received_reordered_duplicated_or_lost() {
    let Some(programs) = established("sequence") else { return };
    arrive(&programs, 0..10);
    assert_eq!(account(&programs), [10, 0, 0, 0, 0]);
    arrive(&programs, [12, 11, 13, 13, 5]);
    assert_eq!(account(&programs), [13, 1, 2, 0, 0], "10 may still come");
    arrive(&programs, 14..3000);
    assert_eq!(account(&programs), [2999, 1, 2, 1, 0], "10 cannot come any more");
    arrive(&programs, [10]);
    assert_eq!(account(&programs), [2999, 1, 2, 1, 1]);
    let session = programs.session(OURS).unwrap().unwrap();
    assert_eq!((session.next, session.slot), (3000, 2));
}

#[test]
fn the_first_messages_of_a_session_are_missed_when_data_came_by_udp_before() {
    let Some(programs) = established("start") else { return };
    arrive(&programs, 3..2100);
    assert_eq!(account(&programs), [2097, 0, 0, 3, 0]);
    let Some(programs) = with_peer("first session") else { return };
    pass(&programs, TRANSMIT, &initiation(OURS));
    pass(&programs, RECEIVE, &response(0x99, OURS));
    arrive(&programs, 3..2100);
    assert_eq!(account(&programs), [2097, 0, 0, 0, 0], "they may have gone by DERP");
    arrive(&programs, [2]);
    assert_eq!(account(&programs), [2097, 0, 0, 0, 1]);
}

#[test]
fn a_gap_before_a_change_of_endpoint_or_after_silence_is_not_judged() {
    let Some(programs) = established("roaming") else { return };
    let elsewhere: SocketAddr = "203.0.113.200:1234".parse().unwrap();
    arrive(&programs, 0..10);
    for counter in 20..30 {
        pass_with(&programs, RECEIVE, elsewhere, &transport(OURS, counter, 64));
    }
    // The peer is known by its session, and so is its new endpoint, both ways.
    pass_with(&programs, TRANSMIT, elsewhere, &transport(0x99, 1, 64));
    let sent = programs.peer_underlay(2, TRANSMIT).unwrap();
    assert_eq!(sent.path[0].data, 1);
    // More than 3 s, after which the messages may have gone by DERP.
    thread::sleep(Duration::from_millis(3100));
    for counter in 40..2200 {
        pass_with(&programs, RECEIVE, elsewhere, &transport(OURS, counter, 64));
    }
    assert_eq!(account(&programs), [10 + 10 + 2160, 0, 0, 0, 0]);
}

#[test]
fn long_gaps_and_absurd_counters() {
    let Some(programs) = established("gaps") else { return };
    arrive(&programs, 0..40);
    arrive(&programs, [40 + 5000]);
    let [received, _, _, lost, _] = account(&programs);
    assert_eq!(received, 41);
    assert!((5000 - 2048..=5000).contains(&lost), "{lost}: the newest may still come");
    arrive(&programs, [u64::MAX, 1 << 63]);
    arrive(&programs, 5041..5041 + 2048);
    assert_eq!(account(&programs), [41 + 2048, 0, 0, 5000, 2]);
}

#[test]
fn joined_messages_are_the_same_as_single_ones() {
    let Some(programs) = established("joined") else { return };
    let order = [0, 1, 2, 5, 4, 6, 6, 9, 8, 40, 7, 41, 100, 101];
    let messages: Vec<_> = order.iter().map(|counter| transport(OURS, *counter, 64)).collect();
    pass_joined(&programs, RECEIVE, sockets(false).0, &messages);
    let joined = programs.session(OURS).unwrap().unwrap();
    let Some(programs) = established("single") else { return };
    arrive(&programs, order);
    let single = programs.session(OURS).unwrap().unwrap();
    assert_eq!(joined.ring, single.ring);
    assert_eq!(account(&programs), [13, 3, 1, 0, 0]);
    assert_eq!((joined.received, joined.reordered, joined.duplicated), (13, 3, 1));
    // Two sessions in turn, as after a new handshake.
    let messages: Vec<_> = (102..110)
        .map(|counter| transport(if counter % 2 == 0 { OURS } else { OURS + 1 }, counter, 64))
        .collect();
    pass_joined(&programs, RECEIVE, sockets(false).0, &messages);
    assert_eq!(programs.session(OURS).unwrap().unwrap().received, 17);
}

#[test]
fn a_session_of_a_known_peer_is_followed_from_its_first_message_on() {
    let Some(programs) = with_peer("unseen") else { return };
    arrive(&programs, 700..710);
    let session = programs.session(OURS).unwrap().unwrap();
    assert_eq!((session.role, session.slot), (ROLE_UNSEEN, 2));
    arrive(&programs, [712, 699]);
    arrive(&programs, 713..3000);
    assert_eq!(account(&programs), [10 + 1 + 2287, 0, 0, 2, 1]);
}

#[test]
fn without_room_sessions_are_left_out_and_counted() {
    let sizes = Sizes { sets: 1, ..Sizes::default() };
    let Some(programs) = crate::messages::with_peer_and("room", sizes) else { return };
    for index in 0..SESSION_WAYS as u32 + 3 {
        pass(&programs, TRANSMIT, &initiation(index));
    }
    assert_eq!(programs.health().unwrap().sessions_without_room, 3);
    assert!(programs.session(SESSION_WAYS as u32 - 1).unwrap().is_some());
    assert!(programs.session(SESSION_WAYS as u32).unwrap().is_none());
}

#[test]
fn without_bpf_loop_what_is_not_read_is_not_judged() {
    let sizes = Sizes { has_loop: false, ..Sizes::default() };
    let Some(programs) = crate::messages::with_peer_and("no loop", sizes) else { return };
    let joined: Vec<_> = (0..30).map(|counter| transport(OURS, counter, 64)).collect();
    pass_joined(&programs, RECEIVE, sockets(false).0, &joined);
    assert_eq!(programs.health().unwrap().messages_unread, 26);
    let line = programs.peer_underlay(2, RECEIVE).unwrap();
    assert_eq!((line.path[0].packets(), line.path[0].data), (30, 4));
    arrive(&programs, (31..40).chain(200..3000));
    let [received, reordered, duplicated, lost, unjudged] = account(&programs);
    assert_eq!((received, reordered, duplicated, unjudged), (4 + 9 + 2800, 0, 0, 0));
    assert_eq!(lost, 0, "neither the unread nor a gap of several blocks");
}

#[test]
fn invented_indexes_behind_a_peer_s_address_leave_room_for_real_handshakes() {
    let sizes = Sizes { sets: 1, ..Sizes::default() };
    let Some(programs) = crate::messages::with_peer_and("flood", sizes) else { return };
    for index in 1000..1100 {
        pass(&programs, RECEIVE, &transport(index, 7, 64));
    }
    let refused = programs.health().unwrap().sessions_without_room;
    assert_eq!(refused, 100 - SESSION_WAYS as u64 / 2);
    for index in 1..=SESSION_WAYS as u32 / 2 {
        pass(&programs, TRANSMIT, &initiation(index));
        assert!(programs.session(index).unwrap().is_some(), "{index}");
    }
}
