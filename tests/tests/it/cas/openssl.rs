//! A PKI as an operator has it, made with `openssl`: nothing of ours takes part in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_tests::{ctl::Outcome, process, tools};

#[derive(Debug)]
pub struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    /// With a root `root.pem`. `None`: there is no `openssl` here.
    pub fn create() -> Option<Self> {
        if tools::find("openssl").is_none() {
            tools::skipped("a PKI of somebody else", "openssl is not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Self { dir };
        pki.write("req.cnf", "[req]\ndistinguished_name = dn\n[dn]\n");
        pki.root("root", "Example Root CA");
        Some(pki)
    }

    /// `<name>.pem` and `<name>-key.pem`, RSA.
    pub fn root(&self, name: &str, subject: &str) {
        self.request(name, subject, &["rsa:2048"]);
        self.extensions(name, CA);
        let key = self.text_path(&format!("{name}-key.pem"));
        self.sign(name, &["-signkey", &key]);
    }

    /// Below `above`, with these lines of extensions, P-384.
    pub fn below(&self, above: &str, name: &str, subject: &str, extensions: &str) {
        self.request(name, subject, &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]);
        self.extensions(name, extensions);
        self.sign_by(above, name);
    }

    /// An issuing CA below `above`; its key is for its owner alone.
    pub fn issuing(&self, above: &str, name: &str) {
        self.below(above, name, "Example Fleet CA", ISSUING);
    }

    /// A certificate of the root `other` by `above`.
    pub fn cross(&self, above: &str, other: &str) -> String {
        let (from, to) = (self.path(&format!("{other}.csr")), self.path("cross.csr"));
        fs::copy(from, to).expect("the request is there");
        self.extensions("cross", CA);
        self.sign_by(above, "cross");
        self.read("cross.pem")
    }

    /// One file with these certificates.
    pub fn bundle(&self, file: &str, names: &[&str]) -> String {
        let text: String = names.iter().map(|name| self.read(&format!("{name}.pem"))).collect();
        self.write(file, &text);
        self.text_path(file)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn text_path(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("the file is there")
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect("the file is written");
    }

    fn request(&self, name: &str, subject: &str, key: &[&str]) {
        let subject = format!("/O=Example/CN={subject}");
        let (out, key_out) = (
            self.text_path(&format!("{name}.csr")),
            self.text_path(&format!("{name}-key.pem")),
        );
        let config = self.text_path("req.cnf");
        let mut arguments = vec![
            "req", "-new", "-nodes", "-config", &config, "-subj", &subject, "-newkey",
        ];
        arguments.extend(key);
        arguments.extend(["-keyout", &key_out, "-out", &out]);
        openssl(self.dir.path(), &arguments);
    }

    fn extensions(&self, name: &str, lines: &str) {
        self.write(&format!("{name}.ext"), lines);
    }

    fn sign_by(&self, above: &str, name: &str) {
        let (ca, key) = (
            self.text_path(&format!("{above}.pem")),
            self.text_path(&format!("{above}-key.pem")),
        );
        self.sign(name, &["-CA", &ca, "-CAkey", &key, "-CAcreateserial"]);
    }

    fn sign(&self, name: &str, by: &[&str]) {
        let [csr, ext, out] = ["csr", "ext", "pem"].map(|end| self.text_path(&format!("{name}.{end}")));
        let mut arguments = vec![
            "x509", "-req", "-in", &csr, "-extfile", &ext, "-out", &out, "-days", "400", "-sha256",
        ];
        arguments.extend(by);
        openssl(self.dir.path(), &arguments);
    }
}

const CA: &str = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n";
const ISSUING: &str = "basicConstraints = critical, CA:TRUE, pathlen:0\nkeyUsage = critical, keyCertSign, cRLSign\n";

fn openssl(home: &Path, arguments: &[&str]) {
    let mut command = process::clean_command("openssl", home);
    command.args(arguments);
    Outcome::of(command).expect_code(0);
}
