import Reload
import Signaling
import Wire

// Any bytes as a cache entry, as a file of them, as a file of tickets and as a description to take candidates from:
// what is taken can be written, is within the limits, and is read again as the same.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCacheText(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: data, count: size)
    if let entry = try? decodeCacheEntry(bytes.bytes) {
        check(entry)
        // The defaults that are written for what may be missing can make it longer than what was read.
        if let written = try? encode(entry) {
            precondition((try? decodeCacheEntry(written.span.bytes)) == entry, "an entry changed on its way")
        }
    }
    if let contents = try? decodeCacheFile(bytes.bytes) {
        for (key, entry) in contents.records {
            precondition(KeyedRecords<CacheEntry>.isKey(key))
            check(entry)
        }
        guard let written = try? encodeCacheFile(contents.records) else { preconditionFailure("does not encode") }
        if written.count <= KeyedFileLimits.bytes, let again = try? decodeCacheFile(written.span.bytes) {
            precondition(again.records.map(\.key) == contents.records.map(\.key), "a key was lost")
        }
    }
    if let contents = try? decodeTicketFile(bytes.bytes) {
        guard let written = try? encodeTicketFile(contents.records) else { preconditionFailure("does not encode") }
        if written.count <= KeyedFileLimits.bytes {
            precondition(
                (try? decodeTicketFile(written.span.bytes))?.records.map(\.record) == contents.records.map(\.record))
        }
    }
    var found = CacheEntry(lastSuccessfulProtocol: .both, timestamp: 0, sessionID: "x")
    found.addCandidates(ofSDP: String(decoding: bytes, as: UTF8.self))
    check(found)
    return 0
}

private func check(_ entry: CacheEntry) {
    for list in CacheEntry.List.allCases {
        precondition(entry[list].count <= CacheEntry.maximumCandidates)
        for candidate in entry[list] {
            guard let line = CandidateLine(parsing: candidate.candidate) else { preconditionFailure("not a candidate") }
            precondition(CacheEntry.List(line) == list && line.address.port != 0 && line.priority > 0)
        }
    }
    precondition(CacheEntry.isSessionID(entry.sessionID))
}
