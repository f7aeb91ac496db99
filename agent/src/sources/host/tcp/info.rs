//! `struct tcp_info` (include/uapi/linux/tcp.h, filled by `tcp_get_info` in net/ipv4/tcp.c).
//!
//! It grows with the kernel: a field is read where the kernel's structure is long enough to have it.

/// What is used of it: times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// `tcpi_rtt`, `None` before the first measurement.
    pub(super) rtt: Option<u32>,
    pub(super) rtt_variation: u32,
    /// `tcpi_min_rtt`, `None` before the first measurement.
    pub(super) min_rtt: Option<u32>,
    pub(super) unacknowledged: u32,
    pub(super) lost: u32,
    /// `tcpi_total_retrans`.
    pub(super) retransmitted: u32,
    /// Segments, `tcpi_snd_cwnd`.
    pub(super) congestion_window: u32,
    /// Bytes in a segment, `tcpi_snd_mss`.
    pub(super) segment_bytes: u32,
    /// `tcpi_data_segs_out`.
    pub(super) transmitted: Option<u32>,
    /// Bytes a second.
    pub(super) delivery_rate: Option<u64>,
    /// `tcpi_notsent_bytes`.
    pub(super) unsent_bytes: Option<u32>,
    pub(super) acknowledged_bytes: Option<u64>,
    pub(super) received_bytes: Option<u64>,
    pub(super) busy: Option<u64>,
    /// `tcpi_rwnd_limited`.
    pub(super) receiver_limited: Option<u64>,
    /// `tcpi_sndbuf_limited`.
    pub(super) buffer_limited: Option<u64>,
}

impl TcpInfo {
    /// `None` when it ends before `tcpi_total_retrans`, which every kernel has.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let word = |at: usize| value.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let long = |at: usize| value.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        Some(Self {
            segment_bytes: word(16)?,
            unacknowledged: word(24)?,
            lost: word(32)?,
            rtt: word(68).filter(|rtt| *rtt > 0),
            rtt_variation: word(72)?,
            congestion_window: word(80)?,
            retransmitted: word(100)?,
            acknowledged_bytes: long(120),
            received_bytes: long(128),
            unsent_bytes: word(144),
            min_rtt: word(148).filter(|rtt| *rtt > 0 && *rtt < u32::MAX),
            transmitted: word(156),
            delivery_rate: long(160),
            busy: long(168),
            receiver_limited: long(176),
            buffer_limited: long(184),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_where_the_kernel_has_them_and_end_where_it_ends() {
        // Every word is its own number.
        let bytes: Vec<u8> = (0u32..62).flat_map(u32::to_ne_bytes).collect();
        let long = |word: u32| {
            let bytes: Vec<u8> = [word, word + 1].into_iter().flat_map(u32::to_ne_bytes).collect();
            bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
        };
        let all = TcpInfo {
            rtt: Some(17),
            rtt_variation: 18,
            min_rtt: Some(37),
            unacknowledged: 6,
            lost: 8,
            retransmitted: 25,
            congestion_window: 20,
            segment_bytes: 4,
            transmitted: Some(39),
            delivery_rate: long(40),
            unsent_bytes: Some(36),
            acknowledged_bytes: long(30),
            received_bytes: long(32),
            busy: long(42),
            receiver_limited: long(44),
            buffer_limited: long(46),
        };
        assert_eq!(TcpInfo::parse(&bytes), Some(all));
        // Linux 4.10 had no busy time and what follows it.
        let old = TcpInfo { busy: None, receiver_limited: None, buffer_limited: None, ..all };
        assert_eq!(TcpInfo::parse(&bytes[..168]), Some(old));
        assert_eq!(TcpInfo::parse(&bytes[..103]), None);
    }

    #[test]
    fn what_was_never_measured_is_not_a_time() {
        let mut bytes = [0; 192];
        bytes[148..152].copy_from_slice(&u32::MAX.to_ne_bytes());
        let info = TcpInfo::parse(&bytes).unwrap();
        assert_eq!((info.rtt, info.min_rtt), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_nothing(value in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(TcpInfo::parse(&value).is_some(), value.len() >= 104);
        }
    }
}
