//! Where every call goes through on its way out. A call that changes something waits here until it is confirmed, when the context
//! is protected; and every call is shown as commands of others, when that was asked for.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
};

use http_body_util::{BodyExt as _, Full};
use tokio::sync::Mutex;
use tonic::{body::Body, service::interceptor::InterceptedService, transport::Channel};
use tower::Service;

use super::{Bearer, method::Method, show::Show};
use crate::{context::Context, exit::Exit, problem::Problem, terminal::Aside};

type Calls = InterceptedService<Channel, Bearer>;
type Reply = <Calls as Service<http::Request<Body>>>::Response;
type BoxError = Box<dyn StdError + Send + Sync>;

/// How often a name may be mistyped.
const TRIES: usize = 3;

#[derive(Clone, Debug)]
pub struct Door {
    calls: Calls,
    gate: Arc<Gate>,
}

/// What is to happen with a call before it goes out.
pub struct Gate {
    /// The name of a protected context.
    protected: Option<String>,
    /// What was given as its confirmation.
    confirm: Option<String>,
    aside: Arc<dyn Aside>,
    show: Option<Show>,
    is_confirmed: Mutex<bool>,
    is_asking: AtomicBool,
}

/// A call that did not go out; in the status that the caller gets of it.
#[derive(Debug)]
pub struct Refused(pub Problem);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.headline)
    }
}

impl StdError for Refused {}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("protected", &self.protected)
            .finish_non_exhaustive()
    }
}

impl Door {
    pub fn new(calls: Calls, gate: Arc<Gate>) -> Door {
        Door { calls, gate }
    }
}

impl Service<http::Request<Body>> for Door {
    type Response = Reply;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.calls.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that is ready goes out, and not its copy.
        let next = self.calls.clone();
        let mut calls = std::mem::replace(&mut self.calls, next);
        if !self.gate.is_looked_through() {
            return Box::pin(async move { Ok(calls.call(request).await?) });
        }
        let gate = self.gate.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            gate.pass(parts.uri.path(), &body).await?;
            let request = http::Request::from_parts(parts, Body::new(Full::new(body)));
            Ok(calls.call(request).await?)
        })
    }
}

impl Gate {
    pub fn new(context: &Context, confirm: Option<&str>, show: Option<Show>, aside: Arc<dyn Aside>) -> Gate {
        Gate {
            protected: context.is_protected.then(|| context.name.clone()),
            confirm: confirm.map(str::to_owned),
            aside,
            show,
            is_confirmed: Mutex::new(false),
            is_asking: AtomicBool::new(false),
        }
    }

    /// The user has not answered yet, which does not count as a time of the controller.
    pub fn is_asking(&self) -> bool {
        self.is_asking.load(Ordering::Relaxed)
    }

    fn is_looked_through(&self) -> bool {
        self.protected.is_some() || self.show.is_some()
    }

    async fn pass(&self, path: &str, frame: &[u8]) -> Result<(), BoxError> {
        let method = Method::of(path);
        let request = method.as_ref().and_then(|method| method.request(frame));
        // What is not known to read may change something.
        let changes = method.as_ref().is_none_or(|method| method.changes(request.as_ref()));
        if let Some(name) = self.protected.as_deref().filter(|_| changes) {
            let mut is_confirmed = self.is_confirmed.lock().await;
            if !*is_confirmed {
                self.is_asking.store(true, Ordering::Relaxed);
                let confirmed = confirm(name, self.confirm.as_deref(), self.aside.clone()).await;
                self.is_asking.store(false, Ordering::Relaxed);
                confirmed.map_err(Refused)?;
                *is_confirmed = true;
            }
        }
        if let (Some(show), Some(method), Some(request)) = (&self.show, &method, &request) {
            self.aside.tell(&show.commands(method, request))?;
        }
        Ok(())
    }
}

/// That a change to what is protected is meant: by `given`, or by typing the name.
pub async fn confirm(name: &str, given: Option<&str>, aside: Arc<dyn Aside>) -> Result<(), Problem> {
    let refused = |headline: String, why: &str| {
        Problem::new(Exit::Usage, headline)
            .what(format!("change something in context {name}, which is protected"))
            .why(format!("{why}; nothing was changed"))
            .step(format!("do it all the same: --confirm {name}"))
            .step(format!(
                "or take the protection away: musterctl context unprotect {name}"
            ))
    };
    if let Some(given) = given {
        return match given == name {
            true => Ok(()),
            false => Err(refused(
                format!("--confirm {given} does not name context {name}"),
                "the context that is used is another one than the one that was meant",
            )),
        };
    }
    let question = format!("context {name} is protected; type its name to go on: ");
    // In a thread of its own: Ctrl-C goes on to end the program.
    let answered = tokio::task::spawn_blocking({
        let name = name.to_owned();
        move || {
            for _ in 0..TRIES {
                match aside.ask(&question) {
                    Ok(Some(answer)) if answer.trim() == name => return Some(true),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
            Some(false)
        }
    })
    .await;
    match answered {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false)) => Err(refused(
            format!("that is not the name of context {name}"),
            "the name was mistyped",
        )),
        Ok(None) | Err(_) => Err(refused(
            format!("context {name} is protected"),
            "there is no terminal on which its name could be typed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io, sync::Mutex};

    use super::*;

    /// Types these lines, and then is gone.
    #[derive(Debug)]
    struct Typing(Mutex<VecDeque<&'static str>>);

    impl Aside for Typing {
        fn tell(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn ask(&self, question: &str) -> io::Result<Option<String>> {
            assert!(question.contains("prod"), "{question}");
            Ok(self.0.lock().unwrap().pop_front().map(|line| format!("{line}\n")))
        }
    }

    async fn confirmed(given: Option<&str>, typed: &[&'static str]) -> Result<(), Exit> {
        let aside = Arc::new(Typing(Mutex::new(typed.iter().copied().collect())));
        confirm("prod", given, aside).await.map_err(|problem| problem.exit)
    }

    #[tokio::test]
    async fn a_change_is_confirmed_by_the_name_typed_or_given() {
        assert_eq!(confirmed(None, &["prod"]).await, Ok(()));
        assert_eq!(
            confirmed(None, &["", "yes", "prod"]).await,
            Ok(()),
            "a name may be mistyped"
        );
        assert_eq!(confirmed(None, &["y", "yes", "no", "prod"]).await, Err(Exit::Usage));
        assert_eq!(confirmed(None, &[]).await, Err(Exit::Usage), "nobody is there");
        assert_eq!(confirmed(Some("prod"), &[]).await, Ok(()));
        assert_eq!(confirmed(Some("dev"), &["prod"]).await, Err(Exit::Usage));
    }
}
