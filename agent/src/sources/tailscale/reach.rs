//! Where a node is reached over UDP: its disco key, its endpoints, its place on a peer relay. Nothing of it is worth
//! the node: what cannot be read is absent.

use std::net::SocketAddr;

use super::api::List;

/// Endpoints of a node that are kept: control servers hand out a handful.
const ENDPOINTS: usize = 16;
/// Virtual network identifiers have 24 bits (RFC 8926, 3.4).
const NETWORKS: u32 = 1 << 24;

/// `discokey:` and 64 hexadecimal digits; the zero key is none.
pub(super) fn disco_key(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("discokey:")?.as_bytes();
    let mut key = [0; 32];
    if digits.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (key != [0; 32]).then_some(key)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|value| value as u8)
}

/// The first [`ENDPOINTS`] that packets can come from, each once, in the order of the control plane: addresses that
/// others see come before local ones.
pub(super) fn endpoints(list: &List<String>) -> Vec<SocketAddr> {
    let mut kept = Vec::new();
    for endpoint in list.iter().flatten().flatten().filter_map(|text| endpoint(text)) {
        if kept.len() < ENDPOINTS && !kept.contains(&endpoint) {
            kept.push(endpoint);
        }
    }
    kept
}

/// `192.0.2.1:41641` or `[2001:db8::1]:41641`, where a packet can come from.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let endpoint: SocketAddr = text.parse().ok()?;
    let address = endpoint.ip();
    (endpoint.port() != 0 && !address.is_unspecified() && !address.is_multicast()).then_some(endpoint)
}

/// `192.0.2.3:40000:vni:1` (`epAddr.String` in wgengine/magicsock/endpoint.go): address of the relay and number of
/// the virtual network on it.
pub(super) fn relay(text: &str) -> Option<(SocketAddr, u32)> {
    let (address, network) = text.split_once(":vni:")?;
    let network = network.parse().ok().filter(|network| *network < NETWORKS)?;
    Some((endpoint(address)?, network))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some(texts: &[&str]) -> List<String> {
        Some(texts.iter().map(|text| Some((*text).to_owned())).collect())
    }

    #[test]
    fn disco_keys_are_read_whole_or_not_at_all() {
        let digits = "b2019e0687bee45804dbe90be1b1bd60c7a471c2abe0d1bcfbb9b55a1e3cb17c";
        let key = disco_key(&format!("discokey:{digits}")).unwrap();
        assert_eq!((key[0], key[1], key[31]), (0xb2, 0x01, 0x7c));
        assert_eq!(disco_key(&format!("discokey:{}", digits.to_uppercase())), Some(key));
        for bad in [
            String::new(),
            digits.to_owned(),
            "discokey:".to_owned(),
            format!("nodekey:{digits}"),
            format!("discokey:{}", &digits[1..]),
            format!("discokey:{digits}0"),
            format!("discokey:+{}", &digits[1..]),
            format!("discokey:{}é", &digits[2..]),
            format!("discokey:{}", "0".repeat(64)),
        ] {
            assert_eq!(disco_key(&bad), None, "{bad}");
        }
    }

    #[test]
    fn endpoints_keep_their_order_and_what_nobody_sends_from_is_left_out() {
        let list = some(&[
            "203.0.113.7:41641",
            "[2001:db8::1]:41641",
            "10.0.0.1:41641",
            "203.0.113.7:41641",
            "10.0.0.1:0",
            "0.0.0.0:41641",
            "[ff02::1]:41641",
            "10.0.0.1",
            "nonsense",
        ]);
        let expected = ["203.0.113.7:41641", "[2001:db8::1]:41641", "10.0.0.1:41641"];
        assert_eq!(endpoints(&list), expected.map(|text| text.parse().unwrap()));
        assert_eq!(endpoints(&Some(vec![None])), []);
        let many: Vec<String> = (1..=1000).map(|port| format!("192.0.2.1:{port}")).collect();
        let many = endpoints(&Some(many.into_iter().map(Some).collect()));
        assert_eq!((many.len(), many[15].port()), (16, 16));
    }

    #[test]
    fn relays_are_an_address_and_a_network() {
        assert_eq!(relay("192.0.2.3:40000:vni:1"), Some(("192.0.2.3:40000".parse().unwrap(), 1)));
        assert_eq!(
            relay("[2001:db8::3]:40000:vni:16777215"),
            Some(("[2001:db8::3]:40000".parse().unwrap(), 16_777_215))
        );
        for bad in [
            "",
            "192.0.2.3:40000",
            "192.0.2.3:40000:vni:",
            "192.0.2.3:40000:vni:-1",
            "192.0.2.3:40000:vni:16777216",
            "192.0.2.3:0:vni:1",
            "2001:db8::3:40000:vni:1",
            "192.0.2.3:40000:vni:1:vni:2",
        ] {
            assert_eq!(relay(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_of_any_kind_never_panics(text in "(discokey:)?\\PC{0,80}", network in any::<u32>()) {
            let _ = disco_key(&text);
            let _ = relay(&text);
            prop_assert!(endpoints(&some(&[&text])).len() <= 1);
            prop_assert_eq!(relay(&format!("192.0.2.3:1:vni:{network}")).is_some(), network < NETWORKS);
        }
    }
}
