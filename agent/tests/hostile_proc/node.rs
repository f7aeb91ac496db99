//! The same for what `/compat/node` reads.

use std::collections::BTreeSet;

use bytes::BytesMut;
use tailgauge::model::node::{Node, NodeCollector};
use tailgauge::outputs::compat;
use tailgauge::sources::host::NodeSource;

use crate::mutate::{Change, Random, What};
use crate::observer::{Said, logged, well_formed};
use crate::tree::Tree;
use crate::{GROUPS, SEED, cases, check_sentence, seed, watched};

/// These ask the kernel and read no file.
const ASK: [NodeCollector; 5] = [
    NodeCollector::Netdev,
    NodeCollector::Tcpstat,
    NodeCollector::Time,
    NodeCollector::UdpQueues,
    NodeCollector::Uname,
];

/// Reads as the first scrape does. What is exported must be readable, with every series once.
pub(crate) fn read(tree: &Tree) -> Vec<Said> {
    let mut source = NodeSource::new(tree.paths());
    let mut node = Node::default();
    let wanted = || NodeCollector::ALL.into_iter().filter(|collector| !ASK.contains(collector));
    let said = logged(|| source.collect(wanted().collect(), &mut node));
    let mut text = BytesMut::new();
    compat::node::render(&node, &mut text);
    well_formed(&text);
    said
}

fn run(tree: &mut Tree, changes: &[Change], usual: &BTreeSet<String>) {
    changes.iter().for_each(|change| tree.apply(change));
    for said in read(tree) {
        check_sentence(&said.text, tree);
    }
    tree.restore();
    assert_eq!(&failing(tree), usual, "after it was restored");
}

fn failing(tree: &Tree) -> BTreeSet<String> {
    read(tree).into_iter().map(|said| said.collector).collect()
}

#[test]
fn compat_node_answers_or_says_what_is_wrong() {
    watched(|report| {
        let mut tree = Tree::of_this_machine();
        // This kernel may lack something.
        let usual = failing(&tree);
        let files: Vec<_> = tree.files().cloned().collect();
        for (first, kind) in (0..GROUPS).flat_map(|first| What::KINDS.map(|kind| (first, kind))) {
            let group = files.iter().skip(first).step_by(GROUPS);
            let changes: Vec<_> =
                group.map(|file| Change { file: file.clone(), what: kind.clone() }).collect();
            report(format!("{changes:?}"));
            run(&mut tree, &changes, &usual);
        }
        for case in cases() {
            let changes = Change::some(&mut Random::new(seed(), case), &tree);
            report(format!("case {case} of {SEED}={}: {changes:?}", seed()));
            run(&mut tree, &changes, &usual);
        }
    });
}
