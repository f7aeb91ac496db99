//! TCP sockets by sock_diag, filtered by the kernel (`inet_diag_dump_icsk` and `inet_diag_bc_run` in
//! net/ipv4/inet_diag.c).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::info::TcpInfo;
use crate::sources::host::sock_diag::{
    Answer, ID_BYTES, ID_REMOTE_ADDRESS, STEP_BYTES, if_marked, push_program, step,
};
use crate::sources::netlink::Netlink;

/// `TCPDIAG_GETSOCK`, the older request: it alone walks the sockets of both address families at once.
const TCPDIAG_GETSOCK: u16 = 18;
/// `struct inet_diag_req`: family, lengths, extensions; socket; states; `idiag_dbs`.
const HEADER_BYTES: usize = 4;
const REQUEST_BYTES: usize = HEADER_BYTES + ID_BYTES + 8;
/// `INET_DIAG_INFO`; bits of `idiag_ext` are numbered from 1.
const INFO: u16 = 2;
/// Sockets of one answer at most: so many take 60 ms.
const MOST: usize = 50_000;

/// `INET_DIAG_BC_…`: jump, remote address.
const JUMP: u8 = 1;
const REMOTE: u8 = 8;

/// TCP states by number (include/net/tcp_states.h).
pub(super) mod state {
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SYN_SENT: u8 = 2;
    pub(in super::super) const SYN_RECV: u8 = 3;
    pub(in super::super) const FIN_WAIT1: u8 = 4;
    pub(in super::super) const FIN_WAIT2: u8 = 5;
    pub(in super::super) const CLOSE_WAIT: u8 = 8;
    pub(in super::super) const LAST_ACK: u8 = 9;
    pub(in super::super) const LISTEN: u8 = 10;
    pub(in super::super) const CLOSING: u8 = 11;
}

/// Which sockets are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those whose other end is in a network.
    Remote(IpNet),
    /// Those with tailscaled's mark; needs CAP_NET_ADMIN.
    Marked,
}

/// A socket with what the kernel measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) state: u8,
    pub(super) remote: IpAddr,
    pub(super) marked: bool,
    pub(super) info: TcpInfo,
}

/// Hands the state of every socket in one of `states` to `each`.
pub(super) fn states(netlink: &mut Netlink, states: &[u8], mut each: impl FnMut(u8)) -> io::Result<()> {
    dump(netlink, &request(states, 0, &[]), |answer| each(answer.state))
}

/// Hands every socket in one of `states` of which one of `wanted` holds to `each`.
pub(super) fn connections(
    netlink: &mut Netlink,
    states: &[u8],
    wanted: &[Wanted],
    mut each: impl FnMut(&Connection),
) -> io::Result<()> {
    dump(netlink, &request(states, 1 << (INFO - 1), wanted), |answer| {
        if let Some(connection) = connection(answer) {
            each(&connection);
        }
    })
}

fn dump(netlink: &mut Netlink, request: &[u8], mut each: impl FnMut(&Answer<'_>)) -> io::Result<()> {
    let flags = libc::NLM_F_DUMP as u16;
    netlink.request_at_most(MOST, TCPDIAG_GETSOCK, flags, request, |_, body| {
        if let Some(answer) = Answer::parse(body) {
            each(&answer);
        }
    })
}

fn connection(answer: &Answer<'_>) -> Option<Connection> {
    let (_, info) = answer.attributes().find(|(kind, _)| *kind == INFO)?;
    let address = &answer.socket.id[ID_REMOTE_ADDRESS..];
    let remote = if answer.socket.family == libc::AF_INET6 as u8 {
        // A socket of IPv6 that talks IPv4.
        IpAddr::V6(Ipv6Addr::from(*address.first_chunk::<16>()?)).to_canonical()
    } else {
        IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?))
    };
    Some(Connection { state: answer.state, remote, marked: answer.is_marked(), info: TcpInfo::parse(info)? })
}

fn request(states: &[u8], extensions: u8, wanted: &[Wanted]) -> Vec<u8> {
    let mut request = vec![0; REQUEST_BYTES];
    request[3] = extensions;
    let states = states.iter().fold(0u32, |mask, state| mask | 1 << state);
    request[HEADER_BYTES + ID_BYTES..][..4].copy_from_slice(&states.to_ne_bytes());
    if !wanted.is_empty() {
        push_program(&mut request, &filter(wanted));
    }
    request
}

/// A program that accepts what any of `wanted` holds of. Each condition goes on to a jump to the end when it holds,
/// else behind that jump; the last one jumps beyond the end, which rejects. The kernel takes jumps only to places that
/// lie on the way of a program whose conditions all hold.
fn filter(wanted: &[Wanted]) -> Vec<u8> {
    let mut program = Vec::new();
    for (place, one) in wanted.iter().enumerate().rev() {
        let (code, operand) = operand(*one);
        let length = STEP_BYTES + operand.len();
        let mut piece = step(code, length, length + STEP_BYTES);
        piece.extend_from_slice(&operand);
        if place + 1 < wanted.len() {
            piece.extend_from_slice(&step(JUMP, STEP_BYTES, STEP_BYTES + program.len()));
        }
        program.splice(..0, piece);
    }
    program
}

/// `struct inet_diag_hostcond` or `struct inet_diag_markcond`.
fn operand(wanted: Wanted) -> (u8, Vec<u8>) {
    match wanted {
        Wanted::Remote(network) => {
            let family = if network.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            let mut operand = vec![family as u8, network.prefix_len(), 0, 0];
            let any_port = -1i32;
            operand.extend_from_slice(&any_port.to_ne_bytes());
            match network.network() {
                IpAddr::V4(address) => operand.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => operand.extend_from_slice(&address.octets()),
            }
            (REMOTE, operand)
        }
        Wanted::Marked => if_marked(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use netlink_sys::protocols::NETLINK_SOCK_DIAG;
    use proptest::prelude::*;

    use super::super::tests::loopback;
    use super::*;

    /// A connection whose one end sees `address` at the other.
    fn connect(address: Ipv4Addr) -> (TcpListener, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener, client)
    }

    fn remotes(wanted: &[Wanted]) -> Vec<(IpAddr, bool)> {
        let mut netlink = Netlink::open(NETLINK_SOCK_DIAG).unwrap();
        let mut found = Vec::new();
        connections(&mut netlink, &[state::ESTABLISHED], wanted, |connection| {
            found.push((connection.remote, connection.marked));
        })
        .unwrap();
        found
    }

    #[test]
    fn the_kernel_takes_the_filter_and_finds_what_is_wanted_only() {
        let ours = [1, 2, 17].map(loopback);
        let _connections = ours.map(connect);
        let [first, second, third] = ours;
        let with = |wanted: &[String]| {
            let wanted: Vec<_> =
                wanted.iter().map(|network| Wanted::Remote(network.parse().unwrap())).collect();
            let found = remotes(&wanted);
            ours.map(|address| found.contains(&(address.into(), false)))
        };
        let network = |host, length| format!("{}/{length}", loopback(host));
        let (tailscale, nobody) = ("fd7a:115c:a1e0::/48".to_owned(), "192.0.2.0/24".to_owned());
        assert_eq!(with(&[network(0, 28)]), [true, true, false]);
        assert_eq!(with(&[format!("{second}/32"), network(16, 28)]), [false, true, true]);
        assert_eq!(with(&[tailscale.clone(), format!("{third}/32"), nobody.clone()]), [false, false, true]);
        assert_eq!(with(&[nobody, tailscale, format!("{first}/32")]), [true, false, false]);
        assert_eq!(with(&["fd7a:115c:a1e0::/48".to_owned()]), [false; 3]);
        assert_eq!(with(&["0.0.0.0/0".to_owned()]), [true; 3]);
    }

    #[test]
    fn ipv4_through_a_socket_of_ipv6_is_ipv4() {
        let address = loopback(3);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let mapped = SocketAddr::from((address.to_ipv6_mapped(), listener.local_addr().unwrap().port()));
        let Ok(_client) = TcpStream::connect(mapped) else {
            eprintln!("skipped: this kernel runs without IPv6");
            return;
        };
        let found = remotes(&[Wanted::Remote(IpNet::from(IpAddr::from(address)))]);
        assert!(found.contains(&(address.into(), false)), "{found:?}");
    }

    #[test]
    fn ipv6_is_filtered_by_its_own_networks() {
        let Ok(listener) = TcpListener::bind("[::1]:0") else {
            eprintln!("skipped: this kernel runs without IPv6");
            return;
        };
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let loopback = "::1".parse().unwrap();
        for (network, there) in [("::/64", true), ("::1/128", true), ("::2/128", false), ("2000::/3", false)]
        {
            let found = remotes(&[
                Wanted::Remote("192.0.2.1/32".parse().unwrap()),
                Wanted::Remote(network.parse().unwrap()),
            ]);
            assert_eq!(found.contains(&(loopback, false)), there, "{network}: {found:?}");
        }
    }

    #[test]
    fn a_mark_is_a_filter_of_its_own() {
        let (_listener, client) = connect(loopback(4));
        if socket2::SockRef::from(&client).set_mark(0x8_0000).is_err() {
            eprintln!("skipped: SO_MARK needs CAP_NET_ADMIN");
            return;
        }
        for wanted in [&[Wanted::Marked][..], &[Wanted::Remote("::/128".parse().unwrap()), Wanted::Marked]] {
            let found = remotes(wanted);
            assert!(found.contains(&(loopback(4).into(), true)), "{found:?}");
            assert!(found.iter().all(|(_, marked)| *marked), "{found:?}");
        }
    }

    #[test]
    fn states_are_told_apart() {
        let (listener, _client) = connect(loopback(5));
        let mut netlink = Netlink::open(NETLINK_SOCK_DIAG).unwrap();
        let mut found = [0; 16];
        states(&mut netlink, &[state::LISTEN, state::FIN_WAIT1], |state| found[usize::from(state)] += 1)
            .unwrap();
        assert!(found[usize::from(state::LISTEN)] >= 1 && found[usize::from(state::ESTABLISHED)] == 0);
        drop(listener);
    }

    proptest! {
        #[test]
        fn any_answer_is_a_connection_or_nothing(body in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Answer::parse(&body).as_ref().and_then(connection);
        }
    }
}
