//! What the messages of a peer do to its session (RFC 4271 §8.2.2, §6.8).

use super::{
    ConnId, Connection, Direction, DownReason, Incoming, Negotiated, Output, Phase, Session, Step,
    negotiate::negotiate,
};
use crate::packet::{Code, Message, Notification, Open};

impl Session {
    /// Octets came on a connection; all of them are used.
    pub(crate) fn on_received(&mut self, id: ConnId, octets: &[u8], step: &mut Step<'_>) {
        match self.get(id) {
            Some(connection) if connection.phase > Phase::Connecting => {
                connection.framer.push(octets);
            }
            _ => return,
        }
        // Each message may end the connection.
        while let Some(connection) = self.get(id) {
            match connection.next_incoming() {
                Ok(None) => return,
                Ok(Some(incoming)) => {
                    self.counters.received += 1;
                    self.on_message(id, incoming, step);
                }
                Err(notification) => self.end(id, Some(notification), step),
            }
        }
    }

    fn on_message(&mut self, id: ConnId, incoming: Incoming, step: &mut Step<'_>) {
        let Some(connection) = self.get(id) else {
            return;
        };
        let phase = connection.phase;
        match (incoming, phase) {
            (Incoming::Notification(notification), _) => {
                self.on_notification(id, notification, step);
            }
            (Incoming::Open(Err(notification)), _) => self.end(id, Some(notification), step),
            (Incoming::Open(Ok(open)), Phase::OpenSent) => self.on_open(id, &open, step),
            (Incoming::Keepalive, Phase::OpenConfirm) => self.on_up(id, step),
            (Incoming::Keepalive, Phase::Established) => connection.restart_hold(step.now),
            (Incoming::Update(update), Phase::Established) => {
                connection.restart_hold(step.now);
                self.counters.updates_received += 1;
                self.on_update(id, *update, step);
            }
            (Incoming::Refresh(refresh), Phase::Established) => match refresh {
                Ok(refresh) => {
                    connection.restart_hold(step.now);
                    step.out.push(Output::Refresh(refresh));
                }
                Err(notification) => self.end(id, Some(notification), step),
            },
            _ => {
                let code = match phase {
                    Phase::Connecting => Code::FSM,
                    Phase::OpenSent => Code::FSM_OPEN_SENT,
                    Phase::OpenConfirm => Code::FSM_OPEN_CONFIRM,
                    Phase::Established => Code::FSM_ESTABLISHED,
                };
                self.end(id, Some(Notification::new(code)), step);
            }
        }
    }

    fn on_notification(&mut self, id: ConnId, notification: Notification, step: &mut Step<'_>) {
        if let Some(connection) = self.take(id) {
            step.out.push(Output::Close(id));
            // The peer resolved a collision: the other connection goes on, nothing failed.
            let collision = notification.code == Code::COLLISION;
            if collision && connection.phase < Phase::Established && !self.connections.is_empty() {
                return;
            }
            self.after_end(&connection, DownReason::Received(notification), step);
        }
    }

    fn on_update(
        &mut self,
        id: ConnId,
        update: Result<crate::packet::Parsed, Notification>,
        step: &mut Step<'_>,
    ) {
        let parsed = match update {
            Ok(parsed) => parsed,
            Err(notification) => {
                self.counters.malformed_updates += 1;
                return self.end(id, Some(notification), step);
            }
        };
        if let Some(problem) = parsed.problems.last() {
            self.counters.malformed_updates += 1;
            self.last_problem = Some((step.now, *problem));
        }
        let Some(negotiated) = self.get(id).and_then(|c| c.negotiated.as_mut()) else {
            return;
        };
        if let Some((family, notification)) = &parsed.disabled {
            negotiated.families.remove(*family);
            if negotiated.families.is_empty() {
                let notification = notification.clone();
                return self.end(id, Some(notification), step);
            }
        }
        step.out.push(Output::Update(parsed));
    }

    fn on_open(&mut self, id: ConnId, open: &Open, step: &mut Step<'_>) {
        let negotiated = match negotiate(&self.settings, open) {
            Ok(negotiated) => negotiated,
            Err(notification) => return self.end(id, Some(notification), step),
        };
        if !self.survives_collision(id, &negotiated, step) {
            return;
        }
        let Some(connection) = self.get(id) else {
            return;
        };
        if negotiated.extended_messages {
            connection.framer.allow_extended();
        }
        connection.negotiated = Some(negotiated);
        connection.phase = Phase::OpenConfirm;
        connection.restart_hold(step.now);
        let interval = connection.hold_time() / 3;
        connection.keepalive =
            (!interval.is_zero()).then(|| step.now + step.jitter.spread(interval));
        step.send(connection, Message::Keepalive.encode());
    }

    /// RFC 4271 §6.8, called when an OPEN came on `id`: ends either it or the other one.
    fn survives_collision(
        &mut self,
        id: ConnId,
        negotiated: &Negotiated,
        step: &mut Step<'_>,
    ) -> bool {
        let direction = self.get(id).map(|c| c.direction);
        let rival = |c: &&Connection| c.id != id && c.phase >= Phase::OpenConfirm;
        let Some(rival) = self.connections.iter().find(rival) else {
            return true;
        };
        let rival_id = rival.id;
        if rival.phase == Phase::Established {
            // RFC 4724 §5: with graceful restart the new connection replaces the old one.
            let restart = rival.negotiated.as_ref().and_then(|n| n.restart);
            if restart.is_none() {
                self.end(id, Some(Notification::new(Code::COLLISION)), step);
                return false;
            }
            if let Some(old) = self.take(rival_id) {
                step.out.push(Output::Close(rival_id));
                self.after_end(&old, DownReason::Replaced, step);
            }
            return true;
        }
        let loser = if Some(rival.direction) == direction {
            rival_id
        } else {
            let local = (self.settings.router_id, self.settings.local_as);
            let ours_stays = local > (negotiated.remote_id, negotiated.remote_as);
            let winner = if ours_stays {
                Direction::Outgoing
            } else {
                Direction::Incoming
            };
            if direction == Some(winner) {
                rival_id
            } else {
                id
            }
        };
        self.end(loser, Some(Notification::new(Code::COLLISION)), step);
        loser != id
    }

    fn on_up(&mut self, id: ConnId, step: &mut Step<'_>) {
        let others: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|c| c.id != id)
            .map(|c| c.id)
            .collect();
        for other in others {
            self.end(other, Some(Notification::new(Code::COLLISION)), step);
        }
        let Some(connection) = self.get(id) else {
            return;
        };
        connection.phase = Phase::Established;
        connection.restart_hold(step.now);
        let agreed = connection
            .negotiated
            .clone()
            .zip(connection.endpoint.clone());
        self.up_since = Some(step.now);
        self.retry_at = None;
        // From now on a lost session is no lost forwarding.
        self.settings.forwarding = true;
        if let Some(agreed) = agreed {
            step.out.push(Output::Up(Box::new(agreed)));
        }
    }
}
