//! Tests of [`super`].

use std::mem::offset_of;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::sources::kernel::test_tailnet::{sizes, slots, tailnet};

fn peer(id: &str, current: Option<&str>, candidates: &[&str]) -> Peer {
    Peer {
        id: id.to_owned(),
        endpoint: current.map(|text| text.parse().unwrap()),
        endpoints: candidates.iter().map(|text| text.parse().unwrap()).collect(),
        ..Peer::default()
    }
}

fn keys_of(tailnet: &Tailnet) -> EndpointKeys {
    keys(&members(tailnet, &slots(tailnet, 10)), &sizes())
}

fn owner(keys: &EndpointKeys, address: &str) -> Option<u32> {
    find(&keys.endpoints, &endpoint(address.parse().unwrap(), None))
}

fn find<const N: usize>(entries: &Entries<N>, key: &[u8; N]) -> Option<u32> {
    entries.iter().find(|(found, _)| found.address == *key).map(|(_, slot)| *slot)
}

#[test]
fn an_endpoint_has_the_layout_that_the_programs_look_up() {
    let key = endpoint("192.0.2.7:41641".parse().unwrap(), Some(9));
    assert_eq!(key[offset_of!(Endpoint, address)..][..16], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x07");
    assert_eq!(key[offset_of!(Endpoint, port)..][..2], [0xa2, 0xa9]);
    assert_eq!(key[offset_of!(Endpoint, padding)..][..2], [0, 0]);
    assert_eq!(key[offset_of!(Endpoint, relay)..], 10_u32.to_ne_bytes());
    let direct = |text: &str| endpoint(text.parse().unwrap(), None);
    assert_eq!(direct("[::ffff:192.0.2.7]:1"), direct("192.0.2.7:1"), "however it is written");
    assert_eq!(direct("[2001:db8::1]:1")[..4], [0x20, 0x01, 0x0d, 0xb8]);
    assert_eq!(direct("192.0.2.7:1")[20..], [0; 4], "the first network of a relay is not a direct path");
}

#[test]
fn a_candidate_of_several_is_nobodys_and_a_current_endpoint_is_its_owners() {
    let keys = keys_of(&tailnet(vec![
        peer("a", Some("198.51.100.1:41641"), &["198.51.100.1:41641", "10.0.0.2:41641", "192.0.2.1:1"]),
        peer("b", Some("10.0.0.3:41641"), &["10.0.0.2:41641", "198.51.100.1:41641", "192.0.2.2:2"]),
        peer("c", None, &["10.0.0.3:41641", "192.0.2.3:3", "192.0.2.3:3"]),
    ]));
    assert_eq!(owner(&keys, "198.51.100.1:41641"), Some(1), "also when b says that it may be there");
    assert_eq!(owner(&keys, "10.0.0.2:41641"), None, "a private address at two sites");
    assert_eq!(owner(&keys, "10.0.0.3:41641"), Some(2));
    assert_eq!(owner(&keys, "192.0.2.1:1"), Some(1));
    assert_eq!(owner(&keys, "192.0.2.3:3"), Some(3), "said twice by the same peer");
    assert_eq!((keys.endpoints.len(), keys.refused), (5, 0));
}

#[test]
fn two_that_are_said_to_be_at_the_same_place_are_neither() {
    let keys = keys_of(&tailnet(vec![
        peer("a", Some("192.0.2.1:1"), &[]),
        peer("b", Some("192.0.2.1:1"), &[]),
        peer("c", None, &["192.0.2.1:1"]),
    ]));
    assert_eq!(keys.endpoints, vec![]);
}

#[test]
fn peers_behind_one_relay_are_told_apart_by_their_networks() {
    let relay: SocketAddr = "192.0.2.9:7777".parse().unwrap();
    let on = |id: &str, network| Peer { relay: Some((relay, network)), ..peer(id, None, &[]) };
    let keys = keys_of(&tailnet(vec![on("a", 0), on("b", 7), peer("r", None, &["192.0.2.9:7777"])]));
    assert_eq!(find(&keys.endpoints, &endpoint(relay, Some(0))), Some(1));
    assert_eq!(find(&keys.endpoints, &endpoint(relay, Some(7))), Some(2));
    assert_eq!(find(&keys.endpoints, &endpoint(relay, None)), Some(3), "the relay itself may be a peer");
}

#[test]
fn a_disco_key_is_its_peers_unless_two_have_it() {
    let with = |id: &str, key| Peer { disco_key: Some([key; 32]), ..peer(id, None, &[]) };
    let keys = keys_of(&tailnet(vec![with("a", 1), with("b", 2), with("c", 2), peer("d", None, &[])]));
    assert_eq!(keys.disco_keys, vec![(Prefix { address: [1; 32], length: 0 }, 1)]);
}

#[test]
fn a_member_without_a_slot_claims_for_nobody_and_one_that_left_not_at_all() {
    let both = tailnet(vec![
        peer("a", Some("192.0.2.1:1"), &["10.0.0.1:1"]),
        peer("b", Some("192.0.2.2:1"), &["10.0.0.1:1", "10.0.0.2:1"]),
    ]);
    let mut slots = slots(&both, 2);
    let found = keys(&members(&both, &slots), &sizes());
    assert_eq!(owner(&found, "192.0.2.2:1"), Some(UNATTRIBUTED));
    assert_eq!(owner(&found, "10.0.0.1:1"), None, "disputed all the same");

    let left = tailnet(vec![peer("b", Some("192.0.2.2:1"), &["10.0.0.1:1"])]);
    slots.update(&left.peers, Instant::now());
    let found = keys(&members(&left, &slots), &sizes());
    assert_eq!(owner(&found, "192.0.2.1:1"), None);
    assert_eq!(owner(&found, "10.0.0.1:1"), Some(UNATTRIBUTED));
}

#[test]
fn what_has_no_room_is_counted_and_endpoints_in_use_go_first() {
    let mut greedy = peer("a", None, &[]);
    greedy.endpoints = (1..=2000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
    let modest = peer("b", Some("192.0.2.2:1"), &[]);
    let keys = keys_of(&tailnet(vec![greedy, modest]));
    assert_eq!((keys.endpoints.len(), keys.refused), (1024, 2001 - 1024));
    assert_eq!(owner(&keys, "192.0.2.2:1"), Some(2));
    assert!(keys.endpoints.is_sorted());
}

#[test]
fn only_news_of_endpoints_keys_and_slots_lead_to_other_keys() {
    let of = |peers: Vec<Peer>, capacity| {
        let tailnet = tailnet(peers);
        members(&tailnet, &slots(&tailnet, capacity))
    };
    let peer = peer("a", Some("192.0.2.1:1"), &["192.0.2.2:2"]);
    let before = of(vec![peer.clone()], 10);
    let is_same = |other: Peer| claim_the_same(&before, &of(vec![other], 10));
    assert!(is_same(peer.clone()));
    assert!(is_same(Peer { engine_receive_bytes: 9, name: "b".to_owned(), ..peer.clone() }));
    assert!(!is_same(Peer { endpoint: None, ..peer.clone() }));
    assert!(!is_same(Peer { endpoints: Vec::new(), ..peer.clone() }));
    assert!(!is_same(Peer { relay: Some(("192.0.2.1:1".parse().unwrap(), 1)), ..peer.clone() }));
    assert!(!is_same(Peer { disco_key: Some([1; 32]), ..peer.clone() }));
    assert!(!is_same(Peer { id: "b".to_owned(), ..peer.clone() }));
    assert!(!claim_the_same(&before, &of(vec![peer.clone()], 1)), "without a slot");
    assert!(!claim_the_same(&before, &of(vec![peer.clone(), peer], 10)));
}

proptest! {
    /// Whatever is claimed by whom, in any order: an entry has one owner who claimed it, nobody else did as surely.
    #[test]
    fn every_entry_has_exactly_one_surest_claimant(
        claims in prop::collection::vec((0_u8..6, prop::bool::ANY, 0_u32..4), 0..40),
    ) {
        let claims: Vec<Claimed<1>> = claims
            .into_iter()
            .map(|(key, current, member)| ([key], if current { Claim::Current } else { Claim::Candidate }, member))
            .collect();
        let mut refused = 0;
        let settled = settle(claims.clone(), |member| member + 10, 100, &mut refused);
        for key in 0..6 {
            let of = |kind| {
                let mut members: Vec<_> = claims
                    .iter()
                    .filter(|(claimed, claim, _)| *claimed == [key] && *claim == kind)
                    .map(|(_, _, member)| *member)
                    .collect();
                members.sort_unstable();
                members.dedup();
                members
            };
            let surest = if of(Claim::Current).is_empty() { of(Claim::Candidate) } else { of(Claim::Current) };
            let expected = if let [only] = surest[..] { Some(only + 10) } else { None };
            prop_assert_eq!(find(&settled, &[key]), expected);
        }
        prop_assert_eq!(refused, 0);
        prop_assert!(settled.is_sorted());
    }
}
