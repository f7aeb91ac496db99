//! Bytes per 10 ms window: bursts that no rate over a scrape interval shows.

use tailgauge_ebpf::layout::{PEAK_SECONDS, RECEIVE, TRANSMIT, WINDOW_NANOSECONDS, Window};

use super::{Family, Section, View};
use crate::outputs::prometheus::buckets::WINDOW;
use crate::outputs::prometheus::family::{Header, Kind};
use crate::outputs::prometheus::labels::Rendered;
use crate::outputs::prometheus::text::Samples;

pub(super) const SECTION: Section = Section {
    title: "Windows of 10 ms",
    about: "Layer 3 bytes summed over aligned windows of 10 ms, for the tunnel and for every peer that carried \
            traffic. The histograms are cumulative: any number of scrapers at any interval see every burst. \
            Windows without traffic are not counted, and a window is counted once it is over. \
            The peaks cover the running second and the 15 aligned seconds before it; reading does not reset them.",
    families: &[
        Family {
            header: histogram(
                "tailgauge_peer_receive_window_bytes",
                &["peer_id"],
                "Bytes from the peer per 10 ms window that carried any.",
            ),
            samples: |view, samples| peer_histograms(view, samples, RECEIVE),
        },
        Family {
            header: histogram(
                "tailgauge_peer_transmit_window_bytes",
                &["peer_id"],
                "Bytes to the peer per 10 ms window that carried any.",
            ),
            samples: |view, samples| peer_histograms(view, samples, TRANSMIT),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_receive_window_peak_15s_bytes",
                &["peer_id"],
                "Bytes from the peer in the largest 10 ms window of the last 15 s (aligned seconds, not reset by \
                 reading).",
            ),
            samples: |view, samples| peer_peaks(view, samples, RECEIVE),
        },
        Family {
            header: Header::gauge(
                "tailgauge_peer_transmit_window_peak_15s_bytes",
                &["peer_id"],
                "Bytes to the peer in the largest 10 ms window of the last 15 s (aligned seconds, not reset by \
                 reading).",
            ),
            samples: |view, samples| peer_peaks(view, samples, TRANSMIT),
        },
        Family {
            header: histogram(
                "tailgauge_tunnel_receive_window_bytes",
                &["device"],
                "Bytes from all peers per 10 ms window that carried any.",
            ),
            samples: |view, samples| tunnel_histogram(view, samples, RECEIVE),
        },
        Family {
            header: histogram(
                "tailgauge_tunnel_transmit_window_bytes",
                &["device"],
                "Bytes to all peers per 10 ms window that carried any.",
            ),
            samples: |view, samples| tunnel_histogram(view, samples, TRANSMIT),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tunnel_receive_window_peak_15s_bytes",
                &["device"],
                "Bytes from all peers in the largest 10 ms window of the last 15 s (aligned seconds, not reset by \
                 reading).",
            ),
            samples: |view, samples| tunnel_peak(view, samples, RECEIVE),
        },
        Family {
            header: Header::gauge(
                "tailgauge_tunnel_transmit_window_peak_15s_bytes",
                &["device"],
                "Bytes to all peers in the largest 10 ms window of the last 15 s (aligned seconds, not reset by \
                 reading).",
            ),
            samples: |view, samples| tunnel_peak(view, samples, TRANSMIT),
        },
    ],
};

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Header {
    Header { name, kind: Kind::Histogram, labels, help }
}

/// Windows of peers that carried traffic.
fn peer_windows<'a>(view: &View<'a>, direction: u32) -> impl Iterator<Item = (&'a Rendered, &'a Window)> {
    let labels = view.labels;
    view.model
        .kernel
        .windows
        .iter()
        .filter_map(move |(slot, windows)| Some((labels.get(*slot)?, &windows.direction[direction as usize])))
}

fn peer_histograms(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    for (labels, window) in peer_windows(view, direction) {
        samples.histogram([&labels.id, b""], &window.histogram, &WINDOW);
    }
}

fn peer_peaks(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    for (labels, window) in peer_windows(view, direction) {
        samples.sample().rendered(&labels.id).integer(peak(window, view.model.kernel.monotonic_second));
    }
}

fn tunnel_histogram(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    if let Some(windows) = &view.model.kernel.tunnel_windows {
        let device = view.labels.device();
        samples.histogram([device, b""], &windows.direction[direction as usize].histogram, &WINDOW);
    }
}

fn tunnel_peak(view: &View<'_>, samples: &mut Samples<'_>, direction: u32) {
    let kernel = &view.model.kernel;
    if let Some(windows) = &kernel.tunnel_windows {
        let peak = peak(&windows.direction[direction as usize], kernel.monotonic_second);
        samples.sample().rendered(view.labels.device()).integer(peak);
    }
}

/// Largest window that began in the last `PEAK_SECONDS` seconds, the open one included: when traffic stops, the
/// last window stays open until more arrives.
pub(super) fn peak(window: &Window, now_second: u64) -> u64 {
    let oldest = (now_second + 1).saturating_sub(PEAK_SECONDS as u64);
    let closed = window.peaks.iter().map(|peak| (peak >> 32, peak & u64::from(u32::MAX)));
    let open = (window.id / (1_000_000_000 / WINDOW_NANOSECONDS), window.bytes);
    closed.chain([open]).filter(|(second, _)| *second >= oldest).map(|(_, bytes)| bytes).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tailgauge_ebpf::histogram::Histogram;

    use super::*;

    fn window(peaks: &[(u64, u64)]) -> Window {
        let mut window = Window { id: 0, bytes: 0, peaks: [0; PEAK_SECONDS], histogram: Histogram::EMPTY };
        for (second, bytes) in peaks {
            window.peaks[*second as usize % PEAK_SECONDS] = second << 32 | bytes;
        }
        window
    }

    #[test]
    fn a_peak_lives_sixteen_seconds_and_reading_does_not_end_it() {
        let window = window(&[(100, 5000), (101, 700)]);
        assert_eq!(peak(&window, 101), 5000);
        assert_eq!(peak(&window, 115), 5000);
        assert_eq!(peak(&window, 115), 5000);
        assert_eq!(peak(&window, 116), 700);
        assert_eq!(peak(&window, 117), 0);
    }

    #[test]
    fn the_open_window_counts_until_it_is_too_old() {
        let mut window = window(&[(100, 5000)]);
        window.id = 102 * 100 + 7;
        window.bytes = 9000;
        assert_eq!(peak(&window, 102), 9000);
        assert_eq!(peak(&window, 117), 9000);
        assert_eq!(peak(&window, 118), 0);
    }

    #[test]
    fn soon_after_boot_nothing_underflows() {
        assert_eq!(peak(&window(&[(3, 40)]), 3), 40);
    }
}
