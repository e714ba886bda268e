//! The kinds of run: their defaults and what each must be like. The runs given to `validate` have their parameters put in.

use std::{net::Ipv6Addr, time::Duration};

use tonic::codegen::http::Uri;

use super::{MAX_ARGUMENTS, validate::Violations};
use crate::{
    excerpt::excerpt,
    suggest::suggest,
    threshold::{Amount, LoadTriple, Range},
    v1,
};

/// In order of their field numbers.
pub(super) const KINDS: [&str; 7] = ["command", "disk", "load", "memory", "process", "tcp", "http"];

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const MAX_HEADERS: usize = 32;

/// Those that are set; a good run has one.
pub(super) fn kinds(run: &v1::Run) -> Vec<&'static str> {
    // Named field by field, so that a new kind does not compile until it is dealt with here.
    let v1::Run {
        command,
        disk,
        load,
        memory,
        process,
        tcp,
        http,
    } = run;
    let set = [
        !command.is_empty(),
        disk.is_some(),
        load.is_some(),
        memory.is_some(),
        process.is_some(),
        tcp.is_some(),
        http.is_some(),
    ];
    KINDS
        .into_iter()
        .zip(set)
        .filter_map(|(kind, set)| set.then_some(kind))
        .collect()
}

pub(super) fn normalize(run: &mut v1::Run) {
    let fill = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    if let Some(disk) = &mut run.disk {
        fill(&mut disk.path, "/");
        fill(&mut disk.warning, "20%");
        fill(&mut disk.critical, "10%");
    }
    if let Some(memory) = &mut run.memory {
        fill(&mut memory.warning, "10%");
        fill(&mut memory.critical, "5%");
    }
    if let Some(process) = &mut run.process {
        fill(&mut process.critical, "1:");
    }
    if let Some(http) = &mut run.http {
        fill(&mut http.method, "GET");
        if http.expect_status.is_empty() {
            http.expect_status = vec!["2xx".to_owned(), "3xx".to_owned()];
        }
    }
}

pub(super) fn validate(run: &v1::Run, found: &mut Violations) {
    if !run.command.is_empty() {
        command(&run.command, found);
    }
    if let Some(disk) = &run.disk {
        disk_run(disk, found);
    }
    if let Some(load) = &run.load {
        load_run(load, found);
    }
    if let Some(memory) = &run.memory {
        amounts(
            ("run.memory.warning", &memory.warning),
            ("run.memory.critical", &memory.critical),
            found,
        );
    }
    if let Some(process) = &run.process {
        for (field, text) in [
            ("run.process.warning", &process.warning),
            ("run.process.critical", &process.critical),
        ] {
            if !text.is_empty() {
                found.take(field, text.parse::<Range>());
            }
        }
    }
    if let Some(tcp) = &run.tcp {
        found.take("run.tcp.address", address(&tcp.address));
        times("run.tcp", tcp.warning.as_ref(), tcp.critical.as_ref(), found);
    }
    if let Some(http) = &run.http {
        http_run(http, found);
    }
}

fn command(command: &[String], found: &mut Violations) {
    if command.len() > MAX_ARGUMENTS {
        let text = format!(
            "{} elements are more than the {MAX_ARGUMENTS} that are allowed",
            command.len()
        );
        found.add("run.command", text);
    }
    let program = command[0].as_str();
    if program.is_empty() {
        found.add("run.command[0]", "expected the path of a program, found nothing");
    } else if !program.starts_with('/') {
        let advice = match program.split_once(char::is_whitespace) {
            Some((first, _)) => format!(
                "; no shell splits it: write each argument as an element of its own, [\"/path/to/{}\", ...]",
                excerpt(first.rsplit('/').next().unwrap_or(first))
            ),
            None => "; no search path is used, write where it is: `command -v NAME` shows it, and Debian's plugins are in /usr/lib/nagios/plugins".to_owned(),
        };
        let shown = excerpt(program);
        found.add(
            "run.command[0]",
            format!("expected the absolute path of a program, found `{shown}`{advice}"),
        );
    } else if program.ends_with('/') {
        found.add(
            "run.command[0]",
            "expected the path of a program, found that of a folder",
        );
    }
}

fn disk_run(disk: &v1::DiskRun, found: &mut Violations) {
    if !disk.path.starts_with('/') {
        let shown = excerpt(&disk.path);
        found.add(
            "run.disk.path",
            format!("expected an absolute path like `/var`, found `{shown}`"),
        );
    }
    amounts(
        ("run.disk.warning", &disk.warning),
        ("run.disk.critical", &disk.critical),
        found,
    );

    let inodes = [
        ("run.disk.inodesWarning", &disk.inodes_warning),
        ("run.disk.inodesCritical", &disk.inodes_critical),
    ];
    let [warning, critical] = inodes.map(|(field, text)| {
        let amount = (!text.is_empty())
            .then(|| found.take(field, text.parse::<Amount>()))
            .flatten()?;
        match amount {
            Amount::Percent(percent) => return Some(percent),
            Amount::Bytes(_) => found.add(
                field,
                format!("inodes are counted in percent, like `10%`; found `{text}`"),
            ),
        }
        None
    });
    if let (Some(warning), Some(critical)) = (warning, critical)
        && critical > warning
    {
        found.add(
            "run.disk.inodesCritical",
            above(&disk.inodes_critical, &disk.inodes_warning),
        );
    }
}

/// Two limits of what is free: critical is the lower one. Those of different units cannot be compared.
fn amounts(warning: (&str, &str), critical: (&str, &str), found: &mut Violations) {
    let limits = [warning, critical].map(|(field, text)| found.take(field, text.parse::<Amount>()));
    let wrong = match limits {
        [Some(Amount::Percent(warning)), Some(Amount::Percent(critical))] => critical > warning,
        [Some(Amount::Bytes(warning)), Some(Amount::Bytes(critical))] => critical > warning,
        _ => false,
    };
    if wrong {
        found.add(critical.0, above(critical.1, warning.1));
    }
}

fn above(critical: &str, warning: &str) -> String {
    format!(
        "{critical} is more than the warning ({warning}), which would never be seen; these are what must be free, so critical is the lower one, and one that is left out has its default"
    )
}

fn load_run(load: &v1::LoadRun, found: &mut Violations) {
    if load.warning.is_empty() && load.critical.is_empty() {
        return found.add("run.load", "warning or critical is required, for example `warning: \"15,10,5\"`; without both it could find no problem");
    }
    let limits = [
        ("run.load.warning", &load.warning),
        ("run.load.critical", &load.critical),
    ]
    .map(|(field, text)| {
        (!text.is_empty())
            .then(|| found.take(field, text.parse::<LoadTriple>()))
            .flatten()
    });
    if let [Some(warning), Some(critical)] = limits
        && warning
            .0
            .iter()
            .zip(critical.0)
            .any(|(warning, critical)| critical < *warning)
    {
        let text = format!(
            "{} is less than the warning ({}), which would never be seen",
            load.critical, load.warning
        );
        found.add("run.load.critical", text);
    }
}

/// `host:port`, with IPv6 in brackets.
fn address(text: &str) -> Result<(), String> {
    let error = |problem: &str| {
        let shown = excerpt(text);
        Err(format!(
            "expected `host:port` like `db.example.com:5432` or `[2001:db8::1]:5432`, found `{shown}`{problem}"
        ))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return error(", which has no port");
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return error("; a port is 1 to 65535");
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // A zone as in fe80::1%eth0 belongs to the machine that runs the check.
        Some(inner) if inner.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) => Ok(()),
        Some(_) => error("; what is in the brackets is no IPv6 address"),
        None if host.contains(':') => error("; IPv6 addresses stand in brackets"),
        None if !host.is_empty() && host.len() <= 253 && host.bytes().all(good) => Ok(()),
        None => error(""),
    }
}

fn times(
    run: &str,
    warning: Option<&prost_types::Duration>,
    critical: Option<&prost_types::Duration>,
    found: &mut Violations,
) {
    let range = || Duration::from_millis(1)..=Duration::from_secs(3_600);
    let warning = found.duration(&format!("{run}.warning"), warning, range());
    let critical = found.duration(&format!("{run}.critical"), critical, range());
    if let (Some(warning), Some(critical)) = (warning, critical)
        && critical < warning
    {
        let [critical, warning] = [critical, warning].map(crate::duration::format);
        let text = format!("{critical} is less than the warning ({warning}), which would never be seen");
        found.add(&format!("{run}.critical"), text);
    }
}

fn http_run(http: &v1::HttpRun, found: &mut Violations) {
    found.take("run.http.url", url(&http.url));
    if !METHODS.contains(&http.method.as_str()) {
        let advice = match suggest(&http.method, METHODS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the methods are {}", METHODS.join(", ")),
        };
        let shown = excerpt(&http.method);
        found.add("run.http.method", format!("`{shown}` is no method; {advice}"));
    }
    if http.headers.len() > MAX_HEADERS {
        let text = format!(
            "{} headers are more than the {MAX_HEADERS} that are allowed",
            http.headers.len()
        );
        found.add("run.http.headers", text);
    }
    for (name, value) in &http.headers {
        let field = format!("run.http.headers[{}]", excerpt(name));
        if tonic::codegen::http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            found.add(
                &field,
                "this is no name of a header; letters, digits and `-` are, like `User-Agent`",
            );
        }
        if tonic::codegen::http::HeaderValue::from_str(value).is_err() {
            found.add(&field, "a header's value is one line of printable ASCII");
        }
    }
    for (index, status) in http.expect_status.iter().enumerate() {
        let good = match status.as_bytes() {
            [b'1'..=b'5', b'x', b'x'] => true,
            [b'1'..=b'5', tens, ones] => tens.is_ascii_digit() && ones.is_ascii_digit(),
            _ => false,
        };
        if !good {
            let shown = excerpt(status);
            let text = format!("expected a status code like `200`, or a class like `2xx`, found `{shown}`");
            found.add(&format!("run.http.expectStatus[{index}]"), text);
        }
    }
    times("run.http", http.warning.as_ref(), http.critical.as_ref(), found);
}

fn url(text: &str) -> Result<(), String> {
    let error = |problem: &str| {
        let shown = excerpt(text);
        Err(format!(
            "expected a URL like `https://example.com/health`, found `{shown}`{problem}"
        ))
    };
    if text.contains(char::is_whitespace) {
        return error("; write blanks as `%20`");
    }
    let Ok(uri) = text.parse::<Uri>() else {
        return error("");
    };
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return error("; the schemes are http and https"),
        None => return error(", which has no scheme; put `http://` or `https://` before it"),
    }
    let Some(authority) = uri.authority() else {
        return error(", which has no host");
    };
    if authority.as_str().contains('@') {
        // Policies are shown to every operator and lie on every agent.
        return error("; no user name and password can be given in it");
    }
    let port = authority
        .as_str()
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| !port.ends_with(']'));
    if authority.host().is_empty() || port.is_some_and(|_| authority.port_u16().is_none_or(|port| port == 0)) {
        return error("; its host or its port is wrong");
    }
    Ok(())
}
