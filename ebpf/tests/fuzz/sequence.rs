//! Counters in an order that nobody would send.

use tailgauge_ebpf::sequence::{receive, settle};

use crate::memory::Row;
use crate::model::{ABSURD, Model};
use crate::random::Random;

pub fn check(random: &mut Random) {
    let has_loop = !random.chance(4);
    let (row, mut model) = (Row::new(has_loop), Model::new(has_loop));
    let (mut settled, mut lost) = (0, 0);
    for _ in 0..random.below(50) {
        let next = row.next();
        let reach = *random.pick(&[2, 40, 2200, 20_000]);
        let ahead = random.below(reach);
        match random.below(16) {
            0 => {
                settled = next.saturating_sub(ahead).max(settled);
                settle(&row, settled);
                model.settle(settled);
            }
            1 => take(&row, &mut model, random.next() >> random.below(64), !random.chance(3)),
            2 => take(&row, &mut model, ABSURD - 1 - ahead, false),
            3..8 => take(&row, &mut model, next.saturating_sub(ahead), true),
            _ => take(&row, &mut model, next + if random.chance(2) { 0 } else { ahead }, !random.chance(16)),
        }
        let counts = row.counts();
        assert_eq!(counts, model.counts);
        assert!(row.lost() >= lost);
        lost = row.lost();
    }
    assert_eq!(row.counts().received + lost + row.pending(), model.judged());
    let certain = model.missing - model.open();
    assert!(lost == certain || lost < certain && model.has_void());
    settle(&row, row.next());
    assert_eq!((row.lost(), row.pending()), (model.missing, 0));
}

fn take(row: &Row, model: &mut Model, counter: u64, continuous: bool) {
    receive(row, counter, continuous);
    model.receive(counter, continuous);
}
