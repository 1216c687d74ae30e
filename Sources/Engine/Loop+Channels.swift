import DataChannel
import Peer
import SCTP
import Wire

/// The way of messages between the host's queues and the peers.
extension Loop {
    // MARK: From the host

    func send(_ channel: ChannelEntry, isText: Bool, _ payload: Payload) {
        guard let connection = connections[channel.peer.handle], let queue = connection.queue(of: channel) else {
            return channel.handedOn(payload.count)
        }
        channel.rose()
        queue.waiting.append((isText, payload))
        connection.activate(queue)
        markDirty(connection)
    }

    /// Hands waiting messages to the association as long as it has room, one channel after the other.
    func feed(_ connection: Connection) {
        guard !connection.active.isEmpty, !connection.peer.isClosed else { return }
        connection.turn &+= 1
        let count = connection.active.count
        for step in 0..<count {
            let queue = connection.active[(connection.turn &+ step) % count]
            while let message = queue.waiting.first {
                do throws(ChannelError) {
                    try connection.peer.send(queue.id, isText: message.isText, message.payload, now: now)
                } catch {
                    // It keeps its place: what makes room, an acknowledgement, brings us here again.
                    if error == .bufferFull { return }
                    log(.warning, "[CHANNEL] Message of \(message.payload.count) bytes not sent: \(error)")
                }
                _ = queue.waiting.popFirst()
                queue.entry.handedOn(message.payload.count)
            }
        }
    }

    /// After the peer has sent what it could: what the host may know about its queues.
    func settle(_ connection: Connection) {
        guard !connection.active.isEmpty else { return }
        connection.active.removeAll { queue in
            let amount = connection.peer.bufferedAmount(queue.id)
            queue.entry.associationBytes.store(amount, ordering: .sequentiallyConsistent)
            if queue.entry.fellToLowWater() { tellLowWater(queue.entry) }
            // A channel that has no stream yet would lose what waits for one.
            guard queue.waiting.isEmpty, amount == 0 else { return false }
            if queue.wantsClose {
                queue.wantsClose = false
                try? connection.peer.closeChannel(queue.id, now: now)
                markDirty(connection)
            }
            queue.isActive = false
            return true
        }
    }

    func tellLowWater(_ channel: ChannelEntry) {
        var event = Event(.bufferedLow)
        event.peer = channel.peer.handle
        event.channel = channel.handle
        event.tag = channel.tag
        event.number = Int64(channel.buffered)
        events.append(event)
    }

    func openChannel(_ entry: ChannelEntry, _ configuration: ChannelConfiguration) {
        guard let connection = connections[entry.peer.handle], !connection.peer.isClosed else {
            return forget(entry, status: .closed)
        }
        do throws(ChannelError) {
            let id = try connection.peer.openChannel(
                ChannelParameters(configuration), negotiatedStream: configuration.negotiatedID, now: now)
            connection.channels[id] = ChannelQueue(entry: entry, id: id)
            setLimit(of: entry, connection)
            entry.loopID.store(id.number, ordering: .relaxed)
            markDirty(connection)
        } catch {
            log(.warning, "[CHANNEL] Not opened: \(error)")
            forget(entry, status: error == .tooManyChannels || error == .streamUnavailable ? .limit : .closed)
        }
    }

    func setLimit(of entry: ChannelEntry, _ connection: Connection) {
        guard let limit = connection.peer.remoteMessageLimit else { return }
        entry.messageLimit.store(min(limit, Configuration.messageSizeLimit), ordering: .relaxed)
    }

    func closeChannel(_ entry: ChannelEntry) {
        guard let connection = connections[entry.peer.handle], let queue = connection.queue(of: entry) else { return }
        queue.wantsClose = true
        connection.activate(queue)
        markDirty(connection)
    }

    /// Ends a channel's handle and says so.
    private func forget(_ entry: ChannelEntry, status: Status) {
        entry.isClosing.store(true, ordering: .relaxed)
        var event = Event(.channelClosed)
        event.status = status
        event.peer = entry.peer.handle
        event.channel = entry.handle
        event.tag = entry.tag
        event.charge(entry.peer)
        events.append(event)
        entry.peer.channelCount.wrappingSubtract(1, ordering: .relaxed)
        HandleTable.shared.remove(entry.handle)
    }

    private func status(of reason: ChannelCloseReason) -> Status {
        switch reason {
        case .local, .remote: .ok
        case .protocolViolation: .channelRefused
        case .streamUnavailable: .limit
        case .associationEnded: .peerGone
        }
    }

    // MARK: From the peer

    /// The last ones of a peer are taken whether the host has room or not: they are bounded, and nobody asks again.
    func drainChannelEvents(_ connection: Connection, isLast: Bool = false) {
        while isLast || !isStalled(connection), let event = connection.peer.pollChannelEvent(now: now) {
            switch event {
            case .message(let id, let isText, let payload) where id == connection.control:
                controlMessage(connection, isText: isText, payload)
            case .opened(let opened) where opened.id == connection.control: controlOpened(connection)
            case .closed(let id, _) where id == connection.control:
                connection.control = nil
                connection.isControlOpen = false
            case .message(let id, let isText, let payload): deliver(connection, id, isText: isText, payload)
            case .opened(let opened): open(connection, opened)
            // The peer's own end says why.
            case .closed(_, .associationEnded) where connection.peer.isClosed: continue
            case .closed(let id, let reason):
                guard let queue = connection.channels.removeValue(forKey: id) else { continue }
                drop(queue, connection)
                forget(queue.entry, status: status(of: reason))
            }
        }
    }

    /// True while the host holds more of this peer's messages than it may.
    private func isStalled(_ connection: Connection) -> Bool {
        let entry = connection.entry
        guard entry.undelivered.load(ordering: .sequentiallyConsistent) >= configuration.receiveWindow else {
            return false
        }
        entry.isStalled.store(true, ordering: .sequentiallyConsistent)
        // The host may have given back everything between the two lines.
        guard entry.undelivered.load(ordering: .sequentiallyConsistent) <= configuration.receiveWindow / 2 else {
            return true
        }
        entry.isStalled.store(false, ordering: .sequentiallyConsistent)
        return false
    }

    private func deliver(_ connection: Connection, _ id: ChannelID, isText: Bool, _ payload: Payload) {
        guard let queue = connection.channels[id] else { return }
        var event = Event(.message)
        event.peer = connection.entry.handle
        event.channel = queue.entry.handle
        event.tag = queue.entry.tag
        event.data = payload
        event.detailKind = isText ? 1 : 2
        event.charge(connection.entry)
        events.append(event)
    }

    private func open(_ connection: Connection, _ opened: ChannelOpened) {
        if opened.isRemote {
            guard let entry = try? ChannelEntry.make(ChannelConfiguration(), peer: connection.entry) else {
                try? connection.peer.closeChannel(opened.id, now: now)
                return
            }
            entry.loopID.store(opened.id.number, ordering: .relaxed)
            setLimit(of: entry, connection)
            connection.channels[opened.id] = ChannelQueue(entry: entry, id: opened.id)
        }
        guard let queue = connection.channels[opened.id] else { return }
        var event = Event(.channelOpen)
        event.peer = connection.entry.handle
        event.channel = queue.entry.handle
        event.tag = queue.entry.tag
        event.data = .text(opened.parameters.label)
        event.extra = .text(opened.parameters.subprotocol)
        event.number = Int64(opened.stream)
        if opened.isRemote { event.flags |= Event.remote }
        if !opened.parameters.ordered { event.flags |= Event.unordered }
        if opened.parameters.reliability != .reliable { event.flags |= Event.partial }
        event.charge(connection.entry)
        events.append(event)
    }

    /// The end of all channels of a peer that closed.
    func closeChannels(_ connection: Connection, status: Status) {
        for queue in connection.channels.values.sorted(by: { $0.id.number < $1.id.number }) {
            drop(queue, connection)
            forget(queue.entry, status: status)
        }
        connection.channels = [:]
        connection.active = []
    }

    private func drop(_ queue: ChannelQueue, _ connection: Connection) {
        while let message = queue.waiting.popFirst() { queue.entry.handedOn(message.payload.count) }
        queue.entry.associationBytes.store(0, ordering: .relaxed)
        if queue.isActive { connection.active.removeAll { $0 === queue } }
    }
}

extension ChannelParameters {
    init(_ configuration: ChannelConfiguration) {
        let reliability: Association.Reliability =
            switch configuration.reliability {
            case .reliable: .reliable
            case .retransmits(let count): .retransmits(count)
            case .lifetime(let time): .lifetime(time)
            }
        self.init(
            label: configuration.label, subprotocol: configuration.subprotocol, ordered: configuration.isOrdered,
            reliability: reliability)
    }
}

extension Connection {
    func queue(of entry: ChannelEntry) -> ChannelQueue? {
        channels[ChannelID(number: entry.loopID.load(ordering: .relaxed))]
    }

    func activate(_ queue: ChannelQueue) {
        guard !queue.isActive else { return }
        queue.isActive = true
        active.append(queue)
    }
}
