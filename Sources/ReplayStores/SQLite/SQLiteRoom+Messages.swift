import Replay
import Storage
import Wire

/// A message without its bytes.
struct SQLiteMessage {
    let sequence: UInt64
    let isKept: Bool
    let published: Int64
    let expires: Int64
    let sender: Int64
    let recipient: Int64
    let kind: MessageKind
    let flags: Int64
    let negotiation: UInt64
    let count: Int64

    static let columns =
        "sequence, kept, published, expires, sender, recipient, kind, flags, negotiation, length(payload)"

    init(_ row: SQLiteRow) {
        sequence = UInt64(bitPattern: row.integer(0))
        isKept = row.integer(1) != 0
        published = row.integer(2)
        expires = row.integer(3)
        sender = row.integer(4)
        recipient = row.integer(5)
        kind = UInt8(exactly: row.integer(6)).flatMap(MessageKind.init(rawValue:)) ?? .other
        flags = row.integer(7)
        negotiation = UInt64(bitPattern: row.integer(8))
        count = row.integer(9)
    }

    var isWorthKeeping: Bool { kind == .offer || kind == .answer || flags & 2 != 0 }
    func isFor(_ serial: Int64) -> Bool { (recipient == 0 || recipient == serial) && sender != serial }
}

extension SQLiteRoom {
    private func first(where condition: String = "") throws(SQLiteFailure) -> SQLiteMessage? {
        var found: SQLiteMessage?
        try connection.execute(
            "SELECT \(SQLiteMessage.columns) FROM messages WHERE room = ? \(condition) ORDER BY sequence LIMIT 1",
            [.integer(id)]
        ) { found = SQLiteMessage($0) }
        return found
    }

    private mutating func delete(_ message: SQLiteMessage) throws(SQLiteFailure) {
        try connection.execute(
            "DELETE FROM messages WHERE room = ? AND sequence = ?",
            [.integer(id), .integer(Int64(bitPattern: message.sequence))])
        bytes &-= message.count
        if message.isKept {
            kept &-= 1
            keptBytes &-= message.count
        } else {
            live &-= 1
            if message.kind != .other { negotiating &-= 1 }
        }
    }

    /// Nobody misses a message that its sender gave a shorter life; any other moves the floor.
    private mutating func forget(_ message: SQLiteMessage, because reason: LossReason) throws(SQLiteFailure) {
        try delete(message)
        if message.expires > time { standing.raiseFloor(message.sequence, reason) }
    }

    /// Drops what is too old.
    mutating func expire() throws(SQLiteFailure) {
        while live + kept > 0, Self.later(oldest, by: limits.messageLifetime) <= time {
            guard let message = try first() else { return }
            oldest = message.published
            if Self.later(oldest, by: limits.messageLifetime) <= time { try forget(message, because: .expired) }
        }
    }

    /// The message must come from and go to members.
    mutating func publish(
        from: Int64, to: Int64, _ properties: MessageProperties, payload: [UInt8]
    ) throws(SQLiteFailure) {
        try expire()
        try makeSpace(payload.count)
        try supersede(properties, from: from, to: to)
        standing.top &+= 1
        try connection.execute(
            "INSERT INTO messages VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                .integer(id), .integer(Int64(bitPattern: standing.top)), .integer(time),
                .integer(Self.later(time, by: max(properties.lifetime, .zero))), .integer(from), .integer(to),
                .integer(Int64(properties.kind.rawValue)),
                .integer(Int64(properties.flags)),
                .integer(Int64(bitPattern: properties.negotiation)), .bytes(payload),
            ])
        if live + kept == 0 { oldest = time }
        live &+= 1
        bytes &+= Int64(payload.count)
        if properties.kind != .other { negotiating &+= 1 }
        try use()
        try trim()
    }

    private mutating func supersede(_ properties: MessageProperties, from: Int64, to: Int64) throws(SQLiteFailure) {
        guard properties.kind == .offer || properties.kind == .answer, negotiating > 0 || kept > 0 else { return }
        var replaced: [SQLiteMessage] = []
        try connection.execute(
            """
            SELECT \(SQLiteMessage.columns) FROM messages
            WHERE room = ? AND sender = ? AND recipient = ? AND negotiation = ? AND kind IN (?, ?)
            """,
            [
                .integer(id), .integer(from), .integer(to), .integer(Int64(bitPattern: properties.negotiation)),
                .integer(Int64(properties.kind.rawValue)),
                .integer(Int64((properties.kind == .offer ? MessageKind.candidate : .answer).rawValue)),
            ]
        ) { replaced.append(SQLiteMessage($0)) }
        for message in replaced { try delete(message) }
    }

    private mutating func trim() throws(SQLiteFailure) {
        while live > 1 {
            var isTooLong = live > window || bytes > Int64(limits.maximumRoomBytes)
            guard let message = try first(where: "AND kept = 0") else { return }
            if standing.top &- message.sequence >= UInt64(clamping: window &* 4) { isTooLong = true }
            guard isTooLong else { return }
            guard message.isWorthKeeping, limits.maximumKept > 0, message.expires > time else {
                try forget(message, because: .trimmed)
                continue
            }
            try connection.execute(
                "UPDATE messages SET kept = 1 WHERE room = ? AND sequence = ?",
                [.integer(id), .integer(Int64(bitPattern: message.sequence))])
            live &-= 1
            if message.kind != .other { negotiating &-= 1 }
            kept &+= 1
            keptBytes &+= message.count
            while kept > Int64(limits.maximumKept) || keptBytes > Int64(limits.maximumRoomBytes / 4) {
                guard try dropKept() else { return }
            }
        }
        while bytes > Int64(limits.maximumRoomBytes), kept > 0 { guard try dropKept() else { return } }
    }

    /// The oldest that counts.
    mutating func dropFirst() throws(SQLiteFailure) -> Bool {
        guard let message = try first(where: "AND kept = 0") else { return false }
        try forget(message, because: .trimmed)
        return true
    }

    mutating func dropKept() throws(SQLiteFailure) -> Bool {
        guard let message = try first(where: "AND kept = 1") else { return false }
        try forget(message, because: .trimmed)
        return true
    }

    // MARK: Same message again

    func remembered(_ key: IdempotencyKey, by sender: [UInt8]) throws(SQLiteFailure) -> UInt64? {
        var found: UInt64?
        try connection.execute(
            "SELECT sequence FROM keys WHERE room = ? AND sender = ? AND high = ? AND low = ? AND expires > ?",
            [
                .integer(id), .bytes(sender), .integer(Int64(bitPattern: key.high)),
                .integer(Int64(bitPattern: key.low)), .integer(time),
            ]
        ) { found = UInt64(bitPattern: $0.integer(0)) }
        return found
    }

    mutating func remember(_ key: IdempotencyKey, by sender: [UInt8]) throws(SQLiteFailure) {
        guard limits.maximumKeys > 0 else { return }
        try connection.execute(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                .integer(id), .integer(slot), .bytes(sender), .integer(Int64(bitPattern: key.high)),
                .integer(Int64(bitPattern: key.low)), .integer(Int64(bitPattern: standing.top)),
                .integer(Self.later(time, by: limits.keyLifetime)),
            ])
        slot = (slot &+ 1) % Int64(limits.maximumKeys)
    }

    // MARK: Replays

    mutating func replay(_ member: inout SQLiteMember, _ presented: Presented, _ batch: inout Batch)
        throws(SQLiteFailure) -> Recovery
    {
        try expire()
        adapt(presented, member.acknowledged)
        var recovery = Recovery(verdict: .fresh, position: standing.position)
        switch standing.judge(presented, acknowledged: member.acknowledged) {
        case .fresh:
            break
        case .since(let sequence):
            if live + kept > 0 { try use() }
            if let skipped = try take(member.serial, since: sequence, into: &batch, onlyKept: false) {
                recovery.skipped = skipped
                recovery.verdict = batch.isEmpty ? .recoveredEmpty : .recovered
            } else {
                recovery.verdict = .lost(.limit)
                try takeKept(member.serial, since: sequence, into: &batch)
            }
        case .lost(let reason, let problem):
            recovery.verdict = .lost(reason)
            recovery.problem = problem
            var since = member.acknowledged
            if case .position(let position) = presented { since = position.sequence }
            if problem == nil, let since { try takeKept(member.serial, since: since, into: &batch) }
        }
        member.last = standing.top
        return recovery
    }

    private func takeKept(_ serial: Int64, since: UInt64, into batch: inout Batch) throws(SQLiteFailure) {
        guard limits.replaysKeptOnLoss else { return }
        _ = try take(serial, since: since, into: &batch, onlyKept: true)
    }

    /// How many were skipped. nil, and nothing in the batch, if it is more than one may carry.
    private func take(_ serial: Int64, since: UInt64, into batch: inout Batch, onlyKept: Bool)
        throws(SQLiteFailure) -> Int?
    {
        var taken = Batch()
        var skipped = 0
        var isTooMuch = false
        try connection.execute(
            "SELECT \(SQLiteMessage.columns), payload FROM messages WHERE room = ? AND sequence > ? ORDER BY sequence",
            [.integer(id), .integer(Int64(clamping: since))]
        ) { row in
            let message = SQLiteMessage(row)
            guard !isTooMuch, message.isFor(serial) else { return }
            guard message.expires > time else {
                skipped &+= 1
                return
            }
            guard !onlyKept || message.isWorthKeeping else { return }
            guard taken.count < limits.maximumBatch,
                taken.bytes.count + Int(clamping: message.count) <= limits.maximumBatchBytes
            else {
                isTooMuch = true
                return
            }
            let payload = row.bytes(10)
            let properties = MessageProperties(
                message.kind, flags: UInt8(truncatingIfNeeded: message.flags), negotiation: message.negotiation)
            taken.append(sequence: message.sequence, properties, payload: payload.span.bytes)
        }
        guard !isTooMuch else { return nil }
        batch = taken
        return skipped
    }

    /// The window follows what clients miss: up at once, down slowly.
    private mutating func adapt(_ presented: Presented, _ acknowledged: UInt64?) {
        guard limits.maximumWindow > limits.window else { return }
        let since: UInt64
        switch presented {
        case .position(let position) where position.epoch == standing.epoch: since = position.sequence
        case .nothing: since = acknowledged ?? standing.top
        default: return
        }
        guard since <= standing.top else { return }
        gap = max(Int64(clamping: standing.top &- since), gap - (gap + 15) / 16)
        let target = gap > Int64(limits.maximumWindow) ? gap : gap + gap / 4
        window = min(max(target, Int64(limits.window)), Int64(limits.maximumWindow))
    }
}
