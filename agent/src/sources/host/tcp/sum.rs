//! Connections taken together.

use super::diag::{Connection, state};
use crate::model::host::{Connections, RoundTrip};

/// What is needed to tell means in the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    connections: Connections,
    measured: u64,
    rtt: u64,
    rtt_variation: u64,
    rtt_max: u32,
    rtt_min: Option<u32>,
}

impl Sum {
    /// Adds a connection.
    pub(super) fn add(&mut self, connection: &Connection) {
        let sum = &mut self.connections;
        if connection.state == state::SYN_SENT {
            sum.connecting += 1;
            return;
        }
        let info = &connection.info;
        sum.open += 1;
        sum.unacknowledged_segments += u64::from(info.unacknowledged);
        sum.lost_segments += u64::from(info.lost);
        sum.retransmitted_segments += u64::from(info.retransmitted);
        sum.congestion_window_bytes += u64::from(info.congestion_window) * u64::from(info.segment_bytes);
        add(&mut sum.transmitted_segments, info.transmitted.map(u64::from));
        add(&mut sum.delivery_rate, info.delivery_rate);
        add(&mut sum.unsent_bytes, info.unsent_bytes.map(u64::from));
        add(&mut sum.acknowledged_bytes, info.acknowledged_bytes);
        add(&mut sum.received_bytes, info.received_bytes);
        add_microseconds(&mut sum.busy_seconds, info.busy);
        add_microseconds(&mut sum.receiver_limited_seconds, info.receiver_limited);
        add_microseconds(&mut sum.buffer_limited_seconds, info.buffer_limited);
        if let Some(rtt) = info.rtt {
            self.measured += 1;
            self.rtt += u64::from(rtt);
            self.rtt_variation += u64::from(info.rtt_variation);
            self.rtt_max = self.rtt_max.max(rtt);
        }
        self.rtt_min = self.rtt_min.into_iter().chain(info.min_rtt).min();
    }

    /// What came of it.
    pub(super) fn finish(self) -> Connections {
        let mean = |sum: u64| sum as f64 / self.measured as f64 / 1e6;
        let round_trip = (self.measured > 0).then(|| RoundTrip {
            mean: mean(self.rtt),
            max: seconds(self.rtt_max),
            min: self.rtt_min.map(seconds),
            variation: mean(self.rtt_variation),
        });
        Connections { round_trip, ..self.connections }
    }
}

fn seconds(microseconds: u32) -> f64 {
    f64::from(microseconds) / 1e6
}

fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn add_microseconds(sum: &mut Option<f64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::super::info::TcpInfo;
    use super::*;

    fn connection(state: u8, info: TcpInfo) -> Connection {
        Connection { state, remote: [100, 64, 0, 1].into(), marked: false, info }
    }

    #[test]
    fn sums_means_and_extremes() {
        let first = TcpInfo {
            rtt: Some(10_000),
            rtt_variation: 2_000,
            min_rtt: Some(9_000),
            retransmitted: 3,
            congestion_window: 10,
            segment_bytes: 1_228,
            delivery_rate: Some(1_000),
            busy: Some(500_000),
            ..TcpInfo::default()
        };
        let second = TcpInfo {
            rtt: Some(30_000),
            rtt_variation: 4_000,
            min_rtt: Some(25_000),
            retransmitted: 4,
            delivery_rate: Some(2_000),
            busy: Some(250_000),
            ..TcpInfo::default()
        };
        let mut sum = Sum::default();
        for (state, info) in [
            (state::ESTABLISHED, first),
            (state::CLOSE_WAIT, second),
            // Nothing was measured yet.
            (state::ESTABLISHED, TcpInfo::default()),
            (state::SYN_SENT, TcpInfo { retransmitted: 9, ..TcpInfo::default() }),
        ] {
            sum.add(&connection(state, info));
        }
        let expected = Connections {
            open: 3,
            connecting: 1,
            round_trip: Some(RoundTrip { mean: 0.02, max: 0.03, min: Some(0.009), variation: 0.003 }),
            retransmitted_segments: 7,
            congestion_window_bytes: 12_280,
            delivery_rate: Some(3_000),
            busy_seconds: Some(0.75),
            ..Connections::default()
        };
        assert_eq!(sum.finish(), expected);
    }

    #[test]
    fn no_measurement_is_no_round_trip() {
        let mut sum = Sum::default();
        sum.add(&connection(state::ESTABLISHED, TcpInfo::default()));
        assert_eq!(sum.finish(), Connections { open: 1, ..Connections::default() });
    }
}
