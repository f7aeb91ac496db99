//! Paths and methods.

use std::borrow::Cow;

use hyper::{Method, StatusCode, Uri};

use super::query;
use crate::model::node::Selection;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Landing,
    Metrics {
        /// Run times of the BPF programs are wanted.
        program_statistics: bool,
    },
    Healthy,
    Ready,
    CompatNode(Selection),
    CompatTailscale,
}

/// Why a request gets no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// One line for the client.
    pub(super) reason: Cow<'static, str>,
    /// Value of the label `handler`: never what the client sent.
    pub(super) handler: &'static str,
}

const METRICS: &str = "/metrics";
const COMPAT_NODE: &str = "/compat/node";
const OTHER: &str = "other";

impl Route {
    /// Value of the label `handler`.
    pub(super) const fn handler(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics { .. } => METRICS,
            Self::Healthy => "/healthz",
            Self::Ready => "/readyz",
            Self::CompatNode(_) => COMPAT_NODE,
            Self::CompatTailscale => "/compat/tailscale",
        }
    }
}

/// Finds the page of a request.
pub(super) fn route(method: &Method, uri: &Uri) -> Result<Route, Refusal> {
    let mut route = match uri.path() {
        "/" => Route::Landing,
        METRICS => Route::Metrics { program_statistics: false },
        "/healthz" => Route::Healthy,
        "/readyz" => Route::Ready,
        COMPAT_NODE => Route::CompatNode(Selection::default()),
        "/compat/tailscale" => Route::CompatTailscale,
        _ => {
            let reason =
                "no such page; there are: / /metrics /compat/node /compat/tailscale /healthz /readyz";
            return Err(Refusal { status: StatusCode::NOT_FOUND, reason: reason.into(), handler: OTHER });
        }
    };
    let handler = route.handler();
    if !matches!(*method, Method::GET | Method::HEAD) {
        let reason = "only GET and HEAD are allowed".into();
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason, handler });
    }
    let query = uri.query().unwrap_or_default();
    let refused = |reason| Refusal { status: StatusCode::BAD_REQUEST, reason, handler };
    match &mut route {
        Route::Metrics { program_statistics: wanted } => {
            *wanted = program_statistics(query).map_err(refused)?;
        }
        Route::CompatNode(wanted) => *wanted = query::selection(query).map_err(refused)?,
        _ => {}
    }
    Ok(route)
}

/// Value of `program_stats` in a query; other parameters belong to others and are ignored.
fn program_statistics(query: &str) -> Result<bool, Cow<'static, str>> {
    let mut values = query.split('&').filter_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        ("program_stats", value) => Some(value),
        _ => None,
    });
    match values.next_back() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err("program_stats is 1 (keep BPF statistics on for the next minute) or 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_methods_and_queries() {
        let metrics = |program_statistics| Ok(Route::Metrics { program_statistics });
        for (method, uri, expected) in [
            (Method::GET, "/", Ok(Route::Landing)),
            (Method::HEAD, "/healthz", Ok(Route::Healthy)),
            (Method::GET, "/metrics", metrics(false)),
            (Method::GET, "/metrics?program_stats=1", metrics(true)),
            (Method::GET, "/metrics?a=b&program_stats=1&c", metrics(true)),
            (Method::GET, "/metrics?program_stats=0", metrics(false)),
            (Method::GET, "/metrics?xprogram_stats=1", metrics(false)),
            (Method::GET, "/metrics?program_stats", Err(StatusCode::BAD_REQUEST)),
            (Method::GET, "/compat/node", Ok(Route::CompatNode(Selection::defaults()))),
            (Method::GET, "/compat/node?collect[]=coffee", Err(StatusCode::BAD_REQUEST)),
            (Method::POST, "/compat/node?collect[]=coffee", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "/metrics?program_stats=yes", Err(StatusCode::BAD_REQUEST)),
            (Method::POST, "/metrics", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (Method::GET, "/metrics/", Err(StatusCode::NOT_FOUND)),
            (Method::POST, "/nothing", Err(StatusCode::NOT_FOUND)),
        ] {
            let got = route(&method, &uri.parse().unwrap()).map_err(|refusal| refusal.status);
            assert_eq!(got, expected, "{method} {uri}");
        }
    }
}
