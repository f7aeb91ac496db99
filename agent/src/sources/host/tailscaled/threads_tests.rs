//! Threads that come and go, in a tree of files and of this process.

use procfs::FromRead as _;

use super::*;

fn thread(process: &Path, id: i32, delay: u64, switches: (u64, u64)) {
    let directory = process.join("task").join(id.to_string());
    fs::create_dir_all(&directory).unwrap();
    let (voluntary, involuntary) = switches;
    fs::write(directory.join("schedstat"), format!("5 {delay} {}\n", voluntary + involuntary)).unwrap();
    let status = format!(
        "Name:\tx\nvoluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}\n"
    );
    fs::write(directory.join("status"), status).unwrap();
}

#[test]
fn the_end_of_a_thread_does_not_turn_the_sums_back() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    let mut update = || threads.update(root.path(), Duration::ZERO).unwrap();
    thread(root.path(), 1, 1_000, (10, 1));
    thread(root.path(), 2, 2_000, (20, 2));
    let sums = |delay_nanoseconds, run_nanoseconds, voluntary_switches, involuntary_switches| {
        Some(Sums { delay_nanoseconds, run_nanoseconds, voluntary_switches, involuntary_switches })
    };
    assert_eq!(update(), sums(3_000, 10, 30, 3));
    fs::remove_dir_all(root.path().join("task/2")).unwrap();
    thread(root.path(), 1, 1_500, (11, 1));
    assert_eq!(update(), sums(3_500, 10, 31, 3));
    thread(root.path(), 1, 250, (2, 0));
    assert_eq!(update(), sums(3_750, 10, 33, 3), "less than before is another thread");
    fs::remove_dir_all(root.path().join("task")).unwrap();
    assert_eq!(update(), None);
}

#[test]
fn what_cannot_be_read_once_is_not_counted_twice_later() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    for id in 1..=8 {
        thread(root.path(), id, 1_000, (10, 1));
    }
    assert_eq!(threads.update(root.path(), Duration::ZERO).unwrap().unwrap().delay_nanoseconds, 8_000);
    let status = root.path().join("task/3/status");
    thread(root.path(), 3, 1_000, (11, 1));
    fs::remove_file(&status).unwrap();
    fs::create_dir(&status).unwrap();
    let error = threads.update(root.path(), Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("task/3/status"), "{error}");
    fs::remove_dir(&status).unwrap();
    thread(root.path(), 3, 1_001, (11, 1));
    let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
    assert_eq!((sums.delay_nanoseconds, sums.voluntary_switches), (8_001, 81));
}

#[test]
fn no_more_threads_are_followed_than_there_are_files_for() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    for id in 1..=MOST as i32 + 9 {
        thread(root.path(), id, 1, (1, 1));
    }
    let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
    assert_eq!((sums.delay_nanoseconds, sums.voluntary_switches), (MOST as u64, MOST as u64));
}

#[test]
fn of_a_thread_that_there_was_no_room_for_counts_what_it_does_once_there_is() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    let most = MOST as u64;
    for id in 1..=MOST as i32 + 1 {
        thread(root.path(), id, 1_000, (10, 1));
    }
    let update = |threads: &mut Threads| {
        // Switches are read of threads that ran.
        threads.switches_read = None;
        let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
        (sums.delay_nanoseconds, sums.voluntary_switches)
    };
    assert_eq!(update(&mut threads), (most * 1_000, most * 10));
    let left_out = (1..).find(|id| !threads.by_id.contains_key(id)).unwrap();
    let ended = *threads.by_id.keys().next().unwrap();
    fs::remove_dir_all(root.path().join(format!("task/{ended}"))).unwrap();
    // The one that ended makes room with this list, for the next one.
    for _ in 0..2 {
        assert_eq!(update(&mut threads), (most * 1_000, most * 10));
    }
    assert!(threads.by_id.contains_key(&left_out));
    thread(root.path(), left_out, 1_007, (12, 1));
    assert_eq!(update(&mut threads), (most * 1_000 + 7, most * 10 + 2));
    // Of one that has begun since the last list, everything counts.
    let ended = *threads.by_id.keys().find(|id| **id != left_out).unwrap();
    fs::remove_dir_all(root.path().join(format!("task/{ended}"))).unwrap();
    update(&mut threads);
    thread(root.path(), 1_000_000, 500, (5, 1));
    assert_eq!(update(&mut threads), (most * 1_000 + 507, most * 10 + 7));
}

#[test]
fn what_a_thread_did_before_it_was_seen_is_in_no_sample() {
    let root = tempfile::tempdir().unwrap();
    thread(root.path(), 1, 1_000, (1, 0));
    let mut threads = Threads::for_samples();
    let mut update = || {
        let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
        (sums.delay_nanoseconds, sums.run_nanoseconds)
    };
    let (waited, ran) = update();
    thread(root.path(), 2, 500_000_000, (1, 0));
    assert_eq!(update(), (waited, ran));
    thread(root.path(), 2, 500_000_003, (2, 0));
    assert_eq!(update(), (waited + 3, ran));
}

#[test]
fn a_schedstat_that_cannot_be_read_is_no_end() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("task/1/schedstat")).unwrap();
    let mut threads = Threads::default();
    let error = threads.update(root.path(), Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("task/1/schedstat") && threads.len() == 1, "{error}");
}

#[test]
fn threads_are_listed_when_others_must_be_among_them() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    thread(root.path(), 1, 1_000, (1, 0));
    thread(root.path(), 2, 2_000, (1, 0));
    let delay =
        |threads: &mut Threads, count| threads.follow(root.path(), count).unwrap().unwrap().delay_nanoseconds;
    assert_eq!(delay(&mut threads, 2), 3_000);
    thread(root.path(), 3, 500, (1, 0));
    assert_eq!(delay(&mut threads, 2), 3_000, "nothing says that there is another one");
    assert_eq!(delay(&mut threads, 3), 3_500);
    fs::remove_dir_all(root.path().join("task/2")).unwrap();
    assert_eq!(delay(&mut threads, 2), 3_500);
    assert_eq!(threads.len(), 2);
}

#[test]
fn a_thread_that_ends_as_another_one_comes_has_it_found_at_once() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let first = std::thread::spawn(move || stopped.recv().is_err());
    let tasks = Path::new("/proc/self/task");
    let mut threads = Threads::default();
    threads.list(tasks).unwrap();
    drop(stop);
    assert!(first.join().unwrap());
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let second = std::thread::spawn(move || {
        ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        stopped.recv().is_err()
    });
    let id = is_ready.recv().unwrap();
    let started = Instant::now();
    while !threads.by_id.contains_key(&id) {
        assert!(started.elapsed() < LIST_INTERVAL, "{id} is not found");
        threads.follow(Path::new("/proc/self"), threads.len() as u64).unwrap();
    }
    drop(stop);
    assert!(second.join().unwrap());
}

#[test]
fn switches_are_read_of_threads_that_ran_since() {
    let root = tempfile::tempdir().unwrap();
    let mut threads = Threads::default();
    let mut switches = |expected| {
        let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
        assert_eq!(sums.voluntary_switches, expected);
    };
    thread(root.path(), 1, 0, (5, 0));
    switches(5);
    let schedstat = root.path().join("task/1/schedstat");
    thread(root.path(), 1, 0, (6, 0));
    fs::write(&schedstat, "5 0 5\n").unwrap();
    switches(5);
    fs::write(&schedstat, "5 0 6\n").unwrap();
    switches(6);
    // A kernel that does not count them.
    fs::write(&schedstat, "0 0 0\n").unwrap();
    switches(6);
    thread(root.path(), 1, 0, (9, 0));
    fs::write(&schedstat, "0 0 0\n").unwrap();
    switches(9);
}

#[test]
fn a_malformed_schedstat_is_named() {
    let root = tempfile::tempdir().unwrap();
    thread(root.path(), 1, 1, (0, 0));
    fs::write(root.path().join("task/1/schedstat"), "many").unwrap();
    let error = Threads::default().update(root.path(), Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("task/1/schedstat") && error.contains("three counts"), "{error}");
}

#[test]
fn a_schedstat_is_what_procfs_makes_of_it() {
    for text in ["0 0 0\n", "829018 257290 30\n", "18446744073709551615 1 2\n"] {
        let expected = procfs::process::Schedstat::from_read(text.as_bytes()).unwrap();
        let expected = (expected.sum_exec_runtime, expected.run_delay, expected.pcount);
        assert_eq!(parse(text), Some(expected));
    }
    for text in ["", "1\n", "1 2\n", "1 -2 3\n", "1 x 3\n", "99999999999999999999 1 1\n"] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn this_process_switches() {
    let sums = Threads::default().update(Path::new("/proc/self"), Duration::ZERO).unwrap().unwrap();
    assert!(sums.voluntary_switches + sums.involuntary_switches > 0);
}
