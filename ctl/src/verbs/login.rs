//! `musterctl login`: makes a context, or renews one, of what an operator has been given. Nothing is written before the controller
//! has answered who the caller is.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, builder::NonEmptyStringValueParser};
use muster_certs::{
    CertificateDer, file,
    identity::{Identity, TrustDomain},
    identity_file::IdentityFile,
    pem,
    pin::Pin,
    token::ApiKey,
};
use muster_proto::v1;
use zeroize::Zeroizing;

use crate::{
    app::Session,
    client::{self, introduction},
    context::{self, Context, Credentials, Stored},
    exit::Exit,
    problem::{Problem, connection, status::Asked},
    resources::contexts,
};

/// More than a file with certificates has.
const MAX_FILE: u64 = 1 << 20;

/// Make a context, and use it from now on
///
/// The controller is known by a pin or a CA that somebody whom you trust has given you (musterctl token create shows the pin), or
/// as the context file of --from has it, or else as the context of that name has it. You are who the certificate, the API key or
/// that file says. The controller is asked who that is; only then is the context written.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl login muster.example.com:9443 --ca-pin sha256:41a7... --certificate me.pem --key me-key.pem\n  \
                  musterctl login muster.example.com:9443 --ca ca.pem --api-key-file key --name ci\n  \
                  pass muster/ci | musterctl login muster.example.com:9443 --ca ca.pem --api-key-file -\n  \
                  musterctl login --from admin.yaml --name prod\n  \
                  musterctl login --name prod --certificate new.pem --key new-key.pem --force"
)]
pub struct LoginArgs {
    /// Where the API is [default: as the context has it]
    #[arg(value_name = "HOST:PORT")]
    server: Option<String>,
    /// SHA-256 of the public key of a CA of the controller; may be repeated
    #[arg(long = "ca-pin", value_name = "PIN")]
    pins: Vec<Pin>,
    /// CA certificates of the controller, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The host name that the API's certificate is for, when it has such a one; --ca has the roots of its PKI then
    #[arg(long, value_name = "NAME", requires = "ca", conflicts_with = "pins", value_parser = NonEmptyStringValueParser::new())]
    server_name: Option<String>,
    /// Your certificate with its chain, PEM
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_file")]
    certificate: Option<PathBuf>,
    /// Its key, PEM [default: in the file of --certificate]
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// A context file, such as muster-server admin create writes
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// What the context is called [default: as in the file of --from, else the host]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Though there is a context of that name, whose place it takes
    #[arg(long)]
    force: bool,
}

pub async fn run(args: LoginArgs, session: &mut Session) -> Result<(), Problem> {
    let asked = Asked::new("log in");
    let config = session.global().config().map(ToOwned::to_owned);
    let mut stored = Stored::open_or_new(config.as_deref())?;
    let own = credentials(&args, session)?;
    let base = base(&args, &stored, session)?;
    let server = args
        .server
        .clone()
        .or_else(|| base.as_ref().map(|base| base.server.clone()));
    let server = server.ok_or_else(|| {
        usage("it is not said where the controller is")
            .why("there is neither an address nor a context that has one")
            .step("name it: musterctl login HOST:PORT")
    })?;
    let name = match (&args.name, &base) {
        (Some(name), _) => name.clone(),
        (None, Some(base)) => base.name.clone(),
        (None, None) => client::host(&server)
            .map_err(|error| connection::refused(&server, &asked, &error))?
            .trim_matches(['[', ']'])
            .to_owned(),
    };
    if stored.has(&name) && !args.force {
        return Err(stored.taken(&name).step("or put this one in its place: --force"));
    }
    let known = known(&args, &server, base.as_ref(), own.as_ref(), session, &asked).await?;
    let credentials = match (own, base) {
        (Some(own), _) => own,
        (None, Some(base)) => base.credentials,
        (None, None) => {
            return Err(usage("it is not said whom to be")
                .why("there is neither a certificate nor an API key")
                .step("--certificate FILE --key FILE, or --api-key-file FILE, or --from FILE"));
        }
    };
    let mut context = Context {
        path: stored.path.clone(),
        name,
        server,
        trust_domain: known.trust_domain,
        roots: known.roots,
        credentials,
        server_name: known.server_name,
        is_protected: false,
    };
    let client = session.connect_as(&context, &asked).await?;
    let call = async |request| client.access().get_caller(request).await;
    let caller = client.call(&asked, call, v1::GetCallerRequest {}).await?;
    if let Ok(trust_domain) = caller.trust_domain.parse() {
        context.trust_domain = trust_domain;
    }
    stored.put(&context);
    stored.set_current(&context.name)?;
    stored.save()?;
    contexts::show(&stored, &context.name, session)?;
    session.printer.note("what you may do there: musterctl whoami")?;
    Ok(())
}

/// How the controller is known.
struct Known {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    server_name: Option<String>,
}

async fn known(
    args: &LoginArgs,
    server: &str,
    base: Option<&Context>,
    own: Option<&Credentials>,
    session: &Session,
    asked: &Asked,
) -> Result<Known, Problem> {
    let ca = match &args.ca {
        Some(path) => {
            let text = read(path)?;
            pem::certificates(&text).map_err(|error| unreadable(path, &error))?
        }
        None => Vec::new(),
    };
    if let Some(server_name) = &args.server_name {
        let of_certificate = match own {
            Some(Credentials::Certificate(file)) => Some(file.identity().trust_domain().clone()),
            _ => base.map(|base| base.trust_domain.clone()),
        };
        // Known by its host name, the controller says itself what its trust domain is.
        let unknown = || "unknown.invalid".parse().map_err(|_| usage("no trust domain"));
        return Ok(Known {
            trust_domain: of_certificate.map_or_else(unknown, Ok)?,
            roots: ca,
            server_name: Some(server_name.clone()),
        });
    }
    if !ca.is_empty() || !args.pins.is_empty() {
        let met = introduction::meet(server, &args.pins, &ca, session.timeout()).await;
        let met = met.map_err(|error| {
            connection::refused(server, asked, &error)
                .step("a controller that has a certificate with host names wants --server-name NAME and --ca FILE")
        })?;
        return Ok(Known {
            trust_domain: met.trust_domain,
            roots: met.roots,
            server_name: None,
        });
    }
    match base {
        Some(base) => Ok(Known {
            trust_domain: base.trust_domain.clone(),
            roots: base.roots.clone(),
            server_name: base.server_name.clone(),
        }),
        None => Err(usage("it is not said how to know the controller")
            .why("without a pin or a CA anybody could be it, and would be shown your API key")
            .step("--ca-pin sha256:..., which musterctl token create shows, or --ca FILE")),
    }
}

/// Where what is not said comes from: the file of --from, or the context that is renewed.
fn base(args: &LoginArgs, stored: &Stored, session: &Session) -> Result<Option<Context>, Problem> {
    if let Some(path) = &args.from {
        return Context::load(Some(path), session.global().context(), None).map(Some);
    }
    let is_known = args.server.is_some() && (args.ca.is_some() || !args.pins.is_empty());
    let renewed = args.name.as_deref().or(session.global().context()).or(stored.current());
    match renewed {
        Some(name) if !is_known && stored.has(name) => Context::load(Some(&stored.path), Some(name), None).map(Some),
        _ => Ok(None),
    }
}

/// What was given beside the context.
fn credentials(args: &LoginArgs, session: &mut Session) -> Result<Option<Credentials>, Problem> {
    if let Some(path) = &args.certificate {
        let certificate = read(path)?;
        let key = match &args.key {
            Some(key) => file::read_secret_text(key, MAX_FILE as usize).map_err(|error| unreadable(key, &error))?,
            None => Zeroizing::new(String::new()),
        };
        let text = Zeroizing::new(format!("{}\n{}", *key, *certificate));
        let identity = IdentityFile::from_pem(&text).map_err(|error| unreadable(path, &error))?;
        if !matches!(identity.identity(), Identity::User { .. }) {
            return Err(usage(format!("the certificate in {} is no operator's", path.display()))
                .why(format!("it is of {}", identity.identity()))
                .step("an operator gets one by: musterctl user create NAME --role ROLE"));
        }
        return Ok(Some(Credentials::Certificate(Box::new(identity))));
    }
    let path = session.global().api_key_file().map(ToOwned::to_owned);
    let key: Option<ApiKey> = match &path {
        Some(path) if path == Path::new("-") => {
            let mut text = Zeroizing::new(String::new());
            let input = session.printer.terminal.input.as_mut();
            let read = input.take(1024).read_to_string(&mut text);
            read.map_err(|error| unreadable(path, &error))?;
            Some(context::read_api_key("standard input", &text)?)
        }
        path => context::explicit_api_key(path.as_deref())?,
    };
    Ok(key.map(Credentials::ApiKey))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Problem> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Problem {
    usage(format!("{} cannot be used", path.display()))
        .why(context::chain(error))
        .step("name another file")
}

fn usage(headline: impl Into<String>) -> Problem {
    Problem::new(Exit::Usage, headline).what("log in; nothing was written")
}
