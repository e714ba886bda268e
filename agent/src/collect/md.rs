//! `node_md_*` from /proc/mdstat: the software RAIDs, and how many of their disks work.

use super::families::Families;
use super::source::{self, Error};

const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    // Only where the kernel has the driver.
    if let Some(mdstat) = source::read_if_there("/proc/mdstat") {
        for array in arrays(&mdstat) {
            add(&array, families);
        }
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Array<'a> {
    name: &'a str,
    state: &'static str,
    active: u64,
    failed: u64,
    spare: u64,
    required: u64,
}

/// An array is a line that starts with its name, and the lines up to the next one.
fn arrays(mdstat: &str) -> Vec<Array<'_>> {
    let mut arrays: Vec<Array<'_>> = Vec::new();
    for line in mdstat.lines() {
        match line.split_once(" : ") {
            Some((name, rest)) if name.starts_with("md") => arrays.push(first_line(name, rest)),
            _ if line.trim().is_empty() || line.starts_with("unused") => {}
            _ => {
                if let Some(array) = arrays.last_mut() {
                    array.further_line(line);
                }
            }
        }
    }
    arrays
}

/// "active raid1 sdb1[1] sda1[0](F)".
fn first_line<'a>(name: &'a str, rest: &str) -> Array<'a> {
    let mut array = Array {
        name,
        state: if rest.starts_with("active") {
            "active"
        } else {
            "inactive"
        },
        ..Array::default()
    };
    for disk in rest.split_ascii_whitespace().filter(|word| word.contains('[')) {
        if disk.contains("(F)") {
            array.failed += 1;
        } else if disk.contains("(S)") {
            array.spare += 1;
        } else if array.state == "active" {
            array.active += 1;
        }
    }
    // What has no redundancy does not say how many it needs: all of them.
    array.required = array.active;
    array
}

impl Array<'_> {
    fn further_line(&mut self, line: &str) {
        // "[4/3]": needed and working.
        let counts = line.split_ascii_whitespace().find_map(|word| {
            let (required, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
            Some((required.parse().ok()?, active.parse().ok()?))
        });
        if let (Some((required, active)), "active") = (counts, self.state) {
            (self.required, self.active) = (required, active);
        }
        for (word, state) in [("recovery", "recovering"), ("resync", "resync"), ("check", "check")] {
            let at_work = line
                .split_ascii_whitespace()
                .any(|found| found == word || found.starts_with(&format!("{word}=")));
            if at_work {
                self.state = state;
            }
        }
    }
}

fn add(array: &Array<'_>, families: &mut Families) {
    let mut disks = |state: &str, count: u64| {
        families.gauge(
            "node_md_disks",
            &[("device", array.name), ("state", state)],
            count as f64,
        );
    };
    disks("active", array.active);
    disks("failed", array.failed);
    disks("spare", array.spare);
    families.gauge(
        "node_md_disks_required",
        &[("device", array.name)],
        array.required as f64,
    );
    for state in STATES {
        let is = f64::from(u8::from(array.state == state));
        families.gauge("node_md_state", &[("device", array.name), ("state", state)], is);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    const MDSTAT: &str = "\
Personalities : [linear] [multipath] [raid0] [raid1] [raid6] [raid5] [raid4] [raid10]
md127 : active raid1 sdi2[0] sdj2[1]
      312319552 blocks [2/2] [UU]

md4 : inactive raid1 sda3[0](F) sdb3[1](S)
      4883648 blocks [2/2] [UU]

md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]
      195310144 blocks [2/1] [U_]
      [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec

md9 : active raid1 sdc2[2] sdd2[3]
      523968 blocks super 1.2 [4/2] [UU__]
\tresync=DELAYED

md10 : active raid0 sda1[0] sdb1[1]
      314159265 blocks 64k chunks

md219 : inactive sdb[2](S) sdc[1](S) sda[0](S)
    7932 blocks super external:imsm

unused devices: <none>
";

    #[test]
    fn each_array_has_its_state_and_its_disks() {
        let array = |name, state, active, failed, spare, required| Array {
            name,
            state,
            active,
            failed,
            spare,
            required,
        };
        assert_eq!(
            arrays(MDSTAT),
            [
                array("md127", "active", 2, 0, 0, 2),
                array("md4", "inactive", 0, 1, 1, 0),
                array("md6", "recovering", 1, 1, 1, 2),
                array("md9", "resync", 2, 0, 0, 4),
                array("md10", "active", 2, 0, 0, 2),
                array("md219", "inactive", 0, 0, 3, 0),
            ]
        );
    }

    #[test]
    fn the_samples_are_by_device_and_state() {
        let mut families = Families::default();
        add(&arrays(MDSTAT)[2], &mut families);
        let samples = samples(&families);
        assert_eq!(samples["node_md_disks{device=md6,state=active}"], 1.0);
        assert_eq!(samples["node_md_disks{device=md6,state=failed}"], 1.0);
        assert_eq!(samples["node_md_disks_required{device=md6}"], 2.0);
        assert_eq!(samples["node_md_state{device=md6,state=recovering}"], 1.0);
        assert_eq!(samples["node_md_state{device=md6,state=active}"], 0.0);
    }

    #[test]
    fn a_machine_without_arrays_has_none() {
        assert_eq!(arrays("Personalities : \nunused devices: <none>\n"), []);
    }
}
