//! A file server that does not answer, over and around local file systems: the agent goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tailgauge_testbed::agent::{self, Agent};
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::needs;
use tailgauge_testbed::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(20);
const SIZE: &str = "tailgauge_host_filesystem_size_bytes";
const ERROR: &str = "node_filesystem_device_error";
const HIDDEN: (&str, &str) = ("mountpoint", "/run/far/hidden");
const COVERED: (&str, &str) = ("mountpoint", "/run/covered");

/// Runs the agent where processes and mounts are their own, and nobody reads what the kernel asks of a file system in user
/// space: that ends with the agent, which holds its last descriptor.
const SCRIPT: &str = r#"#!/bin/sh
trap "kill -KILL \$child" TERM
unshare --mount --pid --fork --kill-child --mount-proc sh -e -c '
umount --recursive /run/netns
mount -t tmpfs run /run
mkdir -p /run/far/hidden /run/covered /run/near
mount -t tmpfs hidden /run/far/hidden
mount -t tmpfs covered /run/covered
mount -t tmpfs near /run/near
exec 9<>/dev/fuse
mount --internal-only -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 hung /run/far
mount --bind /run/far /run/covered
exec "@AGENT@" "$@"
' sh "$@" &
child=$!
wait
"#;

#[test]
fn a_server_that_hangs_hides_what_is_under_it_and_nothing_else() {
    let test = "a_server_that_hangs_hides_what_is_under_it_and_nothing_else";
    let Ok(()) = needs::root_and(test, &["ip", "unshare"]) else { return };
    if !fs::read_to_string("/proc/filesystems").unwrap().contains("\tfuse\n") {
        needs::skip(test, "file systems in user space (CONFIG_FUSE_FS)");
        return;
    }
    let stage = Stage::set().unwrap();
    let program = stage.folder().join("hung");
    let text = SCRIPT.replace("@AGENT@", &agent::binary().unwrap().display().to_string());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let mut agent = Agent::start_program(&program, &stage.namespace, &stage.socket(), &[]).unwrap();

    let near = [("mountpoint", "/run/near")];
    let native = agent.wait_scrape("file systems", |scrape| scrape.value(SIZE, &near).is_some()).unwrap();
    for hidden in [HIDDEN, COVERED] {
        assert_eq!(native.value(SIZE, &[hidden]), None, "{hidden:?}");
    }
    let compat = || {
        let answer = agent.get("/compat/node?collect[]=filesystem").unwrap();
        Exposition::parse(&answer.text()).unwrap()
    };
    let started = Instant::now();
    for _ in 0..3 {
        let scrape = compat();
        assert_eq!(scrape.value(ERROR, &near), Some(0.0));
        for hidden in [HIDDEN, COVERED] {
            let labels = [hidden];
            let errors = scrape.matching(ERROR, &labels);
            let errors: Vec<_> = errors.map(|error| (error.value, error.label("device_error"))).collect();
            assert!(!errors.is_empty(), "{hidden:?}");
            assert!(errors.iter().all(|error| *error == (1.0, Some("mountpoint timeout"))), "{errors:?}");
        }
    }
    assert!(started.elapsed() < PATIENCE);
}
