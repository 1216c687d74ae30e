/// What a file of records by key had in it.
public struct KeyedContents<Record: Sendable>: Sendable {
    public var records: [(key: String, record: Record)] = []
    /// Members that are no such record, and were passed over.
    public var refused = 0
}

/// How much a file may have.
public enum KeyedFileLimits {
    public static let bytes = 1 << 20
    public static let keys = 1024
    public static let keyBytes = 256
}

/// Reads a file of cache entries. One that is wrong costs itself only.
public func decodeCacheFile(_ bytes: RawSpan) throws(SignalingError) -> KeyedContents<CacheEntry> {
    try decodeFile(bytes) { json throws(SignalingError) in
        // As much as one entry alone may have.
        guard json.byteCount <= CacheEntry.maximumBytes else { throw .tooLarge }
        return try CacheEntry(json)
    }
}

public func encodeCacheFile(_ records: [(key: String, record: CacheEntry)]) throws(SignalingError) -> [UInt8] {
    let json = try JSON.makeObject()
    for (key, entry) in records { try json.set(key, try entry.json()) }
    return try json.bytes()
}

/// Reads a file of tickets.
public func decodeTicketFile(_ bytes: RawSpan) throws(SignalingError) -> KeyedContents<Ticket> {
    try decodeFile(bytes) { json throws(SignalingError) in try json.ticket(SignalingLimits()) }
}

public func encodeTicketFile(_ records: [(key: String, record: Ticket)]) throws(SignalingError) -> [UInt8] {
    let json = try JSON.makeObject()
    for (key, ticket) in records { try json.set(key, try ticket.json()) }
    return try json.bytes()
}

private func decodeFile<Record>(
    _ bytes: RawSpan, _ record: (borrowing JSON) throws(SignalingError) -> Record
) throws(SignalingError) -> KeyedContents<Record> {
    guard bytes.byteCount <= KeyedFileLimits.bytes else { throw .tooLarge }
    let json = try JSON.parse(bytes)
    guard json.kind == .object else { throw .notAnObject }
    var contents = KeyedContents<Record>()
    json.forEachMember { key, value in
        guard (1...KeyedFileLimits.keyBytes).contains(key.utf8.count), contents.records.count < KeyedFileLimits.keys,
            let record = try? record(value)
        else {
            contents.refused += 1
            return
        }
        contents.records.append((key, record))
    }
    return contents
}
