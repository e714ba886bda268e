//! A certificate with host names for the API: beside the controller's own, and replaced while it runs.

use std::{fs, path::PathBuf};

use muster_certs::file;
use muster_tests::{
    Controller,
    ctl::Outcome,
    dial,
    poll::{self, SECOND},
    process,
};
use rustix::process::Signal;

use super::{ctl_with, openssl::Pki};

const SERVER: &str = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n\
                      subjectAltName = DNS:localhost, DNS:muster.example.com\n";

/// The files that the controller reads.
fn files(pki: &Pki) -> (PathBuf, PathBuf) {
    (pki.path("served.pem"), pki.path("served-key.pem"))
}

/// Puts a certificate where the controller finds it, as `certbot` and the like do.
fn serve(pki: &Pki, name: &str) {
    let (certificate, key) = files(pki);
    let read = |file: String| fs::read(pki.path(&file)).expect("the file is there");
    file::write_secret(&key, &read(format!("{name}-key.pem"))).expect("the key is written");
    file::write_public(&certificate, &read(format!("{name}.pem"))).expect("the certificate is written");
}

/// Who knows only the roots of the web.
fn curl(controller: &Controller, root: &PathBuf) -> Outcome {
    let url = format!("https://localhost:{}/healthz", controller.api_port);
    let mut curl = process::clean_command("curl", "/".as_ref());
    curl.args(["--silent", "--show-error", "--fail", "--ipv4", &url, "--cacert"])
        .arg(root);
    Outcome::of(curl)
}

#[test]
fn browsers_find_the_certificate_of_their_world_and_operators_the_controllers_own() {
    let Some(pki) = Pki::create() else { return };
    pki.below("root", "first", "muster.example.com", SERVER);
    pki.root("other", "Other Web CA");
    pki.below("other", "second", "muster.example.com", SERVER);
    serve(&pki, "first");
    let (certificate, key) = files(&pki);
    let settings = format!(
        "api_certificate: {{ certificate: \"{}\", key: \"{}\" }}",
        certificate.display(),
        key.display()
    );
    let mut controller = Controller::start_with(&settings);

    curl(&controller, &pki.path("root.pem")).expect_code(0);
    controller.ctl().ok(&["agent", "list"]);
    let identity = dial::operator(&controller.path("tester.yaml"));
    let by_name = |name: &str| ctl_with(&controller, "named.json", &identity, &pki.read("root.pem"), Some(name));
    by_name("muster.example.com").ok(&["agent", "list"]);
    by_name("localhost").ok(&["agent", "list"]);
    let outcome = by_name("other.example.com").run(&["agent", "list"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    outcome.says(&["other.example.com"]);

    // Another one, while it runs.
    serve(&pki, "second");
    poll::until("the new certificate is shown", 20 * SECOND, || {
        match curl(&controller, &pki.path("other.pem")) {
            shown if shown.code == 0 => Ok(()),
            other => Err(other),
        }
    });
    assert_ne!(curl(&controller, &pki.path("root.pem")).code, 0);
    controller.ctl().ok(&["agent", "list"]);

    // One that is no good is told, and what was shown stays.
    file::write_public(&certificate, b"nothing").expect("the file is written");
    poll::until("it is an event", 20 * SECOND, || {
        let events = controller.ctl().events("API_CERTIFICATE_FAILED")?;
        events.first().map(|_| ()).ok_or_else(|| controller.log())
    });
    curl(&controller, &pki.path("other.pem")).expect_code(0);

    // SIGHUP is an invitation to look, no reason to end.
    serve(&pki, "first");
    controller.process().signal(Signal::HUP);
    poll::until("the first one is shown again", 20 * SECOND, || {
        match curl(&controller, &pki.path("root.pem")) {
            shown if shown.code == 0 => Ok(()),
            other => Err(other),
        }
    });
    assert!(controller.is_running());
    assert!(controller.log().contains("SIGHUP"));
}
