//! At rest the encoders allocate nothing. One test only: the count is of the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use tailgauge::model::node::{Node, Selection};
use tailgauge::model::synthetic;
use tailgauge::outputs::compat;
use tailgauge::outputs::prometheus::{Build, Encoder, Format};
use tailgauge::sources::host::{NodeSource, Paths};

#[path = "support/host.rs"]
mod host;
#[path = "support/model.rs"]
mod model;
#[path = "support/underlay.rs"]
mod underlay;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn encoding_at_rest_allocates_nothing() {
    let now = Instant::now();
    for filled in [synthetic::model(500), model::rich_model(now)] {
        let mut encoder = Encoder::new(Build::current());
        let mut out = BytesMut::new();
        let mut allocations = |format| {
            out.clear();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            encoder.encode(&filled, now, format, &mut out);
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        assert!(
            allocations(Format::OpenMetrics) > 0,
            "the first time, labels are rendered and the buffer grows"
        );
        allocations(Format::Text);
        assert_eq!([allocations(Format::Text), allocations(Format::OpenMetrics)], [0, 0]);
    }
    let mut node = Node::default();
    NodeSource::new(Paths::default()).collect(Selection::defaults(), &mut node);
    let mut out = BytesMut::with_capacity(4 << 20);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    compat::node::render(&node, &mut out);
    assert_eq!((ALLOCATIONS.load(Ordering::Relaxed) - before, out.is_empty()), (0, false));
}
