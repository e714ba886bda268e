use std::os::unix::fs::PermissionsExt;

use muster_certs::identity::Identity;

use super::*;

fn options(data_dir: PathBuf) -> cli::Init {
    cli::Init {
        ca_cert: None,
        ca_key: None,
        data_dir,
        name: "controller1".to_owned(),
        trust_domain: "example.muster".parse().unwrap(),
        config: None,
        admin: "admin".to_owned(),
        database: None,
        advertise: vec!["muster.example.com:8443".to_owned()],
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_init_makes_is_a_controller_that_can_run_and_an_operator_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    let report = run(&options(dir.clone()), SystemTime::now()).await.unwrap();

    let config = Config::load(&dir.join("server.yaml")).unwrap();
    assert_eq!(
        (config.name.as_str(), config.data_dir.as_path()),
        ("controller1", dir.as_path())
    );
    assert_eq!(config.advertise, ["muster.example.com:8443"]);
    let pki = Pki::load(&config.pki_dir()).unwrap();

    let context = dir.join("admin.yaml");
    assert_eq!((mode(&dir), mode(&context)), (0o700, 0o600));
    let text = fs::read_to_string(&context).unwrap();
    let start = text.find("certificate: |").unwrap();
    let chain: String = text[start..]
        .lines()
        .skip(1)
        .map_while(|line| line.strip_prefix("      "))
        .map(|l| format!("{l}\n"))
        .collect();
    let chain = muster_certs::pem::certificates(&chain).unwrap();
    let leaf = muster_certs::certificate::Certificate::parse(&chain[0]).unwrap();
    assert_eq!(
        Identity::from_certificate(&chain[0]).unwrap().to_string(),
        "spiffe://example.muster/user/admin"
    );

    let store = Db::open(&config.source()).await.unwrap();
    let row = store.user_certificate_get(&leaf.serial).await.unwrap().unwrap();
    assert_eq!((row.user_name.as_str(), row.ca), ("admin", pki.active_id()));
    store.close().await;

    let said = report.to_string();
    assert!(said.contains(&pki.pins()[0].to_string()), "{said}");
    assert!(
        said.contains(&format!(
            "muster-server run --config {}",
            dir.join("server.yaml").display()
        )),
        "{said}"
    );
    assert!(!dir.join(MARKER).exists());
}

#[tokio::test]
async fn a_second_init_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    run(&options(dir.clone()), SystemTime::now()).await.unwrap();
    let before = fs::read(dir.join("pki/root.pem")).unwrap();

    let error = run(&options(dir.clone()), SystemTime::now()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Exists(path) if *path == dir.join("server.yaml")),
        "{error}"
    );
    let elsewhere = cli::Init {
        config: Some(folder.path().join("other.yaml")),
        ..options(dir.clone())
    };
    let error = run(&elsewhere, SystemTime::now()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Exists(path) if *path == dir.join("pki")),
        "{error}"
    );
    assert_eq!(fs::read(dir.join("pki/root.pem")).unwrap(), before);
}

#[tokio::test]
async fn an_init_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    let in_the_way = folder.path().join("file");
    fs::write(&in_the_way, "").unwrap();
    // The configuration comes last, and here its folder cannot be made.
    let wrong = cli::Init {
        config: Some(in_the_way.join("server.yaml")),
        ..options(dir.clone())
    };
    run(&wrong, SystemTime::now()).await.unwrap_err();
    assert!(!dir.exists());
    run(&options(dir), SystemTime::now()).await.unwrap();
}

#[tokio::test]
async fn an_init_that_was_killed_half_way_is_started_over() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    file::create_private_dir(&dir).unwrap();
    file::write_secret(&dir.join(MARKER), b"").unwrap();
    Pki::create(&dir.join("pki"), &"example.muster".parse().unwrap(), SystemTime::now()).unwrap();
    fs::write(dir.join("control.db"), "half").unwrap();
    run(&options(dir.clone()), SystemTime::now()).await.unwrap();
    Config::load(&dir.join("server.yaml")).unwrap();
}

#[tokio::test]
async fn a_place_where_a_restore_was_cut_off_is_no_place_for_a_new_controller() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    file::create_private_dir(&dir).unwrap();
    file::write_secret(&dir.join(RESTORE_MARKER), b"").unwrap();
    // The next restore would take it for leftovers.
    let error = run(&options(dir.clone()), SystemTime::now()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Exists(path) if *path == dir.join(RESTORE_MARKER)),
        "{error}"
    );
}

#[tokio::test]
async fn a_data_directory_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    run(&options(dir.clone()), SystemTime::now()).await.unwrap_err();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[tokio::test]
async fn an_operator_can_always_be_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("muster");
    run(&options(dir.clone()), SystemTime::now()).await.unwrap();
    let config = Config::load(&dir.join("server.yaml")).unwrap();
    let pki = Pki::load(&config.pki_dir()).unwrap();
    let store = Db::open(&config.source()).await.unwrap();
    admin::create(&store, &pki, "admin", config.certificates.user, SystemTime::now())
        .await
        .unwrap();
    admin::create(&store, &pki, "oncall", config.certificates.user, SystemTime::now())
        .await
        .unwrap();
    store.close().await;
}
