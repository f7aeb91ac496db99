//! Which mounts can be seen: not those that a later one hides, on the same mount point or on a directory above it.

use std::collections::{HashMap, HashSet};

use super::mountinfo::Line;

/// Mounts by what they are mounted on.
pub(super) struct MountTree<'a> {
    /// The mount on a path in another mount, or in none of the table.
    children: HashMap<(Option<u32>, &'a str), u32>,
    /// The mount that a path leads to, for paths that were asked for.
    tops: HashMap<&'a str, Option<u32>>,
}

impl<'a> MountTree<'a> {
    /// A number that comes twice counts once, so that no way goes in circles.
    pub(super) fn new(lines: &[Line<'a>]) -> Self {
        let ids: HashSet<u32> = lines.iter().map(|line| line.id).collect();
        let mut taken = HashSet::with_capacity(ids.len());
        let first = lines.iter().filter(|line| taken.insert(line.id));
        let parent = |line: &Line<'_>| Some(line.parent).filter(|id| *id != line.id && ids.contains(id));
        let children = first.map(|line| ((parent(line), line.mount_point), line.id)).collect();
        Self { children, tops: HashMap::new() }
    }

    /// Whether who goes to the mount's point comes to the mount.
    pub(super) fn is_seen(&mut self, line: &Line<'a>) -> bool {
        let mut top = None;
        let ends = line.mount_point.match_indices('/').map(|(end, _)| end.max(1)).skip(1);
        for end in [1].into_iter().chain(ends).chain([line.mount_point.len()]) {
            let Some(path) = line.mount_point.get(..end) else { return false };
            top = match self.tops.get(path) {
                Some(known) => *known,
                None => {
                    while let Some(mounted) = self.children.get(&(top, path)) {
                        top = Some(*mounted);
                    }
                    self.tops.insert(path, top);
                    top
                }
            };
        }
        top == Some(line.id)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

    use super::*;

    fn lines(text: &str) -> Vec<Line<'_>> {
        text.lines().map(|line| Line::parse(line).unwrap()).collect()
    }

    /// Numbers of those that are seen.
    fn seen(table: &[(u32, u32, &str)]) -> Vec<u32> {
        let row =
            |(id, parent, point): &(u32, u32, &str)| format!("{id} {parent} 0:1 / {point} rw - x x rw\n");
        let text: String = table.iter().map(row).collect();
        let lines = lines(&text);
        let mut tree = MountTree::new(&lines);
        lines.iter().filter(|line| tree.is_seen(line)).map(|line| line.id).collect()
    }

    #[test]
    fn the_last_on_a_mount_point_hides_the_others() {
        assert_eq!(seen(&[(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a"), (4, 3, "/a")]), [1, 4]);
        assert_eq!(seen(&[(1, 1, "/"), (2, 1, "/")]), [2], "as after a RAM disk that began it all");
    }

    #[test]
    fn one_above_hides_what_was_there_and_not_what_is_in_it() {
        assert_eq!(seen(&[(1, 0, "/"), (2, 1, "/a/b"), (3, 1, "/a"), (4, 3, "/a/c")]), [1, 3, 4]);
        assert_eq!(
            seen(&[(3, 1, "/a"), (4, 3, "/a/b"), (1, 0, "/"), (2, 1, "/a/b")]),
            [3, 4, 1],
            "in any order"
        );
        assert_eq!(seen(&[(1, 0, "/"), (2, 1, "/ab"), (3, 1, "/a"), (4, 1, "/b/a")]), [1, 2, 3, 4]);
        let in_hidden = [(1, 0, "/"), (2, 1, "/a"), (3, 2, "/a/b"), (4, 1, "/a/b")];
        assert_eq!(seen(&in_hidden), [1, 2, 3]);
    }

    #[test]
    fn a_root_that_is_no_mount_of_its_own_has_no_line() {
        assert_eq!(seen(&[(5, 2, "/a"), (6, 5, "/a/b"), (7, 2, "/c")]), [5, 6, 7]);
    }

    #[test]
    fn circles_end_and_numbers_that_come_twice_count_once() {
        assert_eq!(seen(&[(1, 2, "/"), (2, 1, "/")]), [0; 0]);
        assert_eq!(seen(&[(1, 0, "/"), (2, 1, "/"), (1, 2, "/")]), [2]);
        assert_eq!(seen(&[(1, 0, "x"), (2, 0, "\u{e9}/"), (3, 0, "")]), [1], "no paths, and no panic");
    }

    #[test]
    fn thousands_on_one_mount_point_take_no_time() {
        let table: Vec<_> = (1..20_000).map(|id| (id, id - 1, "/a/b")).collect();
        let started = Instant::now();
        assert_eq!(seen(&table), [19_999]);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }

    /// Mounts of this machine for which the kernel says another thing, out of how many.
    fn differences() -> (Vec<String>, usize) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = lines(&text);
        let mut tree = MountTree::new(&lines);
        let (mut different, mut compared) = (Vec::new(), 0);
        for line in &lines {
            let Ok(found) = statx(CWD, line.point(), AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID) else {
                continue;
            };
            if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
                compared += 1;
                if tree.is_seen(line) != (found.stx_mnt_id == u64::from(line.id)) {
                    different.push(format!("{line:?}"));
                }
            }
        }
        (different, compared)
    }

    #[test]
    fn the_kernel_comes_to_the_same_mounts() {
        // Some may come and go meanwhile.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let (different, compared) = differences();
            if different.is_empty() {
                return assert!(compared > 0, "a kernel that does not tell (before 5.8)");
            }
            assert!(Instant::now() < end, "{different:#?}");
        }
    }
}
