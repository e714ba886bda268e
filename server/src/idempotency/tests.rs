//! What is made of calls that come again.

use std::time::{Duration, SystemTime};

use muster_certs::{csr, key::KeyPair, token::ApiKey, token::Token};
use muster_proto::v1;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    access::rights::{Role, Subject},
    admin,
    api_keys::{self, ApiKeys, NewApiKey},
    changes::Changes,
    clock,
    grants::{self, Grants, NewRole},
    store::{ApiKeyRow, Source, TokenRow, TokenTemplateRow},
    token_templates::{self, Template},
    tokens::{self, NewToken},
    users::{self, By, Issued, Users},
};

const NOW: Micros = 20_000 * DAY;
const ANNA: &str = "user/anna";

struct Rig {
    db: Db,
    pki: Arc<Pki>,
    changes: Changes,
    users: Arc<Users>,
    grants: Grants,
    keys: ApiKeys,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let pki = Arc::new(pki(folder.path()));
        let db = Db::open(&Source::Sqlite(folder.path().to_owned())).await.unwrap();
        admin::create(&db, &pki, "anna", Duration::from_secs(3600), SystemTime::now())
            .await
            .unwrap();
        let rights = Arc::new(Grants::load(&db).await.unwrap());
        let changes = Changes::new(db.clone()).await.unwrap();
        let users = Users::load(db.clone(), changes.clone(), pki.clone(), rights.clone(), clock::now()).await;
        let users = Arc::new(users.unwrap());
        Rig {
            grants: Grants::new(db.clone(), changes.clone(), rights, users.clone()),
            keys: ApiKeys::load(db.clone(), changes.clone(), users.clone()).await.unwrap(),
            db,
            pki,
            changes,
            users,
            _folder: folder,
        }
    }

    async fn by(&self, name: &str) -> By {
        let subject = Subject::User(name.to_owned());
        By {
            rights: self.grants.refreshed(&subject).await.unwrap(),
            subject: Some(subject),
            ended: None,
        }
    }

    fn once<T, A: Message + Default>(
        &self,
        caller: &str,
        key: &str,
        request: &impl prost::Name,
        answer: impl FnOnce(&T) -> A + Send + Sync + 'static,
    ) -> Once<T, A> {
        Once::new(&self.pki, caller.to_owned(), key, request, answer).unwrap()
    }

    /// The id and the secret of a token, and whether it was there already.
    async fn token(
        &self,
        caller: &str,
        key: &str,
        description: &str,
        now: Micros,
    ) -> Result<(String, String, bool), tokens::Error> {
        let request = v1::CreateTokenRequest {
            description: description.to_owned(),
            ..Default::default()
        };
        let once = self.once(caller, key, &request, |row: &TokenRow| v1::Token {
            id: row.id.clone(),
            ..Default::default()
        });
        let new = NewToken::new("anna");
        let (done, token) = tokens::create(&self.db, &self.changes, new, "", once, now).await?;
        assert_eq!(done.answer.id, token.id());
        Ok((done.answer.id, token.expose().to_string(), done.is_repeated))
    }

    async fn tokens(&self) -> usize {
        self.db.token_list(true, NOW).await.unwrap().len()
    }

    async fn role(&self, key: &str, name: &str, by: &By) -> Result<Done<v1::Role>, grants::Error> {
        let request = v1::CreateRoleRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let once = self.once(ANNA, key, &request, |role: &Role| v1::Role {
            name: role.name.clone(),
            revision: role.revision,
            ..Default::default()
        });
        let new = NewRole {
            name: name.to_owned(),
            description: String::new(),
            permissions: vec!["agents.read".to_owned()],
        };
        self.grants.create_role(new, once, by, NOW).await
    }

    async fn api_key(&self, key: &str, by: &By) -> Result<(Done<v1::ApiKey>, ApiKey), api_keys::Error> {
        let once = self.once(ANNA, key, &v1::CreateApiKeyRequest::default(), |row: &ApiKeyRow| {
            v1::ApiKey {
                id: row.id.clone(),
                ..Default::default()
            }
        });
        let new = NewApiKey {
            description: String::new(),
            ttl: api_keys::DEFAULT_TTL,
            role: "viewer".to_owned(),
            scope: String::new(),
            sources: Vec::new(),
        };
        self.keys.create(new, once, &self.grants, by, NOW).await
    }

    /// The certificates that a new user was given.
    async fn user(&self, key: &str, csr: &[u8], by: &By) -> Result<Vec<Vec<u8>>, grants::Error> {
        let request = v1::CreateUserRequest {
            name: "bert".to_owned(),
            csr: csr.to_vec(),
            ..Default::default()
        };
        let once = self.once(ANNA, key, &request, |issued: &Issued| v1::CreateUserResponse {
            certificates: issued.chain.iter().map(|der| der.to_vec()).collect(),
            ..Default::default()
        });
        let wanted = users::Request {
            name: request.name,
            csr: request.csr,
            ttl: None,
        };
        let created = self.grants.create_user(wanted, None, false, once, by, clock::now());
        Ok(created.await?.answer.certificates)
    }
}

fn pki(folder: &std::path::Path) -> Pki {
    Pki::create(
        &folder.join("pki"),
        &"example.muster".parse().unwrap(),
        SystemTime::now(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_call_that_comes_again_makes_nothing_more_and_gets_the_same_secret() {
    let rig = Rig::new().await;
    let first = rig.token(ANNA, "k", "web", NOW).await.unwrap();
    assert!(!first.2 && Token::parse(&first.1).is_ok());
    let revision = rig.db.revision_current().await.unwrap();
    let again = rig.token(ANNA, "k", "web", NOW + DAY).await.unwrap();
    assert_eq!((again.0, again.1, again.2), (first.0, first.1, true));
    assert_eq!(rig.tokens().await, 1);
    assert_eq!(rig.db.revision_current().await.unwrap(), revision);
}

#[tokio::test]
async fn a_token_is_the_same_again_though_its_template_is_gone() {
    let rig = Rig::new().await;
    let row = TokenTemplateRow {
        name: "web".to_owned(),
        spec: "{\"uses\":7}".to_owned(),
        labels: "{}".to_owned(),
        scope: String::new(),
        owner: String::new(),
        creator: String::new(),
        created_at: NOW,
        updated_at: NOW,
        revision: 1,
    };
    let mut tx = rig.db.begin().await.unwrap();
    tx.token_template_put(&row).await.unwrap();
    tx.commit().await.unwrap();
    let request = v1::CreateTokenRequest {
        template: "web".to_owned(),
        ..Default::default()
    };
    let create = async || {
        let once = rig.once(ANNA, "k", &request, |row: &TokenRow| v1::Token {
            id: row.id.clone(),
            uses: row.uses as i32,
            ..Default::default()
        });
        let make = |template: Option<Template>| match template {
            Some(template) => Ok(NewToken {
                spec: token_templates::fill(&request, Some(&template.spec)),
                ..NewToken::new("anna")
            }),
            None => Err(tokens::Error::Refused),
        };
        tokens::create_by(&rig.db, &rig.changes, "web", make, "", once, NOW).await
    };
    let (first, secret) = create().await.unwrap();
    assert_eq!((first.answer.uses, first.is_repeated), (7, false));
    let mut tx = rig.db.begin().await.unwrap();
    assert!(tx.token_template_delete("web").await.unwrap());
    tx.commit().await.unwrap();
    let (again, same) = create().await.unwrap();
    assert_eq!((again.answer, again.is_repeated), (first.answer, true));
    assert_eq!(*same.expose(), *secret.expose());
}

#[tokio::test]
async fn a_key_of_another_request_is_refused() {
    let rig = Rig::new().await;
    rig.token(ANNA, "k", "web", NOW).await.unwrap();
    let refused = rig.token(ANNA, "k", "db", NOW).await;
    assert!(
        matches!(&refused, Err(tokens::Error::Once(Error::Reused(key))) if key == "k"),
        "{refused:?}"
    );
    assert_eq!(rig.tokens().await, 1);
}

#[tokio::test]
async fn keys_are_of_their_caller_and_method_and_none_is_no_key() {
    let rig = Rig::new().await;
    let mut secrets = Vec::new();
    for (caller, key) in [(ANNA, "k"), ("user/bert", "k"), (ANNA, "l"), (ANNA, ""), (ANNA, "")] {
        let (_, secret, is_repeated) = rig.token(caller, key, "web", NOW).await.unwrap();
        assert!(!is_repeated && !secrets.contains(&secret), "{caller} {key}");
        secrets.push(secret);
    }
    let by = rig.by("anna").await;
    assert!(!rig.role("k", "reader", &by).await.unwrap().is_repeated);
}

#[tokio::test]
async fn after_a_day_a_key_is_new() {
    let rig = Rig::new().await;
    let first = rig.token(ANNA, "k", "web", NOW).await.unwrap();
    let next = rig.token(ANNA, "k", "web", NOW + DAY + 1).await.unwrap();
    assert!(!next.2);
    assert!(first.0 != next.0 && first.1 != next.1);
    assert!(rig.token(ANNA, "k", "web", NOW + DAY + 1).await.unwrap().2);
    trim(&rig.db, NOW + 3 * DAY).await.unwrap();
    let mut tx = rig.db.begin().await.unwrap();
    assert_eq!(tx.idempotency_get(ANNA, "CreateToken", "k").await.unwrap(), None);
}

#[tokio::test]
async fn two_calls_at_the_same_moment_make_one_thing() {
    let rig = Rig::new().await;
    let (one, other) = tokio::join!(rig.token(ANNA, "k", "web", NOW), rig.token(ANNA, "k", "web", NOW));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((&one.0, &one.1), (&other.0, &other.1));
    assert!(one.2 != other.2);
    assert_eq!(rig.tokens().await, 1);
}

#[tokio::test]
async fn no_secret_is_on_file_and_what_is_does_not_suffice_to_derive_it() {
    let rig = Rig::new().await;
    let (id, text, _) = rig.token(ANNA, "k", "web", NOW).await.unwrap();
    let secret = text.rsplit_once('_').unwrap().1;
    let mut tx = rig.db.begin().await.unwrap();
    let row = tx.idempotency_get(ANNA, "CreateToken", "k").await.unwrap().unwrap();
    let has = |part: &str| row.answer.windows(part.len()).any(|bytes| bytes == part.as_bytes());
    assert!(has(&id) && !has(secret));

    let call = |pki: Arc<Pki>| Call::<v1::Token> {
        pki,
        caller: row.caller.clone(),
        method: "CreateToken",
        key: row.key.clone(),
        digest: row.digest.clone(),
        encode: v1::Token::encode_to_vec,
        decode: |bytes| v1::Token::decode(bytes),
    };
    let derived = |pki| {
        let seed = call(pki).seed(&row.salt).unwrap();
        Token::derive(&seed).unwrap().expose().to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(derived(rig.pki.clone()), text);
    assert_ne!(derived(Arc::new(pki(folder.path()))), text);
}

#[tokio::test]
async fn roles_keys_and_users_are_made_once_too() {
    let rig = Rig::new().await;
    let by = rig.by("anna").await;
    let first = rig.role("k", "reader", &by).await.unwrap();
    let again = rig.role("k", "reader", &by).await.unwrap();
    assert_eq!(again, Done::again(first.answer));
    let other = rig.role("l", "reader", &by).await;
    assert!(matches!(other, Err(grants::Error::Exists(_))), "{other:?}");

    let (first, key) = rig.api_key("k", &by).await.unwrap();
    let (again, same) = rig.api_key("k", &by).await.unwrap();
    assert_eq!(again, Done::again(first.answer));
    assert_eq!(key.expose(), same.expose());
    assert_eq!(rig.db.api_key_list().await.unwrap().len(), 1);
    let source = "192.0.2.1".parse().unwrap();
    assert!(rig.keys.standing(&same.expose(), source, NOW).is_some());

    let csr = csr::create(&KeyPair::generate().unwrap()).unwrap();
    let first = rig.user("k", &csr, &by).await.unwrap();
    assert_eq!(rig.user("k", &csr, &by).await.unwrap(), first);
    assert_eq!(rig.db.user_certificate_list("bert").await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_has_failed_was_not_the_first_time() {
    let rig = Rig::new().await;
    let by = rig.by("anna").await;
    rig.role("", "reader", &by).await.unwrap();
    rig.role("k", "reader", &by).await.unwrap_err();
    assert!(!rig.role("k", "writer", &by).await.unwrap().is_repeated);
}

#[tokio::test]
async fn who_was_revoked_gets_no_answer_again_nor_does_the_next_of_the_name() {
    let rig = Rig::new().await;
    let mut by = rig.by("anna").await;
    rig.role("k", "reader", &by).await.unwrap();
    let ended = CancellationToken::new();
    ended.cancel();
    by.ended = Some(ended);
    let refused = rig.role("k", "reader", &by).await;
    assert!(
        matches!(refused, Err(grants::Error::Users(users::Error::CallerRevoked))),
        "{refused:?}"
    );

    by.ended = None;
    admin::create(&rig.db, &rig.pki, "zoe", Duration::from_secs(3600), SystemTime::now())
        .await
        .unwrap();
    rig.users.revoke("anna", "", &by, clock::now()).await.unwrap();
    let mut tx = rig.db.begin().await.unwrap();
    assert_eq!(tx.idempotency_get(ANNA, "CreateRole", "k").await.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_short_and_printable() {
    let rig = Rig::new().await;
    let request = v1::CreateRoleRequest::default();
    let taken = |key: &str| {
        let once = Once::new(&rig.pki, ANNA.to_owned(), key, &request, |_: &Role| v1::Role::default());
        once.map_err(|violation| violation.field)
    };
    for key in ["", "a b", "~", &"k".repeat(64)] {
        assert!(taken(key).is_ok(), "{key:?}");
    }
    for key in ["\n", "ä", "\u{7f}", &"k".repeat(65)] {
        assert_eq!(taken(key).unwrap_err(), "idempotency_key", "{key:?}");
    }
}
