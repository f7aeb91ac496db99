//! The landing page and the readiness answer: pure functions of the model.

use std::fmt::Write as _;

use tailgauge_ebpf::layout::programs;

use crate::model::Model;
use crate::model::kernel::{Hook, HookMode};
use crate::outputs::prometheus::Build;

/// Whether the agent is of no use while the hook is not attached: true of those on the tunnel.
fn is_essential(hook: &Hook) -> bool {
    [programs::TUNNEL_INGRESS, programs::TUNNEL_EGRESS].contains(&hook.hook)
}

/// Ready once both hooks on the tunnel are attached and a first state of the tailnet is known.
///
/// # Errors
/// Why not, in one line.
pub(super) fn readiness(model: &Model) -> Result<(), String> {
    let kernel = &model.kernel;
    if kernel.hooks.is_empty() {
        return Err("no hook is attached yet".to_owned());
    }
    if let Some(hook) = kernel.hooks.iter().find(|hook| is_essential(hook) && hook.mode == HookMode::None) {
        let reason = hook.reason.as_deref().unwrap_or("not tried yet");
        return Err(one_line(&format!("{} is not attached to {}: {reason}", hook.hook, hook.device)));
    }
    if model.tailnet.own.is_none() {
        return Err("tailscaled has not said yet who its peers are".to_owned());
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// The page at `/`: what this is, where to go on, and the first facts.
pub(super) fn landing(model: &Model, build: &Build) -> String {
    let state = match readiness(model) {
        Ok(()) => "ready".to_owned(),
        Err(reason) => format!("not ready: {reason}"),
    };
    let hooks: Vec<_> =
        model.kernel.hooks.iter().map(|hook| format!("{}: {}", hook.hook, hook.mode.as_str())).collect();
    let tailnet = &model.tailnet;
    let tailscaled = match (tailnet.up, tailnet.version.as_str()) {
        (true, version) => format!("up, {version}, {}", tailnet.backend_state),
        (false, "") => "has not answered yet".to_owned(),
        (false, version) => format!("down, last seen as {version}"),
    };
    let online = tailnet.peers.iter().filter(|peer| peer.online).count();
    let mut facts = String::new();
    for (name, value) in [
        ("State", state),
        ("Interface", model.kernel.device.clone()),
        ("Hooks", hooks.join(", ")),
        ("tailscaled", tailscaled),
        ("Peers", format!("{}, {online} online", tailnet.peers.len())),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(facts, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>tailgauge</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }}
th {{ text-align: left; padding-right: 2rem; font-weight: 600 }}
</style>
</head>
<body>
<h1>tailgauge {version}</h1>
<p>Traffic and handshake times of every Tailscale peer of this node.</p>
<table>
{facts}</table>
<ul>
<li><a href=\"/metrics\">/metrics</a> for Prometheus</li>
<li><a href=\"/compat/node\">/compat/node</a> in place of node_exporter</li>
<li><a href=\"/compat/tailscale\">/compat/tailscale</a> for dashboards of the classic exporters</li>
<li><a href=\"/readyz\">/readyz</a> and <a href=\"/healthz\">/healthz</a> for supervisors</li>
</ul>
</body>
</html>
",
        version = escape(build.version),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::kernel::Hook;
    use crate::model::tailnet::{Peer, Tailnet};

    fn hook(mode: HookMode, reason: Option<&str>) -> Hook {
        let (device, reason) = ("tailscale0".to_owned(), reason.map(str::to_owned));
        Hook { device, hook: "tunnel_ingress", mode, reason }
    }

    #[test]
    fn ready_needs_hooks_and_a_first_state() {
        let mut model = Model::default();
        assert_eq!(readiness(&model), Err("no hook is attached yet".to_owned()));
        model.kernel.hooks = vec![hook(HookMode::None, Some("no such\ninterface"))];
        let expected = "tunnel_ingress is not attached to tailscale0: no such interface";
        assert_eq!(readiness(&model), Err(expected.to_owned()));
        model.kernel.hooks = vec![hook(HookMode::Tcx, None)];
        assert_eq!(readiness(&model), Err("tailscaled has not said yet who its peers are".to_owned()));
        model.tailnet = Arc::new(Tailnet { own: Some(Arc::default()), ..Tailnet::default() });
        assert_eq!(readiness(&model), Ok(()));
        model.kernel.hooks.push(Hook { hook: "underlay_egress", ..hook(HookMode::None, Some("no")) });
        assert_eq!(readiness(&model), Ok(()), "one hook that fails takes no other down");
    }

    #[test]
    fn the_page_shows_facts_and_escapes_them() {
        let mut model = Model::default();
        model.kernel.device = "<script>".to_owned();
        model.kernel.hooks = vec![hook(HookMode::Clsact, None)];
        let peer = |online| Arc::new(Peer { online, ..Peer::default() });
        model.tailnet =
            Arc::new(Tailnet { peers: vec![peer(true), peer(false), peer(true)], ..Tailnet::default() });
        let page = landing(&model, &Build::current());
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("tunnel_ingress: clsact"));
        assert!(page.contains("3, 2 online"));
    }
}
