//! `muster-server admin create`: finds the controller of this host by its configuration or data directory, and makes an
//! operator there, whether the controller is running or not.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use muster_certs::file;

use crate::cli::{Installation, SYSTEM_CONFIG};
use crate::config::{self, Config};
use crate::pki::{self, Pki};
use crate::store::{self, Db};
use crate::users::Before;
use crate::{admin, clock};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists already; name another file with --out", .0.display())]
    Exists(PathBuf),
    #[error("failed to read the configuration")]
    Config(#[from] config::Error),
    #[error("failed to read the keys of the controller; run this as the user that owns them")]
    Pki(#[from] pki::Error),
    #[error("failed to open the database")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error("failed to write the context file")]
    Write(#[from] file::Error),
}

/// What was made; displayed, it says what to type next.
#[derive(Debug)]
pub struct Report {
    name: String,
    context: PathBuf,
    not_after: SystemTime,
    before: Before,
}

/// Makes an operator, and writes the context file to `out`.
pub async fn create(
    name: &str,
    installation: &Installation,
    out: Option<&Path>,
    now: SystemTime,
) -> Result<Report, Error> {
    let (config, pki) = find(installation)?;
    let context = out.map_or_else(|| config.data_dir.join(format!("{name}.yaml")), Path::to_owned);
    if std::fs::symlink_metadata(&context).is_ok() {
        return Err(Error::Exists(context));
    }
    let store = Db::open(&config.source()).await?;
    let operator = admin::create(&store, &pki, name, config.certificates.user, now).await;
    store.close().await;
    let operator = operator?;
    operator.write(&context, &config.name, config.api_listen)?;
    Ok(Report {
        name: operator.name,
        context,
        not_after: operator.not_after,
        before: operator.before,
    })
}

/// The controller of this host.
pub(crate) fn find(installation: &Installation) -> Result<(Config, Pki), Error> {
    let path = config_path(installation);
    if let Some(data_dir) = &installation.data_dir
        && !path.exists()
    {
        return without_configuration(data_dir);
    }
    let config = Config::load(&path)?;
    let pki = Pki::load(&config.pki_dir())?.of_domain(&config.trust_domain)?;
    Ok((config, pki))
}

/// Where its configuration is, if it has one.
pub(crate) fn config_path(installation: &Installation) -> PathBuf {
    match (&installation.config, &installation.data_dir) {
        (Some(path), _) => path.clone(),
        (None, Some(data_dir)) => data_dir.join("server.yaml"),
        (None, None) => SYSTEM_CONFIG.into(),
    }
}

/// `muster-server dev` keeps no configuration; its keys, its database and `endpoints.json` say enough.
fn without_configuration(data_dir: &Path) -> Result<(Config, Pki), Error> {
    let pki = Pki::load(&data_dir.join("pki"))?;
    let mut config = Config::new("dev", pki.trust_domain().clone(), data_dir.to_owned());
    if let Some(api) = api_endpoint(&data_dir.join("endpoints.json")) {
        config.api_listen = api;
    }
    Ok((config, pki))
}

fn api_endpoint(path: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(path).ok()?;
    let endpoints: serde_json::Value = serde_json::from_str(&text).ok()?;
    endpoints.get("api")?.as_str()?.parse().ok()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context.display();
        let until = clock::to_text(clock::from_system(self.not_after));
        writeln!(f, "operator        {} in {context}, good until {until}", self.name)?;
        match self.before {
            Before::Nobody => {}
            Before::Trusted => writeln!(f, "                beside the certificates that were there")?,
            Before::Revoked => writeln!(f, "                who was revoked: with this certificate alone")?,
        }
        writeln!(f)?;
        writeln!(f, "next:")?;
        writeln!(f, "  musterctl --config {context} agent list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn controller() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("muster");
        file::create_private_dir(&dir).unwrap();
        let pki = Pki::create(&dir.join("pki"), &"example.muster".parse().unwrap(), SystemTime::now()).unwrap();
        let config = Config::new("controller1", pki.trust_domain().clone(), dir.clone());
        std::fs::write(dir.join("server.yaml"), config::render(&config, None)).unwrap();
        (folder, dir)
    }

    fn at(data_dir: &Path) -> Installation {
        Installation {
            config: None,
            data_dir: Some(data_dir.to_owned()),
        }
    }

    #[tokio::test]
    async fn an_operator_is_made_by_whoever_owns_the_keys() {
        let (_folder, dir) = controller().await;
        let report = create("oncall", &at(&dir), None, SystemTime::now()).await.unwrap();
        let text = std::fs::read_to_string(dir.join("oncall.yaml")).unwrap();
        assert!(
            text.contains("server: \"127.0.0.1:9443\"") && text.contains("trust_domain: \"example.muster\""),
            "{text}"
        );
        assert!(report.to_string().contains("oncall.yaml"), "{report}");
    }

    #[tokio::test]
    async fn a_context_file_is_never_overwritten() {
        let (_folder, dir) = controller().await;
        create("oncall", &at(&dir), None, SystemTime::now()).await.unwrap();
        let error = create("oncall", &at(&dir), None, SystemTime::now()).await.unwrap_err();
        assert!(error.to_string().contains("--out"), "{error}");
        let report = create("oncall", &at(&dir), Some(&dir.join("again.yaml")), SystemTime::now())
            .await
            .unwrap();
        assert!(report.to_string().contains("beside"), "{report}");
    }

    #[tokio::test]
    async fn a_data_directory_without_configuration_is_enough() {
        let (_folder, dir) = controller().await;
        std::fs::remove_file(dir.join("server.yaml")).unwrap();
        std::fs::write(
            dir.join("endpoints.json"),
            r#"{"agents": "127.0.0.1:1", "api": "127.0.0.1:4711"}"#,
        )
        .unwrap();
        create("oncall", &at(&dir), None, SystemTime::now()).await.unwrap();
        let text = std::fs::read_to_string(dir.join("oncall.yaml")).unwrap();
        assert!(text.contains("server: \"127.0.0.1:4711\""), "{text}");
    }

    #[tokio::test]
    async fn a_configuration_that_does_not_fit_the_keys_is_refused() {
        let (_folder, dir) = controller().await;
        let config = Config::new("controller1", "other.muster".parse().unwrap(), dir.clone());
        std::fs::write(dir.join("server.yaml"), config::render(&config, None)).unwrap();
        let error = create("oncall", &at(&dir), None, SystemTime::now()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("other.muster"), "{cause}");
    }
}
