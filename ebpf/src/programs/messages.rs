//! What is no data: handshakes, disco, STUN. Rare, so it may take its time.

use core::{mem::MaybeUninit, ptr::addr_of_mut};

use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use tailgauge_ebpf::{
    exchange::Pong,
    histogram::Histogram,
    layout::{
        DIRECTIONS, Disco, Exchange, KINDS_OF_MESSAGE, Kind, Messages, RECEIVE, ROLE_INITIATOR,
        ROLE_RESPONDER, ROLE_UNSEEN, TRANSMIT, UNATTRIBUTED, WireGuard,
    },
    message::{self, DISCO_KEY_AT, HEAD, Message, RELAY_HEADER, STUN_HEADER},
};

use super::{
    atomic::{add, compare_exchange},
    endpoints,
    forget::{forgotten, hidden},
    health, histogram,
    maps::{DISCO, DISCO_KEYS, MESSAGES, SESSIONS, WIREGUARD},
    sessions,
    tcp::now,
    walk::{Walk, load},
};

/// For this long tailscaled tries to reach a peer: `RekeyAttemptTime` (wireguard-go, device/constants.go). Nanoseconds.
const ATTEMPT: u64 = 90_000_000_000;

/// Takes in the last message of `walk` that is no data.
#[inline(never)]
pub(super) fn handle<const DIRECTION: u32>(skb: *mut __sk_buff, walk: &Walk) {
    let message = message(skb, walk);
    seen::<DIRECTION>(message.kind);
    if walk.is_foreign != 0 {
        return;
    }
    match message.kind {
        Kind::Initiation | Kind::Response | Kind::Cookie => {
            wireguard::<DIRECTION>(walk, message.kind, message.sender, message.receiver);
        }
        Kind::Ping | Kind::Pong | Kind::Disco => disco::<DIRECTION>(skb, walk, message.kind),
        Kind::Data | Kind::Stun | Kind::Other => {}
    }
}

#[inline(always)]
fn message(skb: *mut __sk_buff, walk: &Walk) -> Message {
    let length = walk.other_length;
    // Were they known to be zero, a function would be called that sets memory byte by byte.
    let mut head = MaybeUninit::new([forgotten(0); HEAD / 8]);
    if length >= HEAD as u32 {
        load(skb, walk.other_at, &mut head);
    } else if length >= STUN_HEADER as u32 {
        // The shortest STUN message.
        // SAFETY: the first bytes of `head`.
        load(skb, walk.other_at, unsafe { &mut *head.as_mut_ptr().cast::<MaybeUninit<[u8; STUN_HEADER]>>() });
    }
    // SAFETY: written above, and by the helper, which clears what it cannot read.
    let message = message::read(unsafe { head.assume_init() }.map(u64::from_le), length);
    // The verifier would follow the rest anew for every way to read a message.
    Message {
        sender: hidden(message.sender.into(), walk.hash) as u32,
        receiver: hidden(message.receiver.into(), walk.hash) as u32,
        ..message
    }
}

#[inline(always)]
fn seen<const DIRECTION: u32>(kind: Kind) {
    let Some(messages) = MESSAGES.get_ptr_mut(0) else { return };
    // A kind is known to be small; the mask stays in the program for verifiers that forget it.
    const { assert!(2 * KINDS_OF_MESSAGE + 16 <= size_of::<Messages>() / size_of::<u64>()) };
    let place = DIRECTION as usize * KINDS_OF_MESSAGE + (forgotten(kind as u64) as usize & 15);
    // SAFETY: within the row.
    unsafe { add(addr_of_mut!((*messages).seen).cast::<u64>().add(place), 1) };
}

#[inline(never)]
fn wireguard<const DIRECTION: u32>(walk: &Walk, kind: Kind, sender: u32, receiver: u32) {
    let Some(peer) = WIREGUARD.get_ptr_mut(walk.slot) else { return };
    let now = now();
    // SAFETY: a row of the map.
    unsafe {
        match kind {
            Kind::Initiation => {
                count::<DIRECTION>(addr_of_mut!((*peer).initiations));
                if DIRECTION == TRANSMIT {
                    initiate(peer, walk, sender, now);
                } else {
                    (*peer).asked_index = u64::from(sender);
                    (*peer).asked_from = walk.hash;
                    addr_of_mut!((*peer).asked_at).write_volatile(now);
                }
            }
            Kind::Response => {
                count::<DIRECTION>(addr_of_mut!((*peer).responses));
                if DIRECTION == TRANSMIT {
                    respond(peer, walk, sender, receiver, now);
                } else {
                    complete(peer, walk, receiver, now);
                }
            }
            _ => count::<DIRECTION>(addr_of_mut!((*peer).cookies)),
        }
    }
}

/// Counts in the place of the direction.
///
/// # Safety
/// `counters` lies in a row of a map.
#[inline(always)]
unsafe fn count<const DIRECTION: u32>(counters: *mut [u64; DIRECTIONS as usize]) {
    // SAFETY: the caller vouches for the row.
    unsafe { add(counters.cast::<u64>().add(DIRECTION as usize), 1) };
}

/// tailscaled asks for a handshake.
#[inline(always)]
unsafe fn initiate(peer: *mut WireGuard, walk: &Walk, index: u32, now: u64) {
    // SAFETY: a row of the map.
    unsafe {
        let before = (*peer).initiated_at;
        if before != 0 && now.wrapping_sub(before) < ATTEMPT {
            add(addr_of_mut!((*peer).retries), 1);
        }
        (*peer).initiated_index = u64::from(index);
        addr_of_mut!((*peer).initiated_at).write_volatile(now);
    }
    sessions::begin(index, ROLE_INITIATOR, walk.slot, walk.hash, now);
}

/// tailscaled answers: the time since it was asked is its own.
#[inline(always)]
unsafe fn respond(peer: *mut WireGuard, walk: &Walk, index: u32, asked: u32, now: u64) {
    // SAFETY: rows of their maps.
    unsafe {
        let asked_at = (*peer).asked_at;
        if asked_at != 0 && (*peer).asked_index == u64::from(asked) && (*peer).asked_from == walk.hash {
            addr_of_mut!((*peer).asked_at).write_volatile(0);
            if let Some(messages) = MESSAGES.get_ptr_mut(0) {
                record(addr_of_mut!((*messages).handshake_response), now.wrapping_sub(asked_at));
            }
        }
    }
    sessions::begin(index, ROLE_RESPONDER, walk.slot, walk.hash, now);
}

/// A peer answers. Without an initiation that went the same way there is nothing to time: it went by DERP.
#[inline(always)]
unsafe fn complete(peer: *mut WireGuard, walk: &Walk, index: u32, now: u64) {
    let row = sessions::find(index);
    // SAFETY: rows of their maps.
    unsafe {
        if (*peer).initiated_index == u64::from(index) {
            addr_of_mut!((*peer).initiated_at).write_volatile(0);
        }
        if let Some(session) = SESSIONS.get_ptr_mut(row)
            && (*session).role != ROLE_RESPONDER
        {
            if compare_exchange(addr_of_mut!((*session).answered), 0, 1) != 0 {
                // The same answer once more.
                return;
            }
            if (*session).role == ROLE_INITIATOR && (*session).endpoint == walk.hash {
                add(addr_of_mut!((*peer).completed).cast::<u64>().add(ROLE_INITIATOR as usize - 1), 1);
                record(addr_of_mut!((*peer).handshake), now.wrapping_sub((*session).started_at));
                return;
            }
        }
        add(addr_of_mut!((*peer).unpaired_responses), 1);
    }
    if row == sessions::NONE && walk.slot != UNATTRIBUTED {
        let row = sessions::begin(index, ROLE_UNSEEN, walk.slot, walk.hash, now);
        if let Some(session) = SESSIONS.get_ptr_mut(row) {
            // SAFETY: a row of the map.
            unsafe { addr_of_mut!((*session).answered).write_volatile(1) };
        }
    }
}

/// Adds a time in nanoseconds.
///
/// # Safety
/// `histogram` lies in a row of a map.
#[inline(always)]
unsafe fn record(histogram: *mut Histogram, nanoseconds: u64) {
    // SAFETY: the caller vouches for the row.
    unsafe { histogram::record(histogram, nanoseconds / 1_000) };
}

#[inline(never)]
fn disco<const DIRECTION: u32>(skb: *mut __sk_buff, walk: &Walk, kind: Kind) {
    let mut slot = walk.slot;
    if DIRECTION == RECEIVE {
        let known = owner(skb, walk);
        if known != UNATTRIBUTED && known != slot {
            endpoints::learn(&walk.endpoint, known);
            slot = known;
        }
    }
    let Some(peer) = WIREGUARD.get_ptr_mut(slot) else { return };
    // SAFETY: a row of the map.
    unsafe {
        match kind {
            Kind::Ping => count::<DIRECTION>(addr_of_mut!((*peer).pings)),
            Kind::Pong => count::<DIRECTION>(addr_of_mut!((*peer).pongs)),
            _ => {}
        }
    }
    // Anybody can send a ping; only those of tailscaled and of peers are remembered.
    if DIRECTION == RECEIVE && slot == UNATTRIBUTED {
        return;
    }
    match kind {
        Kind::Pong => pong::<DIRECTION>(walk, peer),
        // Also longer ones: a pong may answer them as well.
        _ => ping::<DIRECTION>(walk, kind == Kind::Ping),
    }
}

/// The slot of the peer whose key a disco message bears.
#[inline(always)]
fn owner(skb: *mut __sk_buff, walk: &Walk) -> u32 {
    let relay = if walk.endpoint[2] >> 32 == 0 { 0 } else { RELAY_HEADER };
    let mut key = MaybeUninit::<[u64; 4]>::uninit();
    if !load(skb, walk.other_at + relay + DISCO_KEY_AT, &mut key) {
        return UNATTRIBUTED;
    }
    // SAFETY: written by the helper; a `u32` is read at once, whatever happens to the entry.
    let slot = unsafe { DISCO_KEYS.get(key.assume_init_ref()) };
    endpoints::bounded(slot.map_or(UNATTRIBUTED, |slot| *slot))
}

#[inline(always)]
fn ping<const DIRECTION: u32>(walk: &Walk, is_usual: bool) {
    let at = now();
    let known = DISCO.get_ptr_mut(&walk.endpoint);
    if let Some(disco) = known {
        // SAFETY: an entry of the map. Pings one way come from one socket, one after the other.
        unsafe {
            let exchange = addr_of_mut!((*disco).exchange).cast::<Exchange>().add(DIRECTION as usize);
            (*exchange).ping(at);
            if !is_usual {
                (*exchange).ambiguous = 1;
            }
        }
        return;
    }
    let mut disco = Disco::default();
    disco.exchange[DIRECTION as usize].ping(at);
    if !is_usual {
        disco.exchange[DIRECTION as usize].ambiguous = 1;
    }
    if DISCO.insert(&walk.endpoint, &disco, u64::from(BPF_ANY)).is_err() {
        health::disco_insert_failure();
    }
}

/// A pong answers a ping of the other direction.
#[inline(always)]
fn pong<const DIRECTION: u32>(walk: &Walk, peer: *mut WireGuard) {
    let Some(disco) = DISCO.get_ptr_mut(&walk.endpoint) else { return };
    // SAFETY: rows of their maps.
    unsafe {
        let exchange = addr_of_mut!((*disco).exchange).cast::<Exchange>().add(1 - DIRECTION as usize);
        match (*exchange).pong(now()) {
            Pong::After(nanoseconds) if DIRECTION == RECEIVE => {
                record(addr_of_mut!((*peer).disco_rtt), nanoseconds);
            }
            Pong::After(nanoseconds) => {
                if let Some(messages) = MESSAGES.get_ptr_mut(0) {
                    record(addr_of_mut!((*messages).disco_response), nanoseconds);
                }
            }
            Pong::Ambiguous if DIRECTION == RECEIVE => add(addr_of_mut!((*peer).pongs_ambiguous), 1),
            Pong::Ambiguous | Pong::Unasked => {}
        }
    }
}
