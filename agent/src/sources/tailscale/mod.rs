//! tailscaled's LocalAPI.
