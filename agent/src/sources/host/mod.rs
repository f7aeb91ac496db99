//! /proc, /sys: the host beside the traffic, one file a collector.
