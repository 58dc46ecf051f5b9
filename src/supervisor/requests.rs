//! What the controller asks for, and what it is told.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::domain::InstanceId;
use crate::wire::supervisor::{FromSupervisor, Inventory, Plan, Reply, Request, ToSupervisor};
use crate::wire::{PROGRAM_VERSION, PROTOCOL};

use super::child::Child;
use super::roles::{Promise, Proxy, signal_child};
use super::root::{Life, Root};
use super::spawn::Refusal;

impl Root {
    /// Carries out what has come over the link.
    pub(super) fn read_link(&mut self, now: Instant) {
        let Some(link) = &mut self.controller.link else { return };
        let (messages, result) = link.receive(&mut self.buffer);
        for message in messages {
            self.serve(message, now);
        }
        if let Err(error) = result {
            tracing::debug!(%error, "connection to the controller ended");
            self.drop_link();
            // A controller without its link can do nothing; usually it has ended already, and was not told to:
            // one that cannot start at all must not be started over and over without a pause.
            if self.life == Life::Running {
                self.terminate_controller(now);
            }
        }
        self.look_at_timers();
    }

    fn serve(&mut self, message: ToSupervisor, now: Instant) {
        let id = message.id;
        let result = match message.request {
            Request::Hello { protocol, version } => self.hello(protocol, &version),
            Request::Start(request) => self.start(*request).map(|child| Reply::Started(Box::new(child))),
            Request::Stop { instance, grace } => {
                let exists = self.stop(&instance, grace.duration(), now);
                if exists { Ok(Reply::Done) } else { Err(unknown(&instance)) }
            }
            Request::Forget { instance } => self.forget(&instance).map(|()| Reply::Done),
            Request::Log { instance, line } => self.log_line(&instance, &line).map(|()| Reply::Done),
            Request::Append { log, lines } => self.append(log, &lines).map(|()| Reply::Done),
            Request::Close { log } => {
                self.close_log(&log);
                Ok(Reply::Done)
            }
            Request::Attend { instance, socket } => self.attend(&instance, &socket).map(|()| Reply::Done),
            Request::Up => {
                self.controller.backoff.came_up();
                Ok(Reply::Done)
            }
            Request::Alive { within } => {
                self.controller.promise = Some(Promise { given: now, within: within.duration() });
                Ok(Reply::Done)
            }
            Request::ReplaceProxy => self.while_running().map(|()| {
                self.start_proxy(now);
                Reply::Done
            }),
            Request::Upgrade => {
                // Answered by the program that comes after this one, or when that cannot be started.
                self.upgrade = Some(Some(id));
                return;
            }
            Request::Apply(plan) => self.apply(*plan, now).map(|()| Reply::Done),
        };
        let reply =
            result.unwrap_or_else(|refusal| Reply::Refused { code: refusal.code.to_owned(), message: refusal.message });
        self.reply(id, reply);
    }

    pub(super) fn reply(&mut self, id: u64, reply: Reply) {
        self.send(&FromSupervisor::Reply { id, reply });
    }

    /// Sends an event. A controller that has not said hello finds what it says in the inventory.
    pub(super) fn tell(&mut self, message: &FromSupervisor) {
        if self.controller.link.as_ref().is_some_and(|link| link.greeted) {
            self.send(message);
        }
    }

    fn send(&mut self, message: &FromSupervisor) {
        let Some(link) = &mut self.controller.link else { return };
        if let Err(error) = link.send(message) {
            // A controller that was told to leave may be gone before it has heard everything.
            if self.life != Life::Running {
                tracing::debug!(%error, "controller has left");
            } else {
                tracing::error!(%error, "controller does not listen and is replaced");
            }
            self.drop_link();
            if let Some(process) = self.controller.process {
                signal_child(process, Signal::SIGKILL);
            }
        }
        self.arm_link();
    }

    fn hello(&mut self, protocol: u32, version: &str) -> Result<Reply, Refusal> {
        if protocol != PROTOCOL {
            let message = format!(
                "controller {version} speaks protocol {protocol}, supervisor {PROGRAM_VERSION} speaks {PROTOCOL}; upgrade the agent as a whole (`kill -USR2` its first process)"
            );
            return Err(Refusal::new("io", message));
        }
        if let Some(link) = &mut self.controller.link {
            link.greeted = true;
        }
        if self.life != Life::Running {
            // It missed the message.
            self.send(&FromSupervisor::Shutdown);
        }
        Ok(Reply::Inventory(Box::new(self.inventory())))
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            protocol: PROTOCOL,
            version: PROGRAM_VERSION.to_owned(),
            pid: std::process::id().cast_signed(),
            started_at: self.started_at,
            proxies: self.proxies.iter().map(Proxy::report).collect(),
            children: self.children.values().map(Child::report).collect(),
            controller_restarts: self.controller.restarts,
            plan: Some(self.plan.clone()),
        }
    }

    /// Refuses what makes no sense any more when the agent ends.
    pub(super) fn while_running(&self) -> Result<(), Refusal> {
        match self.life {
            Life::Running => Ok(()),
            Life::Draining | Life::Stopping | Life::Ending | Life::Over => {
                Err(Refusal::new("shutting_down", "the agent is shutting down"))
            }
        }
    }

    fn apply(&mut self, plan: Plan, now: Instant) -> Result<(), Refusal> {
        self.while_running()?;
        let fixed = [
            ("data_dir", plan.data_dir != self.plan.data_dir),
            ("api.socket", plan.api_socket != self.plan.api_socket),
            ("api.listen", plan.api_listen != self.plan.api_listen),
            // What is there belongs to the users of the start.
            ("users", plan.users != self.plan.users),
        ];
        let changed: Vec<&str> = fixed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect();
        if !changed.is_empty() {
            let keys = changed.join("`, `");
            let message = format!("`{keys}` cannot change while the agent runs; stop it and start it again");
            return Err(Refusal::new("not_permitted", message));
        }
        let moved = plan.proxy_listen != self.plan.proxy_listen || plan.proxy_tls_listen != self.plan.proxy_tls_listen;
        if moved {
            self.sockets
                .rebind_web(&plan)
                .map_err(|error| Refusal::new("io", format!("nothing was changed: {error}")))?;
        }
        self.plan = plan;
        let owner = self.plan.users.as_ref().map(|users| (users.agent.uid, users.agent.gid));
        self.logs.set_limit(self.plan.logs_total.0, owner);
        if moved {
            self.start_proxy(now);
        }
        Ok(())
    }
}

/// The answer about an instance nobody has heard of.
pub(super) fn unknown(instance: &InstanceId) -> Refusal {
    Refusal::new("unknown_instance", format!("instance {instance} is not known to the supervisor"))
}
