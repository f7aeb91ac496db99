//! Whatever stands in /proc and /sys, the collectors of the host answer or say in one sentence what is wrong: no panic,
//! no wait, no series twice.
//!
//! `TAILGAUGE_SEED=…` runs another series of cases; a failure says which one to repeat.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod hotplug;
mod mutate;
mod node;
mod observer;
#[path = "../support/reader.rs"]
mod reader;
mod tree;

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use mutate::{Change, Random, What};
use observer::Observer;
use tree::Tree;

/// Cases a run, each with one to eight files that are not what the kernel writes.
const CASES: u64 = 3000;
/// A loaded machine does fewer in this time,
const TIME: Duration = Duration::from_secs(10);
/// but so many at least, however long they take.
const LEAST: u64 = 100;
/// Groups of files that are spoilt at once.
const GROUPS: usize = 16;
/// A loaded machine included; a wait for the other end of a FIFO is for ever.
const HANG: Duration = Duration::from_secs(10);
const SEED: &str = "TAILGAUGE_SEED";

fn seed() -> u64 {
    std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_125)
}

/// Numbers of the cases of a run that begins now.
fn cases() -> impl Iterator<Item = u64> {
    let started = Instant::now();
    (0..CASES).take_while(move |case| *case < LEAST || started.elapsed() < TIME)
}

/// Runs cases on a thread of its own, and fails when one of them takes too long. `cases` calls what it is given before
/// each case with the case's name.
fn watched(cases: impl FnOnce(&dyn Fn(String)) + Send + 'static) {
    let (report, reports) = channel();
    let worker = thread::spawn(move || cases(&|case| report.send(case).unwrap()));
    let mut running = String::new();
    loop {
        match reports.recv_timeout(HANG) {
            Ok(case) => running = case,
            Err(RecvTimeoutError::Timeout) => panic!("a collector waits in {running}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(panic) = worker.join() {
        eprintln!("failed in {running}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn any_content_is_an_answer_or_an_error_in_one_sentence() {
    watched(|report| {
        let seed = seed();
        let mut tree = Tree::of_this_machine();
        let mut done = 0;
        for case in cases() {
            let mut random = Random::new(seed, case);
            let changes = Change::some(&mut random, &tree);
            report(format!("case {case} of {SEED}={seed}: {changes:?}"));
            run(&mut tree, &changes, random.chance(2));
            done += changes.len();
        }
        println!("{done} files were spoilt");
    });
}

/// Reads the changed tree, once it was seen as it should be or as the first thing ever, and then as it should be again.
fn run(tree: &mut Tree, changes: &[Change], first: bool) {
    let mut observer = Observer::new(tree);
    if !first {
        observer.collect();
    }
    changes.iter().for_each(|change| tree.apply(change));
    let read = observer.read();
    for failed in &read.failed {
        let said = read.said.iter().filter(|line| line.collector == *failed);
        let said: Vec<&str> = said.map(|line| line.text.as_str()).collect();
        let [sentence] = said.as_slice() else { panic!("{failed} failed and said {said:?}") };
        check_sentence(sentence, tree);
    }
    tree.restore();
    // Files that stay open are those of before where they were changed in place.
    if changes.iter().any(|change| !matches!(change.what, What::Content(_))) {
        observer = Observer::new(tree);
    }
    let failed = observer.collect().failed;
    assert!(failed.is_empty(), "{failed:?} did not recover");
}

/// One line that names the file, or what the kernel was asked.
fn check_sentence(sentence: &str, tree: &Tree) {
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    // A control group's path may have 4096.
    assert!(sentence.len() < 5000, "{} bytes: {sentence:?}", sentence.len());
    let path = tree.path().to_str().unwrap();
    let named = sentence.contains(path)
        || ["cannot list", "cannot ask"].iter().any(|kernel| sentence.starts_with(kernel));
    assert!(named, "{sentence:?} names no file below {path}");
}

#[test]
fn a_pipe_a_directory_and_a_file_without_end_are_refused_at_once() {
    watched(|report| {
        let mut tree = Tree::of_this_machine();
        let files: Vec<_> = tree.files().cloned().collect();
        for kind in What::KINDS {
            // Far apart, so that few are of one collector, which stops at the first.
            for first in 0..GROUPS {
                let group = files.iter().skip(first).step_by(GROUPS);
                let changes: Vec<_> =
                    group.map(|file| Change { file: file.clone(), what: kind.clone() }).collect();
                report(format!("{changes:?}"));
                run(&mut tree, &changes, true);
            }
        }
    });
}

#[test]
fn the_tree_as_copied_is_read_as_the_machine_s_own() {
    let tree = Tree::of_this_machine();
    let mut observer = Observer::new(&tree);
    let read = observer.read();
    assert_eq!(
        read.failed,
        Vec::<String>::new(),
        "a collector reads files that the tree lacks: {:?}",
        read.said
    );
    let exposition = observer.exposition();
    for name in ["tailgauge_host_cpu_seconds_total", "tailgauge_tailscaled_threads", "tailgauge_host_load1"] {
        assert!(!exposition.named(name).is_empty(), "{name}");
    }
}
