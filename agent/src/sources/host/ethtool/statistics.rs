//! Which statistics of a driver tell of loss and of limits, by what their names mean.
//!
//! Drivers name as they like: `rx_queue_3_drops` (veth, igb), `rx3_drops` (virtio_net, mlx5), `rx_drops[3]` (gve),
//! `queue_3_rx_drops` (ena), `[3]: rx_drops` (bnxt), `rx-3.drops` (i40e) are one statistic of queue 3 each.

use std::sync::Arc;

use super::ioctl::Values;
use crate::model::host::DriverStatistics;
use crate::sources::clean;

/// Statistics of one device that get series.
const MOST: usize = 64;
/// A word that tells of loss or of a limit that was met.
const LOSS: [&str; 25] = [
    "discard",
    "discarded",
    "discards",
    "drop",
    "dropped",
    "drops",
    "exhausted",
    "fifo",
    "full",
    "missed",
    "nobuf",
    "nobufs",
    "nodesc",
    "nomem",
    "oob",
    "overflow",
    "overflows",
    "overrun",
    "overruns",
    "ovflow",
    "throttled",
    "timeout",
    "timeouts",
    "underrun",
    "underruns",
];
/// Two words that do so next to each other; the second is a beginning.
const LOSS_PAIRS: [(&str, &str); 17] = [
    ("alloc", "err"),
    ("alloc", "fail"),
    ("buf", "fail"),
    ("buff", "fail"),
    ("no", "buf"),
    ("no", "desc"),
    ("no", "dma"),
    ("no", "mem"),
    ("no", "resource"),
    ("no", "space"),
    ("of", "buf"),
    ("page", "fail"),
    ("queue", "stop"),
    ("stop", "queue"),
    ("tx", "busy"),
    ("tx", "restart"),
    ("tx", "stop"),
];
/// Words of what has nothing to do with traffic: time stamps, and the management controller.
const BESIDE: [&str; 5] = ["hwtstamp", "ptp", "smbus", "tstamp", "timestamp"];
/// What a cloud allows, and what is left of it (ena).
const EXCEEDED: &str = "_allowance_exceeded";
const AVAILABLE: &str = "_allowance_available";
/// What carries the number of a queue.
const NUMBERED: [&str; 12] =
    ["ch", "chan", "channel", "cpu", "prio", "q", "queue", "ring", "rvec", "rx", "rxq", "tx"];

/// What a statistic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Loss,
    AllowanceExceeded,
    AllowanceAvailable,
}

/// One statistic over all queues.
#[derive(Debug)]
struct Sum {
    kind: Kind,
    name: Arc<str>,
    /// Where its values are.
    places: Vec<usize>,
    /// Whether the places are those of queues. A driver that has a total as well counts the same twice.
    queues: bool,
}

/// Which values of a driver are used, and for what.
#[derive(Debug, Default)]
pub(super) struct Plan {
    sums: Vec<Sum>,
    /// How many statistics the driver has.
    pub(super) count: usize,
}

impl Plan {
    /// Chooses by name.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut plan = Self::default();
        for (place, raw) in names.enumerate() {
            plan.count += 1;
            let raw = raw.split(|byte| *byte == 0).next().unwrap_or_default();
            let (words, of_queue) = words(&clean::lossy(raw));
            let Some((kind, name)) = meaning(&words) else { continue };
            match plan.sums.iter_mut().find(|sum| sum.kind == kind && *sum.name == *name) {
                None => {
                    plan.sums.push(Sum { kind, name: name.into(), places: vec![place], queues: of_queue });
                }
                Some(sum) if sum.queues == of_queue => sum.places.push(place),
                Some(sum) if sum.queues => (sum.places, sum.queues) = (vec![place], false),
                Some(_) => {}
            }
        }
        plan
    }

    /// Whether the driver tells of any loss or limit.
    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Takes the values.
    pub(super) fn read(&self, device: &str, values: Values<'_>) -> DriverStatistics {
        let mut statistics = DriverStatistics {
            device: device.to_owned(),
            found: self.sums.len() as u64,
            ..DriverStatistics::default()
        };
        for sum in self.sums.iter().take(MOST) {
            let places = sum.places.iter().filter_map(|place| values.get(*place));
            let value = places.fold(0, u64::wrapping_add);
            let list = match sum.kind {
                Kind::Loss => &mut statistics.losses,
                Kind::AllowanceExceeded => &mut statistics.allowances_exceeded,
                Kind::AllowanceAvailable => &mut statistics.allowances_available,
            };
            list.push((Arc::clone(&sum.name), value));
        }
        statistics
    }
}

/// Words of a name in lower case without the numbers of queues, and whether there were such.
fn words(name: &str) -> (Vec<String>, bool) {
    let mut words: Vec<String> = Vec::new();
    let mut of_queue = false;
    for part in name.split(|character: char| !character.is_ascii_alphanumeric()) {
        let word = part.to_ascii_lowercase();
        let letters = word.trim_end_matches(|character: char| character.is_ascii_digit());
        if letters.is_empty() {
            // `[3]`, and `queue_3`, of which nothing is left.
            if !word.is_empty() {
                of_queue = true;
                if words.last().is_some_and(|last| ["queue", "q", "ring"].contains(&last.as_str())) {
                    words.pop();
                }
            }
            continue;
        }
        let numbered = letters.len() < word.len() && NUMBERED.contains(&letters);
        of_queue |= numbered;
        let word = match letters {
            "rxq" if numbered => "rx",
            "txq" if numbered => "tx",
            "q" | "queue" if numbered => continue,
            letters if numbered => letters,
            _ => word.as_str(),
        };
        // `tx0_tx_timeouts` says it twice.
        if words.last().is_none_or(|last| last != word) {
            words.push(word.to_owned());
        }
    }
    (words, of_queue)
}

/// What the words tell of; `None` for anything but loss and limits.
fn meaning(words: &[String]) -> Option<(Kind, String)> {
    let name = clean::label(&words.join("_"), "");
    for (kind, suffix) in [(Kind::AllowanceExceeded, EXCEEDED), (Kind::AllowanceAvailable, AVAILABLE)] {
        if let Some(allowance) = name.strip_suffix(suffix).filter(|rest| !rest.is_empty()) {
            return Some((kind, allowance.to_owned()));
        }
    }
    if words.iter().any(|word| BESIDE.contains(&word.as_str())) {
        return None;
    }
    let single = words.iter().any(|word| LOSS.contains(&word.as_str()));
    let pair = words.windows(2).any(|pair| {
        LOSS_PAIRS.iter().any(|(first, second)| pair[0] == *first && pair[1].starts_with(second))
    });
    (single || pair).then_some((Kind::Loss, name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(names: &[&str]) -> Vec<(String, Vec<usize>)> {
        let plan = Plan::new(names.iter().map(|name| name.as_bytes()));
        assert_eq!(plan.count, names.len());
        plan.sums.into_iter().map(|sum| (sum.name.as_ref().to_owned(), sum.places)).collect()
    }

    #[test]
    fn queues_are_added_up_however_a_driver_numbers_them() {
        for names in [
            ["rx_queue_0_drops", "rx_queue_13_drops"],
            ["rx0_drops", "rx1_drops"],
            ["rx_drops[0]", "rx_drops[1]"],
            ["queue_0_rx_drops", "queue_1_rx_drops"],
            ["[0]: rx_drops", "[1]: rx_drops"],
            ["rx-0.drops", "rx-1.drops"],
            ["rxq0_drops", "rxq1_drops"],
            ["rx_q0_drops", "rx_q1_drops"],
        ] {
            assert_eq!(chosen(&names), [("rx_drops".to_owned(), vec![0, 1])], "{names:?}");
        }
    }

    #[test]
    fn a_total_stands_for_its_queues_whichever_comes_first() {
        let expected = |place| [("rx_drops".to_owned(), vec![place])];
        assert_eq!(chosen(&["rx_drops", "rx0_drops", "rx1_drops"]), expected(0));
        assert_eq!(chosen(&["rx0_drops", "rx1_drops", "rx_drops"]), expected(2));
        assert_eq!(chosen(&["tx_tx_timeouts", "tx0_tx_timeouts"]), [("tx_timeouts".to_owned(), vec![0])]);
    }

    #[test]
    fn drivers_of_the_field_are_understood() {
        let kept = [
            // ena, gve, hv_netvsc
            "queue_0_rx_page_alloc_fail",
            "queue_0_tx_queue_stop",
            "queue_0_tx_missed_tx",
            "tx_timeout",
            "rx_dropped_pkt[0]",
            "rx_no_buffers_posted[0]",
            "rx_buf_alloc_fail",
            "tx_stop[0]",
            "tx_no_memory",
            "tx_send_full",
            "stop_queue",
            // ixgbe, igb, e1000e, r8169
            "rx_missed_errors",
            "rx_no_buffer_count",
            "rx_no_dma_resources",
            "alloc_rx_buff_failed",
            "tx_timeout_count",
            "rx_missed",
            "tx_restart_queue",
            "tx_queue_0_restart",
            "tx_underrun",
            // i40e, ice
            "rx_alloc_fail",
            "port.rx_dropped",
            "tx_busy",
            // mlx5
            "rx_out_of_buffer",
            "rx_discards_phy",
            "rx_buff_alloc_err",
            "tx_queue_stopped",
            "rx_prio0_discards",
            // vmxnet3, virtio_net
            "  drv dropped rx total",
            "  pkts rx OOB",
            "  ring full",
            "rx_xdp_drops",
        ];
        for name in kept {
            assert_eq!(chosen(&[name]).len(), 1, "{name}");
        }
        let left_out = [
            "rx_packets",
            "rx_queue_0_bytes",
            "rx0_kicks",
            "rx_csum_offload_good",
            "tx_hwtstamp_timeouts",
            "dropped_smbus",
            "fdir_miss",
            "rx_65_to_127_byte_packets",
            "ch0_events",
            "interface_up",
            "tx_wake[0]",
            "",
        ];
        assert_eq!(chosen(&left_out), []);
    }

    #[test]
    fn allowances_are_told_by_what_they_allow() {
        let plan = Plan::new(
            ["bw_in_allowance_exceeded", "conntrack_allowance_available", "_allowance_exceeded"]
                .into_iter()
                .map(str::as_bytes),
        );
        let bytes: Vec<u8> = [7u64, 1_000, 3].iter().flat_map(|value| value.to_ne_bytes()).collect();
        let statistics = plan.read("eth0", Values(&bytes));
        assert_eq!(statistics.allowances_exceeded, [("bw_in".into(), 7)]);
        assert_eq!(statistics.allowances_available, [("conntrack".into(), 1_000)]);
        assert_eq!((statistics.losses.len(), statistics.found), (0, 2));
    }

    #[test]
    fn more_statistics_than_a_device_may_have_are_counted_and_left_out() {
        let letters = |number: usize| {
            format!(
                "{}{}_drops",
                char::from(b'a' + (number / 26) as u8),
                char::from(b'a' + (number % 26) as u8)
            )
        };
        let names: Vec<String> = (0..200).map(letters).collect();
        let plan = Plan::new(names.iter().map(String::as_bytes));
        let bytes = vec![1; 200 * 8];
        let statistics = plan.read("eth0", Values(&bytes));
        assert_eq!((statistics.losses.len(), statistics.found), (MOST, 200));
    }

    proptest! {
        #[test]
        fn any_names_and_values_are_statistics_or_nothing(
            names in prop::collection::vec("\\PC{0,12}(drop|_allowance_exceeded)?[\0-\u{ff}]{0,4}", 0..20),
            values in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let plan = Plan::new(names.iter().map(String::as_bytes));
            let statistics = plan.read("eth0", Values(&values));
            for (name, _) in statistics.losses.iter().chain(&statistics.allowances_exceeded) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            }
        }
    }
}
