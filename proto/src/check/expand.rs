//! Parameters: `${name}` in the texts of a run. One pass; what a value holds is never looked at again, and a value never
//! leaves the element it stands in.

use std::collections::BTreeMap;

use crate::v1;

/// The run of a check with its parameters put in. `$${` stands for `${`; a reference to an unknown parameter, which
/// `validate` refuses, stays as it is.
pub fn expand(check: &v1::Check) -> v1::Run {
    let mut run = check.run.clone().unwrap_or_default();
    for_each_text(&mut run, &mut |_, text| {
        if let Ok(expanded) = put_in(text, &check.parameters) {
            *text = expanded;
        }
    });
    run
}

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error {
    Unknown(String),
    NotClosed,
}

pub(super) fn put_in(text: &str, parameters: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (name, after) = after.split_once('}').ok_or(Error::NotClosed)?;
            expanded.push_str(parameters.get(name).ok_or_else(|| Error::Unknown(name.to_owned()))?);
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Every text of a run that may hold a reference, with its path within the check.
pub(super) fn for_each_text(run: &mut v1::Run, visit: &mut dyn FnMut(&str, &mut String)) {
    for (index, element) in run.command.iter_mut().enumerate() {
        visit(&format!("run.command[{index}]"), element);
    }
    if let Some(disk) = &mut run.disk {
        visit("run.disk.path", &mut disk.path);
        visit("run.disk.warning", &mut disk.warning);
        visit("run.disk.critical", &mut disk.critical);
        visit("run.disk.inodesWarning", &mut disk.inodes_warning);
        visit("run.disk.inodesCritical", &mut disk.inodes_critical);
    }
    if let Some(load) = &mut run.load {
        visit("run.load.warning", &mut load.warning);
        visit("run.load.critical", &mut load.critical);
    }
    if let Some(memory) = &mut run.memory {
        visit("run.memory.warning", &mut memory.warning);
        visit("run.memory.critical", &mut memory.critical);
    }
    if let Some(process) = &mut run.process {
        visit("run.process.name", &mut process.name);
        visit("run.process.commandContains", &mut process.command_contains);
        visit("run.process.user", &mut process.user);
        visit("run.process.warning", &mut process.warning);
        visit("run.process.critical", &mut process.critical);
    }
    if let Some(tcp) = &mut run.tcp {
        visit("run.tcp.address", &mut tcp.address);
        visit("run.tcp.send", &mut tcp.send);
        visit("run.tcp.expect", &mut tcp.expect);
    }
    if let Some(http) = &mut run.http {
        visit("run.http.url", &mut http.url);
        visit("run.http.method", &mut http.method);
        for (name, value) in &mut http.headers {
            visit(&format!("run.http.headers[{name}]"), value);
        }
        for (index, status) in http.expect_status.iter_mut().enumerate() {
            visit(&format!("run.http.expectStatus[{index}]"), status);
        }
        visit("run.http.expectBody", &mut http.expect_body);
    }
}
