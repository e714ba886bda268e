//! Strangers without a token, with half of one, and with one that others have used up.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};

use super::{Form, Ground, enroll, enrollment, report::Category};

const REFUSED: &str = "UNAUTHENTICATED TOKEN_INVALID";
const SLOWED: &str = "RESOURCE_EXHAUSTED RATE_LIMITED";
const NETWORK: u8 = 10;

pub async fn attack(form: Form, ground: &Ground, category: &mut Category) {
    malformed(ground, category).await;
    replayed(ground, category).await;
    bound(ground, category).await;
    raced(form, ground, category).await;
    guessed(form, ground, category).await;
}

async fn malformed(ground: &Ground, category: &mut Category) {
    let token = ground.controller.token(&["--uses", "1"]).secret;
    let (id, secret) = token.rsplit_once('_').expect("id and secret");
    let zeros = "0".repeat(64);
    let cases = [
        ("none", String::new()),
        ("without its last digit", token[..token.len() - 1].to_owned()),
        ("its first half", token[..token.len() / 2].to_owned()),
        ("its id alone", id.to_owned()),
        ("its secret alone", secret.to_owned()),
        ("one digit more", format!("{token}0")),
        ("a zero byte at its end", format!("{token}\0")),
        ("a zero byte for its end", format!("{}\0", &token[..token.len() - 1])),
        ("the right id with another secret", format!("{id}_{zeros}")),
        (
            "another id with the right secret",
            format!("mst_0000000000000000_{secret}"),
        ),
        ("in capitals", token.to_uppercase()),
        (
            "letters of Cyrillic that look alike",
            token.replace(['a', 'c', 'e'], "\u{430}"),
        ),
        (
            "digits of full width",
            token.replace('1', "\u{ff11}").replace('0', "\u{ff10}"),
        ),
        ("joined by zero-width blanks", token.replace('_', "\u{200b}_")),
        ("turned around by a mark", format!("\u{202e}{token}")),
        ("the syntax of SQL", format!("{id}' OR '1'='1_{secret}")),
        ("twice", format!("{token}{token}")),
        ("twice, by a line", format!("{token}\n{token}")),
        ("50 KB", "m".repeat(50_000)),
        ("itself in 50 KB of blanks", format!("{}{token}", " ".repeat(50_000))),
    ];
    for (at, (what, text)) in cases.iter().enumerate() {
        let from = ground.dialer.from(NETWORK, 1 + at as u8);
        let got = enroll(from, &enrollment(text, "guesser")).await;
        category.one(format!("token: {what}"), got, &[REFUSED]);
    }
    let from = ground.dialer.from(NETWORK, 100);
    let mut request = enrollment("", "guesser");
    request.token = "mst_".repeat(1 << 20);
    let got = enroll(from, &request).await;
    category.one("token: 4 MiB", got, &["OUT_OF_RANGE PROTOCOL_VIOLATION", "closed"]);
    let got = enroll(from, &enrollment(&token, "honest")).await;
    category.one("the token itself is still good", got, &["OK"]);
}

async fn replayed(ground: &Ground, category: &mut Category) {
    let token = ground.controller.token(&["--uses", "1"]).secret;
    let from = ground.dialer.from(NETWORK, 101);
    let first = enrollment(&token, "first");
    category.one("a token of one use, used", enroll(from, &first).await, &["OK"]);
    // The same key again is the same machine, whose answer was lost.
    category.one("the same request again", enroll(from, &first).await, &["OK"]);
    let mut replayed = Vec::new();
    for _ in 0..10 {
        replayed.push(enroll(from, &enrollment(&token, "second")).await);
    }
    category.case("the same token with other keys", replayed, &[REFUSED]);
    let named = ground
        .inventory()
        .iter()
        .filter(|agent| agent["name"] == "second")
        .count();
    category.one("agents by replay", format!("{named} agents"), &["0 agents"]);
}

/// Tokens for one machine, for one network, and those that an operator took back.
async fn bound(ground: &Ground, category: &mut Category) {
    let from = ground.dialer.from(NETWORK, 102);
    let mine = "0b9c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    let token = ground.controller.token(&["--agent-id", mine]).secret;
    for (what, id) in [
        ("another id", "1b9c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21"),
        ("the id of an agent", &healthy(ground)),
    ] {
        let mut request = enrollment(&token, "bound");
        request.agent_id = id.to_owned();
        let got = enroll(from, &request).await;
        category.one(
            format!("a token for one id, with {what}"),
            got,
            &[
                REFUSED,
                "ALREADY_EXISTS",
                "PERMISSION_DENIED",
                "FAILED_PRECONDITION",
                "INVALID_ARGUMENT",
            ],
        );
    }
    let mut request = enrollment(&token, "honest");
    request.agent_id = mine.to_owned();
    category.one("the same token with its own id", enroll(from, &request).await, &["OK"]);

    let token = ground.controller.token(&["--source", "127.99.0.0/24"]).secret;
    let got = enroll(ground.dialer.from(NETWORK, 103), &enrollment(&token, "elsewhere")).await;
    category.one("a token for one network, from another", got, &[REFUSED]);
    let got = enroll(ground.dialer.from(99, 1), &enrollment(&token, "honest")).await;
    category.one("the same token from its own network", got, &["OK"]);

    let token = ground.controller.token(&["--uses", "5"]).secret;
    let id = token.split('_').nth(1).expect("an id");
    ground.controller.ctl().ok(&["token", "revoke", id]);
    let got = enroll(ground.dialer.from(NETWORK, 104), &enrollment(&token, "late")).await;
    category.one("a token that was revoked", got, &[REFUSED]);
}

fn healthy(ground: &Ground) -> String {
    ground.agents[0].id().expect("an id")
}

async fn raced(form: Form, ground: &Ground, category: &mut Category) {
    for round in 0..form.pick(1, 20) {
        let token = ground.controller.token(&["--uses", "1"]).secret;
        let mut racers = JoinSet::new();
        for racer in 0..50 {
            let from = ground.dialer.from(NETWORK + 100 + round as u8, 1 + (racer % 25) as u8);
            let request = enrollment(&token, &format!("racer-{round}-{racer}"));
            racers.spawn(async move { enroll(from, &request).await });
        }
        let answers = timeout(Duration::from_secs(60), racers.join_all())
            .await
            .unwrap_or_default();
        let won = answers.iter().filter(|answer| *answer == "OK").count();
        category.case("50 machines with one token at once", answers, &["OK", REFUSED, SLOWED]);
        category.one("how many of the 50 got in", format!("{won} in"), &["1 in"]);
    }
}

async fn guessed(form: Form, ground: &Ground, category: &mut Category) {
    let token = ground.controller.token(&["--uses", "3"]).secret;
    let (id, secret) = token.rsplit_once('_').expect("id and secret");
    let from = ground.dialer.from(NETWORK, 200);
    let mut answers = Vec::new();
    for guess in 0..form.pick(60, 3000) {
        // With the right id, so that the secret is all that is missing.
        let guess = format!("{id}_{guess:064x}");
        answers.push(enroll(from, &enrollment(&guess, "guesser")).await);
    }
    let tried = answers.iter().filter(|answer| *answer == REFUSED).count();
    category.case("guesses from one address", answers, &[REFUSED, SLOWED]);
    // Thirty a minute; the slowest machine takes a few minutes for all of them.
    let bound = if tried <= 30 * form.pick(2, 20) {
        "bounded"
    } else {
        "not bounded"
    };
    category.one("guesses that were looked at", bound.to_owned(), &["bounded"]);
    let got = enroll(from, &enrollment(&token, "beside")).await;
    category.one("the right token from the guesser's address", got, &[SLOWED]);
    let got = enroll(ground.dialer.from(NETWORK, 201), &enrollment(&token, "honest")).await;
    category.one("the right token from another address", got, &["OK"]);
    let is_told = ground.controller.log().contains(secret);
    category.one("the secret in the log", is_told.to_string(), &["false"]);
}
