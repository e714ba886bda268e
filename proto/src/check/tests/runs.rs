//! The native kinds of run: which limits, paths, addresses and URLs are good.

use super::*;

#[test]
fn a_critical_limit_that_comes_before_the_warning_is_refused() {
    expect(
        &check(disk("10%", "20%")),
        "run.disk.critical",
        "20% is more than the warning (10%)",
    );
    expect(
        &check(disk("5%", "")),
        "run.disk.critical",
        "10% is more than the warning (5%)",
    );
    expect(
        &check(disk("1GiB", "2GiB")),
        "run.disk.critical",
        "more than the warning",
    );
    assert_eq!(
        validate(&check(disk("10%", "2GiB"))),
        [],
        "different units cannot be compared"
    );
    assert_eq!(validate(&check(disk("10%", "10%"))), []);

    let memory = v1::MemoryRun {
        warning: "1%".to_owned(),
        critical: String::new(),
    };
    expect(
        &check(v1::Run {
            memory: Some(memory),
            ..Default::default()
        }),
        "run.memory.critical",
        "more than the warning",
    );

    let load = |warning: &str, critical: &str| {
        let load = v1::LoadRun {
            warning: warning.to_owned(),
            critical: critical.to_owned(),
            per_cpu: false,
        };
        check(v1::Run {
            load: Some(load),
            ..Default::default()
        })
    };
    expect(&load("5", "4"), "run.load.critical", "4 is less than the warning (5)");
    expect(&load("", ""), "run.load", "warning or critical is required");
    expect(&load("1,2", ""), "run.load.warning", "that is 2 numbers");
    assert_eq!(validate(&load("15,10,5", "30,25,20")), []);
}

#[test]
fn paths_inodes_ranges_and_addresses_are_looked_at() {
    let disk_run = |change: fn(&mut v1::DiskRun)| {
        let mut disk = v1::DiskRun::default();
        change(&mut disk);
        check(v1::Run {
            disk: Some(disk),
            ..Default::default()
        })
    };
    expect(
        &disk_run(|disk| disk.path = "var".to_owned()),
        "run.disk.path",
        "absolute path like `/var`",
    );
    expect(
        &disk_run(|disk| disk.inodes_warning = "5GiB".to_owned()),
        "run.disk.inodesWarning",
        "in percent",
    );
    let swapped = disk_run(|disk| (disk.inodes_warning, disk.inodes_critical) = ("5%".to_owned(), "9%".to_owned()));
    expect(&swapped, "run.disk.inodesCritical", "9% is more than the warning (5%)");

    let process = v1::ProcessRun {
        warning: "10:5".to_owned(),
        ..Default::default()
    };
    expect(
        &check(v1::Run {
            process: Some(process),
            ..Default::default()
        }),
        "run.process.warning",
        "starts after its end",
    );

    for (address, text) in [
        ("", "has no port"),
        ("db", "has no port"),
        ("db:0", "1 to 65535"),
        ("db:65536", "1 to 65535"),
        ("db:http", "1 to 65535"),
        ("db:+5", "1 to 65535"),
        (":80", "expected `host:port`"),
        ("::1:80", "stand in brackets"),
        ("[::g]:80", "no IPv6 address"),
        ("a b:80", "expected `host:port`"),
    ] {
        let tcp = v1::TcpRun {
            address: address.to_owned(),
            ..Default::default()
        };
        expect(
            &check(v1::Run {
                tcp: Some(tcp),
                ..Default::default()
            }),
            "run.tcp.address",
            text,
        );
    }
    for address in [
        "localhost:22",
        "192.0.2.1:443",
        "[2001:db8::1]:53",
        "[fe80::1%eth0]:53",
        "my_host.example.com:1",
    ] {
        let tcp = v1::TcpRun {
            address: address.to_owned(),
            ..Default::default()
        };
        assert_eq!(
            validate(&check(v1::Run {
                tcp: Some(tcp),
                ..Default::default()
            })),
            [],
            "{address}"
        );
    }
}

#[test]
fn http_requests_are_looked_at() {
    let http = |change: &dyn Fn(&mut v1::HttpRun)| {
        let mut http = v1::HttpRun {
            url: "http://localhost/".to_owned(),
            ..Default::default()
        };
        change(&mut http);
        check(v1::Run {
            http: Some(http),
            ..Default::default()
        })
    };
    for (url, text) in [
        ("", "expected a URL"),
        ("example.com", "has no scheme"),
        ("/health", "has no scheme"),
        ("ftp://example.com", "http and https"),
        ("http://", "expected a URL"),
        ("http://a b", "%20"),
        ("http://me:secret@example.com", "no user name and password"),
        ("http://example.com:99999/", "port"),
        ("http://example.com:/", "port"),
    ] {
        expect(&http(&|http| http.url = url.to_owned()), "run.http.url", text);
    }
    expect(
        &http(&|http| http.method = "get".to_owned()),
        "run.http.method",
        "did you mean `GET`?",
    );
    expect(
        &http(&|http| http.method = "FETCH".to_owned()),
        "run.http.method",
        "the methods are GET",
    );
    expect(
        &http(&|http| http.headers = parameters([("a b", "x")])),
        "run.http.headers[a b]",
        "no name of a header",
    );
    expect(
        &http(&|http| http.headers = parameters([("A", "x\r\nB: y")])),
        "run.http.headers[A]",
        "one line",
    );
    for status in ["", "2", "20x", "600", "0xx", "2XX", "200-299"] {
        expect(
            &http(&|http| http.expect_status = vec![status.to_owned()]),
            "run.http.expectStatus[0]",
            "like `2xx`",
        );
    }
    assert_eq!(
        validate(&http(
            &|http| http.expect_status = vec!["200".to_owned(), "4xx".to_owned()]
        )),
        []
    );
    expect(
        &http(&|http| http.warning = seconds(7_200)),
        "run.http.warning",
        "1ms to 1h",
    );
    let swapped = http(&|http| (http.warning, http.critical) = (seconds(2), seconds(1)));
    expect(&swapped, "run.http.critical", "1s is less than the warning (2s)");
}
