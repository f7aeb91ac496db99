//! Collector `vmstat`: /proc/vmstat, the few lines that say memory ran short.

use super::proc_file::{Bad, ProcFile, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Paging};

/// Keeps /proc/vmstat open.
#[derive(Default)]
pub(super) struct VmstatCollector(ProcFile);

impl Collector for VmstatCollector {
    const NAME: &'static str = "vmstat";
    const HELP: &'static str = "swapping, reclaim, major faults and OOM kills from /proc/vmstat";
    type Output = Paging;

    fn field(host: &mut Host) -> &mut Option<Paging> {
        &mut host.paging
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Paging>, HostError> {
        self.0.parse(&paths.procfs, "vmstat", parse).map(Some)
    }
}

fn parse(text: &str) -> Result<Paging, Bad> {
    let mut paging = Paging::default();
    for (index, line) in text.lines().enumerate() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let mut stalls = None;
        let place = match key {
            "pswpin" => &mut paging.swap_in_pages,
            "pswpout" => &mut paging.swap_out_pages,
            "pgmajfault" => &mut paging.major_faults,
            "oom_kill" => &mut paging.oom_kills,
            "pgscan_direct" => &mut paging.direct_reclaim_scanned_pages,
            "pgscan_kswapd" => &mut paging.background_reclaim_scanned_pages,
            // One for each zone of memory.
            _ if key.starts_with("allocstall") => &mut stalls,
            _ => continue,
        };
        *place = Some(number(Some(value)).ok_or(Bad::Line(index + 1, "`name count`"))?);
        if let Some(stalls) = stalls {
            paging.allocation_stalls = Some(paging.allocation_stalls.unwrap_or(0).saturating_add(stalls));
        }
    }
    Ok(paging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_picked_out_and_a_missing_one_is_not_zero() {
        let paging = parse("nr_free_pages 5\npswpin 1\npswpout 2\npgmajfault 3965\n").unwrap();
        assert_eq!((paging.swap_in_pages, paging.swap_out_pages), (Some(1), Some(2)));
        assert_eq!((paging.major_faults, paging.oom_kills), (Some(3965), None));
        assert_eq!(paging.allocation_stalls, None);
    }

    #[test]
    fn stalls_of_all_zones_are_added_up() {
        let paging =
            parse("allocstall_dma 1\nallocstall_normal 5\npgscan_direct 7\npgscan_direct_throttle 9\n")
                .unwrap();
        assert_eq!((paging.allocation_stalls, paging.direct_reclaim_scanned_pages), (Some(6), Some(7)));
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(parse("a 1\noom_kill\n"), Err(Bad::Line(2, "`name count`")));
        assert_eq!(parse("oom_kill -1"), Err(Bad::Line(1, "`name count`")));
    }
}
