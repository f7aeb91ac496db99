//! Both programs side by side, in namespaces of their own with something of everything in them.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailgauge_testbed::agent::{self, Agent};
use tailgauge_testbed::process::wait_until;
use tailgauge_testbed::stage::Stage;
use tailgauge_testbed::{compat, http};

use super::compare::Scrape;
use super::differences::COVERED;

const REFERENCE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9100);
const PATIENCE: Duration = Duration::from_secs(20);
/// Debian's filters are not upstream's; these are node_exporter 1.12's defaults.
const FLAGS: [&str; 8] = [
    // As the agent: a scrape takes a socket of the same kind.
    "--web.listen-address=127.0.0.1:9100",
    "--web.disable-exporter-metrics",
    "--collector.disable-defaults",
    "--collector.netdev.device-exclude=",
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
    "--collector.filesystem.fs-types-exclude=^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$",
    "--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$",
    "--collector.netstat.fields=^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$",
];

/// Runs node_exporter beside the agent where processes, mounts and udev's database are their own.
const SCRIPT: &str = r#"#!/bin/sh
trap "kill -KILL \$child" TERM
unshare --mount --pid --fork --kill-child --mount-proc sh -e -c '
umount --recursive /run/netns
mount -t tmpfs -o size=1m run /run
mkdir -p "/run/with blank" /run/udev/data @COVERED@
mount -t tmpfs below @COVERED@
mount -t tmpfs above $(dirname @COVERED@)
mount -t tmpfs -o ro,size=2m blank "/run/with blank"
[ @ROOT@ = / ] || { mkdir @ROOT@; mount --rbind / @ROOT@; }
while read -r major minor name rest; do
    printf "S:disk\nE:ID_MODEL=Model \"%s\"\nE:ID_SERIAL_SHORT=serial\nE:ID_FS_TYPE=ext4\nE:DM_NAME=%s\nE:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\n" \
        "$name" "$name" > "/run/udev/data/b$major:$minor"
done < /proc/diskstats
sleep 1000 &
kill -STOP $!
export TZ=Asia/Kolkata
prometheus-node-exporter @FLAGS@ > "@FOLDER@/node_exporter.log" 2>&1 &
exec "@AGENT@" "$@"
' sh "$@" &
child=$!
wait
"#;

/// Both programs.
pub(crate) struct Stand<'a> {
    agent: Agent<'a>,
    stage: &'a Stage,
}

/// Sockets with something in them.
struct Sockets {
    _tcp: (TcpListener, TcpStream, TcpStream),
    _udp: [UdpSocket; 2],
}

/// Another root than `/`: all mounts are there once more, as a container sees its host.
pub(crate) const ROOT: &str = "/run/root";

/// Runs a test beside both, which see the host's files below `root`.
pub(crate) fn with(root: &str, test: impl FnOnce(&Stand<'_>)) {
    let stage = Stage::set().unwrap();
    let _sockets = fill(&stage);
    let program = script(stage.folder(), root);
    let flags = ["--path.rootfs", root];
    let agent = Agent::start_program(&program, &stage.namespace, &stage.socket(), &flags).unwrap();
    let stand = Stand { agent, stage: &stage };
    wait_until("node_exporter", PATIENCE, || stand.get(REFERENCE, "/metrics").is_some()).unwrap_or_else(
        |timeout| {
            let log = fs::read_to_string(stage.folder().join("node_exporter.log")).unwrap_or_default();
            panic!("{timeout}; its log:\n{log}")
        },
    );
    test(&stand);
}

/// Devices, tracked connections and sockets.
fn fill(stage: &Stage) -> Sockets {
    let namespace = &stage.namespace;
    namespace.ip(&["link", "add", "left", "type", "veth", "peer", "name", "right"]).unwrap();
    namespace.ip(&["link", "set", "left", "up", "mtu", "1400", "alias", "say \"hi\" \\ there"]).unwrap();
    namespace.ip(&["link", "set", "right", "up", "txqueuelen", "77"]).unwrap();
    namespace.ip(&["link", "add", "bridge", "type", "bridge"]).unwrap();
    namespace
        .nft("table inet t {\nchain c {\ntype filter hook input priority 0;\nct state new counter\n}\n}\n")
        .unwrap();
    let open = || -> io::Result<Sockets> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        // Nobody reads it.
        client.write_all(&[7; 5000])?;
        let udp = ["127.0.0.1:0", "[::1]:0"].map(UdpSocket::bind);
        let [ipv4, ipv6] = udp;
        let udp = [ipv4?, ipv6?];
        for socket in &udp {
            socket.send_to(&[7; 1000], socket.local_addr()?)?;
        }
        Ok(Sockets { _tcp: (listener, client, server), _udp: udp })
    };
    namespace.run(open).unwrap().unwrap()
}

/// The program that starts both, in `folder`.
fn script(folder: &Path, root: &str) -> PathBuf {
    let quoted = |flag: &str| format!("\"{}\"", flag.replace('\\', "\\\\").replace('$', "\\$"));
    let flags = FLAGS.iter().map(|flag| quoted(flag));
    let collectors = compat::collectors().map(|name| format!("--collector.{name}"));
    let flags: Vec<_> = flags.chain(collectors).chain([format!("--path.rootfs={root}")]).collect();
    let program = folder.join("both");
    let text = SCRIPT
        .replace("@COVERED@", COVERED)
        .replace("@ROOT@", root)
        .replace("@FLAGS@", &flags.join(" "))
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@AGENT@", &agent::binary().unwrap().display().to_string());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

impl Stand<'_> {
    fn get(&self, address: SocketAddr, target: &str) -> Option<http::Response> {
        self.stage.namespace.run(|| http::get(address, target)).unwrap().ok()
    }

    /// A scrape of node_exporter.
    pub(crate) fn reference(&self) -> Scrape {
        Scrape::parse(&self.get(REFERENCE, "/metrics").expect("node_exporter answers").text())
    }

    /// A scrape of the agent.
    pub(crate) fn agent(&self, target: &str) -> Scrape {
        let answer = self.agent.get(target).unwrap();
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Scrape::parse(&answer.text())
    }

    /// What node_exporter and the agent say to a query.
    pub(crate) fn status(&self, query: &str) -> (u16, u16) {
        let reference = self.get(REFERENCE, &format!("/metrics{query}")).map(|answer| answer.status);
        (reference.unwrap(), self.agent.get(&format!("/compat/node{query}")).unwrap().status)
    }

    pub(crate) fn log(&self) -> String {
        self.agent.log()
    }
}
