//! `musterctl audit head`, and heads that were kept: files that are written now and read when somebody wants to know.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use muster_certs::sign;
use muster_proto::{
    json,
    v1::{self, AuditHeadPayload, GetAuditHeadResponse, Signed},
};
use prost::Message as _;

use super::{HeadArgs, judge::Kept};
use crate::{
    age,
    app::Session,
    client::Client,
    exit::Exit,
    output::{Format, document, page::Page},
    problem::{Problem, status::Asked},
};

/// More than any head has.
const MAX_FILE: u64 = 1 << 16;

pub(super) async fn run(args: HeadArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("save a signed head of the audit log");
    let mut file = args.file.as_deref().map(create).transpose()?;
    let client = session.connect(&asked).await?;
    let fetched = fetch(&client, &asked).await;
    // Nothing is left of an attempt that failed.
    let head = fetched.inspect_err(|_| discard(args.file.as_deref()))?;
    let printer = &mut session.printer;
    let document = json::to_json(&head);
    if let (Some(file), Some(path)) = (&mut file, &args.file) {
        file.write_all(document::json(&document).as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| unwritten(path, &error))?;
        let number = payload(&head).map_or(0, |payload| payload.seq);
        printer.note(&format!(
            "the head of entry {number} is in {}; keep it where the controller's administrators cannot reach it",
            path.display()
        ))?;
        return Ok(());
    }
    match printer.format {
        Format::Table | Format::Wide => printer.page(&page(&head))?,
        Format::Json | Format::Yaml => printer.document(&document)?,
        Format::Name => printer.names(payload(&head).map(|payload| payload.seq.to_string()))?,
    }
    Ok(())
}

/// The head of now.
pub(super) async fn fetch(client: &Client, asked: &Asked) -> Result<GetAuditHeadResponse, Problem> {
    let call = async |request| client.audit().get_audit_head(request).await;
    client.call(asked, call, v1::GetAuditHeadRequest {}).await
}

fn payload(head: &GetAuditHeadResponse) -> Option<AuditHeadPayload> {
    AuditHeadPayload::decode(head.head.as_ref()?.payload.clone()).ok()
}

fn page(head: &GetAuditHeadResponse) -> Page {
    let payload = payload(head).unwrap_or_default();
    let hash: String = payload.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut page = Page::default();
    page.field("Entry", payload.seq.to_string())
        .field("Hash", format!("sha256:{hash}"))
        .field("Signed", age::moment(payload.time.as_ref()).unwrap_or_default())
        .field(
            "Key",
            head.head.as_ref().map(|head| head.key_id.as_str()).unwrap_or_default(),
        )
        .field("Trust domain", payload.trust_domain);
    page
}

/// A head that was kept: a file of `audit head`, or what stands behind `head=` in the controller's own log.
pub(super) fn read(path: &Path) -> Result<Kept, Problem> {
    let name = path.display().to_string();
    let wrong = |why: String| {
        Problem::new(Exit::Usage, format!("{name} holds no head of an audit log"))
            .what("verify the audit log")
            .why(why)
            .step("give it a file that was made with: musterctl audit head --file FILE")
            .step("or one with the head=... of a line \"audit log signed\" in the controller's log")
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    let head = parse(text.trim()).map_err(wrong)?;
    Ok(Kept { name, head })
}

fn parse(text: &str) -> Result<GetAuditHeadResponse, String> {
    let head: GetAuditHeadResponse = match text.starts_with('{') {
        true => json::from_json(text).map_err(|error| error.to_string())?,
        false => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
            let head = Signed::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
            GetAuditHeadResponse {
                head: Some(head),
                // It names its key and does not bring it.
                public_key: Vec::new(),
            }
        }
    };
    let Some(signed) = head.head.as_ref().filter(|head| !head.signature.is_empty()) else {
        return Err("there is no head in it".to_owned());
    };
    if !head.public_key.is_empty() && sign::key_id(&head.public_key) != signed.key_id {
        return Err(format!("it is signed with {}, and brings another key", signed.key_id));
    }
    Ok(head)
}

/// A new file: what is there is never overwritten, as it may be the only one of its kind.
pub(super) fn create(path: &Path) -> Result<File, Problem> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Problem::new(Exit::Usage, format!("{} exists already", path.display()))
            .what("write a file")
            .why("a file is never overwritten: it may be the only proof of what the log was")
            .step("name another file: --file FILE"),
        _ => unwritten(path, &error),
    })
}

pub(super) fn unwritten(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Exit::Failure, format!("{} cannot be written", path.display()))
        .what("write a file")
        .why(error.to_string())
        .step("name a file in a folder that is yours and has room: --file FILE")
}

/// A file that was created and holds nothing of use. One that cannot be removed is an empty file.
pub(super) fn discard(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use muster_certs::sign::SigningKey;

    use super::*;

    fn head(key: &SigningKey) -> GetAuditHeadResponse {
        let payload = AuditHeadPayload {
            trust_domain: "example.muster".to_owned(),
            seq: 7,
            hash: vec![0xab; 32],
            time: Some(prost_types::Timestamp {
                seconds: 1_795_000_000,
                nanos: 0,
            }),
        };
        let payload = payload.encode_to_vec();
        GetAuditHeadResponse {
            head: Some(Signed {
                signature: key.sign("muster.v1/AuditHead", &payload),
                payload: payload.into(),
                key_id: key.key_id(),
            }),
            public_key: key.public_key_der(),
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_saved_and_as_the_controller_logs_it() {
        let key = SigningKey::generate().unwrap();
        let head = head(&key);
        assert_eq!(parse(&json::to_json(&head).to_string()).unwrap(), head);
        let logged = BASE64_STANDARD.encode(head.head.as_ref().unwrap().encode_to_vec());
        let read = parse(&logged).unwrap();
        assert_eq!((read.head, read.public_key), (head.head, Vec::new()));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let key = SigningKey::generate().unwrap();
        let with_another = GetAuditHeadResponse {
            public_key: SigningKey::generate().unwrap().public_key_der(),
            ..head(&key)
        };
        for text in [
            "",
            "{}",
            "{\"head\": 1}",
            "no base64!",
            "////",
            &json::to_json(&with_another).to_string(),
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_page_of_a_head_says_what_it_stands_for() {
        let mut head = head(&SigningKey::generate().unwrap());
        head.head.as_mut().unwrap().key_id = "sha256:0123".to_owned();
        insta::assert_snapshot!(page(&head).render(None, false));
    }

    #[test]
    fn no_file_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.json");
        create(&path).unwrap();
        assert_eq!(create(&path).unwrap_err().exit, Exit::Usage);
        discard(Some(&path));
        assert!(!path.exists());
    }
}
