//! `node_network_*` and `node_bonding_*`: the counters of /proc/net/dev and what /sys/class/net says of each device.

use std::fs;
use std::path::Path;

use procfs::FromBufRead;
use procfs::net::{DeviceStatus, InterfaceDeviceStatus};

use super::families::Families;
use super::source::{self, Error};

const DEV: &str = "/proc/net/dev";
const CLASS: &str = "/sys/class/net";

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    add_counters(&source::read(DEV)?, families)?;
    add_class(Path::new(CLASS), families);
    Ok(())
}

fn add_counters(dev: &str, families: &mut Families) -> Result<(), Error> {
    let devices = InterfaceDeviceStatus::from_buf_read(dev.as_bytes()).map_err(|error| Error::Malformed {
        file: DEV,
        problem: error.to_string(),
    })?;
    for device in devices.0.values() {
        add_device(device, families);
    }
    Ok(())
}

fn add_device(device: &DeviceStatus, families: &mut Families) {
    let counters = [
        ("receive_bytes", device.recv_bytes),
        ("receive_packets", device.recv_packets),
        ("receive_errs", device.recv_errs),
        ("receive_drop", device.recv_drop),
        ("receive_fifo", device.recv_fifo),
        ("receive_frame", device.recv_frame),
        ("receive_compressed", device.recv_compressed),
        ("receive_multicast", device.recv_multicast),
        ("transmit_bytes", device.sent_bytes),
        ("transmit_packets", device.sent_packets),
        ("transmit_errs", device.sent_errs),
        ("transmit_drop", device.sent_drop),
        ("transmit_fifo", device.sent_fifo),
        ("transmit_colls", device.sent_colls),
        ("transmit_carrier", device.sent_carrier),
        ("transmit_compressed", device.sent_compressed),
    ];
    let name = device.name.trim_end_matches(':');
    for (counter, value) in counters {
        families.counter(
            &format!("node_network_{counter}_total"),
            &[("device", name)],
            value as f64,
        );
    }
}

/// What the kernel has one file for: the file and the metric.
const GAUGES: [(&str, &str); 12] = [
    ("addr_assign_type", "node_network_address_assign_type"),
    ("carrier", "node_network_carrier"),
    ("dev_id", "node_network_device_id"),
    ("dormant", "node_network_dormant"),
    ("flags", "node_network_flags"),
    ("ifindex", "node_network_iface_id"),
    ("iflink", "node_network_iface_link"),
    ("link_mode", "node_network_iface_link_mode"),
    ("mtu", "node_network_mtu_bytes"),
    ("name_assign_type", "node_network_name_assign_type"),
    ("netdev_group", "node_network_net_dev_group"),
    ("type", "node_network_protocol_type"),
];
const COUNTERS: [(&str, &str); 3] = [
    ("carrier_changes", "node_network_carrier_changes_total"),
    ("carrier_down_count", "node_network_carrier_down_changes_total"),
    ("carrier_up_count", "node_network_carrier_up_changes_total"),
];

fn add_class(class: &Path, families: &mut Families) {
    // A container may have no /sys.
    let Ok(entries) = fs::read_dir(class) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // `bonding_masters` is a file.
        if path.is_dir()
            && let Some(name) = entry.file_name().to_str()
        {
            add_properties(name, &path, families);
        }
    }
}

fn add_properties(name: &str, path: &Path, families: &mut Families) {
    // Many of the files give an error for a device that lacks the property, or is down.
    let text = |file: &str| source::read_if_there(path.join(file)).map(|text| text.trim().to_owned());
    let number = |file: &str| text(file).and_then(|text| integer(&text)).map(|number| number as f64);
    let device = [("device", name)];
    for (file, metric) in GAUGES {
        if let Some(value) = number(file) {
            families.gauge(metric, &device, value);
        }
    }
    for (file, metric) in COUNTERS {
        if let Some(value) = number(file) {
            families.counter(metric, &device, value);
        }
    }
    if let Some(length) = number("tx_queue_len") {
        families.gauge("node_network_transmit_queue_length", &device, length);
    }
    // Mbit/s. Where the device says -1, which is that it does not know, rules written for node_exporter expect -125000.
    if let Some(speed) = number("speed") {
        families.gauge("node_network_speed_bytes", &device, speed * 1e6 / 8.0);
    }
    if let Some(slaves) = text("bonding/slaves") {
        add_bond(name, path, &slaves, families);
    }
    let operstate = text("operstate").unwrap_or_default();
    families.gauge("node_network_up", &device, f64::from(u8::from(operstate == "up")));
    let adminstate = match number("flags").map(|flags| flags as i64 & 1) {
        Some(1) => "up",
        Some(_) => "down",
        None => "unknown",
    };
    let [address, broadcast, duplex, ifalias] =
        ["address", "broadcast", "duplex", "ifalias"].map(|file| text(file).unwrap_or_default());
    let labels = [
        ("device", name),
        ("address", &address),
        ("broadcast", &broadcast),
        ("duplex", &duplex),
        ("operstate", &operstate),
        ("adminstate", adminstate),
        ("ifalias", &ifalias),
    ];
    families.gauge("node_network_info", &labels, 1.0);
}

fn add_bond(name: &str, path: &Path, slaves: &str, families: &mut Families) {
    let slaves: Vec<&str> = slaves.split_ascii_whitespace().collect();
    let is_up = |slave: &&&str| {
        let status = source::read_if_there(path.join(format!("lower_{slave}/bonding_slave/mii_status")));
        status.is_some_and(|status| status.trim() == "up")
    };
    families.gauge("node_bonding_slaves", &[("master", name)], slaves.len() as f64);
    families.gauge(
        "node_bonding_active",
        &[("master", name)],
        slaves.iter().filter(is_up).count() as f64,
    );
}

/// Decimal, or hexadecimal with 0x as flags are.
fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 10 11 12 13 14 15 16 17 20 21 22 23 24 25 26 27
eth0.5: 18446744073709551615 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0
";

    #[test]
    fn each_device_has_its_sixteen_counters() {
        let mut families = Families::default();
        add_counters(TEXT, &mut families).unwrap();
        let samples = samples(&families);
        let receive = [
            "bytes",
            "packets",
            "errs",
            "drop",
            "fifo",
            "frame",
            "compressed",
            "multicast",
        ];
        let transmit = [
            "bytes",
            "packets",
            "errs",
            "drop",
            "fifo",
            "colls",
            "carrier",
            "compressed",
        ];
        for (at, (receive, transmit)) in receive.into_iter().zip(transmit).enumerate() {
            let at = at as f64;
            assert_eq!(
                samples[&format!("node_network_receive_{receive}_total{{device=lo}}")],
                10.0 + at
            );
            assert_eq!(
                samples[&format!("node_network_transmit_{transmit}_total{{device=lo}}")],
                20.0 + at
            );
        }
        assert_eq!(
            samples["node_network_receive_bytes_total{device=eth0.5}"],
            u64::MAX as f64
        );
        assert_eq!(samples.len(), 32);
    }

    #[test]
    fn a_file_of_another_shape_is_an_error() {
        assert!(add_counters("a\nb\neth0: 1 2 x\n", &mut Families::default()).is_err());
    }

    #[test]
    fn the_properties_of_a_device_are_those_that_its_files_have() {
        let class = tempfile::tempdir().unwrap();
        fs::write(class.path().join("bonding_masters"), "").unwrap();
        let write = |device: &str, files: &[(&str, &str)]| {
            fs::create_dir(class.path().join(device)).unwrap();
            for (file, text) in files {
                let path = class.path().join(device).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{text}\n")).unwrap();
            }
        };
        write(
            "eth0",
            &[
                ("operstate", "up"),
                ("speed", "1000"),
                ("mtu", "1500"),
                ("flags", "0x1003"),
                ("carrier_changes", "2"),
                ("address", "02:00:00:00:00:01"),
                ("duplex", "full"),
                ("tx_queue_len", "1000"),
            ],
        );
        write(
            "bond0",
            &[
                ("bonding/slaves", "eth0 eth1"),
                ("lower_eth0/bonding_slave/mii_status", "up"),
                ("lower_eth1/bonding_slave/mii_status", "down"),
            ],
        );
        write("tap0", &[("operstate", "down"), ("speed", "-1"), ("flags", "0x1002")]);
        let mut families = Families::default();
        add_class(class.path(), &mut families);
        let samples = samples(&families);
        assert_eq!(samples["node_network_up{device=eth0}"], 1.0);
        assert_eq!(samples["node_network_up{device=tap0}"], 0.0);
        assert_eq!(samples["node_network_speed_bytes{device=eth0}"], 125e6);
        assert_eq!(samples["node_network_speed_bytes{device=tap0}"], -125e3);
        assert!(!samples.contains_key("node_network_speed_bytes{device=bond0}"));
        assert_eq!(samples["node_bonding_slaves{master=bond0}"], 2.0);
        assert_eq!(samples["node_bonding_active{master=bond0}"], 1.0);
        assert_eq!(samples["node_network_mtu_bytes{device=eth0}"], 1500.0);
        assert_eq!(samples["node_network_flags{device=eth0}"], 4099.0);
        assert_eq!(samples["node_network_carrier_changes_total{device=eth0}"], 2.0);
        assert_eq!(samples["node_network_transmit_queue_length{device=eth0}"], 1000.0);
        let info = "node_network_info{address=02:00:00:00:00:01,adminstate=up,device=eth0,duplex=full,operstate=up}";
        assert_eq!(samples[info], 1.0);
        assert!(samples.contains_key("node_network_info{adminstate=down,device=tap0,operstate=down}"));
    }
}
