//! Has Nova answer, by way of the server, what workloads ask of themselves.
//!
//! Every question gets an answer, or word that nobody could be asked.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hextet_api::agent::MetadataRequest;
use hextet_metadata::{Question, QuestionId, http::Answer};
use hextet_types::PortId;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::{
    client::{self, Connection},
    identity::Identity,
};

/// Questions that wait.
pub const QUEUE: usize = 128;
/// Questions to the server at a time.
const AT_A_TIME: usize = 8;
/// Connections that are kept.
const IDLE: usize = 2;

/// What a workload asks.
#[derive(Debug)]
pub struct Asked {
    /// The index of its link.
    pub link: u32,
    /// Its port.
    pub port: PortId,
    /// The question.
    pub question: Question,
}

/// What it is answered.
#[derive(Debug)]
pub struct Answered {
    /// The index of its link.
    pub link: u32,
    /// The question's.
    pub id: QuestionId,
    /// None if nobody could be asked.
    pub answer: Option<Answer>,
}

/// The responder's ends: where questions go, and answers come from.
#[derive(Debug)]
pub struct Ends {
    /// Questions; without anybody who takes them nobody can be asked.
    pub asked: mpsc::Sender<Asked>,
    /// Answers.
    pub answered: mpsc::Receiver<Answered>,
}

/// What [`run`] takes.
#[derive(Debug)]
pub struct Relay {
    asked: mpsc::Receiver<Asked>,
    answered: mpsc::Sender<Answered>,
}

/// Both sides.
pub fn channel() -> (Ends, Relay) {
    let (asked, to_ask) = mpsc::channel(QUEUE);
    let (answered, answers) = mpsc::channel(QUEUE);
    let ends = Ends {
        asked,
        answered: answers,
    };
    let relay = Relay {
        asked: to_ask,
        answered,
    };
    (ends, relay)
}

struct Server {
    address: String,
    identity: Identity,
    idle: Mutex<Vec<Connection>>,
}

/// Runs until nobody asks any more.
pub async fn run(address: String, identity: Identity, mut relay: Relay) {
    let server = Arc::new(Server {
        address,
        identity,
        idle: Mutex::default(),
    });
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    while let Some(Asked {
        link,
        port,
        question,
    }) = relay.asked.recv().await
    {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (server, answered) = (Arc::clone(&server), relay.answered.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let id = question.id;
            let answer = server.ask(port, question).await;
            if let Err(error) = &answer {
                debug!(%port, error = format!("{error:#}"), "a workload's question is not answered");
            }
            let answer = answer.ok();
            let _ = answered.send(Answered { link, id, answer }).await;
        });
    }
}

impl Server {
    async fn ask(&self, port: PortId, question: Question) -> Result<Answer> {
        // On a connection that the server may have ended, only what can be asked twice is asked.
        let may_repeat = question.method == "GET";
        let request = MetadataRequest {
            port,
            method: question.method,
            target: question.target,
            body: question.body,
        };
        let idle = may_repeat.then(|| self.idle().pop()).flatten();
        if let Some(open) = idle
            && let Ok(answer) = self.ask_by(open, &request).await
        {
            return Ok(answer);
        }
        let new = client::connect(&self.address, self.identity.tls()?).await?;
        self.ask_by(new, &request).await
    }

    async fn ask_by(&self, mut open: Connection, request: &MetadataRequest) -> Result<Answer> {
        let answer = open.metadata(request).await?;
        let mut idle = self.idle();
        if idle.len() < IDLE {
            idle.push(open);
        }
        Ok(Answer {
            status: answer.status,
            content_type: answer.content_type,
            body: answer.body,
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
