//! Collector `ethtool`: features, rings, queues, interrupt coalescing and flow control by generic netlink, and which
//! driver a device has.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::devices::{self, Device};
use super::features::Bits;
use super::genetlink::{Family, word};
use super::ioctl::Ethtool;
use crate::model::host::{DeviceSettings, Host};
use crate::sources::host::rest::Rest;
use crate::sources::host::route::Route;
use crate::sources::host::{Collector, HostError, Paths};
use crate::sources::netlink::attributes;

const RINGS_GET: u8 = 15;
const CHANNELS_GET: u8 = 17;
const COALESCE_GET: u8 = 19;
const PAUSE_GET: u8 = 21;
/// Somebody changes them by hand, if at all, and each question stops all network configuration.
const INTERVAL: Duration = Duration::from_secs(10);
const OPERATION: &str = "ask for settings of network devices (ethtool)";

/// Reads every [`INTERVAL`].
#[derive(Default)]
pub(in crate::sources::host) struct EthtoolCollector {
    route: Route,
    conversation: Option<Conversation>,
    rest: Rest,
}

struct Conversation {
    family: Family,
    bits: Bits,
    /// Netlink does not know the drivers.
    ethtool: Ethtool,
}

impl Collector for EthtoolCollector {
    const NAME: &'static str = "ethtool";
    const HELP: &'static str = "offloads, rings, queues, interrupt delays and flow control of up to 16 network devices by netlink, read every 10 s";
    type Output = Vec<DeviceSettings>;

    fn field(host: &mut Host) -> &mut Option<Vec<DeviceSettings>> {
        &mut host.device_settings
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<DeviceSettings>>, HostError> {
        let settings = self.ask_all(paths)?;
        self.rest.begin(INTERVAL);
        Ok(Some(settings))
    }
}

impl EthtoolCollector {
    fn ask_all(&mut self, paths: &Paths) -> Result<Vec<DeviceSettings>, HostError> {
        let mut conversation = match self.conversation.take() {
            Some(conversation) => conversation,
            None => open()?,
        };
        let mut found = Vec::new();
        for device in devices::list(&mut self.route, paths)? {
            found.extend(conversation.ask(device).map_err(failed)?);
        }
        // Kept only while it works: a late answer would be taken for that of the next request.
        self.conversation = Some(conversation);
        Ok(found)
    }
}

fn open() -> Result<Conversation, HostError> {
    let mut family = Family::open().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => {
            HostError::Unavailable { path: PathBuf::from("the generic netlink family ethtool") }
        }
        _ => failed(error),
    })?;
    let bits = Bits::ask(&mut family).map_err(failed)?;
    Ok(Conversation { family, bits, ethtool: Ethtool::open().map_err(failed)? })
}

fn failed(source: io::Error) -> HostError {
    HostError::Netlink { operation: OPERATION, source }
}

impl Conversation {
    /// `None` when the device is gone.
    fn ask(&mut self, Device { index, name: device }: Device) -> io::Result<Option<DeviceSettings>> {
        let Self { family, bits, ethtool } = self;
        let (Some(offloads), Some(name)) = (bits.of_device(family, index)?, ethtool.name(index)?) else {
            return Ok(None);
        };
        let driver = match ethtool.driver(&name) {
            Err(error) if !devices::is_of_driver(&error) => return Err(error),
            driver => driver.unwrap_or_default(),
        };
        let mut settings = DeviceSettings { device, driver, offloads, ..DeviceSettings::default() };
        family.ask_device(RINGS_GET, index, |answer| rings(answer, &mut settings))?;
        family.ask_device(CHANNELS_GET, index, |answer| channels(answer, &mut settings))?;
        family.ask_device(COALESCE_GET, index, |answer| coalescing(answer, &mut settings))?;
        family.ask_device(PAUSE_GET, index, |answer| pause(answer, &mut settings))?;
        Ok(Some(settings))
    }
}

/// `ETHTOOL_A_RINGS_…`: a ring that the device does not have is left out or zero.
fn rings(answer: &[u8], settings: &mut DeviceSettings) {
    let (receive, transmit) = (&mut settings.receive_ring, &mut settings.transmit_ring);
    for (kind, value) in attributes(answer) {
        let size = word(value).map(u64::from).filter(|size| *size > 0);
        match kind {
            2 => receive.most = size,
            5 => transmit.most = size,
            6 => receive.now = size,
            9 => transmit.now = size,
            _ => {}
        }
    }
}

/// `ETHTOOL_A_CHANNELS_…`: a combined channel is a queue each way.
fn channels(answer: &[u8], settings: &mut DeviceSettings) {
    let (receive, transmit) = (&mut settings.receive_queues, &mut settings.transmit_queues);
    for (kind, value) in attributes(answer) {
        let Some(count) = word(value).map(u64::from) else { continue };
        let places = match kind {
            2 => [Some(&mut receive.most), None],
            3 => [Some(&mut transmit.most), None],
            5 => [Some(&mut receive.most), Some(&mut transmit.most)],
            6 => [Some(&mut receive.now), None],
            7 => [Some(&mut transmit.now), None],
            9 => [Some(&mut receive.now), Some(&mut transmit.now)],
            _ => continue,
        };
        for place in places.into_iter().flatten() {
            *place = Some(place.unwrap_or(0) + count);
        }
    }
}

/// `ETHTOOL_A_COALESCE_…`: what the driver does not support is left out, unless it is set all the same.
fn coalescing(answer: &[u8], settings: &mut DeviceSettings) {
    let (receive, transmit) = (&mut settings.receive_coalescing, &mut settings.transmit_coalescing);
    for (kind, value) in attributes(answer) {
        let on = value.first().map(|byte| *byte != 0);
        match kind {
            2 => receive.delay_microseconds = word(value).map(u64::from),
            6 => transmit.delay_microseconds = word(value).map(u64::from),
            11 => receive.adaptive = on,
            12 => transmit.adaptive = on,
            _ => {}
        }
    }
}

/// `ETHTOOL_A_PAUSE_…`.
fn pause(answer: &[u8], settings: &mut DeviceSettings) {
    for (kind, value) in attributes(answer) {
        let on = value.first().map(|byte| *byte != 0);
        match kind {
            3 => settings.receive_pause = on,
            4 => settings.transmit_pause = on,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::host::{Coalescing, Sizes};
    use crate::sources::netlink::push_attribute;

    fn words(attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            push_attribute(&mut body, *kind, &value.to_ne_bytes());
        }
        body
    }

    /// What virtio_net answered to RINGS_GET and CHANNELS_GET on kernel 6.18.
    const RINGS: &[u8] = include_bytes!("recordings/rings.bin");
    const CHANNELS: &[u8] = include_bytes!("recordings/channels.bin");

    #[test]
    fn a_recorded_device_has_its_rings_and_queues() {
        let mut settings = DeviceSettings::default();
        rings(RINGS, &mut settings);
        channels(CHANNELS, &mut settings);
        let sizes = |now, most| Sizes { now: Some(now), most: Some(most) };
        assert_eq!((settings.receive_ring, settings.transmit_ring), (sizes(256, 256), sizes(256, 256)));
        assert_eq!((settings.receive_queues, settings.transmit_queues), (sizes(1, 1), sizes(1, 1)));
    }

    #[test]
    fn a_combined_channel_is_a_queue_each_way_beside_those_of_one_direction() {
        let mut settings = DeviceSettings::default();
        channels(&words(&[(2, 8), (3, 4), (4, 1), (5, 16), (6, 2), (7, 0), (9, 4)]), &mut settings);
        assert_eq!(settings.receive_queues, Sizes { now: Some(6), most: Some(24) });
        assert_eq!(settings.transmit_queues, Sizes { now: Some(4), most: Some(20) });
    }

    #[test]
    fn what_a_device_does_not_have_is_absent() {
        let mut settings = DeviceSettings::default();
        rings(&words(&[(2, 0), (6, 0)]), &mut settings);
        assert_eq!(settings, DeviceSettings::default());
        let mut body = Vec::new();
        push_attribute(&mut body, 3, &[1]);
        push_attribute(&mut body, 4, &[0]);
        pause(&body, &mut settings);
        assert_eq!((settings.receive_pause, settings.transmit_pause), (Some(true), Some(false)));
    }

    #[test]
    fn interrupts_are_put_off_each_way_for_itself() {
        let mut body = words(&[(2, 50), (3, 64), (6, 0), (7, 1)]);
        push_attribute(&mut body, 11, &[1]);
        let mut settings = DeviceSettings::default();
        coalescing(&body, &mut settings);
        let receive = Coalescing { delay_microseconds: Some(50), adaptive: Some(true) };
        let transmit = Coalescing { delay_microseconds: Some(0), adaptive: None };
        assert_eq!((settings.receive_coalescing, settings.transmit_coalescing), (receive, transmit));
    }

    #[test]
    fn within_the_interval_nothing_is_asked_again() {
        let mut collector = EthtoolCollector::default();
        assert!(!collector.rests());
        let first = collector.collect(&Paths::default()).unwrap().unwrap();
        assert!(collector.rests());
        assert!(first.iter().all(|device| !device.offloads.is_empty()));
    }

    proptest! {
        #[test]
        fn any_answer_is_settings_or_nothing(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut settings = DeviceSettings::default();
            rings(&body, &mut settings);
            channels(&body, &mut settings);
            coalescing(&body, &mut settings);
            pause(&body, &mut settings);
        }
    }
}
