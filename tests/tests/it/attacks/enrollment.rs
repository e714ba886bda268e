//! Strangers who want in, and a machine with a token that wants more than its token gives.

use muster_certs::{csr, identity::Identity, key::KeyPair, rustls::pki_types::CertificateDer, tls::peer_certificate};
use muster_proto::{error::ErrorReason, v1::EnrollRequest};
use muster_tests::Controller;
use tokio::task::JoinSet;
use tonic::Code;

use super::{HEALTHY, Target, reason, run};

fn request(token: &str, name: &str) -> EnrollRequest {
    let key = KeyPair::generate().expect("a key");
    EnrollRequest {
        token: token.to_owned(),
        csr: csr::create(&key).expect("a request"),
        name: name.to_owned(),
        ..EnrollRequest::default()
    }
}

fn names(controller: &Controller) -> Vec<String> {
    let agents = controller.ctl().items(&["agent", "list"]).expect("a list");
    let name = |agent: &serde_json::Value| agent["name"].as_str().unwrap_or_default().to_owned();
    agents.iter().map(name).collect()
}

#[test]
fn of_fifty_machines_with_one_token_at_the_same_moment_one_gets_in() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "1"]).secret;
    let answers = run(async {
        let mut racers = JoinSet::new();
        for racer in 0..50 {
            let channel = muster_tests::dial::channel(&target.controller, target.controller.agents_port, None).await;
            let channel = channel.expect("a connection");
            let request = request(&token, &format!("racer-{racer}"));
            racers.spawn(async move {
                let mut client = muster_proto::v1::enrollment_service_client::EnrollmentServiceClient::new(channel);
                client.enroll(request).await
            });
        }
        racers.join_all().await
    });
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refusal in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        let reason = reason(refusal);
        assert!(
            matches!(reason, Some(ErrorReason::TokenInvalid | ErrorReason::RateLimited)),
            "{refusal}"
        );
    }
    assert_eq!(names(&target.controller).len(), 2, "the healthy one and the winner");
    target.is_unharmed();
}

#[test]
fn whoever_guesses_tokens_is_slowed_down_and_what_he_tried_is_in_no_log() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "1"]).secret;
    let (id, secret) = token.rsplit_once('_').expect("id and secret");
    let guesses = [
        String::new(),
        "x".repeat(50_000),
        format!("{id}_{}", "0".repeat(64)),
        format!("{id}_{}\0", &secret[1..]),
        format!("{token}\0"),
        token.to_uppercase(),
        format!("{id}';--_{secret}"),
    ];
    let refusals = run(async {
        let mut refusals = Vec::new();
        for guess in guesses.iter().cycle().take(45) {
            let answer = target.enroll(request(guess, "guesser")).await;
            refusals.push(answer.expect_err("a guess"));
        }
        refusals
    });
    assert_eq!(reason(&refusals[0]), Some(ErrorReason::TokenInvalid), "{}", refusals[0]);
    let last = refusals.last().expect("refusals");
    assert_eq!(reason(last), Some(ErrorReason::RateLimited), "{last}");
    for refusal in &refusals {
        assert!(!refusal.message().contains(secret), "{refusal}");
    }
    assert!(
        !target.controller.log().contains(&secret[1..]),
        "a secret is in the log"
    );
    target.is_unharmed();
}

#[test]
fn a_certificate_says_what_the_controller_says_whatever_was_asked_for() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "10"]).secret;
    let with_csr = |csr: &[u8]| EnrollRequest {
        csr: csr.to_vec(),
        ..request(&token, "greedy")
    };
    // It asks for the identity of the operator "tester", the name of a controller, and to be a CA.
    let greedy = include_bytes!("../../../src/attacks/csr/greedy.csr");
    assert!(greedy.windows(6).any(|bytes| bytes == b"tester"));
    let answer = run(target.enroll(with_csr(greedy))).expect("the key is good");
    let chain: Vec<CertificateDer<'static>> = answer.certificates.into_iter().map(Into::into).collect();
    let identity = Identity::from_certificate(&chain[0]).expect("one identity");
    assert_eq!(
        identity.to_string(),
        format!("spiffe://example.muster/agent/{}", answer.agent_id)
    );
    // Refuses what may sign certificates.
    peer_certificate(Some(&chain)).expect("the certificate of a peer, not of a CA");

    let refused: [(&str, Vec<u8>); 7] = [
        (
            "an RSA key",
            include_bytes!("../../../src/attacks/csr/rsa.csr").to_vec(),
        ),
        (
            "a weak curve",
            include_bytes!("../../../src/attacks/csr/p224.csr").to_vec(),
        ),
        (
            "the key of another",
            include_bytes!("../../../src/attacks/csr/stolen_key.csr").to_vec(),
        ),
        ("nothing", Vec::new()),
        ("noise", vec![0x30; 300]),
        ("more after it", [greedy.as_slice(), b"\0"].concat()),
        (
            "far too much",
            [&[0x30, 0x82, 0xff, 0xff], vec![0; 60_000].as_slice()].concat(),
        ),
    ];
    for (what, csr) in refused {
        let refusal = run(target.enroll(with_csr(&csr))).expect_err(what);
        assert_eq!(reason(&refusal), Some(ErrorReason::CsrInvalid), "{what}: {refusal}");
    }
    let huge = run(target.enroll(with_csr(&vec![0; 1 << 20]))).expect_err("a request of 1 MiB");
    assert_eq!(huge.code(), Code::OutOfRange, "{huge}");
    target.is_unharmed();
}

#[test]
fn names_that_would_forge_a_line_of_a_table_or_a_log_are_refused() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "10"]).secret;
    let long = "x".repeat(254);
    let forged = [
        "",
        "   ",
        "a\nb",
        "a\r",
        "a\0",
        "\u{1b}[2Ja",
        "a\u{9b}31m",
        "a\u{202e}b",
        "a\u{2028}b",
        "a\u{7f}",
        &long,
    ];
    run(async {
        for name in forged {
            let refusal = target.enroll(request(&token, name)).await.expect_err(name);
            assert_eq!(reason(&refusal), Some(ErrorReason::InvalidField), "{name:?}: {refusal}");
        }
        for (key, value) in [
            ("role", "a\u{1b}[2J"),
            ("fact.os.id", "debian"),
            ("a b", "x"),
            ("role", &long),
        ] {
            let mut request = request(&token, "labelled");
            request.labels = [(key.to_owned(), value.to_owned())].into();
            let refusal = target.enroll(request).await.expect_err(key);
            assert_eq!(reason(&refusal), Some(ErrorReason::InvalidField), "{key:?}: {refusal}");
        }
    });
    assert_eq!(names(&target.controller), [HEALTHY]);
    target.is_unharmed();
}

#[test]
fn the_id_of_another_machine_cannot_be_taken_in_any_spelling() {
    let mut target = Target::start();
    let token = target.controller.token(&["--uses", "10"]).secret;
    let agents = target.controller.ctl().items(&["agent", "list"]).expect("a list");
    let id = agents[0]["id"].as_str().expect("an id").to_owned();
    let with_id = |id: &str| EnrollRequest {
        agent_id: id.to_owned(),
        ..request(&token, "thief")
    };
    run(async {
        for taken in [id.clone(), id.to_uppercase()] {
            let refusal = target.enroll(with_id(&taken)).await.expect_err("the id is taken");
            assert_eq!(reason(&refusal), Some(ErrorReason::AgentAlreadyEnrolled), "{refusal}");
        }
        let no_ids = [
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            id.replace('-', ""),
            format!(" {id}"),
            format!("{id}\0"),
            "../../etc/passwd".to_owned(),
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "a".repeat(50_000),
        ];
        for no_id in no_ids {
            let refusal = target.enroll(with_id(&no_id)).await.expect_err(&no_id);
            assert_eq!(
                reason(&refusal),
                Some(ErrorReason::InvalidField),
                "{no_id:?}: {refusal}"
            );
        }
    });
    assert_eq!(names(&target.controller), [HEALTHY]);
    target.is_unharmed();
}
