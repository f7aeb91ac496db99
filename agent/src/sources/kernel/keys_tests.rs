//! Tests of [`super`].

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::sources::kernel::test_tailnet::{sizes, slots, tailnet};

fn peer(id: &str, addresses: &[&str], allowed: &[&str]) -> Peer {
    Peer {
        id: id.to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        allowed_ips: allowed.iter().map(|text| text.parse().unwrap()).collect(),
        ..Peer::default()
    }
}

fn value<const N: usize>(entries: &Entries<N>, network: &str) -> Option<u32> {
    let network: IpNet = network.parse().unwrap();
    let octets = match network.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    entries
        .iter()
        .find(|(key, _)| key.address[..] == octets[..] && key.length == network.prefix_len())
        .map(|(_, value)| *value)
}

#[test]
fn single_addresses_and_prefixes_go_to_their_maps_and_default_routes_nowhere() {
    let tailnet = tailnet(vec![peer(
        "a",
        &["100.64.0.1", "fd7a::1"],
        &["100.64.0.1/32", "fd7a::1/128", "0.0.0.0/0", "::/0", "10.1.2.3/16", "192.0.2.7/32", "fd00::/64"],
    )]);
    let keys = peers(&tailnet, &slots(&tailnet, 10), &sizes());
    assert_eq!(value(&keys.addresses_v4, "100.64.0.1/32"), Some(1));
    assert_eq!(value(&keys.addresses_v4, "192.0.2.7/32"), Some(1));
    assert_eq!(keys.addresses_v4.len(), 2);
    assert_eq!(keys.addresses_v6.len(), 1);
    assert_eq!(value(&keys.prefixes_v4, "10.1.0.0/16"), Some(1), "host bits are cleared");
    assert_eq!(keys.prefixes_v4.len(), 1);
    assert_eq!(value(&keys.prefixes_v6, "fd00::/64"), Some(1));
    assert_eq!(keys.prefixes_v6.len(), 1);
    assert_eq!(keys.refused, 0);
}

#[test]
fn the_first_by_id_keeps_a_disputed_prefix_but_an_own_address_goes_before_a_route() {
    let a = peer("a", &["100.64.0.1"], &["10.0.0.0/8", "100.64.0.2/32"]);
    let b = peer("b", &["100.64.0.2"], &["10.0.0.0/8"]);
    for order in [[a.clone(), b.clone()], [b, a]] {
        let tailnet = tailnet(order.into());
        let slots = slots(&tailnet, 10);
        let keys = peers(&tailnet, &slots, &sizes());
        assert_eq!(value(&keys.prefixes_v4, "10.0.0.0/8"), slots.slot_of("a"));
        assert_eq!(value(&keys.addresses_v4, "100.64.0.2/32"), slots.slot_of("b"));
    }
}

#[test]
fn a_member_without_a_slot_is_unattributed_and_not_its_neighbours() {
    let tailnet = tailnet(vec![
        peer("a", &["100.64.0.1"], &["10.0.0.0/8"]),
        peer("b", &["100.64.0.2"], &["10.1.0.0/16"]),
    ]);
    let keys = peers(&tailnet, &slots(&tailnet, 2), &sizes());
    assert_eq!(value(&keys.prefixes_v4, "10.0.0.0/8"), Some(1));
    assert_eq!(value(&keys.prefixes_v4, "10.1.0.0/16"), Some(UNATTRIBUTED));
    assert_eq!(value(&keys.addresses_v4, "100.64.0.2/32"), Some(UNATTRIBUTED));
}

#[test]
fn a_peer_that_left_keeps_its_slot_but_no_key() {
    let both = tailnet(vec![peer("a", &["100.64.0.1"], &[]), peer("b", &["100.64.0.2"], &[])]);
    let mut slots = slots(&both, 10);
    let left = tailnet(vec![peer("b", &["100.64.0.2"], &[])]);
    slots.update(&left.peers, Instant::now());
    let keys = peers(&left, &slots, &sizes());
    assert_eq!(keys.addresses_v4.len(), 1);
    assert_eq!(value(&keys.addresses_v4, "100.64.0.2/32"), Some(2));
    assert!(slots.get(1).is_some());
}

#[test]
fn the_exit_node_in_use_is_found() {
    let mut exit = peer("b", &["100.64.0.2"], &["0.0.0.0/0"]);
    exit.exit_node = true;
    let tailnet = tailnet(vec![peer("a", &["100.64.0.1"], &[]), exit]);
    assert_eq!(peers(&tailnet, &slots(&tailnet, 10), &sizes()).exit_node_slot, 2);
    assert_eq!(peers(&tailnet, &slots(&tailnet, 2), &sizes()).exit_node_slot, 0);
}

#[test]
fn routes_are_local_for_this_host_and_subnet_for_what_it_advertises() {
    let own = ["100.64.0.9".parse().unwrap(), "fd7a::9".parse().unwrap()];
    let host = ["192.168.1.1".parse().unwrap(), "100.64.0.9".parse().unwrap()];
    let advertised = ["192.168.1.0/24".parse().unwrap(), "192.168.1.1/32".parse().unwrap()];
    let keys = routes(&own, &advertised, &host, &sizes());
    assert_eq!(value(&keys.v4, "100.64.0.9/32"), Some(CLASS_LOCAL));
    assert_eq!(value(&keys.v4, "192.168.1.1/32"), Some(CLASS_LOCAL), "ours although advertised");
    assert_eq!(value(&keys.v4, "192.168.1.0/24"), Some(CLASS_SUBNET));
    assert_eq!(value(&keys.v6, "fd7a::9/128"), Some(CLASS_LOCAL));
}

#[test]
fn a_hundred_thousand_prefixes_are_bounded_and_the_rest_is_counted() {
    let network = |index: u32| IpNet::new(IpAddr::from((0x0a00_0000 + index * 4).to_be_bytes()), 30).unwrap();
    let mut greedy = peer("b", &["100.64.0.2"], &[]);
    greedy.allowed_ips = (0..100_000).map(network).collect();
    let modest = peer("a", &["100.64.0.1"], &["172.16.0.0/12"]);
    let tailnet = tailnet(vec![modest, greedy]);
    let slots = slots(&tailnet, 10);

    let keys = peers(&tailnet, &slots, &sizes());
    assert_eq!((keys.prefixes_v4.len(), keys.refused), (100_001, 0));

    let tight = Sizes { prefixes: 1000, ..sizes() };
    let keys = peers(&tailnet, &slots, &tight);
    assert_eq!((keys.prefixes_v4.len(), keys.refused), (1000, 99_001));
    assert_eq!(value(&keys.prefixes_v4, "172.16.0.0/12"), Some(1), "the first by id has its room");
    assert!(keys.prefixes_v4.is_sorted());
}

fn entries() -> impl Strategy<Value = Entries<4>> {
    prop::collection::btree_map((0u8..6, 0u8..4, 24u8..=32), 0u32..4, 0..40).prop_map(|map| {
        map.into_iter()
            .map(|((a, b, length), value)| (Prefix { address: [10, a, b, 0], length }, value))
            .collect()
    })
}

proptest! {
    #[test]
    fn the_difference_turns_what_is_installed_into_what_is_wanted(installed in entries(), wanted in entries()) {
        let (set, remove) = difference(&installed, &wanted);
        let mut state: BTreeMap<_, _> = installed.iter().copied().collect();
        for (key, value) in &set {
            prop_assert_ne!(state.insert(*key, *value), Some(*value), "nothing is set twice");
        }
        for key in &remove {
            prop_assert!(state.remove(key).is_some(), "nothing is removed that is not there");
        }
        prop_assert_eq!(state.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn settled_claims_are_ordered_unique_and_the_first_claim_holds(
        claims in prop::collection::vec((0u8..8, 0u32..100), 0..40),
        room in 0u32..10,
    ) {
        let claims: Entries<4> = claims
            .into_iter()
            .map(|(last, value)| (Prefix { address: [10, 0, 0, last], length: 32 }, value))
            .collect();
        let mut refused = 0;
        let settled = settle(claims.clone(), room, &mut refused);
        prop_assert!(settled.windows(2).all(|pair| pair[0].0 < pair[1].0));
        prop_assert!(settled.len() <= room as usize);
        for (key, value) in &settled {
            let first = claims.iter().find(|(claimed, _)| claimed == key).map(|(_, value)| *value);
            prop_assert_eq!(first, Some(*value));
        }
        let distinct = claims.iter().map(|(key, _)| key).collect::<std::collections::BTreeSet<_>>().len();
        prop_assert_eq!(settled.len() as u64 + refused, distinct as u64);
    }
}
