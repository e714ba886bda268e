//! `user create` and `user renew`: a key or a request, a certificate for it, and where the two go.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use muster_certs::{
    Identity, csr,
    identity_file::IdentityFile,
    key::{KeyPair, PublicKey},
    pem,
};
use muster_proto::{duration, json, v1};

use super::{CreateArgs, RenewArgs, Wanted, naming, show};
use crate::{
    age,
    app::Session,
    context::{Context, Issued, NewFile},
    exit::Exit,
    output::Format,
    problem::{Problem, status::Asked},
};

/// More than any file with a request has.
const MAX_FILE: u64 = 1 << 20;

/// A key that is to be certified, and how the controller is asked.
struct Key {
    /// None: it is kept elsewhere.
    pair: Option<KeyPair>,
    public: PublicKey,
    csr: Vec<u8>,
}

/// What the controller answers.
struct Answer {
    user: v1::User,
    certificates: Vec<Vec<u8>>,
    roots: Vec<Vec<u8>>,
}

pub(super) async fn create(args: CreateArgs, session: &mut Session) -> Result<(), Problem> {
    let name = args.name.as_str();
    let asked = Asked::new(format!("create user {name} with the role {}", args.role))
        .listed_by("musterctl role list")
        .with_text("scope", args.scope.text());
    let key = Key::of(&args.wanted, &asked)?;
    let request = v1::CreateUserRequest {
        name: name.to_owned(),
        csr: key.csr.clone(),
        ttl: args.wanted.ttl.map(duration::to_proto),
        reinstate: args.reinstate,
        role: args.role.clone(),
        scope: args.scope.text(),
        idempotency_key: String::new(),
    };
    let place = Place::of(&args.wanted, name)?;
    let context = session.context(&asked)?;
    let client = session.connect(&asked).await?;
    let call = async |request| client.users().create_user(request).await;
    let response = client.call(&asked, call, request).await?;
    let document = json::to_json(&response);
    let answer = Answer {
        user: response.user.unwrap_or_default(),
        certificates: response.certificates,
        roots: response.roots,
    };
    let issued = answer.issued(&context, name, &key.public, &asked)?;
    place.take(&context, &answer.user, &issued, key.pair, document, session)
}

pub(super) async fn renew(args: RenewArgs, session: &mut Session) -> Result<(), Problem> {
    let Some(name) = &args.name else {
        return renew_context(&args.wanted, session).await;
    };
    let name = name.as_str();
    let asked = naming("renew", name);
    let key = Key::of(&args.wanted, &asked)?;
    let request = v1::RenewUserRequest {
        name: name.to_owned(),
        csr: key.csr.clone(),
        ttl: args.wanted.ttl.map(duration::to_proto),
    };
    let place = Place::of(&args.wanted, name)?;
    let context = session.context(&asked)?;
    let client = session.connect(&asked).await?;
    let call = async |request| client.users().renew_user(request).await;
    let response = client.call(&asked, call, request).await?;
    let document = json::to_json(&response);
    let answer = Answer::from(response);
    let issued = answer.issued(&context, name, &key.public, &asked)?;
    place.take(&context, &answer.user, &issued, key.pair, document, session)
}

/// The new identity takes the place of the present one in its file, after it has proved to be good.
async fn renew_context(wanted: &Wanted, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("renew the present context");
    if wanted.out.is_some() || wanted.csr.is_some() {
        return Err(Problem::new(Exit::Usage, "whose certificate this is about is not said")
            .what(asked.what())
            .why("without NAME the present context is renewed in its own file, with a key that is made here")
            .step("name the operator: musterctl user renew NAME --out FILE")
            .step("or leave --out and --csr out"));
    }
    let before = session.context(&asked)?;
    let identity = before.identity().map(|identity| identity.identity());
    let Some(Identity::User { name, .. }) = identity else {
        let why = match identity {
            Some(other) => format!("its certificate is of {other}"),
            None => "an API key is used, which does not renew; another one is made in time instead".to_owned(),
        };
        return Err(
            Problem::new(Exit::Usage, format!("context {} is no user's", before.name))
                .what(asked.what())
                .why(why)
                .step("use the context of an operator: --context NAME, without MUSTER_API_KEY and --api-key-file"),
        );
    };
    let key = Key::generate(&asked)?;
    let client = session.connect_as(&before, &asked).await?;
    let request = v1::RenewUserRequest {
        name: String::new(),
        csr: key.csr,
        ttl: wanted.ttl.map(duration::to_proto),
    };
    let call = async |request| client.users().renew_user(request).await;
    let answer = Answer::from(client.call(&asked, call, request).await?);
    let issued = answer.issued(&before, name.as_str(), &key.public, &asked)?;
    let pair = key
        .pair
        .ok_or_else(|| unusable(&asked, "its key is not here".to_owned()))?;
    let renewed =
        IdentityFile::new(pair, issued.certificates.clone()).map_err(|error| unusable(&asked, error.to_string()))?;
    let renewed = before.renewed(&issued, renewed);

    let asked = Asked::new("use the new certificate; the old one stays in the context file");
    let client = session.connect_as(&renewed, &asked).await?;
    // What is open to every operator, whatever is granted to it.
    let call = async |request| client.access().get_caller(request).await;
    client.call(&asked, call, v1::GetCallerRequest {}).await?;
    renewed.replace(&before)?;
    show(&answer.user, session)?;
    session.printer.note(&format!(
        "context {} in {} has a new key and a certificate until {}",
        renewed.name,
        renewed.path.display(),
        end(&answer.user)
    ))?;
    Ok(())
}

impl Key {
    fn of(wanted: &Wanted, asked: &Asked) -> Result<Key, Problem> {
        match &wanted.csr {
            Some(path) => Key::requested(path, asked),
            None => Key::generate(asked),
        }
    }

    fn generate(asked: &Asked) -> Result<Key, Problem> {
        let failed = |why: String| {
            Problem::new(Exit::Failure, "no key could be made")
                .what(asked.what())
                .why(why)
                .step("try again")
        };
        let pair = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        Ok(Key {
            public: pair.public_key(),
            csr: csr::create(&pair).map_err(|error| failed(error.to_string()))?,
            pair: Some(pair),
        })
    }

    /// Of a file. What is wrong with it is better said here, where the file has a name.
    fn requested(path: &Path, asked: &Asked) -> Result<Key, Problem> {
        let failed = |why: String| {
            Problem::new(
                Exit::Usage,
                format!("{} is no certificate request that can be used", path.display()),
            )
            .what(asked.what())
            .why(why)
            .step("make one where the key is kept, for example:")
            .step(
                " openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout user.key -out user.csr",
            )
        };
        let mut content = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut content))
            .map_err(|error| failed(error.to_string()))?;
        let csr = csr::from_file(&content).map_err(|error| failed(error.to_string()))?;
        Ok(Key {
            pair: None,
            public: csr::verify(&csr).map_err(|error| failed(error.to_string()))?,
            csr,
        })
    }
}

impl From<v1::RenewUserResponse> for Answer {
    fn from(response: v1::RenewUserResponse) -> Answer {
        Answer {
            user: response.user.unwrap_or_default(),
            certificates: response.certificates,
            roots: response.roots,
        }
    }
}

impl Answer {
    /// What was asked for, and nothing else.
    fn issued(&self, context: &Context, user: &str, key: &PublicKey, asked: &Asked) -> Result<Issued, Problem> {
        Issued::of(context, user, key, self.certificates.clone(), self.roots.clone())
            .map_err(|why| unusable(asked, why))
    }
}

/// Where a certificate goes.
enum Place {
    /// To standard output, for a key that is kept elsewhere.
    Printed,
    /// Into a context file.
    File(NewFile, PathBuf),
}

impl Place {
    fn of(wanted: &Wanted, name: &str) -> Result<Place, Problem> {
        let path = match (&wanted.out, &wanted.csr) {
            (None, Some(_)) => return Ok(Place::Printed),
            (Some(path), _) => path.clone(),
            (None, None) => PathBuf::from(format!("{name}.yaml")),
        };
        Ok(Place::File(NewFile::claim(&path)?, path))
    }

    fn take(
        self,
        context: &Context,
        user: &v1::User,
        issued: &Issued,
        key: Option<KeyPair>,
        document: serde_json::Value,
        session: &mut Session,
    ) -> Result<(), Problem> {
        let Place::File(file, path) = self else {
            let printer = &mut session.printer;
            match printer.format {
                Format::Json | Format::Yaml => printer.document(&document)?,
                Format::Name => printer.names([user.name.clone()])?,
                Format::Table | Format::Wide => {
                    let chain = pem::encode_certificates(&issued.certificates);
                    printer.terminal.out.write(&chain)?;
                }
            }
            printer.note(&format!("certificate of user {} until {}", user.name, end(user)))?;
            return Ok(());
        };
        file.write(&issued.new_file(context, key.as_ref()))?;
        show(user, session)?;
        let shown = path.display();
        let note = match key {
            Some(_) => format!("next: musterctl --config {shown} agent list"),
            None => format!(
                "the key is missing in {shown}; where it is kept: (echo '    key: |'; sed 's/^/      /' KEYFILE) >> {shown}"
            ),
        };
        session.printer.note(&note)?;
        Ok(())
    }
}

/// When the newest certificate ends.
fn end(user: &v1::User) -> String {
    let newest = user.certificates.first();
    age::moment(newest.and_then(|newest| newest.expire_time.as_ref())).unwrap_or_default()
}

fn unusable(asked: &Asked, why: String) -> Problem {
    Problem::new(Exit::Failure, "the controller's answer cannot be used")
        .what(asked.what())
        .why(why)
        .step("this is a defect of the controller; please report it")
}
